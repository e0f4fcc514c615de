"""What all sessions at one open disk share: order, flushes, counters, and workers.

Knows no disk, only when to flush it and what went wrong. Must never run two flushes at once,
nor let a flush that had begun before a write stand for it: those asked for while one runs are
answered together by the next one (group commit).
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeAlias

from netboot.iscsi.session import Task
from netboot.iscsi.taskset import Owner, TaskSet
from netboot.model import Counters

log = logging.getLogger(__name__)

#: Called on the loop with what a worker returned, or what it raised.
Done: TypeAlias = Callable[[object, Exception | None], None]
#: Runs the first argument in a worker thread, then the second on the loop.
Submit: TypeAlias = Callable[[Callable[[], object], Done], None]


@dataclass(slots=True)
class Tally:
    """The counters of one client, counted up on the data path."""

    mac: str
    sessions: int = 0
    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    write_bytes: int = 0
    flushes: int = 0
    errors: int = 0

    def counters(self) -> Counters:
        """The counters as a value."""
        return Counters(
            *(self.mac, self.sessions, self.reads, self.read_bytes),
            *(self.writes, self.write_bytes, self.flushes, self.errors),
        )


def _forgetful(text: bytes) -> None:
    raise OSError("this disk can remember nothing")


@dataclass(slots=True, eq=False)
class Shared(Generic[Owner]):
    """One open disk without its bytes; ``Owner`` is a session's side of it."""

    name: str  #: for the log
    block: int  #: bytes of a logical block
    tally: Tally
    submit: Submit
    sync: Callable[[], None]  #: the disk's flush; runs in a worker
    on_error: Callable[[str], None]
    #: Brings a text to stable storage in place of the last one; runs in a worker.
    remember: Callable[[bytes], None] = _forgetful
    #: The bytes that the disk takes, and those there are for more; runs in a worker.
    space: Callable[[], tuple[int, int]] = lambda: (0, 0)
    tasks: TaskSet[Owner] = field(default_factory=TaskSet)
    ready: deque[tuple[Task, Owner]] = field(default_factory=deque)
    draining: bool = False
    jobs: int = 0  #: workers that are busy with this disk
    on_idle: Callable[[], None] | None = None  #: called once, when no worker is busy any more
    #: What must take turns, the first of each has begun: atomic writes and sanitizing, and
    #: changes of what is remembered.
    atomic: deque[Callable[[], None]] = field(default_factory=deque)
    amending: deque[Callable[[], None]] = field(default_factory=deque)
    _syncing: bool = False
    _synced: list[Callable[[Exception | None], None]] = field(default_factory=list)

    def work(self, do: Callable[[], object], done: Done) -> None:
        """Let a worker do something with the disk; ``done`` is called on the loop."""

        def finished(result: object, error: Exception | None) -> None:
            self.jobs -= 1
            try:
                done(result, error)
            finally:  # who waits for us must not wait for ever over a mistake in an answer
                if not self.jobs and self.on_idle is not None:
                    idle, self.on_idle = self.on_idle, None
                    idle()

        self.jobs += 1
        self.submit(do, finished)

    def flush(self, done: Callable[[Exception | None], None]) -> None:
        """Bring all writes made so far to stable storage, then call ``done``."""
        self._synced.append(done)
        if not self._syncing:
            self._begin_flush()

    def _begin_flush(self) -> None:
        self._syncing = True
        waiting, self._synced = self._synced, []

        def finished(_: object, error: Exception | None) -> None:
            self._syncing = False
            for done in waiting:
                done(error)
            if self._synced and not self._syncing:
                self._begin_flush()

        self.work(self.sync, finished)

    def failed(self, error: Exception) -> None:
        """Count and report a fault of the storage below."""
        self.tally.errors += 1
        log.info("%s: %s", self.name, error)  # aloud by whom it is reported to
        self.on_error(str(error))

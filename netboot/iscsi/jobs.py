"""Commands that take long, in steps: copying, sanitizing, atomic writes, what is remembered.

A job is a generator: between two ``yield`` it runs on the loop, and may write; what it yields a
worker does meanwhile (None: nothing but letting others go first; FLUSH: a flush in its turn).
Knows no sockets and no files. Must never keep the loop for longer than one step.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from netboot.iscsi.volume import Shared
from netboot.scsi.action import Action, Amend, Atomic, Check, Copy, Keep, Reply, Sanitize
from netboot.scsi.sense import for_fault

log = logging.getLogger(__name__)

#: Bytes that are written, and that are unmapped, in one step.
STEP: Final = 1 << 20
UNMAP_STEP: Final = 256 << 20
#: Steps between two flushes: a disk that is overwritten must not fill the page cache, which
#: every other client's disk lives in.
FLUSH_EVERY: Final = 16


class Writable(Protocol):
    """The verbs of a disk that jobs use."""

    def read(self, offset: int, length: int) -> Iterable[Any]:
        """Buffers that together are the range."""

    def write(self, offset: int, data: Any) -> None:
        """Write ``data``."""

    def unmap(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""

    def intend(self, offset: int, data: Any) -> None:
        """Put down what is about to be written; in a worker."""

    def settle(self) -> None:
        """What was intended is over; in a worker."""


#: The Actions that are done here.
Long: TypeAlias = Sanitize | Copy | Atomic | Amend
FLUSH: Final = "flush"
Want: TypeAlias = "Callable[[], object] | str | None"
Job: TypeAlias = Generator[Want, Any, None]


#: Hears why something ended too soon, or None.
Over: TypeAlias = Callable[[Exception | None], None]


class StoppedError(Exception):
    """The disk is closing, or nobody waits for the job any more."""


def run(
    volume: Shared[Any],
    job: Job,
    done: Callable[[Exception | None], None],
    unwanted: Callable[[], bool] = lambda: False,
) -> None:
    """Drive ``job`` to its end; it is given up when ``unwanted``, or when its disk closes."""

    def resume(result: object, error: Exception | None) -> None:
        if error is None and (unwanted() or volume.on_idle is not None):
            error = StoppedError("the disk is closing")
        try:
            want = job.send(result) if error is None else job.throw(error)
        except StopIteration:
            done(None)
        except Exception as problem:
            done(problem)
        else:
            if want == FLUSH:
                volume.flush(lambda error: resume(None, error))
            else:
                volume.work(want if callable(want) else _nothing, resume)

    resume(None, None)


@dataclass(slots=True)
class Errand:
    """An Action that takes long, and all that follows from it.

    ``disks`` are the target's by LUN, of which ``closed`` tells whether one may not be used.
    ``done`` hears what to answer; ``begun`` is called when a sanitize operation is about to
    touch the disk. A copy ends when it is ``unwanted``; nobody can stop a sanitize operation, as
    nobody could say what is left of the data then.
    """

    volume: Shared[Any]
    disk: Writable
    disks: Mapping[int, Writable]
    done: Callable[[Action], None]
    unwanted: Callable[[], bool] = lambda: False
    begun: Callable[[Sanitize], None] = lambda action: None
    closed: Callable[[int], bool] = lambda lun: False

    def go(self, action: Action) -> None:
        """Do what ``action`` wants, then what follows from that, until there is an answer."""
        match action:
            case Copy():
                self._copy(action)
            case Atomic():
                self._write(action)
            case Sanitize():
                self._sanitize(action)
            case Amend():
                self._amend(action)
            case _:
                self.done(action)

    def _report(self, error: Exception | None) -> None:
        if error is not None and not isinstance(error, StoppedError):
            self.volume.failed(error)

    def _copy(self, action: Copy) -> None:
        copied = 0

        def progress(number: int) -> None:
            nonlocal copied
            copied = number

        def ended(error: Exception | None) -> None:
            self._report(error)
            self.go(action.then(copied, error is not None))

        job = copying(action, self.disks, progress, self.closed)
        run(self.volume, job, ended, self.unwanted)

    def _write(self, action: Atomic) -> None:
        def start(over: Over) -> None:
            run(self.volume, writing(action, self.disk), over)

        def ended(error: Exception | None) -> None:
            self._report(error)
            fault = str(getattr(error, "fault", "failed"))
            self.go(Check(for_fault(fault, writing=True)) if error is not None else Reply())

        in_turn(self.volume.atomic, start, ended)

    def _sanitize(self, action: Sanitize) -> None:
        name = self.volume.name

        def start(over: Over) -> None:
            log.info("%s: is being sanitized: nothing on it can be read any more", name)
            self.begun(action)
            run(self.volume, sanitizing(action, self.disk), over)

        def ended(error: Exception | None) -> None:
            self._report(error)
            if isinstance(error, StoppedError):
                log.info("%s: sanitizing it goes on when the disk is opened again", name)
                return
            log.info("%s: sanitizing it %s", name, "is done" if error is None else "has failed")
            self.go(action.then(error is None))

        in_turn(self.volume.atomic, start, ended)

    def _amend(self, action: Amend) -> None:
        follows: list[Action] = []

        def start(over: Over) -> None:
            run(self.volume, amending(action, self.volume, follows), over)

        def ended(error: Exception | None) -> None:
            self._report(error)
            if follows:
                self.go(follows[0])
            elif not isinstance(error, StoppedError):
                self.done(Check(for_fault("failed", writing=True)))

        in_turn(self.volume.amending, start, ended)


def _nothing() -> None:
    """A breath for the others."""


def in_turn(turns: deque[Callable[[], None]], start: Callable[[Over], None], ended: Over) -> None:
    """Start something when those before it are over."""

    def over(error: Exception | None) -> None:
        turns.popleft()
        others = bool(turns)  # whoever comes from now on to an empty queue starts by itself
        try:
            ended(error)
        finally:
            if others:
                turns[0]()

    turns.append(lambda: start(over))
    if len(turns) == 1:
        turns[0]()


def amending(action: Amend, volume: Shared[Any], follows: list[Action]) -> Job:
    """Change what is remembered; what follows from that is put into ``follows``."""
    then = action.change()
    while isinstance(then, Keep):
        content = then.content
        try:
            yield lambda text=content: volume.remember(text)  # type: ignore[misc]
        except StoppedError:
            raise
        except Exception as problem:
            volume.failed(problem)
            then = then.then(False)
        else:
            then = then.then(True)
    follows.append(then)


def writing(action: Atomic, disk: Writable) -> Job:
    """Put down what is meant, write and flush it, and let go of what was put down."""
    yield lambda: disk.intend(action.offset, action.data)
    try:
        disk.write(action.offset, action.data)
    except Exception:
        yield disk.settle
        raise
    yield FLUSH
    yield disk.settle


def sanitizing(action: Sanitize, disk: Writable) -> Job:
    """Overwrite all of a disk pass by pass, or unmap it; then flush."""
    step = STEP if action.patterns else UNMAP_STEP
    passes = action.patterns or (b"",)
    for done, pattern in enumerate(passes):
        data = memoryview(pattern * -(-STEP // len(pattern))) if pattern else memoryview(b"")
        for number, offset in enumerate(range(0, action.size, step), 1):
            length = min(step, action.size - offset)
            if pattern:
                disk.write(offset, data[:length])
            else:
                disk.unmap(offset, length)
            action.progress(done * action.size + offset + length, len(passes) * action.size)
            yield FLUSH if number % FLUSH_EVERY == 0 else None
        yield FLUSH


def copying(
    action: Copy,
    disks: Mapping[int, Writable],
    progress: Callable[[int], None],
    closed: Callable[[int], bool],
) -> Job:
    """Copy all segments, in order; ``progress`` hears how many are done.

    A unit that is being sanitized is ``closed`` to those who began before.
    """
    for number, (source, start, destination, to, length) in enumerate(action.segments, 1):
        here, there = disks[source], disks[destination]
        for offset in range(0, length, STEP):
            size = min(STEP, length - offset)
            data = yield _reader(here, start + offset, size)
            if closed(source) or closed(destination):
                raise StoppedError("a disk is being sanitized")
            there.write(to + offset, data)
        progress(number)


def _reader(disk: Writable, offset: int, length: int) -> Callable[[], bytes]:
    return lambda: b"".join(disk.read(offset, length))

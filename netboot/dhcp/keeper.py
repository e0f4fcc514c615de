"""Leases, and disks that begin anew, on their way to ours; and the replies that wait for them.

One thread waits for the disk so that the event loop never does. What comes while it is busy is
gathered and made durable together: one commit for many ACKs, however slow the disk is. Nothing
that waits is done before its records are durable, what concerns one machine is done in the order
in which it came, and records are written in the order in which the engine gave them. It never
loses one silently: what could not be written comes back with the reason.
"""

import asyncio
import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

from netboot.dhcp.effects import Effect
from netboot.model import Lease, Overlay

log = logging.getLogger(__name__)

#: Replies that leave at once are a burst for who receives them: 64 fit into a relay's socket
#: (Linux: 208 KiB, about 200 datagrams), and share the price of a commit well enough.
TOGETHER = 64
#: Packets that wait at most; a client whose REQUEST is dropped says it again after 4 seconds.
BACKLOG = 4096
#: Seconds that a stop waits for the disk.
PATIENCE = 5.0

#: A promise to a machine, or what its new boot makes of its disk.
Record: TypeAlias = Lease | Overlay


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one packet of ``mac``'s led to: ``effects`` happen once ``records`` are durable."""

    mac: str
    records: tuple[Record, ...]
    effects: tuple[Effect, ...]

    @property
    def promises(self) -> bool:
        """Whether a machine would rely on it: a lease is none until it is durable."""
        return any(isinstance(record, Lease) for record in self.records)


class Keeper:
    """``add`` and ``go`` on the loop that ``start`` was called on; so is ``settled`` called."""

    def __init__(
        self,
        persist: Callable[[Sequence[Record]], None],
        settled: Callable[[Waiting, Exception | None], None],
    ) -> None:
        """``persist`` runs in our thread: it returns when all records are durable, or raises when
        none is. ``settled`` gets each of ``add``'s, with the error where it was not written."""
        self._persist = persist
        self._settled = settled
        self._waiting: deque[Waiting] = deque()
        self._behind: Counter[str] = Counter()
        self._busy = False
        self._idle = asyncio.Event()
        self._jobs: SimpleQueue[list[Waiting] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Within the running loop."""
        self._loop = asyncio.get_running_loop()
        self._idle.set()
        # A daemon: a disk that hangs for good must not keep the service from ending.
        self._thread = threading.Thread(target=self._work, name="leases", daemon=True)
        self._thread.start()

    async def stop(self, patience: float = PATIENCE) -> None:
        """Settle what waits, for so many seconds; twice is harmless."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            await asyncio.wait_for(self._idle.wait(), patience)
        except TimeoutError:
            log.error("the disk did not take the leases of %d machines in time", len(self._behind))
            self._waiting.clear()
        self._jobs.put(None)
        if not self._busy:
            thread.join()

    def holds(self, mac: str) -> bool:
        """Whether something of ``mac``'s waits, which whatever comes later must not overtake."""
        return mac in self._behind

    def add(self, waiting: Waiting) -> bool:
        """Take it, for the next ``go``; False: too much waits already, and it was not taken."""
        if len(self._waiting) >= BACKLOG:
            return False
        self._waiting.append(waiting)
        self._behind[waiting.mac] += 1
        return True

    def go(self) -> None:
        """Begin with what was added, unless the disk is busy: then it goes with the next."""
        if self._busy or not self._waiting:
            return
        batch = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
        self._busy = True
        self._idle.clear()
        self._jobs.put(batch)

    def _done(self, batch: list[Waiting], errors: list[Exception | None]) -> None:
        """On the loop: the disk goes on with the next while we answer."""
        self._busy = False
        self.go()
        for waiting, error in zip(batch, errors, strict=True):
            self._behind[waiting.mac] -= 1
            if not self._behind[waiting.mac]:
                del self._behind[waiting.mac]
            self._settled(waiting, error)
        if not self._busy:
            self._idle.set()

    # In the thread.

    def _work(self) -> None:
        assert self._loop is not None
        while (batch := self._jobs.get()) is not None:
            errors = self._write(batch)
            with contextlib.suppress(RuntimeError):  # the loop ended before its disk answered
                self._loop.call_soon_threadsafe(self._done, batch, errors)

    def _write(self, batch: Sequence[Waiting]) -> list[Exception | None]:
        """One error or None for each. When the whole cannot be written, each is tried by itself;
        two that fail in a row show that it is not for what they say, and the rest fails too."""
        error = self._try([record for waiting in batch for record in waiting.records])
        if error is None or len(batch) == 1:
            return [error] * len(batch)
        log.warning("%d records could not be written together: %s", len(batch), error)
        errors: list[Exception | None] = []
        for waiting in batch:
            if len(errors) >= 2 and errors[-1] is not None and errors[-2] is not None:
                errors.append(errors[-1] if waiting.records else None)
            else:
                errors.append(self._try(waiting.records))
        return errors

    def _try(self, records: Sequence[Record]) -> Exception | None:
        try:
            if records:
                self._persist(records)
        except Exception as error:
            return error
        return None

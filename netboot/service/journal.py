"""Boot events on their way to the database: gathered for half a second, written in one go.

A wake-up of the event loop never waits for them, for they may be lost without harm, unlike
leases. A database that cannot be written to costs events, never the service: they wait, up to
``LIMIT``, and the oldest go first.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from netboot.errors import NetbootError
from netboot.events import BootEvent
from netboot.state.store import Store

log = logging.getLogger(__name__)

#: Seconds that events are gathered, and between two looks for old ones.
GATHER = 0.5
SWEEP = 3600.0
#: How many wait at most while they cannot be written.
LIMIT = 20_000
#: What is kept of the past: this many events, none older than this many seconds.
KEEP = 100_000
AGE = 30 * 86400.0
#: As many machines; anybody can invent MACs. And how many events are between two looks at most.
CLIENTS = 20_000
BURST = 20_000


class Journal:
    """``add`` at any time; ``start`` and ``stop`` around it."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._waiting: deque[BootEvent] = deque(maxlen=LIMIT)
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._written = 0  #: events since the last look for old ones
        self._ending = asyncio.Event()

    def add(self, event: BootEvent) -> None:
        """Remember an event soon."""
        self._waiting.append(event)

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Write what still waits."""
        self._ending.set()
        if self._task is not None:
            await self._task
            self._task = None
        await self._flush()

    async def _write(self) -> None:
        swept: float | None = None
        while True:
            if swept is None or self._clock() - swept > SWEEP or self._written >= BURST:
                swept, self._written = self._clock(), 0
                await self._try(lambda: self._store.prune_events(self._clock() - AGE, KEEP))
                await self._try(lambda: self._store.prune_clients(CLIENTS))
                await self._try(lambda: self._store.prune_secrets(CLIENTS))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), GATHER)
                return
            await self._flush()

    async def _flush(self) -> None:
        batch = list(self._waiting)
        self._waiting.clear()
        self._written += len(batch)
        if batch and not await self._try(lambda: self._store.add_events(batch)):
            room = LIMIT - len(self._waiting)
            self._waiting.extendleft(reversed(batch[max(0, len(batch) - room) :]))

    async def _try(self, write: Callable[[], object]) -> bool:
        """Whether it could be done; a failure is told once, not twice a second."""
        try:
            await asyncio.to_thread(write)
        except NetbootError as error:
            if not self._failing:
                log.error("boot events cannot be remembered: %s", error)
            self._failing = True
            return False
        self._failing = False
        return True

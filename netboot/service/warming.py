"""Reads ahead what boots need of an image, when the first machine of a storm asks for its address.

The disk process finds out what that is (``storage.prefetch``); the page cache is everybody's. Must
never hold up an answer: everything that may wait for a disk is done in a worker thread.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final

from netboot.storage.prefetch import Fetched, read_ahead

log = logging.getLogger(__name__)

#: Seconds until the same image is looked at again.
INTERVAL: Final = 60.0


class Warmer:
    """``enabled`` says whether anything is read ahead at all; ``fetch`` does it, in a thread."""

    def __init__(
        self,
        enabled: bool,
        fetch: Callable[[str, Callable[[], bool]], Fetched] = read_ahead,
        interval: float = INTERVAL,
    ) -> None:
        self.fetched = 0  #: bytes, so far
        self._enabled = enabled
        self._fetch = fetch
        self._interval = interval
        self._again: dict[str, float] = {}  #: when an image may be looked at again
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = threading.Event()

    async def start(self) -> None:
        """There is nothing to begin with."""

    async def stop(self) -> None:
        """Return when nothing is read any more."""
        self._ending.set()
        await asyncio.gather(*self._tasks)

    def boots(self, image: str, golden: Callable[[], str | None]) -> None:
        """A machine is about to boot from ``image``; ``golden`` finds its file, when it matters."""
        loop = asyncio.get_running_loop()
        if not self._enabled or loop.time() < self._again.get(image, 0.0) or self._ending.is_set():
            return
        self._again[image] = loop.time() + self._interval
        path = golden()
        if path is not None:
            task = loop.create_task(self._warm(image, path))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _warm(self, image: str, path: str) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        found = await asyncio.to_thread(self._fetch, path, self._ending.is_set)
        self.fetched += found.cold
        took = loop.time() - begun
        self._again[image] = loop.time() + self._interval
        if found.cold:
            log.info(
                "image %s: read ahead %d MiB of the %d that a boot needs, in %.1f s",
                *(image, found.cold >> 20, found.known >> 20, took),
            )

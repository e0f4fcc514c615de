"""Reading ahead: once for a storm, beside the answers, and not at all where it is switched off."""

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from netboot.service.warming import Warmer
from netboot.storage.prefetch import Fetched

MIB = 1 << 20


class Disk:
    """Notes what is asked of it; ``gate`` is how long it takes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def fetch(self, path: str, stop: Callable[[], bool]) -> Fetched:
        self.asked.append(path)
        while not self.gate.wait(0.001):
            if stop():
                return Fetched(4 * MIB, MIB)
        return Fetched(4 * MIB, 3 * MIB)


async def _idle(warmer: Warmer) -> None:
    while warmer._tasks:
        await asyncio.sleep(0)


def test_a_storm_reads_an_image_once(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    looked: list[str] = []

    def golden() -> str:
        looked.append("debian")
        return "/1.raw"

    async def storm() -> Warmer:
        warmer = Warmer(True, disk.fetch)
        for _ in range(100):
            warmer.boots("debian", golden)
        warmer.boots("other", lambda: "/2.raw")
        await _idle(warmer)
        warmer.boots("debian", golden)  # nor when it has just been read
        await warmer.stop()
        return warmer

    with caplog.at_level(logging.INFO):
        warmer = asyncio.run(storm())
    assert sorted(disk.asked) == ["/1.raw", "/2.raw"]
    assert looked == ["debian"]  # the others do not even ask for the file
    assert warmer.fetched == 6 * MIB
    assert "image debian: read ahead 3 MiB of the 4 that a boot needs" in caplog.text


def test_the_next_storm_reads_it_again() -> None:
    disk = Disk()

    async def storms() -> None:
        warmer = Warmer(True, disk.fetch, interval=0.0)
        for _ in range(3):
            warmer.boots("debian", lambda: "/1.raw")
            await _idle(warmer)
        await warmer.stop()

    asyncio.run(storms())
    assert disk.asked == ["/1.raw"] * 3


def test_nobody_waits_for_it() -> None:
    disk = Disk()
    disk.gate.clear()

    async def storm() -> int:
        warmer = Warmer(True, disk.fetch)
        warmer.boots("debian", lambda: "/1.raw")
        while not disk.asked:  # it is under way, and we are here
            await asyncio.sleep(0)
        await warmer.stop()  # ends it
        warmer.boots("other", lambda: "/2.raw")
        return warmer.fetched

    assert asyncio.run(storm()) == MIB
    assert disk.asked == ["/1.raw"]


def test_it_can_be_switched_off() -> None:
    disk = Disk()

    async def storm() -> None:
        warmer = Warmer(False, disk.fetch)
        await warmer.start()
        warmer.boots("debian", lambda: "/1.raw")
        await warmer.stop()

    asyncio.run(storm())
    assert disk.asked == []


def test_a_machine_without_an_image_and_an_image_in_memory_are_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def storm() -> int:
        warmer = Warmer(True, lambda path, stop: Fetched(4 * MIB, 0))
        warmer.boots("none", lambda: None)
        warmer.boots("warm", lambda: "/1.raw")
        await _idle(warmer)
        await warmer.stop()
        return warmer.fetched

    with caplog.at_level(logging.INFO):
        assert asyncio.run(storm()) == 0
    assert "read ahead" not in caplog.text

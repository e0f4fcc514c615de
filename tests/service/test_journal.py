"""Events reach the database together, in order, and never cost the service anything."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from netboot.errors import NetbootError
from netboot.events import BootEvent, Phase
from netboot.model import Secrets
from netboot.service import journal
from netboot.service.journal import Journal
from netboot.state.store import Store

A = "52:54:00:00:00:01"


def event(at: float) -> BootEvent:
    return BootEvent(A, at, Phase.SEEN, f"at {at}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path}/db")


def test_what_waits_is_written_at_the_end(store: Store) -> None:
    async def run() -> None:
        written = Journal(store, lambda: 1000.0)
        await written.start()
        for n in range(5):
            written.add(event(float(n)))
        await written.stop()

    asyncio.run(run())
    assert [found.at for found in store.events()] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_it_writes_by_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "GATHER", 0.001)

    async def run() -> None:
        written = Journal(store, lambda: 1000.0)
        await written.start()
        written.add(event(1.0))
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(store.events):
                await asyncio.sleep(0.005)
        await written.stop()

    asyncio.run(run())
    assert len(store.events()) == 1


def test_the_past_is_swept_at_the_start(store: Store) -> None:
    old, new = 1.0, 10 * journal.AGE
    store.add_events([event(old), event(new)])

    async def run() -> None:
        written = Journal(store, lambda: new)
        await written.start()
        await written.stop()

    asyncio.run(run())
    assert [found.at for found in store.events()] == [new]


def test_a_flood_of_invented_machines_is_swept_soon(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "GATHER", 0.001)
    monkeypatch.setattr(journal, "BURST", 10)
    monkeypatch.setattr(journal, "CLIENTS", 3)
    monkeypatch.setattr(journal, "KEEP", 5)

    async def run() -> None:
        written = Journal(store, lambda: 1000.0)
        await written.start()
        for n in range(20):
            written.add(BootEvent(f"52:54:00:00:00:{n:02x}", 1000.0 + n, Phase.SEEN))
        async with asyncio.timeout(10):
            while len(await asyncio.to_thread(store.seen)) != 3:
                await asyncio.sleep(0.005)
        await written.stop()

    asyncio.run(run())
    assert [found.at for found in store.events()] == [1015.0, 1016.0, 1017.0, 1018.0, 1019.0]


class Failing(Store):
    """A database that cannot be written to for a while."""

    broken = True

    def add_events(self, events: Sequence[BootEvent]) -> None:
        if self.broken:
            raise NetbootError("disk full")
        super().add_events(events)


def test_a_failing_database_is_told_once_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "GATHER", 0.001)
    store = Failing(f"sqlite:///{tmp_path}/db")

    async def run() -> None:
        written = Journal(store, lambda: 1000.0)
        await written.start()
        written.add(event(1.0))
        for _ in range(20):
            await asyncio.sleep(0.002)
        written.add(event(2.0))
        store.broken = False
        await written.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert [record.message for record in caplog.records] == [
        "boot events cannot be remembered: disk full"
    ]
    assert [found.at for found in store.events()] == [1.0, 2.0]


def test_what_waits_is_bounded_and_the_oldest_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LIMIT", 3)
    store = Failing(f"sqlite:///{tmp_path}/db")

    async def run() -> None:
        written = Journal(store, lambda: 1000.0)
        for n in range(5):
            written.add(event(float(n)))
        await written.stop()  # cannot be written
        written.add(event(9.0))
        store.broken = False
        await written.stop()

    asyncio.run(run())
    assert [found.at for found in store.events()] == [3.0, 4.0, 9.0]


def test_secrets_of_invented_machines_are_swept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "CLIENTS", 2)
    for n in range(4):
        store.add_secrets(Secrets(f"52:54:00:00:00:0{n}", "a" * 16, "b" * 16, float(n)))

    async def run() -> None:
        written = Journal(store, lambda: 1000.0)
        await written.start()
        async with asyncio.timeout(10):
            while await asyncio.to_thread(store.secrets, "52:54:00:00:00:01"):
                await asyncio.sleep(0.005)
        await written.stop()

    asyncio.run(run())
    left = [n for n in range(4) if store.secrets(f"52:54:00:00:00:0{n}")]
    assert left == [2, 3]

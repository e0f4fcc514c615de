"""A log has its room in advance, and is carried over beside those who write it."""

import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from netboot.model import Lease, LeaseState
from netboot.state import wal
from netboot.state.store import Store
from netboot.state.wal import AT_LAST, EVERY, ROOM, Carrier, reserve

PATIENCE = 20.0


def leases(count: int, start: int = 1) -> list[Lease]:
    return [
        Lease(f"52:54:00:00:00:{n:02x}", IPv4Address(f"10.0.0.{n}"), 9.5, LeaseState.BOUND)
        for n in range(start, start + count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "netboot.sqlite")


def log_of(path: str) -> Path:
    return Path(path + "-wal")


def after_a_power_cut(path: str, folder: Path) -> str:
    """What was on disk at this moment, elsewhere."""
    folder.mkdir()
    for suffix in ("", "-wal"):
        if Path(path + suffix).exists():
            shutil.copy(path + suffix, folder / f"netboot.sqlite{suffix}")
    return str(folder / "netboot.sqlite")


def found(path: str) -> list[Lease]:
    with closing(Store(f"sqlite:///{path}")) as store:
        return store.leases()


# Room


def test_the_log_gets_its_room_before_anybody_waits(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "netboot.sqlite-wal"
    assert log.stat().st_size < ROOM
    store.prepare()
    assert log.stat().st_size == ROOM
    blocks = log.stat().st_blocks
    assert blocks * 512 >= ROOM  # no hole
    for lease in leases(20):
        store.keep([lease])
    assert (log.stat().st_size, log.stat().st_blocks) == (ROOM, blocks)


def test_who_only_reads_and_administers_makes_no_room(store: Store, tmp_path: Path) -> None:
    store.leases()
    store.forget_leases([IPv4Address("10.0.0.1")])
    assert (tmp_path / "netboot.sqlite-wal").stat().st_size < ROOM


def test_what_the_log_holds_stays_and_zeros_follow(path: str) -> None:
    log_of(path).write_bytes(b"frames")
    reserve(path)
    assert log_of(path).read_bytes() == b"frames" + bytes(ROOM - 6)
    reserve(path)
    assert log_of(path).stat().st_size == ROOM


def test_a_long_log_is_left_alone(path: str) -> None:
    log_of(path).write_bytes(b"\1" * (ROOM + 1))
    reserve(path)
    assert log_of(path).read_bytes() == b"\1" * (ROOM + 1)


def test_without_a_log_none_is_made(path: str) -> None:
    reserve(path)
    assert not log_of(path).exists()


def test_a_full_disk_leaves_a_log_that_grows(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wal.os, "pwrite", full)
    store.keep(leases(3))
    assert store.leases() == leases(3)
    assert (tmp_path / "netboot.sqlite-wal").stat().st_size < ROOM


def test_half_the_room_is_as_good(store: Store, path: str, tmp_path: Path) -> None:
    store.prepare()
    os.truncate(log_of(path), ROOM // 2 + 77)
    store.keep(leases(3))
    assert found(after_a_power_cut(path, tmp_path / "later")) == leases(3)


def test_every_commit_is_there_after_a_power_cut(store: Store, path: str, tmp_path: Path) -> None:
    store.keep(leases(2))
    store.keep(leases(2, 3))
    assert found(after_a_power_cut(path, tmp_path / "one")) == leases(4)
    store._carry()  # and when the log is written over from its beginning
    store.keep(leases(1, 5))
    assert found(after_a_power_cut(path, tmp_path / "two")) == leases(5)


def test_a_torn_commit_is_none_and_those_before_it_stay(
    store: Store, path: str, tmp_path: Path
) -> None:
    store.keep(leases(2))
    before = log_of(path).read_bytes()
    store.keep(leases(2, 3))
    after = log_of(path).read_bytes()
    changed = [at for at in range(0, ROOM, 512) if before[at : at + 512] != after[at : at + 512]]
    assert changed
    for number, at in enumerate(changed):  # any one of its sectors did not reach the disk
        torn = after_a_power_cut(path, tmp_path / str(number))
        log_of(torn).write_bytes(after[:at] + before[at : at + 512] + after[at + 512 :])
        assert found(torn) == leases(2)


def test_a_database_in_memory_needs_none() -> None:
    with closing(Store("sqlite://")) as store:
        store.prepare()
        store.keep(leases(1))


# Carrying over


class Carried:
    """Counts, on which threads; raises once if it is told to."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.happened = threading.Semaphore(0)
        self.fails = False

    def __call__(self) -> None:
        self.threads.append(threading.get_ident())
        failing, self.fails = self.fails, False
        self.happened.release()
        if failing:
            raise sqlite3.OperationalError("disk I/O error")

    def wait(self) -> None:
        assert self.happened.acquire(timeout=PATIENCE)


@pytest.fixture
def carried() -> Carried:
    return Carried()


@pytest.fixture
def carrier(carried: Carried) -> Iterator[Carrier]:
    made = Carrier(carried)
    yield made
    made.close()


def test_after_so_many_commits_and_not_before(carrier: Carrier, carried: Carried) -> None:
    before = threading.active_count()
    for _ in range(EVERY - 1):
        carrier.committed()
    assert threading.active_count() == before
    for _ in range(3):
        carrier.committed()
        carried.wait()
        for _ in range(EVERY - 1):
            carrier.committed()
    carrier.close()
    assert len(carried.threads) == 3


def test_in_a_thread_of_its_own(carrier: Carrier, carried: Carried) -> None:
    for _ in range(2):
        for _ in range(EVERY):
            carrier.committed()
        carried.wait()
    assert threading.get_ident() not in carried.threads
    assert len(set(carried.threads)) == 1


def test_it_goes_on_after_a_failure(
    carrier: Carrier, carried: Carried, caplog: pytest.LogCaptureFixture
) -> None:
    carried.fails = True
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for _ in range(EVERY):
                carrier.committed()
            carried.wait()
        carrier.close()
    told = ["the log of the database was not carried over: disk I/O error"]
    assert [record.getMessage() for record in caplog.records] == told


def test_closed_it_does_nothing_more(carrier: Carrier, carried: Carried) -> None:
    carrier.close()
    for _ in range(EVERY):
        carrier.committed()
    carrier.close()
    assert carried.threads == []


def test_a_store_carries_over_by_itself(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = threading.Event()
    real = Store._carry

    def carry(self: Store) -> None:
        real(self)
        carried.set()

    monkeypatch.setattr(Store, "_carry", carry)
    monkeypatch.setattr(wal, "EVERY", 3)
    with closing(Store(f"sqlite:///{path}")) as store:
        for lease in leases(3):
            store.keep([lease])
        assert carried.wait(PATIENCE)
        there = after_a_power_cut(path, tmp_path / "later")
    log_of(there).unlink()  # it is in the database file
    assert found(there) == leases(3)


def test_it_waits_for_no_writer(store: Store, path: str) -> None:
    store.keep(leases(2))
    with closing(Store(f"sqlite:///{path}")) as other, other._writing() as connection:
        connection.exec_driver_sql("DELETE FROM lease")
        store._carry()
    assert store.leases() == []


def test_what_no_machine_waits_for_is_carried_over_beside_too(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = threading.Event()
    monkeypatch.setattr(Store, "_carry", lambda _: carried.set())
    monkeypatch.setattr(wal, "EVERY", 3)
    with closing(Store(f"sqlite:///{path}")) as store:  # its making was the first
        store.forget_leases([IPv4Address("10.0.0.1")])
        assert not carried.is_set()
        store.forget_leases([IPv4Address("10.0.0.1")])
        assert carried.wait(PATIENCE)


def test_who_commits_does_it_only_at_last(store: Store) -> None:
    """Also who writes a journal: a lease that is to be written meanwhile would wait for it."""
    store.prepare()
    ours = store._cursor.execute("PRAGMA wal_autocheckpoint").fetchone()
    with store._reading() as connection:
        others = connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar()
    assert (ours, others) == ((AT_LAST,), AT_LAST)

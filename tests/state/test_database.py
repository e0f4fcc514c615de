"""Durable, patient, in one line when it fails, and nobody else's to read."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ConfigError, NetbootError
from netboot.events import BootEvent, Phase
from netboot.model import Lease, LeaseState
from netboot.state import database
from netboot.state.store import Store

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))


def lease(mac: str, last: int, state: LeaseState = LeaseState.BOUND, expires: float = 9.5) -> Lease:
    return Lease(mac, IPv4Address(f"10.0.0.{last}"), expires, state, f"host-{last}")


def test_every_connection_is_durable_and_waits(store: Store) -> None:
    with store._reading() as one, store._reading() as other:
        for connection in (one, other):
            told = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
            assert told == {
                "journal_mode": "wal",
                "synchronous": 2,  # FULL
                "foreign_keys": 1,
                "busy_timeout": 10000,
            }


def test_what_a_machine_waits_for_is_as_durable(store: Store) -> None:
    with store._swiftly() as execute:
        assert execute("DELETE FROM lease WHERE mac = ?", (A,)) == 0
    connection: Any = store._swift
    told = connection.cursor().execute
    assert told("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert told("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_swift_write_that_fails_leaves_nothing_behind(store: Store, url: str) -> None:
    says = r"netboot\.sqlite: no such table: nosuch"
    with pytest.raises(NetbootError, match=says), store._swiftly() as execute:
        execute("DELETE FROM lease WHERE mac = ?", (A,))
        execute("DELETE FROM nosuch", ())
    store.keep([lease(A, 5)])
    with pytest.raises(KeyError), store._swiftly() as execute:
        execute("DELETE FROM lease WHERE mac = ?", (A,))
        raise KeyError
    other = Store(url)  # neither holds a lock
    other.keep([lease(B, 6)])
    assert store.leases() == [lease(A, 5), lease(B, 6)]
    other.close()


def test_a_writer_waits_for_another_process(store: Store, url: str) -> None:
    other = Store(url)
    done = threading.Thread(target=store.keep, args=([lease(A, 5)],))
    with other._writing() as connection:
        connection.exec_driver_sql("DELETE FROM lease")
        done.start()
    done.join()
    assert other.leases() == [lease(A, 5)]
    other.close()


@pytest.mark.parametrize("swift", [True, False])
def test_a_writer_does_not_sleep_for_another_of_its_process(
    url: str, monkeypatch: pytest.MonkeyPatch, swift: bool
) -> None:
    monkeypatch.setattr(database, "BUSY", 0.0)  # who met another in SQLite would fail at once
    with closing(Store(url)) as store, ThreadPoolExecutor(1) as pool:
        store.prepare()
        with store._swiftly() if swift else store._writing():
            began = threading.Event()

            def write() -> None:
                began.set()
                if swift:
                    store.add_events([BootEvent(A, 1.0, Phase.SEEN, "")])
                else:
                    store.keep([lease(A, 5)])

            second = pool.submit(write)
            assert began.wait(20)
            time.sleep(0.05)  # until it waits, or has failed
            assert not second.done()
        second.result(20)


def test_a_new_file_that_another_just_makes_is_waited_for(url: str, tmp_path: Path) -> None:
    """Not yet with a WAL, and locked: SQLite itself would not wait here."""
    first = sqlite3.connect(tmp_path / "netboot.sqlite", isolation_level=None)
    first.execute("BEGIN IMMEDIATE")
    first.execute("CREATE TABLE one (number INTEGER)")
    opened: list[Store] = []
    opening = threading.Thread(target=lambda: opened.append(Store(url)))
    opening.start()
    opening.join(0.2)
    assert opened == []
    first.execute("ROLLBACK")
    first.close()
    opening.join()
    (store,) = opened
    store.keep([lease(A, 5)])
    store.close()


def test_a_new_file_that_stays_locked_is_one_line(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY", 0.05)
    first = sqlite3.connect(tmp_path / "netboot.sqlite", isolation_level=None)
    first.execute("BEGIN IMMEDIATE")
    with pytest.raises(NetbootError, match=r"netboot\.sqlite: database is locked$"):
        Store(url)
    first.close()


def test_a_reader_does_not_wait_for_a_writer(store: Store, url: str) -> None:
    store.keep([lease(A, 5)])
    other = Store(url)
    with store._writing() as connection:
        connection.exec_driver_sql("DELETE FROM lease")
        assert other.leases() == [lease(A, 5)]
    assert other.leases() == []
    other.close()


ADD_MANY = """
import sys
from ipaddress import IPv4Address
from netboot.model import Lease, LeaseState
from netboot.state import database
from netboot.state.store import Store

store = Store(sys.argv[1])
first = int(sys.argv[2])
for n in range(first, first + 20):
    mac = f"52:54:00:00:00:{n:02x}"
    store.keep([Lease(mac, IPv4Address(f"10.0.0.{n}"), 1.0, LeaseState.BOUND)])
"""


def _add_many(url: str, first: int) -> None:
    store = Store(url)
    for n in range(first, first + 20):
        store.keep([lease(f"52:54:00:00:00:{n:02x}", n)])
    store.close()


def test_processes_and_threads_write_side_by_side(store: Store, url: str) -> None:
    other = subprocess.Popen([sys.executable, "-c", ADD_MANY, url, "1"])
    threads = [threading.Thread(target=_add_many, args=(url, 50 + 30 * n)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait(30) == 0
    assert len(store.leases()) == 60


def test_a_database_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"not a database, but long enough to be looked at" * 30)
    with pytest.raises(NetbootError, match="file is not a database") as caught:
        Store(f"sqlite:///{tmp_path}/db")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NetbootError, match=r"none/db: unable to open database file$"):
        Store(f"sqlite:///{tmp_path}/none/db")


@pytest.mark.parametrize("wrong", ["nosuch://x", "sqlite:"])
def test_a_url_that_is_none_is_one_line(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[site\] database cannot be opened: "):
        Store(wrong)


def test_a_failing_write_names_the_database(store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "netboot.sqlite") as raw:
        raw.execute("DROP TABLE event")
    raw.close()
    with pytest.raises(NetbootError, match=r"netboot\.sqlite: no such table: event"):
        store.add_events([BootEvent(A, 1.0, Phase.SEEN)])
    store.keep([lease(A, 5)])


def test_closing_twice_is_harmless(url: str) -> None:
    store = Store(url)
    store.close()
    store.close()


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.glob("netboot.sqlite*")}


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_new_database_is_the_owners_alone(url: str, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        store = Store(url)
        store.keep([lease(A, 5)])
    finally:
        os.umask(before)
    assert set(modes(tmp_path).values()) == {0o600}
    store.close()


def test_an_old_database_is_closed_to_others(url: str, tmp_path: Path) -> None:
    store = Store(url)
    store.keep([lease(A, 5)])
    for path in tmp_path.glob("netboot.sqlite*"):
        path.chmod(0o664)
    other = Store(url)
    assert set(modes(tmp_path).values()) == {0o600}
    assert other.leases() == [lease(A, 5)]
    other.close()
    store.close()


def test_a_database_that_cannot_be_closed_to_others_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(url).close()
    (tmp_path / "netboot.sqlite").chmod(0o644)

    def forbidden(_path: Path, _mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", forbidden)
    with pytest.raises(ConfigError, match=r"netboot\.sqlite: it holds secrets .*`chmod 600` it"):
        Store(url)


def test_a_database_in_memory_has_no_file() -> None:
    store = Store("sqlite://")
    store.close()

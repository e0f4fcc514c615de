"""What is saved is found again, by this process and by others, whatever happens meanwhile."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.errors import ConfigError, ImageError, NetbootError
from netboot.events import BootEvent, Phase
from netboot.model import Lease, LeaseState, Overlay, OverlayMode, Version
from netboot.state.store import Store

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/netboot.sqlite"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    yield made
    made.close()


def lease(mac: str, last: int, state: LeaseState = LeaseState.BOUND, expires: float = 9.5) -> Lease:
    return Lease(mac, IPv4Address(f"10.0.0.{last}"), expires, state, f"host-{last}")


def golden(number: int, image: str = "debian") -> Version:
    return Version(
        image=image,
        number=number,
        path=f"/golden/{image}/{number}.raw",
        size=3 << 40,
        digest=f"sha256:{number:064x}",
        created=1.25 * number,
        origin="recipe",
        parent=number - 1 or None,
    )


def over(mac: str, version: int = 1, image: str = "debian") -> Overlay:
    return Overlay(mac, image, version, OverlayMode.PERSISTENT, 0, f"/overlays/{image}/{mac}.qcow2")


KEPT, FRESH = OverlayMode.PERSISTENT, OverlayMode.EPHEMERAL


# Leases.


def test_leases_come_back_as_they_were(store: Store, url: str) -> None:
    saved = [lease(A, 5), lease(B, 10, LeaseState.OFFERED), lease(C, 11, LeaseState.RELEASED)]
    store.save_leases(reversed(saved))
    assert store.leases() == saved
    other = Store(url)
    assert other.leases() == saved
    other.close()


def test_leases_are_in_order_of_address_not_of_text(store: Store) -> None:
    store.save_leases([lease(A, 100), lease(B, 20), lease(C, 3)])
    assert [str(found.address) for found in store.leases()] == [
        "10.0.0.3",
        "10.0.0.20",
        "10.0.0.100",
    ]


def test_a_mac_has_one_address(store: Store) -> None:
    store.save_leases([lease(A, 5)])
    store.save_leases([lease(A, 6)])
    assert store.leases() == [lease(A, 6)]
    assert store.lease_of(A) == lease(A, 6)
    assert store.lease_of(B) is None


def test_an_address_has_one_mac(store: Store) -> None:
    store.save_leases([lease(A, 5)])
    store.save_leases([lease(B, 5)])
    assert store.leases() == [lease(B, 5)]
    assert store.lease_of(A) is None


def test_a_declined_address_takes_nobodys_lease(store: Store) -> None:
    store.save_leases([lease(A, 5), lease(A, 7, LeaseState.DECLINED)])
    store.save_leases([lease(A, 8, LeaseState.DECLINED)])
    assert [(str(x.address), x.state) for x in store.leases()] == [
        ("10.0.0.5", LeaseState.BOUND),
        ("10.0.0.7", LeaseState.DECLINED),
        ("10.0.0.8", LeaseState.DECLINED),
    ]
    assert store.lease_of(A) == lease(A, 5)
    store.save_leases([lease(A, 6)])
    assert len(store.leases()) == 3


def test_forgotten_addresses_are_free(store: Store) -> None:
    store.save_leases([lease(A, 5), lease(B, 6)])
    store.forget_leases([IPv4Address("10.0.0.5"), IPv4Address("10.0.0.99")])
    assert store.leases() == [lease(B, 6)]


def test_leases_are_saved_all_or_none(store: Store) -> None:
    store.save_leases([lease(A, 5)])

    def broken() -> Iterator[Lease]:
        yield lease(B, 6)
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        store.save_leases(broken())
    assert store.leases() == [lease(A, 5)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B, C]),
            st.integers(1, 6),
            st.sampled_from(LeaseState),
            st.floats(0, 1e10),
        ),
        max_size=12,
    )
)
def test_whatever_is_saved_nobody_has_two_and_nothing_is_shared(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, LeaseState, float]]
) -> None:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('db')}/db")
    for mac, last, state, expires in rows:
        latest = lease(mac, last, state, expires)
        store.save_leases([latest])
        assert latest in store.leases()
    held = [found for found in store.leases() if found.state != LeaseState.DECLINED]
    assert len({found.mac for found in held}) == len(held)
    assert len({found.address for found in store.leases()}) == len(store.leases())
    store.close()


# The catalogue.


def test_versions_come_back_as_they_were(store: Store) -> None:
    for version in (golden(1), golden(2), golden(1, "arch")):
        store.add_version(version)
    assert store.versions() == [golden(1, "arch"), golden(1), golden(2)]
    assert store.versions("debian") == [golden(1), golden(2)]
    assert store.latest("debian") == golden(2)
    assert store.version("debian", 1) == golden(1)
    assert store.version("debian", 3) is None
    assert store.latest("windows") is None


def test_a_number_is_never_used_twice(store: Store) -> None:
    assert store.next_number("debian") == 1
    store.add_version(golden(1))
    store.add_version(golden(2))
    store.remove_version("debian", 2)
    assert store.latest("debian") == golden(1)
    assert store.next_number("debian") == 3
    with pytest.raises(ImageError, match="the number is taken; the next one is 3"):
        store.add_version(golden(2))
    store.add_version(golden(3))


def test_a_version_in_use_is_not_removed(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    store.save_overlay(over(B))
    with pytest.raises(ImageError, match=f"debian version 1 is in use by {A}, {B}"):
        store.remove_version("debian", 1)
    assert store.versions() == [golden(1)]
    store.delete_overlay(over(A))
    store.delete_overlay(over(B))
    store.remove_version("debian", 1)
    assert store.versions() == []


def test_what_is_not_there_cannot_be_removed(store: Store) -> None:
    with pytest.raises(ImageError, match="image debian has no version 7"):
        store.remove_version("debian", 7)


# Overlays.


def test_overlays_come_back_as_they_were(store: Store) -> None:
    for version in (golden(1), golden(2), golden(1, "arch")):
        store.add_version(version)
    saved = [over(A, 1, "arch"), over(A, 2), over(B, 1)]
    for overlay in reversed(saved):
        store.save_overlay(overlay)
    assert store.overlays() == saved
    assert store.overlays(A) == saved[:2]
    assert store.overlay(A, "debian", KEPT) == over(A, 2)
    assert store.overlay(C, "debian", KEPT) is None
    assert store.overlays_of("debian") == [over(A, 2), over(B, 1)]
    assert store.overlays_of("debian", 1) == [over(B, 1)]
    assert store.delete_overlay(over(A, 1, "arch"))
    assert not store.delete_overlay(over(A, 1, "arch"))


def test_a_client_keeps_its_version_when_a_new_one_is_added(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    store.add_version(golden(2))
    kept = store.overlay(A, "debian", KEPT)
    assert kept and kept.version == 1


def test_an_overlay_takes_the_place_of_the_one_before(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    later = replace(over(A), generation=7, path="/elsewhere")
    store.save_overlay(later)
    assert store.overlays() == [later]


def test_what_was_written_in_one_mode_waits_while_the_other_is_tried(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    fresh = replace(over(A), mode=FRESH, generation=7, path="/fresh")
    store.save_overlay(fresh)
    assert store.overlay(A, "debian", KEPT) == over(A)
    assert store.overlay(A, "debian", FRESH) == fresh
    assert store.overlays() == [fresh, over(A)]
    with pytest.raises(ImageError, match=f"in use by {A};"):
        store.remove_version("debian", 1)
    store.delete_overlay(fresh)
    assert store.overlays() == [over(A)]


def test_an_overlay_of_no_version_is_refused_and_the_old_one_stays(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    with pytest.raises(ImageError, match=f"debian has no version 9 for the overlay of {A}"):
        store.save_overlay(over(A, 9))
    assert store.overlays() == [over(A)]


def test_trouble_is_kept_with_the_overlay_until_a_fresh_one(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    store.save_overlay(over(B))
    store.note_trouble(over(A).path, "No space left on device", 7.5)
    store.note_trouble("/no/such.qcow2", "x", 8.5)
    noted = replace(over(A), trouble="No space left on device", troubled=7.5)
    assert store.overlays() == [noted, over(B)]
    assert store.overlay(A, "debian", KEPT) == noted
    store.save_overlay(over(A))
    assert store.overlays() == [over(A), over(B)]


# Events.


def test_events_come_back_oldest_first(store: Store) -> None:
    happened = [BootEvent(A, float(n), Phase.SEEN, f"n{n}", n == 0) for n in range(5)]
    store.add_events(happened[:3])
    store.add_events([])
    store.add_events([*happened[3:], BootEvent(B, 9.0, Phase.READY)])
    assert store.events(A) == happened
    assert store.events(A, 2) == happened[3:]
    assert store.events(limit=2) == [happened[4], BootEvent(B, 9.0, Phase.READY)]


def test_clients_are_known_by_their_events(store: Store) -> None:
    store.add_events([BootEvent(A, 5.0, Phase.SEEN, fresh=True), BootEvent(A, 7.0, Phase.OFFERED)])
    store.add_events([BootEvent(A, 9.0, Phase.SEEN, fresh=True), BootEvent(B, 6.0, Phase.OS)])
    first, second = store.seen()
    assert (first.mac, first.first_seen, first.last_seen, first.boots) == (A, 5.0, 9.0, 2)
    assert first.phase == Phase.SEEN
    assert (second.mac, second.boots, second.phase) == (B, 0, Phase.OS)


def test_old_events_go_and_clients_stay(store: Store) -> None:
    store.add_events([BootEvent(A, float(n), Phase.SEEN) for n in range(10)])
    assert store.prune_events(before=3.0, keep=100) == 3
    assert store.prune_events(before=0.0, keep=4) == 3
    assert [event.at for event in store.events()] == [6.0, 7.0, 8.0, 9.0]
    assert store.prune_events(before=0.0, keep=4) == 0
    assert [client.mac for client in store.seen()] == [A]


def test_of_all_who_ever_asked_the_last_are_remembered(store: Store) -> None:
    macs = [f"52:54:00:00:00:{n:02x}" for n in range(10)]
    store.add_events([BootEvent(mac, float(n), Phase.SEEN) for n, mac in enumerate(macs)])
    assert store.prune_clients(keep=10) == 0
    assert store.prune_clients(keep=4) == 6
    assert [client.mac for client in store.seen()] == macs[6:]
    assert store.prune_clients(keep=4) == 0


# The database itself.


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


def test_a_reader_does_not_wait_for_a_writer(store: Store, url: str) -> None:
    store.save_leases([lease(A, 5)])
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
from netboot.state.store import Store

store = Store(sys.argv[1])
first = int(sys.argv[2])
for n in range(first, first + 20):
    mac = f"52:54:00:00:00:{n:02x}"
    store.save_leases([Lease(mac, IPv4Address(f"10.0.0.{n}"), 1.0, LeaseState.BOUND)])
"""


def _add_many(url: str, first: int) -> None:
    store = Store(url)
    for n in range(first, first + 20):
        store.save_leases([lease(f"52:54:00:00:00:{n:02x}", n)])
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
    store.save_leases([lease(A, 5)])


def test_closing_twice_is_harmless(url: str) -> None:
    store = Store(url)
    store.close()
    store.close()

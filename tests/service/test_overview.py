"""What people see is put together from the settings, the leases, the boots and the store."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from netboot.boot.timeline import Timelines
from netboot.events import BootEvent, Phase
from netboot.http.views import jsonable
from netboot.model import (
    Counters,
    Host,
    Lease,
    LeaseState,
    OverlayMode,
    Profile,
    Site,
    Version,
)
from netboot.service.ledger import Ledger
from netboot.service.overview import Overview, image_views
from netboot.state.store import Store

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))
KEPT, FRESH = OverlayMode.PERSISTENT, OverlayMode.EPHEMERAL
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    profiles={"p": Profile("p", "debian")},
    hosts={A: Host(A, "ws1", "p", IPv4Address("192.168.77.21"))},
    unknown_profile="p",
)


def golden(number: int, image: str = "debian") -> Version:
    return Version(image, number, f"/{image}/{number}", 512, f"sha256:{number}", 1.0, "x")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/db")
    yield made
    made.close()


def overview(
    store: Store,
    site: Site = SITE,
    events: list[BootEvent] | None = None,
    leases: dict[str, Lease] | None = None,
    counters: dict[str, Counters] | None = None,
) -> Overview:
    return Overview(
        lambda: site, store, Timelines(events or []), (leases or {}).get, lambda: counters or {}
    )


def test_a_machine_of_the_settings_is_there_before_it_ever_spoke(store: Store) -> None:
    (view,) = overview(store).clients()
    assert (view.mac, view.name, view.address) == (A, "ws1", "192.168.77.21")
    assert (view.profile, view.image, view.version) == ("p", "debian", None)
    assert (view.phase, view.timeline, view.counters, view.overlay) == (None, (), None, None)


def test_everybody_who_was_seen_is_there(store: Store) -> None:
    store.add_events([BootEvent(B, 1.0, Phase.SEEN)])
    views = overview(store, events=[BootEvent(C, 2.0, Phase.SEEN)]).clients()
    assert [view.mac for view in views] == [A, B, C]
    assert views[1].name == "client-525400000002"
    assert views[1].profile == "p"


def test_a_machine_that_is_ignored_has_no_profile(store: Store) -> None:
    store.add_events([BootEvent(B, 1.0, Phase.SEEN)])
    site = Site(SITE.interface, SITE.address, SITE.domain)
    (view,) = overview(store, site).clients()
    assert (view.profile, view.image, view.version, view.overlay) == (None, None, None, None)


def test_a_booted_machine_is_seen_whole(store: Store, tmp_path: Path) -> None:
    for version in (golden(1), golden(2)):
        store.add_version(version)
    overlay = Ledger(store, tmp_path).overlay_of(A, "debian", KEPT)
    Ledger(store, tmp_path).overlay_of(A, "debian", FRESH)  # not what its profile says
    Path(overlay.path).write_bytes(b"x" * 8192)
    lease = Lease(A, IPv4Address("192.168.77.99"), 9.0, LeaseState.BOUND, "other")
    counters = Counters(A, sessions=2, reads=7)
    events = [
        BootEvent(A, 10.0, Phase.SEEN, "BIOS", fresh=True),
        BootEvent(A, 12.5, Phase.OFFERED, "address"),
    ]
    (view,) = overview(store, events=events, leases={A: lease}, counters={A: counters}).clients()
    assert (view.name, view.address, view.version) == ("ws1", "192.168.77.99", 2)
    assert view.phase == Phase.OFFERED
    assert [(step.phase, step.after) for step in view.timeline] == [
        (Phase.SEEN, 0.0),
        (Phase.OFFERED, 2.5),
    ]
    assert view.counters == counters
    assert view.overlay is not None
    assert (view.overlay.path, view.overlay.mode) == (overlay.path, "persistent")
    assert view.overlay.allocated >= 8192


def test_a_client_is_shown_on_the_version_it_stands_on(store: Store, tmp_path: Path) -> None:
    store.add_version(golden(1))
    Ledger(store, tmp_path).overlay_of(A, "debian", KEPT)
    store.add_version(golden(2))
    (view,) = overview(store).clients()
    assert view.version == 1


def test_a_lease_names_whom_the_settings_do_not(store: Store) -> None:
    lease = Lease(B, IPv4Address("192.168.77.50"), 9.0, LeaseState.BOUND, "laptop")
    store.add_events([BootEvent(B, 1.0, Phase.OS)])
    view = overview(store, leases={B: lease}).clients()[1]
    assert (view.name, view.address) == ("laptop", "192.168.77.50")


def test_images_say_who_stands_on_them(store: Store, tmp_path: Path) -> None:
    store.add_version(golden(1))
    book = Ledger(store, tmp_path)
    book.overlay_of(B, "debian", KEPT)
    book.overlay_of(A, "debian", KEPT)
    book.overlay_of(A, "debian", FRESH)
    store.add_version(golden(2))
    store.add_version(golden(1, "arch"))
    views = overview(store).images()
    assert [(v.name, v.version, v.current, v.used_by) for v in views] == [
        ("arch", 1, True, ()),
        ("debian", 1, False, (A, B)),
        ("debian", 2, True, ()),
    ]
    assert image_views([], []) == []


def test_overlays_say_the_room_they_take(store: Store, tmp_path: Path) -> None:
    store.add_version(golden(1))
    Ledger(store, tmp_path).overlay_of(A, "debian", KEPT)
    (view,) = overview(store).overlays()
    assert (view.mac, view.image, view.version, view.mode) == (A, "debian", 1, "persistent")
    assert (view.generation, view.allocated) == (0, 0)


def test_all_of_it_has_a_plain_form(store: Store, tmp_path: Path) -> None:
    store.add_version(golden(1))
    Ledger(store, tmp_path).overlay_of(A, "debian", KEPT)
    seen = overview(store, events=[BootEvent(A, 1.0, Phase.SEEN)], counters={A: Counters(A)})
    for views in (seen.clients(), seen.images(), seen.overlays()):
        assert isinstance(jsonable(views), list)


def test_the_settings_are_asked_anew_each_time(store: Store) -> None:
    sites = [SITE, Site(SITE.interface, SITE.address, SITE.domain)]
    seen = Overview(lambda: sites[0], store, Timelines(), {}.get, dict)
    assert len(seen.clients()) == 1
    sites.pop(0)
    assert seen.clients() == []

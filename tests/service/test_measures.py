"""The figures come from the parts that run, as they are at that moment."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netboot import __version__
from netboot.boot.timeline import Timelines
from netboot.disks.supervisor import Supervisor
from netboot.dns.server import DnsServer
from netboot.dns.zone import Zone
from netboot.events import BootEvent, Phase
from netboot.http.metrics import render
from netboot.http.server import HttpServer
from netboot.http.views import Health
from netboot.model import (
    Counters,
    DiskProcess,
    Host,
    Lease,
    LeaseState,
    OverlayMode,
    Profile,
    Site,
    Version,
)
from netboot.service.ledger import Ledger
from netboot.service.measures import Measures, in_words
from netboot.service.overview import Overview
from netboot.service.warming import Warmer
from netboot.state.store import Store
from netboot.tftp.server import TftpServer

A, B = (f"52:54:00:00:00:0{n}" for n in (1, 2))
NOW = 1000.0
PROCESSES = (DiskProcess(0, 11, 2, 3), DiskProcess(1, 12))
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    profiles={"p": Profile("p", "debian")},
    hosts={A: Host(A, "ws1", "p")},
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/db")
    yield made
    made.close()


def measures(store: Store, state: Path, **more: Any) -> Measures:
    disks = SimpleNamespace(
        counters=lambda: {B: Counters(B, 1), A: Counters(A, 2)}, processes=PROCESSES
    )
    timelines = Timelines([BootEvent(A, 1.0, Phase.SEEN)])
    overview = Overview(lambda: SITE, store, timelines, lambda mac: None, dict)
    given = {
        "state": state,
        "clock": lambda: NOW,
        "started": 5.0,
        "overview": overview,
        "health": lambda: Health(True),
        "leases": lambda: (),
        "disks": cast(Supervisor, disks),
        "refused": Counter[int](),
        "parts": [],
    }
    return Measures(**{**given, **more})


@pytest.mark.parametrize(
    ("pids", "words"),
    [
        ((11,), "process 11"),
        ((None,), "the process is away"),
        ((11, 12, 13), "processes 11, 12, 13"),
        ((11, None, 13), "of 3 processes, 1 (counted from 0) away"),
        ((None, None), "of 2 processes, 0 and 1 (counted from 0) away"),
    ],
)
def test_disk_processes_in_words(pids: tuple[int | None, ...], words: str) -> None:
    assert in_words([DiskProcess(number, pid) for number, pid in enumerate(pids)]) == words


def test_what_there_is_without_any_server(store: Store, tmp_path: Path) -> None:
    figures = measures(store, tmp_path).figures()
    assert (figures.release, figures.started, figures.well) == (__version__, 5.0, True)
    assert [client.mac for client in figures.clients] == [A]
    assert list(figures.named) == [A]
    assert [row.mac for row in figures.disks] == [A, B]
    assert figures.processes == PROCESSES
    assert (figures.dhcp, figures.tftp, figures.dns, figures.http) == (None,) * 4
    assert figures.prefetched == 0
    assert figures.room is not None
    assert 0 < figures.room[0] <= figures.room[1]
    assert render(figures)


def test_what_was_read_ahead(store: Store, tmp_path: Path) -> None:
    warmer = Warmer(True)
    warmer.fetched = 5 << 20
    assert measures(store, tmp_path, parts=[warmer]).figures().prefetched == 5 << 20


def test_leases_by_what_they_are_now(store: Store, tmp_path: Path) -> None:
    def lease(state: LeaseState, expires: float) -> Lease:
        return Lease(A, IPv4Address("192.168.77.50"), expires, state)

    leases = [
        lease(LeaseState.BOUND, NOW + 1),
        lease(LeaseState.BOUND, NOW + 1),
        lease(LeaseState.BOUND, NOW),
        lease(LeaseState.OFFERED, NOW - 1),
        lease(LeaseState.DECLINED, NOW + 1),
        lease(LeaseState.DECLINED, NOW - 1),
        lease(LeaseState.RELEASED, NOW + 1),
        lease(LeaseState.RELEASED, NOW - 1),
    ]
    figures = measures(store, tmp_path, leases=lambda: leases).figures()
    assert figures.leases == {"bound": 2, "expired": 3, "declined": 1, "released": 2}


def test_the_servers_that_run_tell_what_they_counted(store: Store, tmp_path: Path) -> None:
    tftp = TftpServer("127.0.0.1", [], print)
    tftp.counters.requests = 4
    zone = Zone("lab.netboot", IPv4Interface("127.0.0.1/8"), lambda: ())
    dns = DnsServer("127.0.0.1", zone)
    dns.counters.queries = 5
    http = HttpServer(cast(Any, None), "127.0.0.1", 0, loaders=[])
    http.requests["/healthz", 200] = 6
    parts: list[object] = [object(), tftp]
    figures = measures(store, tmp_path, parts=parts)
    assert figures.figures().dns is None
    parts += [dns, http]  # a server that opened later
    now = figures.figures()
    assert now.tftp is not None and now.tftp["requests"] == 4
    assert now.dns is not None and now.dns["queries"] == 5
    assert now.http == {("/healthz", 200): 6}
    assert now.no_http == 0
    assert now.dhcp is None


def test_trouble_with_an_overlay_and_a_refused_login(store: Store, tmp_path: Path) -> None:
    store.add_version(Version("debian", 1, "/golden", 512, "sha256:1", 1.0))
    ledger = Ledger(store, tmp_path)
    overlay = ledger.overlay_of(A, "debian", OverlayMode.PERSISTENT)
    ledger.trouble(A, f"{overlay.path}: sync failed", 77.0)
    text = render(measures(store, tmp_path, refused=Counter({0x0202: 2})).figures()).decode()
    labels = f'{{image="debian",mac="{A}",mode="persistent"}}'
    assert f"netboot_overlay_trouble{labels} 1.0\n" in text
    assert f"netboot_overlay_trouble_time_seconds{labels} 77.0\n" in text
    assert 'netboot_logins_refused_total{reason="not-authorized"} 2.0\n' in text


def test_a_state_folder_that_is_gone_stops_nobody(store: Store, tmp_path: Path) -> None:
    figures = measures(store, tmp_path / "gone").figures()
    assert figures.room is None
    assert b"state_free" not in render(figures)

"""Whatever is seen of a machine becomes one stream of events, in an order that holds."""

import logging
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from netboot.boot.timeline import Timelines
from netboot.disks.wire import DiskEvent, Kind
from netboot.events import BootEvent, Phase
from netboot.model import Admission, Host, Lease, LeaseState, Profile, Site
from netboot.service import sight
from netboot.service.sight import Sight, neighbour
from netboot.tftp.server import TftpEvent

A, B = "52:54:00:00:00:01", "52:54:00:00:00:02"
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    profiles={"p": Profile("p", "debian")},
    hosts={B: Host(B, "ws2", "p", IPv4Address("192.168.77.22"))},
)
LEASES = {
    IPv4Address("192.168.77.50"): Lease(A, IPv4Address("192.168.77.50"), 9.0, LeaseState.BOUND),
    IPv4Address("192.168.77.51"): Lease(A, IPv4Address("192.168.77.51"), 9.0, LeaseState.DECLINED),
}


class Watched:
    """A Sight with everything around it written down."""

    def __init__(self) -> None:
        self.kept: list[BootEvent] = []
        self.order: list[str] = []
        self.sight = Sight(lambda: SITE, Timelines(), LEASES.get, self._keep, lambda: 100.0)

    def _keep(self, event: BootEvent) -> None:
        self.kept.append(event)
        self.order.append("keep")

    @property
    def phases(self) -> list[Phase]:
        return [event.phase for event in self.kept]


@pytest.fixture(autouse=True)
def no_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "neighbour", lambda _address: None)


def disk(kind: Kind, mac: str = A, at: float = 1.0, detail: str = "") -> DiskEvent:
    return DiskEvent(mac, kind, at, "iqn.x:client", "192.168.77.50", detail)


def test_an_event_is_kept_before_anybody_else_hears_of_it() -> None:
    seen = Watched()
    seen.sight.bus.subscribe(lambda _event: seen.order.append("other"))
    seen.sight.publish(BootEvent(A, 1.0, Phase.SEEN, fresh=True))
    seen.sight.publish(BootEvent(A, 2.0, Phase.OFFERED))
    assert seen.order == ["keep", "other", "keep", "other"]
    assert seen.sight.timelines.of(A).phase == Phase.OFFERED


def test_the_first_login_is_the_firmwares_and_one_after_reading_the_systems() -> None:
    seen = Watched()
    for kind in (Kind.LOGIN, Kind.LOGIN, Kind.READING, Kind.LOGIN, Kind.READING):
        seen.sight.on_disk(disk(kind))
    assert seen.phases == [Phase.LOGIN, Phase.LOGIN, Phase.READING, Phase.OS, Phase.READING]
    assert seen.sight.timelines.of(A).phase == Phase.OS


def test_a_new_boot_logs_in_first_for_its_firmware_again() -> None:
    seen = Watched()
    seen.sight.on_disk(disk(Kind.LOGIN))
    seen.sight.on_disk(disk(Kind.READING))
    seen.sight.publish(BootEvent(A, 2.0, Phase.SEEN, fresh=True))
    seen.sight.on_disk(disk(Kind.LOGIN, at=3.0))
    assert seen.phases[-1] == Phase.LOGIN


def test_a_login_says_who_and_from_where() -> None:
    seen = Watched()
    for isid in ("", "400027233cce"):
        seen.sight.on_disk(replace(disk(Kind.LOGIN), isid=isid))
    assert [event.detail for event in seen.kept] == [
        "iqn.x:client logs in from 192.168.77.50",
        "iPXE logs in from 192.168.77.50",
    ]


def test_a_login_says_what_was_proved() -> None:
    seen = Watched()
    proved = disk(Kind.LOGIN, detail="mutual CHAP with MD5")
    seen.sight.on_disk(replace(proved, isid="400027233cce"))
    (event,) = seen.kept
    assert event.detail == "iPXE logs in from 192.168.77.50 by mutual CHAP with MD5"


def test_who_does_not_prove_itself_is_named(caplog: pytest.LogCaptureFixture) -> None:
    seen = Watched()
    for mac in (B, ""):
        seen.sight.on_disk(disk(Kind.REFUSED, mac, detail="name or secret is wrong"))
    assert caplog.messages == [
        f"ws2 ({B}): login refused (0201): iqn.x:client from 192.168.77.50: name or secret is "
        "wrong",
        "login refused (0201): iqn.x:client from 192.168.77.50: name or secret is wrong",
    ]
    assert seen.kept == [], "it is no event of that machine's boot"
    assert seen.sight.refused == {0x0201: 2}


def test_initiators_that_we_know_are_told_by_who_made_them() -> None:
    """iPXE logs in again after it has read; a kernel may log in before anything was read."""
    seen = Watched()
    for kind, isid in (
        (Kind.LOGIN, "400027233cce"),
        (Kind.READING, "400027233cce"),
        (Kind.LOGIN, "400027234c79"),
        (Kind.LOGIN, "00023d010000"),
    ):
        seen.sight.on_disk(replace(disk(kind), isid=isid))
    assert seen.phases == [Phase.LOGIN, Phase.READING, Phase.LOGIN, Phase.OS]


def test_logouts_and_errors_are_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    seen = Watched()
    with caplog.at_level(logging.INFO):
        seen.sight.on_disk(disk(Kind.LOGOUT, B))
        seen.sight.on_disk(disk(Kind.ERROR, B, detail="no space left"))
        seen.sight.on_disk(disk(Kind.LOGIN, ""))
    assert seen.kept == []
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
    assert f"ws2 ({B}): its disk: no space left" in caplog.text


def test_trouble_with_a_disk_is_passed_on() -> None:
    told: list[tuple[str, str, float]] = []
    seen = Sight(
        *(lambda: SITE, Timelines(), LEASES.get, lambda event: None),
        clock=lambda: 100.0,
        trouble=lambda mac, text, at: told.append((mac, text, at)),
    )
    seen.on_disk(disk(Kind.ERROR, B, detail="no space left"))
    seen.on_disk(disk(Kind.LOGOUT, B))
    assert [(mac, text) for mac, text, _ in told] == [(B, "no space left")]


def test_a_refused_login_is_a_line_with_the_name_of_the_machine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = Watched()
    seen.sight.on_refusal(Admission(0x0202, B, "iqn.t", detail="iqn.b from 10.0.0.9: no"))
    seen.sight.on_refusal(Admission(0x0203, detail="nobody from 10.0.0.9: who?"))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", f"ws2 ({B}): login refused (0202): iqn.b from 10.0.0.9: no"),
        ("WARNING", "login refused (0203): nobody from 10.0.0.9: who?"),
    ]
    assert seen.sight.refused == {0x0202: 1, 0x0203: 1}


def test_a_download_is_a_phase_once_data_flows(caplog: pytest.LogCaptureFixture) -> None:
    seen = Watched()
    for kind in ("probe", "start", "done"):
        seen.sight.on_tftp(TftpEvent("192.168.77.50", "undionly.kpxe", kind))  # type: ignore[arg-type]
    assert seen.kept == [BootEvent(A, 100.0, Phase.LOADER, "undionly.kpxe by TFTP")]
    assert caplog.text == ""


def test_a_failed_download_is_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    seen = Watched()
    seen.sight.on_tftp(TftpEvent("192.168.77.22", "x.efi", "missing", detail="no such file"))
    seen.sight.on_tftp(TftpEvent("10.9.9.9", "y.efi", "failed", detail="it went away"))
    seen.sight.on_tftp(TftpEvent("10.9.9.9", "y.efi", "start"))
    assert seen.kept == []
    assert f"ws2 ({B}): TFTP x.efi: no such file" in caplog.text
    assert "10.9.9.9: TFTP y.efi: it went away" in caplog.text


def test_the_guest_says_that_it_is_up() -> None:
    seen = Watched()
    seen.sight.ready(A)
    assert seen.kept == [BootEvent(A, 100.0, Phase.READY, "the guest says so")]


@pytest.mark.parametrize(
    ("address", "mac"),
    [
        ("192.168.77.50", A),
        ("192.168.77.51", None),  # declined: nobody's
        ("192.168.77.22", B),  # reserved
        ("192.168.77.99", None),
        ("fe80::1", None),
        ("", None),
    ],
)
def test_an_address_has_an_owner(address: str, mac: str | None) -> None:
    assert Watched().sight.mac_of(address) == mac


def test_the_kernel_knows_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "neighbour", {"192.168.77.99": B}.get)
    assert Watched().sight.mac_of("192.168.77.99") == B
    assert Watched().sight.mac_of("192.168.77.50") == A


def test_neighbours_are_read_from_the_kernels_table(tmp_path: Path) -> None:
    table = tmp_path / "arp"
    table.write_text(
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "192.168.77.99    0x1         0x2         52:54:00:AA:BB:CC     *        br0\n"
        "192.168.77.98    0x1         0x0         00:00:00:00:00:00     *        br0\n"
        "short line\n"
    )
    assert neighbour("192.168.77.99", table) == "52:54:00:aa:bb:cc"
    assert neighbour("192.168.77.98", table) is None
    assert neighbour("192.168.77.97", table) is None
    assert neighbour("192.168.77.99", tmp_path / "none") is None


def test_each_phase_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    seen = Watched()
    with caplog.at_level(logging.INFO):
        seen.sight.publish(BootEvent(B, 10.0, Phase.SEEN, "BIOS asks", fresh=True))
        seen.sight.publish(BootEvent(B, 11.0, Phase.OFFERED, "192.168.77.22"))
        seen.sight.publish(BootEvent(B, 12.0, Phase.OFFERED, "192.168.77.22"))
        seen.sight.publish(BootEvent(B, 13.5, Phase.LOADER, "undionly.kpxe by TFTP"))
    assert [record.message for record in caplog.records] == [
        f"ws2 ({B}): seen after 0.0 s: BIOS asks",
        f"ws2 ({B}): offered after 1.0 s: 192.168.77.22",
        f"ws2 ({B}): loader after 3.5 s: undionly.kpxe by TFTP",
    ]

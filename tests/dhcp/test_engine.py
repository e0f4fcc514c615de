"""Conversations with the engine, effect by effect; the packets are scapy's."""

import logging
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.dhcp.effects import Effect, How, Persist, Probe, Publish, Send
from netboot.dhcp.engine import PROBE_WAIT
from netboot.dhcp.leases import DECLINED_HOLD, OFFER_HOLD
from netboot.dhcp.rules import ACK, NAK, OFFER
from netboot.events import BootEvent, Phase
from netboot.model import Chap, DhcpMode, Host, Lease, LeaseState

A, B, WS21 = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:21"
STRANGER = "66:66:66:66:66:66"
SERVER = "192.168.77.1"


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"192.168.77.{last}")


def bound(mac: str, last: int, expires: float = 9000.0) -> Lease:
    return Lease(mac, ip(last), expires, LeaseState.BOUND)


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def events(effects: list[Effect]) -> list[tuple[Phase, bool]]:
    return [(e.event.phase, e.event.fresh) for e in effects if isinstance(e, Publish)]


def test_what_all_are_told_and_what_was_planned_count_until_a_reload(kit: Any) -> None:
    lan = kit.lan()
    lan.dora(A, kit.UEFI)
    said = lan.say(A, "discover", *kit.UEFI, ("param_req_list", [15]))[-2].data
    assert b"lab.netboot" in said
    assert b"snponly.efi" in said
    plan = lan.engine._plans._plan
    lan.engine._plans._plan = lambda client: replace(plan(client), loader="other.efi")
    assert b"other.efi" not in lan.say(A, "discover", *kit.UEFI, ("param_req_list", [15]))[-2].data
    lan.engine.take_over(replace(lan.engine.site, domain="example.org"))
    said = lan.say(A, "discover", *kit.UEFI, ("param_req_list", [15]))[-2].data
    assert b"example.org" in said
    assert b"lab.netboot" not in said
    assert b"other.efi" in said


def test_other_machines_and_reservations_count_from_now_on(kit: Any) -> None:
    lan = kit.lan()
    site = lan.engine.site
    assert not lan.engine.leases.may_have(A, ip(21), 0.0)
    lan.engine.take_over(replace(site, hosts={}))
    assert lan.engine.site.hosts == {}
    assert not lan.engine.leases.may_have(WS21, ip(21), 0.0)  # out of the pool, nobody's now
    host = replace(site.hosts[WS21], mac=A, address=ip(50))
    lan.engine.take_over(replace(site, hosts={A: host}))
    assert lan.engine.leases.may_have(A, ip(50), 0.0)
    assert not lan.engine.leases.may_have(B, ip(50), 0.0)


# The whole path


def test_a_whole_dora_effect_by_effect(kit: Any) -> None:
    lan = kit.lan()
    effects = lan.say(A, "discover", *kit.BIOS)
    assert effects == [
        Publish(BootEvent(A, 1000.0, Phase.SEEN, "BIOS PXE asks", fresh=True)),
        Probe(ip(50), A),
    ]
    assert lan.engine.deadline() == 1000.0 + PROBE_WAIT
    assert lan.engine.probing == {ip(50): A}
    assert lan.pass_time(PROBE_WAIT / 2) == []
    send, told = lan.pass_time(PROBE_WAIT / 2)
    assert told == Publish(
        BootEvent(A, 1000.3, Phase.OFFERED, "BIOS PXE: 192.168.77.50, undionly.kpxe")
    )
    offer = kit.only([send])
    assert (offer.kind, offer.bootp.yiaddr, offer.bootp.siaddr) == (OFFER, "192.168.77.50", SERVER)
    assert (send.address, send.port, send.how, send.mac, send.source_port) == (
        ip(50),
        68,
        How.CHADDR,
        A,
        67,
    )
    effects = lan.say(A, "request", ("server_id", SERVER), ("requested_addr", "192.168.77.50"))
    persist, send, _ = effects
    assert persist == Persist(Lease(A, ip(50), 1000.3 + 3600, LeaseState.BOUND, "ws-0a"))
    ack = kit.only([send])
    assert (ack.kind, ack.bootp.yiaddr, ack.options["lease_time"]) == (ACK, "192.168.77.50", 3600)
    assert lan.engine.leases.by_mac(A) == persist.lease
    assert lan.engine.deadline() is None
    assert dict(lan.engine.counters) == {"received": 2, "offers": 1, "acks": 1}


def test_firmware_ipxe_and_every_os_client_get_one_address(kit: Any) -> None:
    """They send no client identifier, 01+MAC, an RFC 4361 DUID, and one of their own making."""
    lan = kit.lan()
    addresses = [
        lan.dora(A, program, xid=number).bootp.yiaddr
        for number, program in enumerate(
            [
                kit.BIOS,
                kit.IPXE,
                (("vendor_class_id", b"Linux ipconfig"), ("client_id", b"\x00/dev/eth0")),
                (("vendor_class_id", b"udhcp 1.35.0"), ("client_id", b"\x01RT\0\0\0\x0a")),
                kit.OS,
            ]
        )
    ]
    assert addresses == ["192.168.77.50"] * 5


def test_a_boot_as_the_timeline_sees_it(kit: Any) -> None:
    lan = kit.lan()
    effects: list[Effect] = []
    for xid, program in enumerate((kit.BIOS, kit.IPXE, kit.OS), 1):
        effects += lan.say(A, "discover", *program, xid=xid)
        effects += lan.pass_time(1.0)
        asks = (("server_id", SERVER), ("requested_addr", "192.168.77.50"))
        effects += lan.say(A, "request", *asks, *program, xid=xid)
        lan.pass_time(10.0)
    assert events(effects) == [
        (Phase.SEEN, True),
        (Phase.OFFERED, False),
        (Phase.OFFERED, False),
        (Phase.OS, False),
    ]
    effects = lan.say(A, "request", *kit.OS, ciaddr="192.168.77.50")
    assert kinds(effects) == [Persist, Send]  # a renewal is no news
    assert events(lan.say(A, "discover", *kit.IPXE, xid=9)) == [
        (Phase.SEEN, True),
        (Phase.OFFERED, False),
    ]


def test_a_system_that_only_asks_for_its_old_address_ends_the_chain(kit: Any) -> None:
    """INIT-REBOOT has no DISCOVER: what comes after it is a new boot all the same."""
    lan = kit.lan(leases=[bound(A, 60)])
    assert events(lan.say(A, "discover", *kit.BIOS, xid=1))[0] == (Phase.SEEN, True)
    assert (Phase.SEEN, True) not in events(lan.say(A, "discover", *kit.IPXE, xid=2))
    lan.say(A, "request", ("requested_addr", "192.168.77.60"), *kit.OS, xid=3)
    assert events(lan.say(A, "discover", *kit.IPXE, xid=4))[0] == (Phase.SEEN, True)


def test_an_ipxe_rom_goes_straight_to_its_disk_and_begins_a_boot(kit: Any) -> None:
    lan = kit.lan()
    assert events(lan.say(A, "discover", *kit.IPXE)) == [(Phase.SEEN, True)]
    offer = kit.only(lan.pass_time(1))
    assert (
        offer.options["root_disk_path"]
        == b"iscsi:192.168.77.1::::iqn.2026-11.lab.netboot:52-54-00-00-00-0a"
    )
    assert "vendor_class_id" not in offer.options
    assert offer.bootp.file.rstrip(b"\0") == b""


def test_persist_always_comes_before_its_ack(kit: Any) -> None:
    lan = kit.lan(leases=[bound(WS21, 60)])
    lan.offer(WS21, kit.BIOS)
    effects = lan.say(WS21, "request", ("server_id", SERVER), ("requested_addr", str(ip(121))))
    assert kinds(effects)[:3] == [Persist, Persist, Send]
    assert [e.lease.state for e in effects if isinstance(e, Persist)] == [
        LeaseState.RELEASED,
        LeaseState.BOUND,
    ]


# Probing


def test_a_known_machine_is_offered_its_address_at_once(kit: Any) -> None:
    lan = kit.lan(leases=[bound(A, 77, expires=10.0)])
    assert kit.only(lan.say(A, "discover", *kit.OS)).bootp.yiaddr == "192.168.77.77"


def test_a_repeated_discover_after_its_offer_is_not_probed_again(kit: Any) -> None:
    lan = kit.lan()
    lan.offer(A, kit.OS)
    assert kit.only(lan.say(A, "discover", *kit.OS)).bootp.yiaddr == "192.168.77.50"
    lan.pass_time(OFFER_HOLD)
    assert Probe(ip(50), A) in lan.say(A, "discover", *kit.OS)


def test_repeats_while_a_probe_runs_are_answered_once_and_to_the_latest(kit: Any) -> None:
    lan = kit.lan()
    lan.say(A, "discover", *kit.BIOS, xid=1)
    assert kinds(lan.say(A, "discover", *kit.BIOS, xid=1)) == []
    assert kinds(lan.say(A, "discover", *kit.IPXE, xid=2)) == []
    offer = kit.only(lan.pass_time(1))
    assert offer.bootp.xid == 2
    assert "undionly.kpxe" not in str(offer.options)


def test_an_address_in_use_is_kept_out_and_another_one_probed(kit: Any) -> None:
    lan = kit.lan()
    lan.say(A, "discover", *kit.BIOS)
    effects = lan.engine.probed(ip(50), True, lan.now + 0.01)
    declined = Lease(A, ip(50), lan.now + 0.01 + DECLINED_HOLD, LeaseState.DECLINED)
    assert effects == [Persist(declined), Probe(ip(51), A)]
    assert kit.only(lan.pass_time(1)).bootp.yiaddr == "192.168.77.51"
    assert lan.engine.counters["conflicts"] == 1
    assert lan.engine.probed(ip(50), True, lan.now) == []


def test_firmware_gets_its_offer_within_a_second_or_none_this_time(kit: Any) -> None:
    lan = kit.lan()
    lan.say(A, "discover", *kit.BIOS)
    for last in (50, 51, 52):  # each owner answers at the last moment
        lan.now += PROBE_WAIT - 0.01
        effects = lan.engine.probed(ip(last), True, lan.now)
    assert kinds(effects) == [Persist]
    assert lan.engine.deadline() is None
    effects = lan.say(A, "discover", *kit.BIOS)  # it retries
    assert Probe(ip(53), A) in effects


def test_a_clock_that_is_set_back_does_not_hold_up_an_offer(kit: Any) -> None:
    lan = kit.lan()
    lan.say(A, "discover", *kit.BIOS)
    lan.now -= 500
    assert lan.pass_time(1) == []
    lan.say(A, "discover", *kit.BIOS)
    assert kit.only(lan.pass_time(PROBE_WAIT)).kind == OFFER


def test_probing_can_be_turned_off(kit: Any) -> None:
    lan = kit.lan(probe=False)
    assert kit.only(lan.say(A, "discover", *kit.OS)).kind == OFFER


def test_two_hundred_machines_at_once(kit: Any) -> None:
    lan = kit.lan(pool=(ip(2), ip(254)))
    macs = [f"52:54:00:01:00:{number:02x}" for number in range(200)]
    for number, mac in enumerate(macs):
        lan.now += 0.001
        assert kinds(lan.say(mac, "discover", *kit.BIOS, xid=number)) == [Publish, Probe]
    offers = kit.heard(lan.pass_time(PROBE_WAIT))
    assert len(offers) == 200
    given = {reply.send.mac: reply.bootp.yiaddr for reply in offers}
    assert len(set(given.values())) == 200
    assert {SERVER, "192.168.77.121"}.isdisjoint(given.values())
    for number, mac in enumerate(macs):
        asks = (("server_id", SERVER), ("requested_addr", given[mac]))
        ack = kit.only(lan.say(mac, "request", *asks, *kit.BIOS, xid=number))
        assert (ack.kind, ack.bootp.yiaddr) == (ACK, given[mac])
    assert len(lan.engine.leases.all()) == 200


# REQUEST, by RFC 2131 section 4.3.2


def test_a_request_for_another_server_is_left_alone(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lan = kit.lan()
    lan.offer(A, kit.OS)
    asks = (("server_id", "192.168.77.9"), ("requested_addr", "192.168.77.9"))
    for _ in range(3):
        assert lan.say(A, "request", *asks, *kit.OS) == []
    assert lan.engine.leases.by_mac(A) is None  # the offer is free again
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "another DHCP server, 192.168.77.9, answers on this network: stop it, "
        'or set dhcp.mode = "proxy"'
    ]


def test_duplicates_in_flight_are_idempotent(kit: Any) -> None:
    lan = kit.lan()
    lan.offer(A, kit.BIOS)
    asks = (("server_id", SERVER), ("requested_addr", "192.168.77.50"))
    first = lan.say(A, "request", *asks, *kit.BIOS)
    again = lan.say(A, "request", *asks, *kit.BIOS)
    assert first == again
    assert len(lan.engine.leases.all()) == 1


def test_selecting_what_was_not_offered(kit: Any) -> None:
    lan = kit.lan()
    lan.offer(A, kit.OS)
    asks = (("server_id", SERVER), ("requested_addr", "192.168.77.60"))
    nak = kit.only(lan.say(A, "request", *asks, *kit.OS))
    assert nak.kind == NAK
    assert (nak.send.how, nak.bootp.yiaddr) == (How.BROADCAST, "0.0.0.0")
    assert nak.options["error_message"] == b"192.168.77.60 is not what you were offered"
    assert "lease_time" not in nak.options


REBOOTS: dict[str, tuple[int | str, int | None]] = {
    "its own lease": (60, ACK),
    "another address than its lease": (61, NAK),
    "somebody else's": (70, NAK),
    "our own": (1, NAK),
    "reserved for another": (121, NAK),
    "another network": ("10.0.0.5", NAK),
}


@pytest.mark.parametrize(("wanted", "answer"), REBOOTS.values(), ids=REBOOTS)
def test_init_reboot_of_a_machine_we_know(kit: Any, wanted: Any, answer: int) -> None:
    lan = kit.lan(leases=[bound(A, 60), bound(B, 70)])
    address = wanted if isinstance(wanted, str) else str(ip(wanted))
    assert kit.only(lan.say(A, "request", ("requested_addr", address), *kit.OS)).kind == answer


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [(61, None), (220, None), (70, NAK), (1, NAK), (121, NAK), ("10.0.0.5", NAK)],
)
def test_init_reboot_of_a_machine_we_do_not_know(
    kit: Any, wanted: int | str, answer: int | None
) -> None:
    """Unknown but plausible is silence: another server may know it."""
    lan = kit.lan(leases=[bound(B, 70)])
    address = wanted if isinstance(wanted, str) else str(ip(wanted))
    replies = kit.heard(lan.say(A, "request", ("requested_addr", address), *kit.OS))
    assert [reply.kind for reply in replies] == ([] if answer is None else [answer])
    assert lan.engine.counters["silent"] == (answer is None)


def test_init_reboot_with_a_reservation_needs_no_lease(kit: Any) -> None:
    lan = kit.lan()
    ack = kit.only(lan.say(WS21, "request", ("requested_addr", "192.168.77.121"), *kit.OS))
    assert (ack.kind, ack.options["hostname"]) == (ACK, b"ws21")


def test_init_reboot_with_an_expired_lease_that_nobody_took(kit: Any) -> None:
    lan = kit.lan(leases=[bound(A, 60, expires=10.0)])
    asks = ("requested_addr", "192.168.77.60")
    assert kit.only(lan.say(A, "request", asks, *kit.OS)).kind == ACK


@pytest.mark.parametrize(
    ("ciaddr", "answer"), [(60, ACK), (61, ACK), (220, None), (70, NAK), (1, NAK)]
)
def test_renewing(kit: Any, ciaddr: int, answer: int | None) -> None:
    """Also an address we have forgotten: a disk may hang on it, and it is free."""
    lan = kit.lan(leases=[bound(B, 70)])
    replies = kit.heard(lan.say(A, "request", *kit.OS, ciaddr=str(ip(ciaddr))))
    assert [reply.kind for reply in replies] == ([] if answer is None else [answer])
    if answer == ACK:
        assert (replies[0].send.address, replies[0].send.how) == (ip(ciaddr), How.UNICAST)
        assert replies[0].bootp.ciaddr == str(ip(ciaddr))
    if answer == NAK:
        assert replies[0].send.how is How.BROADCAST


def test_renewing_keeps_the_address_whatever_was_reserved_since(kit: Any) -> None:
    lan = kit.lan(leases=[bound(WS21, 60), bound(A, 121)])
    assert kit.only(lan.say(WS21, "request", *kit.OS, ciaddr=str(ip(60)))).kind == ACK
    assert kit.only(lan.say(A, "request", *kit.OS, ciaddr=str(ip(121)))).kind == ACK


def test_a_reservation_that_another_machine_holds(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lan = kit.lan(leases=[bound(A, 121)])
    assert lan.offer(WS21, kit.BIOS).bootp.yiaddr == "192.168.77.50"
    assert "its reservation 192.168.77.121 is in use elsewhere" in caplog.text
    assert lan.offer(A, kit.OS).bootp.yiaddr == "192.168.77.121"  # its OS runs
    assert lan.dora(A, kit.BIOS).bootp.yiaddr == "192.168.77.51"  # its next boot
    assert lan.offer(WS21, kit.BIOS).bootp.yiaddr == "192.168.77.121"


def test_a_reservation_that_comes_with_the_plan_alone(kit: Any) -> None:
    lan = kit.lan()
    plan = lan.engine._plans._plan
    lan.engine._plans._plan = lambda client: replace(plan(client), reserved=ip(30))
    assert lan.dora(A, kit.BIOS).bootp.yiaddr == "192.168.77.30"
    lan.engine._plans._plan = plan
    assert lan.offer(B, (*kit.OS, ("requested_addr", "192.168.77.30"))).bootp.yiaddr != str(ip(30))


# DECLINE, RELEASE, INFORM


def test_decline(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    lan = kit.lan()
    lan.dora(A, kit.OS)
    asks = (("server_id", SERVER), ("requested_addr", "192.168.77.50"))
    [persist] = lan.say(A, "decline", *asks)
    assert persist == Persist(Lease(A, ip(50), lan.now + DECLINED_HOLD, LeaseState.DECLINED))
    assert "in use by somebody else" in caplog.text
    assert lan.offer(A, kit.OS).bootp.yiaddr == "192.168.77.51"
    assert lan.say(A, "decline", *asks) == []


@pytest.mark.parametrize(
    "options",
    [
        [],
        [("requested_addr", "192.168.77.60")],
        [("requested_addr", "192.168.77.50"), ("server_id", "192.168.77.9")],
    ],
)
def test_a_decline_that_is_not_for_us(kit: Any, options: list[tuple[str, str]]) -> None:
    lan = kit.lan()
    lan.dora(A, kit.OS)
    assert lan.say(A, "decline", *options) == []


def test_release_and_the_same_address_next_time(kit: Any) -> None:
    lan = kit.lan()
    lan.dora(A, kit.OS)
    [persist] = lan.say(A, "release", ("server_id", SERVER), ciaddr="192.168.77.50")
    assert persist.lease == Lease(A, ip(50), lan.now, LeaseState.RELEASED, "ws-0a")
    assert lan.say(A, "release", ("server_id", SERVER), ciaddr="192.168.77.50") == []
    assert lan.say(B, "release", ciaddr="192.168.77.50") == []
    assert lan.offer(B, kit.OS).bootp.yiaddr == "192.168.77.51"
    assert lan.offer(A, kit.OS).bootp.yiaddr == "192.168.77.50"


def test_inform(kit: Any) -> None:
    lan = kit.lan()
    [send] = lan.say(A, "inform", *kit.OS, ciaddr="192.168.77.200")
    ack = kit.only([send])
    assert (ack.kind, ack.bootp.yiaddr, ack.options["name_server"]) == (ACK, "0.0.0.0", SERVER)
    assert "lease_time" not in ack.options
    assert (send.address, send.port, send.how) == (ip(200), 68, How.UNICAST)
    [send] = lan.say(A, "inform", *kit.OS, peer=("192.168.77.201", 1068))
    assert (send.address, send.port) == (ip(201), 1068)
    [send] = lan.say(A, "inform", *kit.OS)
    assert send.how is How.BROADCAST
    assert lan.engine.leases.all() == ()


# Relays


def test_a_relay_in_our_network(kit: Any) -> None:
    lan = kit.lan()
    agent = (82, b"\x01\x04eth0\x02\x02ab")
    effects = lan.say(A, "discover", agent, *kit.BIOS, giaddr="192.168.77.2", hops=1)
    effects += lan.pass_time(1)
    offer = kit.only(effects)
    assert (offer.send.address, offer.send.port, offer.send.how) == (ip(2), 67, How.RELAY)
    assert offer.bootp.giaddr == "192.168.77.2"
    assert b"\x52\x0a\x01\x04eth0\x02\x02ab\xff" in offer.send.data
    nak = kit.only(lan.say(A, "request", ("requested_addr", "10.0.0.1"), giaddr="192.168.77.2"))
    assert (nak.kind, nak.send.how, nak.send.address) == (NAK, How.RELAY, ip(2))
    assert int(nak.bootp.flags) == 0x8000


def test_port_4011_and_inform_through_a_relay(kit: Any) -> None:
    lan = kit.lan()
    fields = {"giaddr": "192.168.77.2", "peer": ("192.168.77.2", 67)}
    for send in (
        *lan.say(A, "inform", *kit.OS, **fields),
        *lan.say(A, "request", *kit.UEFI, port=4011, **fields),
    ):
        assert (send.address, send.port, send.how) == (ip(2), 67, How.RELAY)


@pytest.mark.parametrize(
    ("options", "giaddr", "served"),
    [
        ([], "10.9.0.1", False),
        ([(82, b"\x05\x04\xc0\xa8\x4d\x00")], "10.9.0.1", True),  # RFC 3527: our network
        ([(82, b"\x05\x04\x0a\x09\x00\x00")], "192.168.77.2", False),
        ([(118, b"\xc0\xa8\x4d\x00")], "10.9.0.1", True),  # RFC 3011
        ([(118, b"\x0a\x09\x00\x00")], "0.0.0.0", False),
    ],
)
def test_relays_of_other_networks(
    kit: Any,
    caplog: pytest.LogCaptureFixture,
    options: list[tuple[int, bytes]],
    giaddr: str,
    served: bool,
) -> None:
    lan = kit.lan()
    for _ in range(2):
        effects = lan.say(A, "discover", *options, *kit.OS, giaddr=giaddr)
    assert bool(lan.engine.probing) is served
    assert effects == []
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (not served)


# Proxy mode and port 4011


def test_a_proxy_serves_bios_and_ipxe_in_its_offer(kit: Any) -> None:
    lan = kit.lan(DhcpMode.PROXY)
    effects = lan.say(A, "discover", *kit.BIOS)
    assert events(effects) == [(Phase.SEEN, True), (Phase.OFFERED, False)]
    offer = kit.only(effects)
    assert offer.bootp.yiaddr == "0.0.0.0"
    assert offer.bootp.file.rstrip(b"\0") == b"undionly.kpxe"
    assert offer.options["vendor_specific"] == b"\x06\x01\x08\xff"
    assert (offer.send.how, offer.send.source_port) == (How.BROADCAST, 67)
    assert (
        kit.only(lan.say(A, "discover", *kit.IPXE)).options["root_disk_path"].startswith(b"iscsi:")
    )
    assert lan.engine.leases.all() == ()


def test_a_proxy_leaves_the_rest_to_the_server(kit: Any) -> None:
    lan = kit.lan(DhcpMode.PROXY)
    assert lan.say(A, "discover", *kit.OS) == []
    for message in ("request", "decline", "release", "inform"):
        assert lan.say(A, message, *kit.BIOS, ciaddr="192.168.77.50") == []


def test_uefi_dances_with_a_proxy_over_port_4011(kit: Any) -> None:
    lan = kit.lan(DhcpMode.PROXY)
    offer = kit.only(lan.say(A, "discover", *kit.UEFI, xid=1))
    assert "vendor_specific" not in offer.options and "boot-file-name" not in offer.options
    assert offer.options["vendor_class_id"] == b"PXEClient"
    ack = kit.only(
        lan.say(
            A,
            "request",
            *kit.UEFI,
            xid=0xF00D,  # another xid than on port 67
            ciaddr="192.168.77.88",
            port=4011,
            peer=("192.168.77.88", 4011),
        )
    )
    assert (ack.kind, ack.bootp.xid, ack.bootp.yiaddr) == (ACK, 0xF00D, "0.0.0.0")
    assert ack.bootp.file.rstrip(b"\0") == b"snponly.efi"
    assert (ack.send.address, ack.send.port, ack.send.source_port) == (ip(88), 4011, 4011)


@pytest.mark.parametrize(("message", "answer"), [("inform", ACK), ("discover", OFFER)])
@pytest.mark.parametrize("mode", list(DhcpMode)[:2])
def test_port_4011_answers_whatever_firmware_calls_it(
    kit: Any, mode: DhcpMode, message: str, answer: int
) -> None:
    lan = kit.lan(mode)
    reply = kit.only(
        lan.say(A, message, *kit.BIOS, port=4011, peer=("192.168.77.88", 68), ciaddr=str(ip(88)))
    )
    assert (reply.kind, reply.send.source_port) == (answer, 4011)
    assert (reply.send.address, reply.send.port) == (ip(88), 68)


def test_port_4011_names_the_server_that_it_took_the_address_from(kit: Any) -> None:
    """A REQUEST there may carry the other server's identifier; it was sent to us all the same."""
    lan = kit.lan(DhcpMode.PROXY)
    effects = lan.say(
        A,
        "request",
        ("server_id", "192.168.77.9"),
        *kit.UEFI,
        port=4011,
        peer=("192.168.77.88", 4011),
    )
    assert kit.only(effects).kind == ACK


def test_port_4011_and_operating_systems(kit: Any) -> None:
    lan = kit.lan()
    assert lan.say(A, "request", *kit.OS, port=4011, peer=("192.168.77.88", 68)) == []
    assert lan.say(A, "release", *kit.BIOS, port=4011, peer=("192.168.77.88", 68)) == []


def test_a_proxy_has_nothing_to_say_where_there_is_nothing_to_boot(kit: Any) -> None:
    lan = kit.lan(DhcpMode.PROXY)
    plan = lan.engine._plans._plan
    lan.engine._plans._plan = lambda client: replace(plan(client), loader=None)
    assert lan.say(A, "discover", *kit.BIOS) == []


# The odd and the bad


def test_an_unknown_machine_gets_no_answer_and_one_line(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lan = kit.lan()
    for _ in range(3):
        assert lan.say(STRANGER, "discover", *kit.BIOS) == []
    assert lan.say(STRANGER, "request", ("requested_addr", "10.0.0.1")) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{STRANGER} is unknown and gets no answer"
    ]
    assert lan.engine.counters["ignored"] == 4


def test_strangers_do_not_fill_the_log_or_the_memory(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lan = kit.lan()
    for number in range(1500):
        lan.say(f"66:66:00:00:{number >> 8:02x}:{number & 255:02x}", "discover")
    assert len(caplog.records) == 1024
    assert lan.engine.leases.all() == ()


def test_an_exhausted_pool_is_reported(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    lan = kit.lan(pool=(ip(50), ip(50)), leases=[bound(B, 50)])
    for _ in range(2):
        assert kinds(lan.say(A, "discover", *kit.OS)) == []
    assert caplog.text.count("enlarge dhcp.pool") == 1
    assert lan.engine.counters["exhausted"] == 2


def test_a_flood_of_invented_machines_starves_nobody_that_is_named(kit: Any) -> None:
    """Each holds an address as an offer, or its probe; none of them ever asks for it."""
    lan = kit.lan(pool=(ip(50), ip(53)), leases=[bound(B, 60, expires=1.0)])
    lan.engine.take_over(replace(lan.engine.site, hosts={A: Host(A, "ws-a", "workstation")}))
    for number in range(8):
        lan.say(f"52:54:00:00:01:{number:02x}", "discover", *kit.BIOS)
    assert len(lan.engine.probing) == 4
    assert Probe(ip(50), A) in lan.say(A, "discover", *kit.BIOS)
    assert lan.engine.probing[ip(50)] == A
    offered = {offer.bootp.yiaddr for offer in kit.heard(lan.pass_time(PROBE_WAIT))}
    assert len(offered) == 4  # none twice
    for number in range(8, 16):
        lan.say(f"52:54:00:00:01:{number:02x}", "discover", *kit.BIOS)
    assert lan.dora(A, kit.BIOS).bootp.yiaddr == "192.168.77.50"
    assert lan.dora(B, kit.BIOS).bootp.yiaddr == "192.168.77.51"
    late = (("server_id", SERVER), ("requested_addr", "192.168.77.51"))
    assert kit.only(lan.say("52:54:00:00:01:01", "request", *late, *kit.BIOS)).kind == NAK
    taken = (("server_id", SERVER), ("requested_addr", "192.168.77.52"))
    assert kit.only(lan.say("52:54:00:00:01:02", "request", *taken, *kit.BIOS)).kind == ACK


def test_a_foreign_servers_packets(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lan = kit.lan()
    lan.dora(A, kit.OS)
    ours = lan.say(A, "discover", *kit.OS)[0].data
    theirs = ours.replace(bytes((54, 4, 192, 168, 77, 1)), bytes((54, 4, 192, 168, 77, 9)))
    for data in (ours, theirs, theirs):
        assert lan.engine.receive(data, ("192.168.77.9", 67), lan.now) == []
    assert caplog.text.count("another DHCP server, 192.168.77.9") == 1
    assert lan.engine.counters["foreign"] == 2


def test_in_proxy_mode_the_other_server_is_expected(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lan = kit.lan(DhcpMode.PROXY)
    asks = (("server_id", "192.168.77.9"), ("requested_addr", "192.168.77.88"))
    assert lan.say(A, "request", *asks, *kit.OS) == []
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def cut(change: Callable[[bytearray], None]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        copy = bytearray(data)
        change(copy)
        return bytes(copy)

    return changed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:239],
        cut(lambda data: data.__setitem__(236, 0)),
        cut(lambda data: data.__setitem__(2, 0)),  # no hardware address
        cut(lambda data: data.__setitem__(28, 0xFF)),  # a group's hardware address
        cut(lambda data: data.__setitem__(242, 99)),  # message type 99
        cut(lambda data: data.__setitem__(240, 99)),  # no message type: BOOTP
        cut(lambda data: data.__setitem__(241, 250)),  # past the end
    ],
)
def test_what_is_no_dhcp_is_counted_and_dropped(kit: Any, spoil: Any) -> None:
    lan = kit.lan()
    data = spoil(kit.datagram(A, "discover"))
    for port in (67, 4011):
        assert lan.engine.receive(data, ("192.168.77.66", 68), lan.now, port) == []
    assert lan.engine.counters["received"] == 2
    assert lan.engine.counters["garbage"] >= 1


def test_a_request_without_any_address(kit: Any) -> None:
    lan = kit.lan()
    assert lan.say(A, "request", *kit.OS) == []
    assert lan.engine.counters["garbage"] == 1


messages = st.sampled_from(["discover", "request", "decline", "release", "inform", "ack"])
options = st.dictionaries(st.integers(1, 254), st.binary(max_size=30), max_size=6)
quads = st.sampled_from(["0.0.0.0", "192.168.77.1", "192.168.77.50", "10.0.0.1", "255.255.255.255"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(messages, options, quads, quads, st.sampled_from([67, 4011]), st.floats(0, 5000)),
        max_size=12,
    ),
    st.sampled_from(list(DhcpMode)[:2]),
)
def test_no_story_breaks_the_engine(kit: Any, story: list[Any], mode: DhcpMode) -> None:
    lan = kit.lan(mode, pool=(ip(50), ip(52)))
    for number, (message, found, ciaddr, giaddr, port, seconds) in enumerate(story):
        mac = (A, B, WS21)[number % 3]
        effects = lan.say(
            mac, message, *found.items(), port=port, ciaddr=ciaddr, giaddr=giaddr, xid=number
        )
        effects += lan.pass_time(seconds)
        for at, effect in enumerate(effects):
            if isinstance(effect, Send):
                if kit.heard([effect])[0].kind == ACK and effect.source_port == 67:
                    assert message == "inform" or Persist in kinds(effects[:at])
                assert 300 <= len(effect.data) <= 1472
                assert kit.heard([effect])[0].bootp.yiaddr != SERVER


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_garbage_never_raises(kit: Any, data: bytes) -> None:
    engine = kit.lan().engine
    assert engine.receive(data, ("0.0.0.0", 68), 0.0) == []
    assert engine.counters["garbage"] == 1


# Secrets


class Confidant:
    """Says what a machine must prove, and remembers who was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, mac: str) -> Chap | None:
        self.asked.append(mac)
        return Chap("user", "secret-of-" + mac) if mac != B else None


def test_a_secret_is_asked_for_once_and_said_once_in_the_ack(kit: Any) -> None:
    confidant = Confidant()
    lan = kit.lan(chap_of=confidant)
    for program in (kit.BIOS, kit.UEFI, kit.HTTP, kit.OS):
        assert b"secret-of" not in lan.dora(A, program).send.data
    assert b"secret-of" not in lan.offer(A, kit.IPXE).send.data
    assert confidant.asked == []
    ack = lan.dora(A, kit.IPXE)
    assert b"\xbe\x04user\xbf\x1bsecret-of-" + A.encode() in ack.send.data
    assert ack.send.how is How.CHADDR, "nobody else hears it"
    assert confidant.asked == [A]
    assert b"secret-of" not in lan.dora(B, kit.IPXE).send.data
    assert confidant.asked == [A, B]


def test_a_secret_is_never_broadcast_whoever_asks_for_that(kit: Any) -> None:
    """Newer iPXE asks for broadcasts while it has an address, and anybody can in its name."""
    lan = kit.lan(chap_of=Confidant())
    for program, how in ((kit.IPXE, How.CHADDR), (kit.BIOS, How.BROADCAST)):
        ack = lan.dora(A, program, flags=0x8000)
        assert (ack.send.how, ack.send.mac) == (how, A)
        assert (b"secret-of" in ack.send.data) == (how is How.CHADDR)
    ack = lan.dora(A, kit.IPXE, flags=0x8000, giaddr="192.168.77.2")
    assert ack.send.how is How.RELAY and b"secret-of" in ack.send.data
    assert int(ack.bootp.flags) == 0, "nor does the relay broadcast it"
    assert lan.dora(B, kit.IPXE, flags=0x8000).send.how is How.BROADCAST


def test_no_secret_for_who_only_asks(kit: Any) -> None:
    """INFORM and port 4011 answer anybody at any address."""
    confidant = Confidant()
    lan = kit.lan(chap_of=confidant)
    peer = ("192.168.77.201", 68)
    effects = lan.say(A, "inform", *kit.IPXE, ciaddr=peer[0], peer=peer)
    effects += lan.say(A, "request", *kit.IPXE, ciaddr=peer[0], peer=peer, port=4011)
    assert len(kit.heard(effects)) == 2
    assert confidant.asked == []


def test_a_proxy_says_it_in_its_offer(kit: Any) -> None:
    lan = kit.lan(DhcpMode.PROXY, chap_of=Confidant())
    assert b"secret-of" in kit.only(lan.say(A, "discover", *kit.IPXE)).send.data
    assert b"secret-of" not in kit.only(lan.say(A, "discover", *kit.BIOS)).send.data

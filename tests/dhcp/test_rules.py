"""The table: who is told what, asserted whole for every program and both modes."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from netboot.dhcp import rules
from netboot.dhcp.clients import identify
from netboot.dhcp.options import Ipxe, Option, Pxe
from netboot.dhcp.replies import reply
from netboot.dhcp.rules import ACK, INFORM, NAK, OFFER, RULES, Audience, Facts, audience, program
from netboot.dhcp.wire import Packet, decode, decode_tlvs, encode
from netboot.model import Chap, Client, DhcpMode, Stage

MAC = "52:54:00:00:00:01"


def facts(kit: Any, who: str, *extra: tuple[Any, Any], mode: str = "full", **fields: Any) -> Facts:
    site = kit.site(DhcpMode(mode), router=IPv4Address("192.168.77.254"))
    request = decode(kit.datagram(MAC, "discover", *kit.PROGRAMS[who], *extra))
    client = identify(request)
    assert client is not None
    script = fields.pop("script", None)
    defaults: dict[str, Any] = {
        "request": request,
        "client": client,
        "plan": kit.plan(site, script)(client),
        "site": site,
        "message": OFFER,
        "address": IPv4Address("192.168.77.50"),
        "seconds": 3600,
        "dns": (site.address.ip,),
        "proxy": mode == "proxy",
    }
    return Facts(**{**defaults, **fields})


def told(given: Facts) -> dict[int, Any]:
    return {code: Option_by_code(code).decode(raw) for code, raw in reply(given).options.items()}


def Option_by_code(code: int) -> Option:
    return next(option for option in Option if option.code == code)


ADDRESSING = {
    1: IPv4Address("255.255.255.0"),
    3: (IPv4Address("192.168.77.254"),),
    6: (IPv4Address("192.168.77.1"),),
    12: "ws-01",
    15: "lab.netboot",
    51: 3600,
    53: OFFER,
    54: IPv4Address("192.168.77.1"),
}
ROOT = "iscsi:192.168.77.1::::iqn.2026-11.lab.netboot:52-54-00-00-00-01"


def test_bios_in_full(kit: Any) -> None:
    given = facts(kit, "BIOS")
    assert told(given) == ADDRESSING | {
        43: {Pxe.DISCOVERY_CONTROL.code: b"\x08"},
        60: "PXEClient",
        66: "192.168.77.1",
        67: "undionly.kpxe",
        97: given.client.uuid,
    }


def test_uefi_in_full_gets_43_or_it_would_ask_4011(kit: Any) -> None:
    found = told(facts(kit, "UEFI"))
    assert found[60] == "PXEClient"
    assert found[43] == {6: b"\x08"}
    assert found[67] == "snponly.efi"


def test_uefi_http(kit: Any) -> None:
    assert told(facts(kit, "HTTP")) == ADDRESSING | {
        60: "HTTPClient",
        67: "http://192.168.77.1:8080/loaders/snponly.efi",
    }


def test_ipxe_in_full(kit: Any) -> None:
    given = facts(kit, "IPXE")
    assert told(given) == ADDRESSING | {
        17: ROOT,
        61: b"\x01\x52\x54\x00\x00\x00\x01",
        97: given.client.uuid,
        175: {Ipxe.PRIORITY.code: b"\x01", Ipxe.NO_PROXY_DHCP.code: b"\x01"},
        203: "iqn.2026-11.lab.netboot:client.52-54-00-00-00-01",
    }


def test_ipxe_with_a_script_gets_no_root_path(kit: Any) -> None:
    found = told(facts(kit, "IPXE", script="http://192.168.77.1:8080/boot/x.ipxe"))
    assert found[67] == "http://192.168.77.1:8080/boot/x.ipxe"
    assert 17 not in found and 66 not in found


def test_an_operating_system_gets_what_it_asks_for_and_nothing_to_boot(kit: Any) -> None:
    assert told(facts(kit, "OS")) == ADDRESSING | {
        28: IPv4Address("192.168.77.255"),
        58: 1800,
        59: 3150,
        61: b"\xff\x12\x34\x56\x78\x00\x01\x00\x01\x2c",
    }


def test_an_operating_system_that_asks_for_little_gets_little(kit: Any) -> None:
    given = facts(kit, "OS")
    little = replace(given, client=replace(given.client, wants=frozenset({1})))
    assert set(told(little)) == {1, 51, 53, 54, 61}


def test_a_client_without_a_parameter_list_gets_everything(kit: Any) -> None:
    given = facts(kit, "OS")
    silent = replace(given, client=replace(given.client, wants=frozenset()))
    assert set(told(silent)) == set(told(given))


def test_bios_and_ipxe_forget_to_ask(kit: Any) -> None:
    for who in ("BIOS", "UEFI", "HTTP", "IPXE"):
        given = facts(kit, who)
        forgetful = replace(given, client=replace(given.client, wants=frozenset({2})))
        optional = {12, 15} if who != "IPXE" else {15}
        assert set(told(given)) - set(told(forgetful)) == optional


@pytest.mark.parametrize(
    ("who", "codes"),
    [
        ("BIOS", {43, 53, 54, 60, 66, 67, 97}),
        ("UEFI", {53, 54, 60, 97}),  # 43 or a file would spoil the dance on 4011
        ("HTTP", {53, 54, 60, 67}),
        ("IPXE", {17, 53, 54, 60, 61, 67, 97, 175, 203}),
        ("OS", {53, 54, 61}),
    ],
)
def test_a_proxy_says_nothing_of_addresses(kit: Any, who: str, codes: set[int]) -> None:
    given = facts(kit, who, mode="proxy")
    assert set(told(given)) == codes
    packet = reply(given)
    assert int(packet.yiaddr) == 0
    assert packet.broadcast


def test_a_proxys_root_path_comes_with_an_empty_boot_file(kit: Any) -> None:
    """Seen with QEMU's ROM: without it iPXE asks port 4011 four times and takes no answer."""
    packet = reply(facts(kit, "IPXE", mode="proxy"))
    assert packet.options[67] == b"\0"
    assert (packet.file, packet.sname) == (b"", b"")
    assert packet.siaddr == IPv4Address("192.168.77.1")
    assert 67 not in told(facts(kit, "IPXE"))
    script = reply(facts(kit, "IPXE", mode="proxy", script="http://192.168.77.1/x"))
    assert script.options[67] == b"http://192.168.77.1/x\0"
    assert 17 not in script.options


def test_a_proxy_does_not_tell_ipxe_to_ignore_proxies(kit: Any) -> None:
    found = told(facts(kit, "IPXE", mode="proxy"))
    assert found[175] == {Ipxe.PRIORITY.code: b"\x01"}
    assert found[60] == "PXEClient"


@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_port_4011_tells_uefi_the_file(kit: Any, mode: str) -> None:
    given = facts(kit, "UEFI", mode=mode, proxy=True, boot_service=True, message=ACK)
    assert told(given) == {
        53: ACK,
        54: IPv4Address("192.168.77.1"),
        60: "PXEClient",
        66: "192.168.77.1",
        67: "snponly.efi",
        97: given.client.uuid,
    }


def test_port_4011_echoes_the_boot_item(kit: Any) -> None:
    item = ("vendor_specific", b"\x47\x04\x80\x00\x00\x00\xff")
    for who, also in (("UEFI", {}), ("BIOS", {6: b"\x08"})):
        given = facts(kit, who, item, mode="proxy", boot_service=True, message=ACK)
        assert told(given)[43] == {**also, 71: b"\x80\x00\x00\x00"}
    assert 71 not in told(facts(kit, "BIOS", item))[43]


def test_nothing_to_boot_is_an_address_and_no_more(kit: Any) -> None:
    for who in ("BIOS", "UEFI", "HTTP"):
        given = facts(kit, who)
        assert given.plan is not None
        plan = replace(given.plan, loader=None, loader_url=None)
        found = told(replace(given, plan=plan))
        assert not set(found) & {17, 43, 60, 66, 67}
        assert int(reply(replace(given, plan=plan)).siaddr) == 0


def test_a_nak_says_no_and_why(kit: Any) -> None:
    given = facts(kit, "IPXE", message=NAK, plan=None, text="not yours", seconds=None)
    assert set(told(given)) == {53, 54, 56, 61}
    assert told(given)[56] == "not yours"


def test_an_inform_leases_nothing(kit: Any) -> None:
    found = told(facts(kit, "OS", message=ACK, seconds=None))
    assert not set(found) & {51, 58, 59}


@pytest.mark.parametrize("missing", ["dns", "router", "domain"])
def test_what_the_site_has_not_is_not_sent(kit: Any, missing: str) -> None:
    given = facts(kit, "OS")
    if missing == "dns":
        assert 6 not in told(replace(given, dns=()))
    elif missing == "router":
        assert 3 not in told(replace(given, site=replace(given.site, router=None)))
    else:
        assert 15 not in told(replace(given, site=replace(given.site, domain="")))


@pytest.mark.parametrize(
    ("client", "column"),
    [
        (Client(MAC, Stage.OS, arch=(7,)), Audience.OS),
        (Client(MAC, Stage.IPXE, arch=(7,), http=True), Audience.IPXE),
        (Client(MAC, Stage.FIRMWARE, arch=(16,), http=True), Audience.HTTP),
        (Client(MAC, Stage.FIRMWARE, arch=(0,)), Audience.BIOS),
        (Client(MAC, Stage.FIRMWARE), Audience.BIOS),
        (Client(MAC, Stage.FIRMWARE, arch=(7,)), Audience.UEFI),
        (Client(MAC, Stage.FIRMWARE, arch=(0, 9)), Audience.UEFI),
        (Client(MAC, Stage.FIRMWARE, arch=(11,)), Audience.UEFI),
    ],
)
def test_audiences(client: Client, column: Audience) -> None:
    assert audience(client) is column


def test_program_is_the_one_thing_that_boots(kit: Any) -> None:
    plan = kit.plan(kit.site())(Client(MAC, Stage.FIRMWARE, arch=(0,)))
    assert program(plan) == "undionly.kpxe"
    assert program(replace(plan, loader=None)) is None
    assert program(replace(plan, loader=None, root_path=ROOT)) == ROOT


def test_each_option_has_one_rule_with_a_reason() -> None:
    assert len({rule.option for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.why
        assert rule.always or rule.asked
        assert not rule.always & rule.asked


def test_message_types_are_those_of_rfc_2132() -> None:
    assert (OFFER, ACK, NAK, INFORM) == (2, 5, 6, 8)


def test_echoes_are_to_the_bit(kit: Any) -> None:
    relay = b"\x01\x04eth0\x05\x04\xc0\xa8\x4d\x00"
    given = facts(kit, "OS", (82, relay), (61, b"\x00weird"))
    raw: Packet = reply(given)
    assert raw.options[82] == relay


CHAP = Chap("52-54-00-00-00-01", "0123456789abcdef", "netboot", "fedcba9876543210")


def inside(given: Facts) -> dict[int, bytes]:
    return dict(decode_tlvs(reply(given).options[175]))


@pytest.mark.parametrize("mode", ["full", "proxy"])
def test_ipxe_is_told_what_it_must_prove(kit: Any, mode: str) -> None:
    """Numbers and directions: ipxe/dhcp.h, DHCP_EB_USERNAME 0xbe to REVERSE_PASSWORD 0xc1."""
    found = inside(facts(kit, "IPXE", mode=mode, message=ACK, chap=CHAP))
    assert {code: found[code] for code in (190, 191, 192, 193)} == {
        190: b"52-54-00-00-00-01",
        191: b"0123456789abcdef",
        192: b"netboot",
        193: b"fedcba9876543210",
    }
    one_way = replace(CHAP, mutual_name="", mutual_secret="")
    found = inside(facts(kit, "IPXE", mode=mode, message=ACK, chap=one_way))
    assert {190, 191} <= set(found)
    assert not {192, 193} & set(found), "an empty one would make iPXE ask for our proof"
    assert not {190, 191, 192, 193} & set(inside(facts(kit, "IPXE", mode=mode, message=ACK)))


@pytest.mark.parametrize("who", ["BIOS", "UEFI", "HTTP", "OS"])
def test_nobody_but_ipxe_is_told_a_secret(kit: Any, who: str) -> None:
    """The engine does not hand it in for them; if it did, it would go no further."""
    packet = encode(reply(facts(kit, who, message=ACK, chap=CHAP)), 1472)
    assert CHAP.secret.encode() not in packet
    assert CHAP.mutual_secret.encode() not in packet


def test_facts_do_not_show_a_secret(kit: Any) -> None:
    assert CHAP.secret not in repr(facts(kit, "IPXE", chap=CHAP))


@pytest.mark.parametrize(
    ("who", "fields", "confides"),
    [
        ("IPXE", {"message": ACK}, True),
        ("IPXE", {"message": OFFER}, False),  # iPXE forgets it
        ("IPXE", {"message": ACK, "seconds": None}, False),  # the answer to an INFORM
        ("IPXE", {"message": NAK, "plan": None}, False),
        ("IPXE", {"message": ACK, "script": "http://192.168.77.1/boot.ipxe"}, True),
        ("IPXE", {"message": OFFER, "mode": "proxy"}, True),
        ("IPXE", {"message": ACK, "mode": "proxy", "boot_service": True}, False),
        ("IPXE", {"message": ACK, "proxy": True, "boot_service": True}, False),
        ("BIOS", {"message": ACK}, False),
        ("UEFI", {"message": ACK}, False),
        ("HTTP", {"message": ACK}, False),
        ("OS", {"message": ACK}, False),
        ("BIOS", {"message": OFFER, "mode": "proxy"}, False),
    ],
)
def test_which_replies_may_say_a_secret(
    kit: Any, who: str, fields: dict[str, Any], confides: bool
) -> None:
    assert rules.confides(facts(kit, who, **fields)) is confides


def test_no_secret_without_anything_to_boot(kit: Any) -> None:
    given = facts(kit, "IPXE", message=ACK)
    assert given.plan is not None
    assert not rules.confides(replace(given, plan=replace(given.plan, root_path=None)))

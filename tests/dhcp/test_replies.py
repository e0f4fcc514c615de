"""Replies whole: the header's fields, the size, and the page in the documentation."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from netboot.dhcp.clients import identify
from netboot.dhcp.options import Option
from netboot.dhcp.replies import common, render, reply, table
from netboot.dhcp.rules import ACK, NAK, OFFER, RULES, SHARED, Facts
from netboot.dhcp.wire import BROADCAST, DEFAULT_LIMIT, decode
from netboot.model import DhcpMode

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "dhcp.md"
MAC = "52:54:00:00:00:01"
OURS, YOURS = IPv4Address("192.168.77.1"), IPv4Address("192.168.77.50")
NOTHING = IPv4Address(0)


def facts(kit: Any, who: str, *extra: tuple[Any, Any], **fields: Any) -> Facts:
    site = kit.site(DhcpMode.FULL)
    header = fields.pop("header", {})
    request = decode(kit.datagram(MAC, "request", *kit.PROGRAMS[who], *extra, **header))
    client = identify(request)
    assert client is not None
    defaults: dict[str, Any] = {
        "request": request,
        "client": client,
        "plan": kit.plan(site, fields.pop("script", None))(client),
        "site": site,
        "message": OFFER,
        "address": YOURS,
        "seconds": 3600,
        "dns": (OURS,),
    }
    return Facts(**{**defaults, **fields})


@pytest.mark.parametrize(
    ("who", "file", "sname", "siaddr"),
    [
        ("BIOS", b"undionly.kpxe", b"192.168.77.1", OURS),
        ("UEFI", b"snponly.efi", b"192.168.77.1", OURS),
        ("HTTP", b"http://192.168.77.1:8080/loaders/snponly.efi", b"", OURS),
        ("IPXE", b"", b"", OURS),
        ("OS", b"", b"", NOTHING),
    ],
)
def test_both_styles_are_filled(
    kit: Any, who: str, file: bytes, sname: bytes, siaddr: IPv4Address
) -> None:
    packet = reply(facts(kit, who))
    assert (packet.file, packet.sname, packet.siaddr) == (file, sname, siaddr)
    assert packet.options.get(67, b"").rstrip(b"\0") == file
    assert packet.options.get(66, b"").rstrip(b"\0") in (sname, b"")


def test_firmware_texts_end_in_nul(kit: Any) -> None:
    for who in ("BIOS", "UEFI", "HTTP"):
        assert reply(facts(kit, who)).options[67].endswith(b"\0")


def test_a_url_too_long_for_the_header_is_in_the_option_alone(kit: Any) -> None:
    url = "http://192.168.77.1:8080/" + "x" * 120
    packet = reply(facts(kit, "IPXE", script=url))
    assert packet.file == b""
    assert packet.options[67] == url.encode() + b"\0"


def test_what_a_reply_takes_over_from_the_request(kit: Any) -> None:
    header = {"xid": 0xABCD, "giaddr": "192.168.77.2", "flags": "B", "secs": 9, "hops": 3}
    packet = reply(facts(kit, "OS", header=header))
    assert (packet.op, packet.xid, packet.flags) == (2, 0xABCD, BROADCAST)
    assert packet.giaddr == IPv4Address("192.168.77.2")
    assert (packet.hops, packet.secs) == (0, 0)
    assert packet.mac == MAC


@pytest.mark.parametrize(
    ("message", "ciaddr", "yiaddr"),
    [(OFFER, NOTHING, YOURS), (ACK, YOURS, YOURS), (NAK, NOTHING, NOTHING)],
)
def test_addresses_by_message(
    kit: Any, message: int, ciaddr: IPv4Address, yiaddr: IPv4Address
) -> None:
    """RFC 2131 table 3."""
    packet = reply(facts(kit, "OS", message=message, header={"ciaddr": str(YOURS)}))
    assert (packet.ciaddr, packet.yiaddr) == (ciaddr, yiaddr)


@pytest.mark.parametrize("message", [OFFER, ACK])
@pytest.mark.parametrize("who", ["BIOS", "UEFI", "HTTP", "IPXE", "OS"])
def test_what_is_made_once_for_all_changes_no_reply(kit: Any, who: str, message: int) -> None:
    others = facts(kit, "OS" if who == "BIOS" else "BIOS", message=OFFER)
    asks = frozenset(rule.option.code for rule in RULES)
    for wants in (frozenset(), frozenset({1}), asks):
        for dns in ((), (OURS,)):
            alone = facts(kit, who, message=message, dns=dns)
            alone = replace(alone, client=replace(alone.client, wants=wants))
            shared = common(replace(others, dns=dns))
            assert render(replace(alone, common=shared)) == render(alone)


def test_what_is_made_once_for_all_is_the_sites_and_in_bytes(kit: Any) -> None:
    shared = common(facts(kit, "UEFI"))
    assert (shared.ours, shared.name) == (OURS, "192.168.77.1")
    assert shared.options[Option.SERVER_ID.code] == OURS.packed
    assert shared.options[Option.LEASE_TIME.code] == (3600).to_bytes(4, "big")
    assert shared.options[Option.RENEWAL_TIME.code] == (1800).to_bytes(4, "big")
    assert shared.options.keys() <= {option.code for option in SHARED}
    assert Option.DNS_SERVERS.code not in common(facts(kit, "UEFI", dns=())).options


def test_a_nak_through_a_relay_asks_it_to_broadcast(kit: Any) -> None:
    header = {"giaddr": "192.168.77.2"}
    assert reply(facts(kit, "OS", message=NAK, header=header)).broadcast
    assert not reply(facts(kit, "OS", message=NAK)).broadcast


def test_a_nak_points_at_no_server(kit: Any) -> None:
    packet = reply(facts(kit, "BIOS", message=NAK, plan=None))
    assert (packet.siaddr, packet.file, packet.sname) == (NOTHING, b"", b"")


def test_every_reply_fits_into_548_bytes_without_overload(kit: Any) -> None:
    for who in kit.PROGRAMS:
        given = facts(kit, who)
        data, packet, left_out = render(given)
        assert len(data) <= DEFAULT_LIMIT
        assert left_out == []
        assert decode(data) == packet


def crowded(kit: Any, *extra: tuple[Any, Any]) -> Facts:
    given = facts(kit, "IPXE", *extra)
    assert given.plan is not None
    plan = replace(
        given.plan,
        root_path="iscsi:192.168.77.1::::iqn." + "t" * 210,
        initiator="iqn." + "i" * 210,
    )
    return replace(given, plan=plan)


def test_what_has_no_room_is_left_out_from_the_end(kit: Any) -> None:
    data, packet, left_out = render(crowded(kit))
    assert len(data) <= DEFAULT_LIMIT
    assert left_out
    assert not {Option.ROOT_PATH, Option.MESSAGE_TYPE, Option.SERVER_ID} & set(left_out)
    assert decode(data).options[17] == packet.options[17]


def test_a_client_that_takes_more_gets_more(kit: Any) -> None:
    data, packet, left_out = render(crowded(kit, ("max_dhcp_size", 1472)))
    assert left_out == []
    assert DEFAULT_LIMIT < len(data) <= 1472 - 28
    assert decode(data) == packet


@pytest.mark.parametrize("told", [0, 100, 575])
def test_a_size_below_the_minimum_is_not_believed(kit: Any, told: int) -> None:
    data, _, left_out = render(facts(kit, "IPXE", ("max_dhcp_size", told)))
    assert left_out == [] and len(data) > 300


def test_nothing_larger_than_an_ethernet_frame(kit: Any) -> None:
    given = crowded(kit, ("max_dhcp_size", 65535))
    assert given.plan is not None
    plan = replace(given.plan, root_path="iscsi:" + "x" * 3000)
    data, _, left_out = render(replace(given, plan=plan))
    assert len(data) <= 1472
    assert Option.ROOT_PATH in left_out


def test_a_relay_that_fills_the_packet_gets_no_more_than_fits(kit: Any) -> None:
    given = facts(kit, "OS", ("max_dhcp_size", 576))
    options = {**given.request.options, 82: b"\x01\xfe" + b"x" * 254, 61: b"y" * 250}
    data, _, left_out = render(replace(given, request=replace(given.request, options=options)))
    assert len(data) <= DEFAULT_LIMIT
    assert Option.REBINDING_TIME in left_out
    assert decode(data).options[53] == bytes((OFFER,))


def test_the_table_in_the_documentation_is_current() -> None:
    """On failure: put the output of netboot.dhcp.replies.table() between the two marks."""
    text = DOCUMENT.read_text()
    begin, end = "<!-- table -->\n", "<!-- end of table -->"
    assert text[text.index(begin) + len(begin) : text.index(end)].strip() == table().strip()

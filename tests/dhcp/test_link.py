"""Frames against their drawings, and the link on a cable of its own."""

import socket
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from netboot.dhcp.link import ETH_P_ARP, Frames, Link, payload

OURS, THEIRS = "02:00:00:00:00:01", "52:54:00:12:34:56"
SERVER, CLIENT = IPv4Address("192.168.77.1"), IPv4Address("192.168.77.50")
FRAMES = Frames()


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071), to have another opinion than scapy's on scapy's frames."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_datagram_to_a_machine_without_an_address() -> None:
    frame = FRAMES.datagram((OURS, SERVER, 67), (THEIRS, CLIENT, 68), b"payload")
    assert frame[:14] == bytes.fromhex("525400123456 020000000001 0800")
    header, datagram = frame[14:34], frame[34:]
    assert header[0] == 0x45
    assert int.from_bytes(header[2:4], "big") == 20 + 8 + 7
    assert header[8:10] == bytes((64, 17))
    assert header[12:20] == SERVER.packed + CLIENT.packed
    assert checksum(header) == 0xFFFF
    assert datagram[:6] == (67).to_bytes(2, "big") + (68).to_bytes(2, "big") + b"\0\x0f"
    pseudo = header[12:20] + bytes((0, 17)) + datagram[4:6]
    assert checksum(pseudo + datagram) == 0xFFFF
    assert datagram[8:] == b"payload"


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(1, 65535), st.binary(max_size=1472))
@settings(deadline=None, max_examples=200)
def test_a_datagram_is_the_one_that_scapy_builds(
    source: IPv4Address, target: IPv4Address, port: int, data: bytes
) -> None:
    frame = (
        Ether(src=OURS, dst=THEIRS)
        / IP(src=str(source), dst=str(target), ttl=64)
        / UDP(sport=67, dport=port)
        / data
    )
    assert FRAMES.datagram((OURS, source, 67), (THEIRS, target, port), data) == bytes(frame)


@pytest.mark.parametrize("tail", [0x0000, 0xFFFF, 0x0001, 0xFFFE])
def test_a_checksum_that_comes_to_zero_is_sent_as_ones(tail: int) -> None:
    # Words that bring the sum to either zero of one's complement: RFC 768 keeps 0 for "none".
    plain = FRAMES.datagram((OURS, SERVER, 67), (THEIRS, CLIENT, 68), b"\0\0")
    missing = int.from_bytes(plain[40:42], "big")
    data = ((missing + tail) % 0xFFFF).to_bytes(2, "big")
    frame = FRAMES.datagram((OURS, SERVER, 67), (THEIRS, CLIENT, 68), data)
    check = Ether(frame)
    del check[UDP].chksum
    assert frame[40:42] != b"\0\0"
    assert frame == bytes(check)


def test_a_probe_has_no_sender_address() -> None:
    """RFC 5227 section 2.1.1, octet by octet."""
    assert FRAMES.probe(OURS, CLIENT) == (
        bytes.fromhex("ffffffffffff 020000000001 0806 0001 0800 06 04 0001")
        + bytes.fromhex("020000000001 00000000 000000000000")
        + CLIENT.packed
    )


@pytest.mark.parametrize(
    ("fields", "claim"),
    [
        ({"op": 2, "psrc": "192.168.77.50"}, (CLIENT, THEIRS)),
        ({"op": 1, "psrc": "192.168.77.50", "pdst": "192.168.77.50"}, (CLIENT, THEIRS)),
        ({"op": 1, "psrc": "0.0.0.0"}, None),
        ({"op": 2, "psrc": "192.168.77.50", "hwtype": 6}, None),
    ],
)
def test_claims(fields: dict[str, Any], claim: tuple[IPv4Address, str] | None) -> None:
    frame = bytes(Ether(src=THEIRS, dst=OURS) / ARP(hwsrc=THEIRS, **fields))
    assert FRAMES.claim(frame) == claim
    assert FRAMES.claim(frame.ljust(60, b"\0")) == claim


def test_a_frame_that_is_no_arp_claims_nothing() -> None:
    assert FRAMES.claim(bytes(Ether() / IP() / UDP())) is None


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_garbage_claims_nothing_and_has_no_payload_past_its_end(data: bytes) -> None:
    FRAMES.claim(data)
    FRAMES.claim(bytes.fromhex("ffffffffffff020000000001") + b"\x08\x06" + data)
    found = payload(data)
    assert found is None or len(found[1]) < len(data)


def test_payload_of_a_padded_frame_with_ip_options() -> None:
    layers = Ether() / IP(src="192.168.77.9", options=[b"\x01\x01\x01\x00"]) / UDP(sport=67)
    frame = bytes(layers / b"offer").ljust(90, b"\0")
    assert payload(frame) == ("192.168.77.9", b"offer")
    for length in range(14 + 24 + 8 + 5):
        assert payload(frame[:length]) is None


def test_a_lying_udp_length_is_not_believed() -> None:
    frame = bytearray(bytes(Ether() / IP() / UDP(sport=67) / b"offer"))
    for length in (0, 7, 100):
        frame[38:40] = length.to_bytes(2, "big")
        assert payload(bytes(frame)) is None


@pytest.fixture
def ends(cable: Callable[[str], Any]) -> Any:
    """A link at the server's end, and a raw socket for all that reaches the client's."""
    lan = cable("192.168.77.1/24")
    with lan.inside(lan.server):
        link = Link("srv0", SERVER)
    with lan.inside(lan.client):
        far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
        far.bind(("cli0", 3))
    far.settimeout(10)
    yield link, far, lan
    link.close()
    far.close()


def until(far: socket.socket, wanted: type[Any]) -> Any:
    """The next frame with that layer; the kernel talks of its own as well."""
    for _ in range(100):
        layers = Ether(far.recv(4096))
        if wanted in layers:
            return layers
    raise AssertionError(f"no {wanted.__name__} came")


def test_a_probe_and_its_answer_over_a_cable(ends: Any) -> None:
    link, far, lan = ends
    link.probe(CLIENT)
    asked = until(far, ARP)
    assert (asked[ARP].psrc, asked[ARP].pdst, asked.src) == ("0.0.0.0", str(CLIENT), link.mac)
    answer = Ether(src=lan.mac, dst=link.mac) / ARP(
        op=2, hwsrc=lan.mac, psrc=str(CLIENT), hwdst=link.mac, pdst="0.0.0.0"
    )
    far.send(bytes(answer))
    link.arp.setblocking(True)
    link.arp.settimeout(10)
    assert next(iter(link.claims())) == (CLIENT, lan.mac)


def test_a_datagram_over_a_cable(ends: Any) -> None:
    link, far, lan = ends
    link.send(lan.mac, CLIENT, 68, 67, bytes(BOOTP(op=2, xid=7)))
    layers = until(far, BOOTP)
    assert (layers.dst, layers[IP].dst, layers[UDP].sport, layers[BOOTP].xid) == (
        lan.mac,
        str(CLIENT),
        67,
        7,
    )


def test_only_dhcp_servers_pass_the_filter(ends: Any) -> None:
    link, far, lan = ends
    to_all = Ether(src=lan.mac, dst="ff:ff:ff:ff:ff:ff") / IP(
        src="192.168.77.9", dst="255.255.255.255"
    )
    fragment = to_all.copy()
    fragment[IP].frag = 5
    for frame in (
        to_all / UDP(sport=68, dport=67) / b"a client",
        to_all / UDP(sport=6700, dport=68) / b"nobody",
        fragment / UDP(sport=67, dport=68) / b"a later fragment",
        Ether(src=lan.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="192.168.77.9"),
        to_all / UDP(sport=67, dport=67) / b"\1 what a relay forwards",
        to_all / UDP(sport=67, dport=68),
        to_all / UDP(sport=67, dport=68) / b"\2 a server",
    ):
        far.send(bytes(frame))
    link.servers.settimeout(10)
    assert next(iter(link.foreign())) == ("192.168.77.9", b"\2 a server")


def test_the_hardware_address_is_asked_for_each_time(ends: Any) -> None:
    link, _, lan = ends
    new = "02:00:00:00:77:01"
    command = ["ip", "-n", lan.server, "link", "set", "srv0", "address", new]
    subprocess.run(command, check=True, timeout=20)
    assert link.mac == new


def test_an_interface_that_is_not_there() -> None:
    with pytest.raises(OSError):
        Link("nosuch0", SERVER)


def test_a_link_that_went_down_is_not_an_error(ends: Any) -> None:
    link, _, lan = ends
    subprocess.run(["ip", "-n", lan.server, "link", "del", "srv0"], check=True, timeout=20)
    assert list(link.claims()) == []
    assert list(link.foreign()) == []
    with pytest.raises(OSError):
        link.probe(CLIENT)


def test_the_ethertype_of_arp() -> None:
    assert Ether(bytes(Ether() / ARP())).type == ETH_P_ARP

"""Router solicitations and advertisements, with scapy as the independent judge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.errors import WireError
from netboot.ndp.wire import no_router, solicitation_mac

MAC = bytes.fromhex("525400123456")
BARE = bytes.fromhex("8500 0000 00000000")
SOURCE = bytes.fromhex("0101 525400123456")


def test_the_mac_of_a_solicitation() -> None:
    assert solicitation_mac(BARE + SOURCE) == "52:54:00:12:34:56"
    assert solicitation_mac(BARE + bytes([14, 1]) + bytes(6) + SOURCE) == "52:54:00:12:34:56"
    assert solicitation_mac(BARE) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BARE[:7],
        bytes([134]) + BARE[1:],
        bytes([133, 1]) + BARE[2:],
        BARE + SOURCE[:7],
        BARE + b"\x01\x00" + bytes(6),
        BARE + b"\x01",
    ],
)
def test_what_a_router_must_discard(data: bytes) -> None:
    with pytest.raises(WireError):
        solicitation_mac(data)


@given(st.binary(max_size=80))
def test_garbage_is_a_wire_error_and_nothing_else(data: bytes) -> None:
    for each in (data, BARE + data):
        try:
            solicitation_mac(each)
        except WireError:
            continue


def test_scapy_reads_an_advertisement_that_promises_nothing() -> None:
    from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptSrcLLAddr

    seen = ICMPv6ND_RA(no_router(MAC))
    assert (seen.type, seen.code) == (134, 0)
    assert (seen.routerlifetime, seen.M, seen.O, seen.chlim) == (0, 0, 0, 0)
    assert seen[ICMPv6NDOptSrcLLAddr].lladdr == "52:54:00:12:34:56"


def test_we_read_scapys_solicitation() -> None:
    from scapy.layers.inet6 import ICMPv6ND_RS, ICMPv6NDOptSrcLLAddr

    asked = ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr="52:54:00:12:34:56")
    assert solicitation_mac(bytes(asked)) == "52:54:00:12:34:56"

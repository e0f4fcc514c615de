"""Packets both ways: by hand, against scapy, and with whatever hypothesis thinks of."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from netboot.dhcp import wire
from netboot.dhcp.wire import Packet, decode, decode_tlvs, encode, encode_tlvs
from netboot.errors import WireError

MAC = bytes.fromhex("525400123456")
FIXED = (
    bytes.fromhex("02010600 3903f326 0000 8000")
    + bytes((0, 0, 0, 0, 192, 168, 77, 50, 192, 168, 77, 1, 0, 0, 0, 0))
    + MAC.ljust(16, b"\0")
    + b"192.168.77.1".ljust(64, b"\0")
    + b"undionly.kpxe".ljust(128, b"\0")
    + bytes.fromhex("63825363")
)
PACKET = Packet(
    op=wire.REPLY,
    xid=0x3903F326,
    hardware=MAC,
    flags=wire.BROADCAST,
    yiaddr=IPv4Address("192.168.77.50"),
    siaddr=IPv4Address("192.168.77.1"),
    sname=b"192.168.77.1",
    file=b"undionly.kpxe",
    options={53: b"\x02", 54: bytes((192, 168, 77, 1))},
)
OPTIONS = bytes((53, 1, 2, 54, 4, 192, 168, 77, 1, 255))


def area(*options: bytes) -> bytes:
    """A request with these bytes as its options area."""
    return FIXED + b"".join(options)


def test_every_byte_of_a_packet() -> None:
    data = encode(PACKET)
    assert data == (FIXED + OPTIONS).ljust(300, b"\0")
    assert decode(data) == PACKET


def test_short_packets_are_padded_for_old_relays() -> None:
    assert len(encode(PACKET)) == 300


@pytest.mark.parametrize("length", range(len(FIXED + OPTIONS)))
def test_a_packet_cut_anywhere_is_a_wire_error_or_whole_options(length: int) -> None:
    data = (FIXED + OPTIONS)[:length]
    try:
        packet = decode(data)
    except WireError:
        return
    assert length >= len(FIXED)
    assert packet.options in ({}, {53: b"\x02"}, PACKET.options)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [(0, 3, "op 3"), (0, 0, "op 0"), (2, 17, "17 bytes"), (236, 0, "magic cookie")],
)
def test_what_is_not_dhcp(at: int, value: int, says: str) -> None:
    data = bytearray(FIXED + OPTIONS)
    data[at] = value
    with pytest.raises(WireError, match=says):
        decode(bytes(data))


def test_end_may_be_missing_and_pads_lie_anywhere() -> None:
    assert decode(area(b"\0\0", b"\x35\x01\x01", b"\0", b"\x0c\x01a")).options == {
        53: b"\x01",
        12: b"a",
    }


def test_what_follows_end_is_not_read() -> None:
    assert decode(area(b"\x35\x01\x01\xff", b"\x0c\xff")).options == {53: b"\x01"}


@pytest.mark.parametrize("tail", [b"\x35", b"\x35\x02\x01", b"\x35\x01\x01\x0c\xffabc"])
def test_an_option_past_the_end(tail: bytes) -> None:
    with pytest.raises(WireError, match="past the end"):
        decode(area(tail))


def test_pieces_of_one_option_are_joined() -> None:
    """RFC 3396 section 7: in the order options, file, sname."""
    file = (b"\x43\x02cd\xff").ljust(128, b"\0")
    sname = (b"\x43\x02ef\xff").ljust(64, b"\0")
    data = FIXED[:44] + sname + file + FIXED[236:] + b"\x34\x01\x03\x43\x02ab\xff"
    packet = decode(data)
    assert packet.options == {67: b"abcdef"}
    assert (packet.sname, packet.file) == (b"", b"")


@pytest.mark.parametrize(("overload", "found"), [(1, {12: b"f"}), (2, {12: b"s"})])
def test_overload_reads_only_the_field_it_names(overload: int, found: dict[int, bytes]) -> None:
    file, sname = b"\x0c\x01f\xff".ljust(128, b"\0"), b"\x0c\x01s\xff".ljust(64, b"\0")
    data = FIXED[:44] + sname + file + FIXED[236:] + bytes((52, 1, overload, 255))
    assert decode(data).options == found


@pytest.mark.parametrize("value", [b"\x34\x01\x04", b"\x34\x02\x01\x01", b"\x34\x00"])
def test_overload_must_be_one_two_or_three(value: bytes) -> None:
    with pytest.raises(WireError, match="overload"):
        decode(area(value, b"\xff"))


def test_long_options_are_cut_and_come_back_whole() -> None:
    path = bytes(range(1, 256)) * 3
    data = encode(replace(PACKET, options={53: b"\x02", 17: path}), limit=1472)
    assert data.count(b"\x11\xff\x01\x02") == 3
    assert decode(data).options[17] == path


def test_the_relays_option_stays_last() -> None:
    packet = replace(PACKET, options={82: b"\x01\x02ab", 53: b"\x02", 12: b"x"})
    assert encode(packet)[240:].startswith(b"\x35\x01\x02\x0c\x01x\x52\x04\x01\x02ab\xff")


def test_too_long_goes_into_sname_first_and_names_move_to_options() -> None:
    options = {53: b"\x02", 54: b"abcd", 17: b"r" * 200, 43: b"v" * 80, 12: b"h" * 40}
    packet = replace(PACKET, options=options)
    data = encode(packet)
    assert len(data) <= wire.DEFAULT_LIMIT
    assert b"\x34\x01\x02" in data[240:]
    back = decode(data)
    assert back.options == {**options, 66: b"192.168.77.1\0"}
    assert (back.sname, back.file) == (b"", b"undionly.kpxe")


def test_still_too_long_goes_into_file_as_well() -> None:
    options = {53: b"\x02", 54: b"abcd", 82: b"\x01\x02ab", 17: b"r" * 200, 43: b"v" * 70}
    options |= {12: b"h" * 55, 15: b"d" * 90}
    data = encode(replace(PACKET, options=options))
    assert len(data) <= wire.DEFAULT_LIMIT
    assert b"\x34\x01\x03" in data[240:]
    assert data[240:].rstrip(b"\0").endswith(b"\x52\x04\x01\x02ab\xff")
    back = decode(data)
    assert back.options == {**options, 66: b"192.168.77.1\0", 67: b"undionly.kpxe\0"}
    assert back.file == b""


def test_what_a_relay_adds_may_be_too_much_too() -> None:
    """Option 82 stays in the options area, so that it alone can exceed the room."""
    packet = replace(PACKET, sname=b"", file=b"", options={53: b"\x02", 82: b"r" * 1000})
    with pytest.raises(WireError, match="do not fit"):
        wire.encode(packet, 576)
    assert len(wire.encode(packet, 1400)) <= 1400


def test_option_67_that_is_there_is_not_replaced_by_file() -> None:
    options = {53: b"\x02", 67: b"other\0", 17: b"r" * 200, 43: b"v" * 80, 12: b"h" * 110}
    assert decode(encode(replace(PACKET, options=options))).options[67] == b"other\0"


def test_too_long_for_all_three() -> None:
    with pytest.raises(WireError, match="do not fit"):
        encode(replace(PACKET, options={17: b"r" * 255, 43: b"v" * 255, 12: b"h" * 255}))


@pytest.mark.parametrize("fields", [{"sname": b"s" * 64}, {"file": b"f" * 128}])
def test_a_name_needs_room_for_its_nul(fields: dict[str, bytes]) -> None:
    with pytest.raises(WireError, match="besides their NUL"):
        encode(replace(PACKET, **fields))


@pytest.mark.parametrize(
    ("htype", "hardware", "mac"),
    [
        (1, MAC, "52:54:00:12:34:56"),
        (1, b"\0" * 6, None),
        (1, b"\x01" + MAC[1:], None),
        (1, b"\xff" * 6, None),
        (1, MAC + MAC, None),
        (32, b"", None),
        (6, MAC, None),
    ],
)
def test_which_hardware_address_is_one_machines(
    htype: int, hardware: bytes, mac: str | None
) -> None:
    assert replace(PACKET, htype=htype, hardware=hardware).mac == mac


def test_sub_options() -> None:
    assert encode_tlvs({6: b"\x08", 71: b"\0\0\0\0"}) == b"\x06\x01\x08\x47\x04\0\0\0\0\xff"
    assert decode_tlvs(b"\x06\x01\x08\x47\x04\0\0\0\0\xff") == {6: b"\x08", 71: b"\0\0\0\0"}
    assert decode_tlvs(b"") == {}
    with pytest.raises(WireError):
        decode_tlvs(b"\x06\x02\x08")


def test_scapy_reads_what_we_write() -> None:
    bootp = BOOTP(encode(PACKET))
    assert (bootp.op, bootp.xid, bootp.yiaddr, bootp.siaddr) == (
        2,
        0x3903F326,
        "192.168.77.50",
        "192.168.77.1",
    )
    assert bootp.chaddr[:6] == MAC
    assert bootp.file.rstrip(b"\0") == b"undionly.kpxe"
    assert bootp[DHCP].options[:3] == [("message-type", 2), ("server_id", "192.168.77.1"), "end"]


def test_we_read_what_scapy_writes() -> None:
    layers = BOOTP(
        op=1, xid=7, chaddr=MAC, ciaddr="10.0.0.9", giaddr="10.0.0.2", flags="B", secs=4, hops=1
    ) / DHCP(options=[("message-type", "request"), ("requested_addr", "10.0.0.5"), "end"])
    packet = decode(bytes(layers))
    assert packet == Packet(
        op=wire.REQUEST,
        xid=7,
        hardware=MAC,
        htype=1,
        hops=1,
        secs=4,
        flags=wire.BROADCAST,
        ciaddr=IPv4Address("10.0.0.9"),
        giaddr=IPv4Address("10.0.0.2"),
        options={53: b"\x03", 50: bytes((10, 0, 0, 5))},
    )
    assert packet.broadcast


addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
packets = st.builds(
    Packet,
    op=st.sampled_from([1, 2]),
    xid=st.integers(0, 2**32 - 1),
    hardware=st.binary(max_size=16),
    htype=st.integers(0, 255),
    hops=st.integers(0, 255),
    secs=st.integers(0, 65535),
    flags=st.integers(0, 65535),
    ciaddr=addresses,
    yiaddr=addresses,
    siaddr=addresses,
    giaddr=addresses,
    sname=st.binary(max_size=63).map(lambda data: data.replace(b"\0", b"x")),
    file=st.binary(max_size=127).map(lambda data: data.replace(b"\0", b"x")),
    options=st.dictionaries(
        st.integers(1, 254).filter(lambda code: code != wire.OVERLOAD),
        st.binary(max_size=600),
        max_size=8,
    ),
)


@given(packets)
def test_whatever_is_packed_comes_back(packet: Packet) -> None:
    assert decode(encode(packet, limit=9000)) == packet


@given(packets)
def test_the_limit_is_kept_or_refused_and_nothing_is_lost(packet: Packet) -> None:
    try:
        data = encode(packet)
    except WireError:
        return
    back = decode(data)
    assert len(data) <= wire.DEFAULT_LIMIT
    moved = {66: packet.sname + b"\0", 67: packet.file + b"\0"}
    for code, value in packet.options.items():
        assert back.options[code] == value
    for code in set(back.options) - set(packet.options):
        assert back.options[code] == moved[code]


@given(st.binary(max_size=700))
def test_garbage_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


@given(st.binary(max_size=700))
def test_garbage_after_the_cookie_is_options_or_a_wire_error(data: bytes) -> None:
    try:
        packet = decode(FIXED + data)
    except WireError:
        return
    assert all(code not in (wire.PAD, wire.END, wire.OVERLOAD) for code in packet.options)

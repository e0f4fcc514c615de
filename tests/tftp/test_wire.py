"""TFTP packets byte by byte, and that nothing but WireError comes of garbage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.errors import WireError
from netboot.tftp import wire
from netboot.tftp.wire import Ack, Data, Error, ErrorCode, Opcode, OptionAck, Request

BYTES = [
    (b"\0\1a.efi\0octet\0", Request(Opcode.RRQ, "a.efi")),
    (b"\0\2up\0netascii\0", Request(Opcode.WRQ, "up", "netascii")),
    (
        b"\0\1pxe\0octet\0tsize\x000\0blksize\x001468\0",
        Request(Opcode.RRQ, "pxe", options={"tsize": "0", "blksize": "1468"}),
    ),
    (b"\0\3\0\1hello", Data(1, b"hello")),
    (b"\0\3\xff\xff", Data(65535, b"")),
    (b"\0\4\x12\x34", Ack(0x1234)),
    (b"\0\5\0\1no such file\0", Error(ErrorCode.NOT_FOUND, "no such file")),
    (b"\0\6blksize\x001432\0", OptionAck({"blksize": "1432"})),
    (b"\0\1caf\xe9\0octet\0", Request(Opcode.RRQ, "caf\udce9")),
    (b"\0\1caf\xc3\xa9\0octet\0", Request(Opcode.RRQ, "café")),
]


@pytest.mark.parametrize(("data", "packet"), BYTES)
def test_bytes_both_ways(data: bytes, packet: wire.Packet) -> None:
    assert wire.parse(data) == packet
    assert wire.encode(packet) == data


@pytest.mark.parametrize(
    ("data", "packet"),
    [
        (b"\0\1a\0OCTET\0", Request(Opcode.RRQ, "a")),
        (b"\0\1a\0octet", Request(Opcode.RRQ, "a")),
        (b"\0\1a\0octet\0BlkSize\x00512", Request(Opcode.RRQ, "a", options={"blksize": "512"})),
        (b"\0\1a\0octet\0tsize\0", Request(Opcode.RRQ, "a")),
        (b"\0\1a\0octet\0\0\0\0\0\0", Request(Opcode.RRQ, "a")),
        (
            b"\0\1a\0octet\0blksize\x00600\0BLKSIZE\x00700\0",
            Request(Opcode.RRQ, "a", options={"blksize": "600"}),
        ),
        (b"\0\4\0\7padded to the Ethernet minimum", Ack(7)),
        (b"\0\5\0\0", Error(0)),
        (b"\0\5\0\x63no end", Error(99, "no end")),
        (b"\0\6\0\0", OptionAck({})),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_sloppy_roms_are_understood(data: bytes, packet: wire.Packet) -> None:
    assert wire.parse(data) == packet


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0", b"\0\1", b"\0\1\0", b"\0\1\0\0", b"\0\1a\0", b"\0\1\0octet\0"),
        *(b"\0\1abc", b"\0\3\0", b"\0\4", b"\0\0\0\0", b"\0\7\0\0", b"\1\1\0\0", b"GET / HTTP"),
    ],
)
def test_what_is_no_packet(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.parse(data)


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
number = st.integers(0, 0xFFFF)
options = st.dictionaries(
    text.filter(bool).map(str.lower).filter(lambda name: name == name.lower()), text, max_size=5
)
packets: st.SearchStrategy[wire.Packet] = st.one_of(
    st.builds(
        Request,
        st.sampled_from([Opcode.RRQ, Opcode.WRQ]),
        text.filter(bool),
        st.sampled_from(["octet", "netascii", "mail"]),
        options,
    ),
    st.builds(Data, number, st.binary(max_size=100)),
    st.builds(Ack, number),
    st.builds(Error, number, text),
    st.builds(OptionAck, options.filter(bool)),
)


@given(packets)
def test_every_packet_survives_the_wire(packet: wire.Packet) -> None:
    assert wire.parse(wire.encode(packet)) == packet


@given(st.binary(max_size=600) | st.binary(max_size=60).map(lambda tail: b"\0\1" + tail))
def test_garbage_is_a_packet_or_a_wire_error(data: bytes) -> None:
    try:
        packet = wire.parse(data)
    except WireError:
        return
    assert wire.parse(wire.encode(packet)) == packet or isinstance(packet, OptionAck)


@given(st.binary(max_size=8) | number.map(lambda block: wire.encode(Ack(block))))
def test_the_short_way_to_an_ack_agrees_with_the_long_one(data: bytes) -> None:
    try:
        packet = wire.parse(data)
    except WireError:
        assert wire.ack_number(data) == -1
        return
    assert wire.ack_number(data) == (packet.block if isinstance(packet, Ack) else -1)


def test_data_header_counts_modulo_65536() -> None:
    assert wire.data_header(1) == b"\0\3\0\1"
    assert wire.data_header(65535) == b"\0\3\xff\xff"
    assert wire.data_header(65536) == b"\0\3\0\0"
    assert wire.data_header(65537) == b"\0\3\0\1"


def test_a_nul_inside_a_string_is_our_bug() -> None:
    with pytest.raises(ValueError, match="NUL"):
        wire.encode(Error(0, "a\0b"))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("pxelinux.0", "pxelinux.0"),
        ("a\nb\x1b[2J", "a\ufffdb\ufffd[2J"),
        ("caf\udce9", "caf\ufffd"),
    ],
)
def test_names_are_fit_for_logs(raw: str, shown: str) -> None:
    assert wire.printable(raw) == shown
    wire.printable(raw).encode()


@given(st.integers(0, 2**40), st.binary(max_size=100), st.integers(1, 30), st.booleans())
def test_many_data_packets_are_each_what_one_would_be(
    first: int, body: bytes, size: int, view: bool
) -> None:
    count = len(body) // size + 1
    packets = wire.data_packets(first, memoryview(body) if view else body, size, count)
    assert packets == [
        wire.encode(wire.Data((first + i) & 0xFFFF, body[i * size : (i + 1) * size]))
        for i in range(count)
    ]

"""PDU layouts byte by byte, lengths, serial numbers, text segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.errors import WireError
from netboot.iscsi import wire
from netboot.iscsi.wire import LoginStatus, Op


@pytest.mark.parametrize(
    "layout",
    [
        wire.REQUEST,
        wire.DATA_OUT,
        wire.LOGIN,
        wire.LOGIN_RESPONSE,
        wire.SCSI_RESPONSE,
        wire.DATA_IN,
        wire.R2T,
        wire.ANSWER,
    ],
)
def test_every_header_is_48_bytes(layout: wire.Struct) -> None:
    assert layout.size == wire.BHS == 48


def test_a_scsi_command_is_where_section_11_3_draws_it() -> None:
    raw = bytes.fromhex(
        "01 c1 0000 00 000200"  # opcode, F R simple, AHS length 0, 512 bytes of data
        "0005000000000000"  # LUN 5
        "00000011 00001000 00000022 00000033"  # ITT, EDTL, CmdSN, ExpStatSN
        "28000000 00100000 08000000 00000000"
    )
    op, flags, word, lun, itt, edtl, cmd_sn, exp_stat_sn, cdb = wire.REQUEST.unpack(raw)
    assert (op, flags, wire.lengths(word)) == (Op.SCSI_COMMAND, 0xC1, (0, 512))
    assert (lun >> 48, itt, edtl, cmd_sn, exp_stat_sn) == (5, 0x11, 4096, 0x22, 0x33)
    assert cdb[:6].hex() == "280000000010"


def test_a_data_out_is_where_section_11_7_draws_it() -> None:
    raw = bytes.fromhex(
        "05 80 0000 00000200 0000000000000000"
        "00000011 00000022 00000000 00000033"  # ITT, TTT, reserved, ExpStatSN
        "00000000 00000044 00000055 00000000"  # reserved, DataSN, Buffer Offset, reserved
    )
    assert wire.DATA_OUT.unpack(raw) == (5, 0x80, 512, 0, 0x11, 0x22, 0x33, 0x44, 0x55)


def test_a_login_is_where_section_11_12_draws_it() -> None:
    raw = bytes.fromhex(
        "43 87 00 00 00000010 400027231234 0007"  # T CSG 1 NSG 3, versions, length, ISID, TSIH
        "00000001 0002 0000 00000003 00000004"  # ITT, CID, reserved, CmdSN, ExpStatSN
        "00000000000000000000000000000000"
    )
    isid = bytes.fromhex("400027231234")
    assert wire.LOGIN.unpack(raw) == (0x43, 0x87, 0, 0, 16, isid, 7, 1, 2, 3, 4)


def test_a_login_response_is_where_section_11_13_draws_it() -> None:
    raw = wire.LOGIN_RESPONSE.pack(0x23, 0x87, 0, 0, 16, b"ABCDEF", 7, 1, 2, 3, 4, 0x0203)
    assert raw.hex(" ", 4) == (
        "23870000 00000010 41424344 45460007 00000001 00000000 00000002 00000003 00000004"
        " 02030000 00000000 00000000"
    )


def test_a_data_in_is_where_section_11_7_draws_it() -> None:
    raw = wire.DATA_IN.pack(0x25, 0x81, 2, 512, 0, 1, 2, 3, 4, 5, 6, 7, 8)
    assert raw.hex(" ", 4) == (
        "25810002 00000200 00000000 00000000 00000001 00000002 00000003 00000004 00000005"
        " 00000006 00000007 00000008"
    )


def test_a_scsi_response_is_where_section_11_4_draws_it() -> None:
    raw = wire.SCSI_RESPONSE.pack(0x21, 0x82, 0, 2, 20, 1, 3, 4, 5, 6, 7, 8)
    assert raw.hex(" ", 4) == (
        "21820002 00000014 00000000 00000000 00000001 00000000 00000003 00000004 00000005"
        " 00000006 00000007 00000008"
    )


def test_an_r2t_is_where_section_11_8_draws_it() -> None:
    raw = wire.R2T.pack(0x31, 0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8)
    assert raw.hex(" ", 4) == (
        "31800000 00000000 00000000 00000000 00000001 00000002 00000003 00000004 00000005"
        " 00000006 00000007 00000008"
    )


def test_the_common_answer() -> None:
    raw = wire.ANSWER.pack(0x20, 0x80, 0, 4, 0, 1, 2, 3, 4, 5)
    assert raw.hex(" ", 4) == (
        "20800000 00000004 00000000 00000000 00000001 00000002 00000003 00000004 00000005"
        " 00000000 00000000 00000000"
    )


@pytest.mark.parametrize(("length", "pad"), [(0, 0), (1, 3), (2, 2), (3, 1), (4, 0), (513, 3)])
def test_padding_goes_to_the_next_word(length: int, pad: int) -> None:
    assert wire.padding(length) == bytes(pad)


@pytest.mark.parametrize(
    ("word", "header_digest", "data_digest", "size"),
    [
        (0, False, False, 48),
        (0, True, True, 52),  # no data, no data digest
        (5, False, False, 56),
        (5, True, True, 64),
        (5, False, True, 60),
        (0x02000000, False, False, 56),  # two words of additional headers
        (0x02000200, True, True, 48 + 8 + 4 + 512 + 4),
    ],
)
def test_the_size_of_a_whole_pdu(
    word: int, header_digest: bool, data_digest: bool, size: int
) -> None:
    assert wire.pdu_size(word, header_digest, data_digest) == size


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (1, 0, True),
        (0, 1, False),
        (0, 0, False),
        (0, 0xFFFFFFFF, True),
        (0xFFFFFFFF, 0, False),
        (0x7FFFFFFF, 0, True),
        (0x80000000, 0, False),
    ],
)
def test_serial_numbers_wrap(a: int, b: int, expected: bool) -> None:
    assert wire.after(a, b) is expected


@given(st.integers(0, 0xFFFFFFFF), st.integers(1, 0x7FFFFFFF))
def test_what_is_ahead_is_after(base: int, step: int) -> None:
    ahead = base + step & 0xFFFFFFFF
    assert wire.after(ahead, base)
    assert not wire.after(base, ahead)


def test_text_pairs_in_order_and_with_duplicates() -> None:
    data = b"A=1\0B=\0A=x=y\0"
    assert wire.read_text(data) == [("A", "1"), ("B", ""), ("A", "x=y")]
    assert wire.write_text([("A", "1"), ("B", "")]) == b"A=1\0B=\0"


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0"])
def test_no_text_is_no_pairs(data: bytes) -> None:
    assert wire.read_text(data) == []


def test_padding_of_a_text_segment_is_not_a_pair() -> None:
    assert wire.read_text(b"A=1\0\0\0") == [("A", "1")]


@pytest.mark.parametrize(
    "data",
    [
        b"novalue\0",
        b"=x\0",
        b"A=1\0\0B=2\0",
        b"K" * 64 + b"=x\0",
        b"A=" + b"x" * 8193 + b"\0",
        b"\xff\xfe=1\0",
        b"A=\xff\0",
    ],
)
def test_what_is_not_a_pair_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.read_text(data)


KEY = st.text(st.sampled_from("ABCabc_-123"), min_size=1, max_size=63)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=200)


@given(st.lists(st.tuples(KEY, VALUE), max_size=20))
def test_text_survives_the_round_trip(pairs: list[tuple[str, str]]) -> None:
    assert wire.read_text(wire.write_text(pairs)) == pairs


@given(st.binary(max_size=300))
def test_any_bytes_are_pairs_or_a_wire_error(data: bytes) -> None:
    try:
        for name, value in wire.read_text(data):
            assert name and "=" not in name and "\0" not in value
    except WireError:
        pass


def test_login_status_classes_mean_who_is_to_blame() -> None:
    assert {status >> 8 for status in LoginStatus} == {0, 1, 2, 3}
    assert LoginStatus.UNAVAILABLE == 0x0301 and LoginStatus.OUT_OF_RESOURCES == 0x0302


@pytest.mark.parametrize(
    ("ahs", "rest"),
    [
        ("0005 01 00 10111213", b"\x10\x11\x12\x13"),
        ("0004 01 00 101112 00", b"\x10\x11\x12"),  # padded
        ("0005 02 00 00000200", b""),  # bidirectional reads
        ("0005 02 00 00000200 0005 01 00 10111213", b"\x10\x11\x12\x13"),
        ("0001 01 00", b""),
        ("0000 01 00", None),
        ("0006 01 00 10111213", None),
        ("ffff 01 00", None),
        ("0005 01 00 10111213 0000 0000", None),
    ],
)
def test_the_rest_of_a_long_cdb(ahs: str, rest: bytes | None) -> None:
    header = bytes.fromhex(ahs)
    pdu = bytes(4) + bytes([len(header) // 4]) + bytes(43) + header + b"data"
    assert wire.extended_cdb(memoryview(pdu)) == rest


def test_an_async_message_is_as_long_as_every_header() -> None:
    assert wire.ASYNC.size == wire.BHS

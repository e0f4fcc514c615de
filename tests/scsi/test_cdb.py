"""Fields of CDBs, and pointing at a wrong one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.action import Reply
from netboot.scsi.cdb import (
    SIZES,
    be16,
    be24,
    be32,
    be64,
    cut,
    extent,
    first_refused,
    invalid_field,
    invalid_parameter,
    list_length_error,
    mask,
    out_of_range,
)

COUNTING = bytes(range(0x10, 0x30))


def test_numbers_are_big_endian() -> None:
    assert be16(COUNTING, 1) == 0x1112
    assert be24(COUNTING, 1) == 0x111213
    assert be32(COUNTING, 1) == 0x11121314
    assert be64(COUNTING, 1) == 0x1112131415161718
    assert be64(memoryview(COUNTING), 1) == 0x1112131415161718


@pytest.mark.parametrize(
    ("opcode", "size"),
    [(0x00, 6), (0x1F, 6), (0x28, 10), (0x5F, 10), (0x88, 16), (0x9E, 16), (0xA0, 12), (0xBF, 12)],
)
def test_size_by_group_code(opcode: int, size: int) -> None:
    assert SIZES[opcode >> 5] == size


@pytest.mark.parametrize(
    ("cdb", "expected"),
    [
        ("28 08 01020304 00 0506 00", (0x08, 0x01020304, 0x0506)),
        ("A8 10 01020304 05060708 00 00", (0x10, 0x01020304, 0x05060708)),
        ("88 18 0102030405060708 090A0B0C 00 00", (0x18, 0x0102030405060708, 0x090A0B0C)),
    ],
)
def test_extent_of_each_size(cdb: str, expected: tuple[int, int, int]) -> None:
    assert extent(bytes.fromhex(cdb).ljust(16, b"\0")) == expected


@pytest.mark.parametrize(("room", "data"), [(0, b""), (3, b"abc"), (6, b"abcdef"), (99, b"abcdef")])
def test_data_is_cut_to_the_allocation_length(room: int, data: bytes) -> None:
    assert cut(b"abcdef", room) == Reply(data)


def test_nothing_is_refused_when_only_allowed_bits_are_set() -> None:
    assert (
        first_refused(bytes.fromhex("28 1A FFFFFFFF FF FFFF 00"), 10, mask(10, {1: 0xE1})) is None
    )


@pytest.mark.parametrize(
    ("cdb", "field", "bit"),
    [
        ("28 80 00000000 00 0000 00", 1, 7),
        ("28 61 00000000 00 0000 00", 1, 6),
        ("28 01 00000000 00 0000 00", 1, 0),
        ("28 00 00000000 00 0000 04", 9, 2),
        ("28 01 00000000 00 0000 04", 1, 0),
    ],
)
def test_the_first_refused_bit_is_pointed_at(cdb: str, field: int, bit: int) -> None:
    refused = mask(10, {1: 0xE1})
    assert first_refused(bytes.fromhex(cdb).ljust(16, b"\xff"), 10, refused) == invalid_field(
        field, bit
    )


@given(st.binary(min_size=16, max_size=16), st.sampled_from([6, 10, 12, 16]))
def test_a_refusal_points_at_a_bit_that_is_set(cdb: bytes, size: int) -> None:
    refused = mask(size, {1: 0xFF, 2: 0x55})
    check = first_refused(cdb, size, refused)
    if check is None:
        assert not cdb[1]
        assert not cdb[2] & 0x55
        return
    field, bit = check.sense.field, check.sense.bit
    assert field is not None
    assert bit is not None
    assert cdb[field] >> bit & 1


def test_refusals_by_name() -> None:
    assert invalid_field(3).sense.asc == 0x2400
    assert not invalid_field(3).sense.in_data
    assert invalid_parameter(3).sense.asc == 0x2600
    assert invalid_parameter(3).sense.in_data
    assert list_length_error().sense.asc == 0x1A00
    assert out_of_range().sense.asc == 0x2100

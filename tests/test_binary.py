"""Records: declared like a drawing, run like struct."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.binary import U8, U16, U32, U64, Octets6, pack, packer, reader, record, size, unpack
from netboot.errors import WireError


@record
class Drawing:
    """A little of everything."""

    kind: U8
    count: U16
    word: U32
    long: U64
    mac: Octets6


BYTES = bytes.fromhex("01 0203 04050607 08090a0b0c0d0e0f 101112131415")


def test_reads_big_endian_in_the_order_of_the_drawing() -> None:
    read = unpack(Drawing, b"xx" + BYTES + b"more", 2)
    assert read == Drawing(
        kind=1, count=0x203, word=0x4050607, long=0x8090A0B0C0D0E0F, mac=BYTES[-6:]
    )


def test_packs_what_it_read() -> None:
    assert pack(unpack(Drawing, BYTES)) == BYTES
    assert size(Drawing) == len(BYTES) == 21


@pytest.mark.parametrize("read", [partial(unpack, Drawing), reader(Drawing)])
@pytest.mark.parametrize("length", range(21))
def test_short_data_is_a_wire_error(read: Callable[..., object], length: int) -> None:
    with pytest.raises(WireError, match=f"^Drawing needs 21 bytes, {length} are there$"):
        read(BYTES[:length])
    with pytest.raises(WireError, match=f"^Drawing needs 21 bytes, {length} are there$"):
        read(memoryview(b"xx" + BYTES[:length]), 2)


@pytest.mark.parametrize("read", [partial(unpack, Drawing), reader(Drawing)])
def test_an_offset_past_the_end_is_a_wire_error(read: Callable[..., object]) -> None:
    with pytest.raises(WireError, match="0 are there"):
        read(BYTES, 500)


def test_the_values_alone_in_the_same_order() -> None:
    values = (1, 0x203, 0x4050607, 0x8090A0B0C0D0E0F, BYTES[-6:])
    assert reader(Drawing)(BYTES) == reader(Drawing)(b"xx" + BYTES + b"more", 2) == values
    assert packer(Drawing)(*values) == BYTES


def test_a_record_has_no_room_for_other_attributes() -> None:
    with pytest.raises(AttributeError):
        unpack(Drawing, BYTES).other = 1  # type: ignore[attr-defined]


@given(st.binary(min_size=21, max_size=21))
def test_every_drawing_comes_back(data: bytes) -> None:
    assert pack(unpack(Drawing, data)) == data


def test_a_drawing_of_one_field() -> None:
    @record
    class Single:
        word: U32

    assert pack(Single(word=7)) == b"\0\0\0\7"
    assert unpack(Single, b"\0\0\0\7") == Single(word=7)

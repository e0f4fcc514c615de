"""Packets that are ready: one for the ACK that is expected, none for anything else.

That the answers are the engine's, byte for byte, is ``test_engine``'s.
"""

import copy
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.tftp import wire
from netboot.tftp.ready import PIECES, Ready, Shelf
from netboot.tftp.wire import Ack, Data
from tests.tftp.conftest import READIES

each = pytest.mark.parametrize("make", READIES.values(), ids=READIES)
Make = Callable[[], Ready]


def ack(block: int) -> bytes:
    return wire.encode(Ack(block & 0xFFFF))


def piece(first: int, count: int) -> tuple[bytes, ...]:
    return tuple(wire.encode(Data(block & 0xFFFF, b"x")) for block in range(first, first + count))


@each
def test_each_expected_ack_has_the_next_packet_until_there_is_none(make: Make) -> None:
    ready, packets = make(), piece(1, 4)
    ready.load(packets, 1)
    for block in (1, 2, 3):
        assert ready.answer(ack(block), float(block)) is packets[block]
    assert ready.heard == 3.0
    assert (ready.taken(), ready.taken()) == (3, 0)
    assert ready.answer(ack(4), 5) is None
    assert ready.heard == 3.0


@each
def test_it_goes_on_wherever_it_was_loaded(make: Make) -> None:
    ready, packets = make(), piece(7, 4)
    ready.load(packets, 3)
    assert ready.answer(ack(9), 0) is packets[3]
    ready.load(packets, 2)
    assert ready.answer(ack(9), 0) is None
    assert ready.answer(ack(8), 0) is packets[2]
    ready.load(packets, 4)
    assert ready.answer(ack(10), 0) is None
    assert ready.taken() == 2


@each
def test_block_numbers_begin_again_at_0(make: Make) -> None:
    ready, packets = make(), piece(65534, 5)
    ready.load(packets, 1)
    assert [ready.answer(ack(block), 0) for block in range(65534, 65538)] == list(packets[1:])


@each
def test_nothing_is_answered_before_it_is_loaded_or_after_it_was_stopped(make: Make) -> None:
    ready = make()
    assert (ready.answer(ack(0), 0), ready.answer(b"", 0), ready.taken()) == (None, None, 0)
    ready.load(piece(1, 3), 1)
    ready.stop()
    assert (ready.answer(ack(1), 0), ready.taken()) == (None, 0)
    ready.load(piece(1, 3), 1)
    assert ready.answer(ack(1), 0) is not None


@each
@given(data=st.binary(max_size=6), block=st.integers(0, 65535))
def test_only_the_very_bytes_of_the_ack_are_answered(make: Make, data: bytes, block: int) -> None:
    ready, packets = make(), piece(block, 2)
    ready.load(packets, 1)
    for said in (data, ack(block) + data[:1] + b"\0", ack(block)[:3], b"\0\4" + data):
        assert (ready.answer(said, 0) is None) == (said != ack(block))
        ready.load(packets, 1)


@each
def test_a_copy_goes_its_own_way(make: Make) -> None:
    ready, packets = make(), piece(1, 4)
    ready.load(packets, 1)
    ready.answer(ack(1), 1.5)
    other = copy.deepcopy(ready)
    assert other.answer(ack(2), 2.5) == packets[2]
    assert (ready.taken(), ready.heard) == (1, 1.5)
    assert (other.taken(), other.heard) == (2, 2.5)
    assert ready.answer(ack(2), 3.5) is packets[2]


def test_the_shelf_keeps_the_newest_pieces() -> None:
    shelf = Shelf()
    for first in range(PIECES + 3):
        shelf.put(first, piece(first, 1), 1)
    kept = [first for first in range(PIECES + 3) if shelf.get(first) is not None]
    assert kept == list(range(3, PIECES + 3))
    assert shelf.get(5) == (piece(5, 1), 1)

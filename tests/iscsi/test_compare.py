"""What follows a look at the disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.iscsi.compare import after_reading, first_difference
from netboot.scsi.action import Check, Compare, Merge, Reply, Store, Verify
from netboot.scsi.sense import Key


def test_verify_only_wants_to_read() -> None:
    assert after_reading(Verify(0, 512), bytes(512)) == Reply()


def test_equal_and_nothing_follows() -> None:
    assert after_reading(Compare(0, b"ab"), b"ab") == Reply()


def test_equal_and_something_follows() -> None:
    then = Store(0, b"cd")
    assert after_reading(Compare(0, b"ab", then), b"ab") is then


@pytest.mark.parametrize("then", [None, Store(0, b"xxxx")])
def test_different_says_where(then: Store | None) -> None:
    action = after_reading(Compare(512, b"abcd", then), b"abXd")
    assert isinstance(action, Check)
    assert action.sense.key is Key.MISCOMPARE
    assert action.sense.information == 2


def test_merge_is_or() -> None:
    action = after_reading(Merge(1024, b"\x0f\x00\x80", fua=True), b"\xf0\x01\x00")
    assert action == Store(1024, b"\xff\x01\x80", True)


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=64))
def test_merge_of_any_bytes(a: bytes, b: bytes) -> None:
    size = min(len(a), len(b))
    action = after_reading(Merge(0, a[:size]), b[:size])
    assert isinstance(action, Store)
    assert action.data == bytes(x | y for x, y in zip(a, b, strict=False))


@given(st.binary(min_size=1, max_size=300), st.data())
def test_the_first_difference(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    other = bytearray(data)
    other[at] ^= 0xFF
    for later in draw.draw(st.lists(st.integers(at, len(data) - 1), max_size=4)):
        other[later] ^= 0x01 if later != at else 0
    assert first_difference(data, bytes(other)) == at

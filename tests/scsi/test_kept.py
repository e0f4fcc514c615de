"""What is kept of a unit: it comes back as it was, and nothing else is taken for it."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.kept import Operation, decode, encode
from netboot.scsi.reservations import Kind, Reservations

A, B = "iqn.2026-11.lab:a,i,0x400001370000", "iqn.2026-11.lab:b,i,0x400001370001"
BLOCK = b"\x0f" * 512


def held(kind: Kind | None = None) -> Reservations:
    return Reservations({A: 1, B: (1 << 64) - 1}, 7, kind, A if kind else "", persists=True)


def test_nothing_to_keep_is_no_text() -> None:
    assert encode(Reservations({A: 1}, kind=Kind.WRITE_EXCLUSIVE, holder=A), None) == b""
    assert decode(b"") == (Reservations(), None)


@pytest.mark.parametrize("kind", [None, *Kind])
def test_reservations_come_back_but_for_the_generation(kind: Kind | None) -> None:
    found, operation = decode(encode(held(kind), None))
    wanted = held(kind)
    wanted.generation = 0
    assert (found, operation) == (wanted, None)


def test_a_nexus_that_reserved_with_reserve6_is_not_kept() -> None:
    state = held()
    state.legacy = object()
    assert decode(encode(state, None))[0].legacy is None


def test_that_aptpl_is_on_is_kept_without_any_registration() -> None:
    assert decode(encode(Reservations(persists=True), None))[0].persists


@pytest.mark.parametrize(
    "operation",
    [Operation(0), Operation(3, BLOCK, True, True, True), Operation(31, BLOCK, ause=True)],
)
def test_an_operation_comes_back(operation: Operation) -> None:
    assert decode(encode(Reservations(), operation)) == (Reservations(), operation)
    assert decode(encode(held(), operation))[1] == operation


def test_people_can_read_it() -> None:
    said = json.loads(encode(held(Kind.EXCLUSIVE_ACCESS), None))
    assert said["registrations"] == [[A, 1], [B, (1 << 64) - 1]]
    assert said["reservation"] == {"type": 3, "holder": A}


def test_the_last_pass_writes_the_pattern_itself() -> None:
    """SBC-4 section 5.30.2: with an even number of passes the first is the inverted one."""
    other = b"\xf0" * 512
    assert Operation(1, BLOCK, True).patterns == (BLOCK,)
    assert Operation(2, BLOCK, True).patterns == (other, BLOCK)
    assert Operation(3, BLOCK, True).patterns == (BLOCK, other, BLOCK)
    assert Operation(2, BLOCK).patterns == (BLOCK, BLOCK)
    assert Operation(0).patterns == ()


WRONG = [
    "[]",
    "nonsense",
    '{"registrations": 7}',
    '{"registrations": [["a", 0]]}',
    '{"registrations": [["a", true]]}',
    '{"registrations": [[7, 7]]}',
    '{"registrations": [["a"]]}',
    '{"registrations": [["a", 1]], "reservation": {"type": 2, "holder": "a"}}',
    '{"registrations": [["a", 1]], "reservation": {"type": 1, "holder": "b"}}',
    '{"registrations": [], "reservation": {"type": 7, "holder": ""}}',
    '{"registrations": [["a", 1]], "reservation": []}',
    '{"sanitize": {}}',
    '{"sanitize": {"passes":1,"pattern":"","invert":false,"ause":false,"failed":false}}',
    '{"sanitize": {"passes":0,"pattern":"00","invert":false,"ause":false,"failed":false}}',
    '{"sanitize": {"passes":32,"pattern":"00","invert":false,"ause":false,"failed":false}}',
    '{"sanitize": {"passes":1,"pattern":"xy","invert":false,"ause":false,"failed":false}}',
    json.dumps({"registrations": [[f"p{number}", 1] for number in range(65)]}),
    "[" * 100_000,
]


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:60])
def test_what_nobody_kept(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        decode(text.encode())


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:sanitzeprgow01 ').map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(text)


@given(
    st.dictionaries(st.text(min_size=1), st.integers(1, (1 << 64) - 1), min_size=1, max_size=64),
    st.sampled_from([None, *Kind]),
)
def test_whatever_can_be_is_kept(keys: dict[str, int], kind: Kind | None) -> None:
    state = Reservations(keys, 0, kind, next(iter(keys)) if kind else "", persists=True)
    assert decode(encode(state, None)) == (state, None)

"""Runs of like cells, in bytes of the disk."""

from hypothesis import given
from hypothesis import strategies as st

from netboot.storage.cells import ALLOCATION_RUNS, READ_RUNS, runs
from netboot.storage.qcow2 import DATA, GOLDEN, HOLE, SUB, SUB_BITS, ZERO


def test_runs_are_cut_to_the_range() -> None:
    cells = bytes([GOLDEN, DATA, DATA, ZERO, HOLE])
    assert list(runs(cells, 8 * SUB + 512, 4 * SUB)) == [
        (GOLDEN, 8 * SUB + 512, 9 * SUB),
        (DATA, 9 * SUB, 11 * SUB),
        (ZERO, 11 * SUB, 12 * SUB + 512),
    ]
    assert list(runs(cells, 0, 5 * SUB, ALLOCATION_RUNS)) == [
        (GOLDEN, 0, 4 * SUB),
        (HOLE, 4 * SUB, 5 * SUB),
    ]


@given(
    st.lists(st.sampled_from([GOLDEN, DATA, ZERO, HOLE]), min_size=1, max_size=40),
    st.integers(0, 7),
    st.integers(0, 7),
    st.sampled_from([READ_RUNS, ALLOCATION_RUNS]),
)
def test_runs_cover_the_range_once_and_in_order(kinds, skip, short, pattern) -> None:  # type: ignore[no-untyped-def]
    offset = 3 * SUB + skip * 512
    length = len(kinds) * SUB - skip * 512 - (short * 512 if len(kinds) > 1 else 0)
    at = offset
    for cell, begin, end in runs(bytes(kinds), offset, length, pattern):
        assert begin == at < end
        first = kinds[(begin >> SUB_BITS) - 3]
        assert cell == first
        assert pattern.fullmatch(bytes(kinds[(begin >> SUB_BITS) - 3 : (end - 1 >> SUB_BITS) - 2]))
        at = end
    assert at == offset + length

"""One line a minute for each kind, and nothing lost from the count."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from netboot.sparing import INTERVAL, Sparing


def test_the_first_is_said_and_the_rest_counted() -> None:
    sparing = Sparing()
    assert sparing.more("garbage", 100.0) == ""
    assert sparing.more("garbage", 100.0) is None
    assert sparing.more("garbage", 99.9 + INTERVAL) is None
    told = sparing.more("garbage", 100.0 + INTERVAL)
    assert told == " (2 more since the last such line)"
    assert sparing.more("garbage", 101.0 + INTERVAL) is None
    assert sparing.more("garbage", 999.0) == " (1 more since the last such line)"
    assert sparing.more("garbage", 9999.0) == ""


def test_each_kind_has_its_own_minute() -> None:
    sparing = Sparing()
    assert [sparing.more(kind, 5.0) for kind in ("a", "b", "a", "b")] == ["", "", None, None]


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    sparing = Sparing()
    assert sparing.more("a", 1e9) == ""
    assert sparing.more("a", 10.0) == ""


@given(st.lists(st.floats(0, 30), max_size=200))
def test_what_is_said_and_what_is_counted_is_all_there_was(steps: list[float]) -> None:
    sparing, now, lines, counted = Sparing(), 0.0, [], 0
    for step in steps:
        now += step
        more = sparing.more("a", now)
        if more is not None:
            lines.append(now)
            counted += 1 + (int(more.split()[0][1:]) if more else 0)
    left = sparing.more("a", now + INTERVAL) or ""
    assert counted + (int(left.split()[0][1:]) if left else 0) == len(steps)
    assert all(later >= line + INTERVAL for line, later in pairwise(lines))

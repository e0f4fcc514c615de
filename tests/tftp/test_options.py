"""The option table: what is granted, what is left out (RFC 2347, 2348, 2349, 7440)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.tftp.options import DEFAULT_BLKSIZE, OPTIONS, Limits, Terms, negotiate


def test_nothing_asked_nothing_granted() -> None:
    terms = negotiate({}, Limits(size=5))
    assert terms == Terms(blksize=512, window=1, timeout=1.0, granted={})


def test_all_four_at_once() -> None:
    asked = {"windowsize": "16", "timeout": "3", "tsize": "0", "blksize": "1468"}
    terms = negotiate(asked, Limits(size=70_000))
    assert (terms.blksize, terms.window, terms.timeout) == (1468, 16, 3.0)
    assert terms.fixed_timeout
    assert terms.granted == {
        "blksize": "1468",
        "tsize": "70000",
        "timeout": "3",
        "windowsize": "16",
    }


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("blksize", "8", "8"),
        ("blksize", "7", None),
        ("blksize", "0", None),
        ("blksize", "512", "512"),
        ("blksize", "1468", "1468"),
        ("blksize", "8192", "1468"),  # never above what the MTU holds
        ("blksize", "65464", "1468"),
        ("blksize", "65465", None),
        ("tsize", "0", "1000"),
        ("tsize", "77", "1000"),
        ("tsize", "-1", None),
        ("timeout", "1", "1"),
        ("timeout", "255", "255"),
        ("timeout", "0", None),
        ("timeout", "256", None),
        ("windowsize", "1", "1"),
        ("windowsize", "4", "4"),
        ("windowsize", "65535", "64"),
        ("windowsize", "0", None),
        ("windowsize", "65536", None),
        ("multicast", "", None),
        ("rollover", "0", None),
    ],
)
def test_ranges(name: str, value: str, answer: str | None) -> None:
    granted = negotiate({name: value}, Limits(blksize=1468, size=1000)).granted
    assert granted == ({} if answer is None else {name: answer})


@pytest.mark.parametrize("value", ["", "abc", "1 ", "+5", "0x10", "1e3", "٣", "9" * 400, "-8"])
def test_what_is_no_number_is_left_out(value: str) -> None:
    for option in OPTIONS:
        assert negotiate({option.name: value}, Limits(size=1)).granted == {}


def test_netascii_has_no_size_beforehand() -> None:
    assert negotiate({"tsize": "0"}, Limits(size=None)).granted == {}


def test_a_window_fits_the_socket_buffer() -> None:
    asked = {"blksize": "65464", "windowsize": "64"}
    terms = negotiate(asked, Limits())
    assert terms.window == 2
    assert terms.granted["windowsize"] == "2"
    small = negotiate(asked, Limits(window_bytes=10))
    assert small.window == 1


def test_every_row_has_its_reference() -> None:
    assert [option.name for option in OPTIONS] == ["blksize", "tsize", "timeout", "windowsize"]
    for option in OPTIONS:
        assert option.reference.startswith("RFC ")
        assert option.rule
        assert option.low < option.high


values = st.one_of(st.integers(-5, 70_000).map(str), st.text(max_size=5))
requests = st.dictionaries(
    st.sampled_from([option.name for option in OPTIONS] + ["multicast"]), values
)


@given(requests, st.integers(8, 65464), st.none() | st.integers(0, 2**40))
def test_what_is_granted_is_never_more_than_asked(
    asked: dict[str, str], blksize: int, size: int | None
) -> None:
    limits = Limits(blksize=blksize, size=size)
    terms = negotiate(asked, limits)
    assert set(terms.granted) <= set(asked)
    assert 8 <= terms.blksize <= max(DEFAULT_BLKSIZE, blksize)
    assert 1 <= terms.window <= limits.window
    if "blksize" in terms.granted:
        assert terms.blksize == int(terms.granted["blksize"]) <= int(asked["blksize"])
    if "windowsize" in terms.granted:
        assert terms.window == int(terms.granted["windowsize"]) <= int(asked["windowsize"])
    if "timeout" in terms.granted:
        assert terms.timeout == int(asked["timeout"])
    if "tsize" in terms.granted:
        assert terms.granted["tsize"] == str(size)

"""A moment answers like those it asks, asks them once, and knows nothing of the next moment."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.tftp import moment as module
from netboot.tftp import options
from netboot.tftp.engine import admit
from netboot.tftp.moment import Moment
from netboot.tftp.options import Limits
from netboot.tftp.wire import Opcode, Request, encode


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_what_comes_in_is_judged_as_by_the_engine(said: list[bytes]) -> None:
    moment = Moment([])
    for data in said * 2:
        assert moment.admit(data) == admit(data)


def test_the_same_bytes_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    monkeypatch.setattr(module, "admit", lambda data: asked.append(data) or admit(data))
    moment = Moment([])
    one, other = (encode(Request(Opcode.RRQ, name)) for name in "ab")
    assert moment.admit(one) is moment.admit(one)
    assert moment.admit(other) != moment.admit(one)
    assert asked == [one, other]


def test_a_file_is_looked_for_once_in_a_moment_and_anew_in_the_next(tmp_path: Path) -> None:
    moment = Moment([tmp_path])
    assert moment.resolve("a") is None
    (tmp_path / "a").write_bytes(b"x")
    assert moment.resolve("a") is None
    assert Moment([tmp_path]).resolve("a") == tmp_path / "a"
    found = Moment([tmp_path])
    assert found.resolve("a") == tmp_path / "a"
    (tmp_path / "a").unlink()
    assert found.resolve("a") == tmp_path / "a"
    assert found.resolve("../a") is None


@given(
    asked=st.lists(
        st.dictionaries(
            st.sampled_from(["blksize", "tsize", "timeout", "windowsize", "x"]),
            st.sampled_from(["", "0", "8", "512", "1468", "9" * 30]),
        ),
        max_size=5,
    ),
    blksize=st.sampled_from([512, 1468]),
)
def test_terms_are_those_of_the_options_and_the_limits(
    asked: list[dict[str, str]], blksize: int
) -> None:
    moment = Moment([])
    for limits in (Limits(blksize=blksize, size=5), Limits(blksize=blksize, size=6)):
        for wanted in asked * 2:
            request = Request(Opcode.RRQ, "a", options=wanted)
            assert moment.negotiate(request, limits) == options.negotiate(wanted, limits)

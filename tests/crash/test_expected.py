"""What the crash tests allow after a power cut is what was promised, and no more."""

import pytest

from tests.crash.expected import SECTOR, Expected


def sectors(letters: str) -> bytes:
    return b"".join(letter.encode() * SECTOR for letter in letters).replace(b"0", b"\0")


def fits(expected: Expected, letters: str) -> bool:
    return expected.wrong(sectors(letters)) == ""


def test_what_was_flushed_is_the_oldest_that_may_come_back() -> None:
    expected = Expected(sectors("gg"))
    expected.begin_change(0, sectors("11"))
    mark = expected.begin_flush()
    expected.begin_change(0, sectors("2"))
    assert fits(expected, "gg")
    expected.end_flush(mark)
    assert expected.wrong(sectors("gg")) == "2 sectors, the first 0, are neither old nor new"
    assert fits(expected, "11") and fits(expected, "21")
    assert expected.now() == sectors("21")


def test_what_is_just_being_written_is_no_part_of_a_flush() -> None:
    expected = Expected(sectors("gg"))
    expected.begin_change(0, sectors("11"))
    expected.end_flush(expected.begin_flush(busy=range(1, 2)))
    assert fits(expected, "1g") and fits(expected, "11") and not fits(expected, "g1")


def test_a_disk_that_grows_has_the_one_size_or_the_other() -> None:
    expected = Expected(sectors("g"))
    expected.begin_change(0, sectors("1"))
    expected.begin_resize(3 * SECTOR)
    for letters in ("g", "1", "g00", "100"):
        assert fits(expected, letters)
    assert not fits(expected, "g0") and not fits(expected, "g0x")
    mark = expected.begin_flush()
    expected.end_resize()
    assert not fits(expected, "1") and fits(expected, "100")
    expected.begin_change(SECTOR, sectors("2"))
    assert fits(expected, "g20") and fits(expected, "g00")
    expected.end_flush(mark)
    assert not fits(expected, "g20") and fits(expected, "120") and fits(expected, "100")


def test_a_flush_that_a_disk_grew_meanwhile_ends_for_what_it_saw() -> None:
    expected = Expected(sectors("g"))
    expected.begin_change(0, sectors("1"))
    mark = expected.begin_flush()
    expected.begin_resize(2 * SECTOR)
    expected.end_flush(mark)
    assert fits(expected, "1") and fits(expected, "10") and not fits(expected, "g")


@pytest.mark.parametrize("done", [False, True])
def test_a_reset_leaves_the_old_disk_or_a_fresh_one_as_a_whole(done: bool) -> None:
    expected = Expected(sectors("gh"))
    expected.begin_change(0, sectors("12"))
    expected.end_flush(expected.begin_flush())
    expected.begin_reset(3 * SECTOR)
    if done:
        expected.end_reset(3 * SECTOR)
    assert fits(expected, "gh0")
    assert fits(expected, "12") is not done
    for mixture in ("1h", "g2", "1h0", "120", "gh"):
        assert not fits(expected, mixture)


def test_an_atomic_write_is_whole() -> None:
    expected = Expected(sectors("ghi"))
    expected.begin_change(0, sectors("1"))
    atomic = expected.begin_atomic(0, sectors("ab"))
    for letters in ("abi", "ghi", "1hi"):
        assert fits(expected, letters)
    for torn in ("ahi", "gbi", "1bi"):
        assert expected.wrong(sectors(torn)) == "the atomic write at sector 0 is there in part"
    expected.begin_change(0, sectors("w"))  # later, over a part of it
    assert fits(expected, "whi") and fits(expected, "wbi") and not fits(expected, "gbi")
    atomic.written = True
    expected.end_flush(expected.begin_flush())
    assert fits(expected, "wbi") and not fits(expected, "abi") and not fits(expected, "whi")


def test_what_was_before_an_atomic_write_may_be_written_again_later() -> None:
    expected = Expected(sectors("gh"))
    expected.begin_atomic(0, sectors("ab"))
    assert not fits(expected, "gb")
    expected.begin_change(0, sectors("g"))
    assert fits(expected, "gb") and fits(expected, "gh") and not fits(expected, "ah")


def test_a_flush_that_began_before_an_atomic_write_says_nothing_of_it() -> None:
    expected = Expected(sectors("gh"))
    mark = expected.begin_flush()
    atomic = expected.begin_atomic(0, sectors("ab"))
    atomic.written = True
    expected.end_flush(mark)
    assert not fits(expected, "ah") and fits(expected, "gh") and fits(expected, "ab")


def test_an_atomic_write_that_was_given_up_is_nothing() -> None:
    expected = Expected(sectors("gh"))
    expected.give_up(expected.begin_atomic(0, sectors("ab")))
    expected.end_flush(expected.begin_flush())
    assert fits(expected, "gh") and not fits(expected, "ab") and not fits(expected, "ah")

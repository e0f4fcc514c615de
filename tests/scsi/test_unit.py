"""One unit, its views, and the unit attentions between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.reservations import Access
from netboot.scsi.sense import Code, Key, Sense
from netboot.scsi.unit import KNOBS, MAX_TRANSFER, Nexus, Unit, View

POWER_ON = Code.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED


def unit(**settings: object) -> Unit:
    return Unit(0, 1 << 20, "serial", **settings)  # type: ignore[arg-type]


def view(of: Unit, name: str = "iqn.one") -> View:
    """A view that has had its 29/00."""
    made = of.attach(Nexus(name))
    assert made.next_attention() == Sense(Key.UNIT_ATTENTION, POWER_ON)
    return made


def codes(of: View) -> list[int]:
    return [sense.asc for sense in of.attentions]


def test_the_port_name_has_the_isid_in_hex() -> None:
    assert Nexus("iqn.x", b"\x40\0\1\x37\0\xab").port == "iqn.x,i,0x4000013700ab"
    assert Nexus("iqn.x").port == "iqn.x"


@pytest.mark.parametrize(
    ("number", "size", "settings"),
    [
        (0, 0, {}),
        (0, 511, {}),
        (0, 1000, {}),
        (0, 512, {"block_size": 4096}),
        (-1, 512, {}),
        (1 << 14, 512, {}),
    ],
)
def test_units_that_cannot_be(number: int, size: int, settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"bytes|LUN"):
        Unit(number, size, "s", **settings)  # type: ignore[arg-type]


def test_sizes() -> None:
    made = unit(block_size=4096)
    assert (made.blocks, made.size) == (256, 1 << 20)
    assert made.max_blocks * 4096 == MAX_TRANSFER


def test_a_new_nexus_meets_power_on_once() -> None:
    made = unit()
    first = made.attach(Nexus("iqn.one"))
    assert codes(first) == [POWER_ON]
    assert not first.clear
    assert first.next_attention() == Sense(Key.UNIT_ATTENTION, POWER_ON)
    assert first.clear
    assert first.next_attention() is None


def test_attentions_come_in_order_and_once_each() -> None:
    made = unit()
    mine = view(made)
    for code in (Code.CAPACITY_DATA_HAS_CHANGED, Code.MODE_PARAMETERS_CHANGED) * 3:
        mine.attend(code)
    assert codes(mine) == [Code.CAPACITY_DATA_HAS_CHANGED, Code.MODE_PARAMETERS_CHANGED]
    mine.next_attention()
    assert not mine.clear
    mine.next_attention()
    assert mine.clear


@given(st.lists(st.sampled_from(Code)))
def test_attentions_never_pile_up(happened: list[Code]) -> None:
    mine = view(unit())
    for code in happened:
        mine.attend(code)
    assert len(mine.attentions) <= len(set(happened))


def test_a_reset_makes_older_attentions_moot() -> None:
    made = unit()
    mine = view(made)
    mine.attend(Code.CAPACITY_DATA_HAS_CHANGED)
    made.reset()
    assert codes(mine) == [Code.BUS_DEVICE_RESET_FUNCTION_OCCURRED]


def test_resize_tells_everybody() -> None:
    made = unit()
    views = [view(made, "a"), view(made, "b")]
    made.resize(2 << 20)
    assert made.blocks == 4096
    assert [codes(each) for each in views] == [[Code.CAPACITY_DATA_HAS_CHANGED]] * 2


def test_resize_to_the_same_is_nothing_and_to_half_a_block_an_error() -> None:
    made = unit()
    mine = view(made)
    made.resize(made.size)
    assert mine.clear
    with pytest.raises(ValueError, match="not made of"):
        made.resize(1000)
    with pytest.raises(ValueError, match="not made of"):
        made.resize(0)
    assert made.size == 1 << 20


def test_tell_all_but_one() -> None:
    made = unit()
    mine, theirs = view(made, "a"), view(made, "b")
    made.tell(Code.MODE_PARAMETERS_CHANGED, but=mine)
    assert (codes(mine), codes(theirs)) == ([], [Code.MODE_PARAMETERS_CHANGED])


def test_notices_reach_ports_by_name() -> None:
    made = unit()
    mine, theirs = view(made, "a"), view(made, "b")
    made.notify([("b", Code.RESERVATIONS_RELEASED), ("gone", Code.RESERVATIONS_RELEASED)])
    assert (codes(mine), codes(theirs)) == ([], [Code.RESERVATIONS_RELEASED])
    assert made.views_of(["b", "gone"]) == [theirs]


def test_reset_puts_everything_back() -> None:
    made = unit()
    mine, theirs = view(made, "a"), view(made, "b")
    made.turn(dict.fromkeys(KNOBS, True))
    made.turn({"write_cache": False})
    made.reservations.legacy = mine
    made.refresh()
    mine.prevents = True
    made.reset()
    assert {name: getattr(made, name) for name in KNOBS} == KNOBS
    assert not made.protected
    assert not made.prevented
    assert theirs.ceiling is Access.CHANGES
    assert not mine.clear
    assert not theirs.clear


def test_turn_tells_whether_anything_changed() -> None:
    made = unit()
    assert not made.turn(KNOBS)
    assert made.turn({"software_protected": True})
    assert made.protected
    assert not made.turn({"software_protected": True})
    assert made.turn({"software_protected": False})
    assert not made.protected


def test_a_read_only_unit_stays_protected() -> None:
    made = unit(read_only=True)
    assert made.protected
    made.turn({"software_protected": True})
    made.turn({"software_protected": False})
    assert made.protected


def test_without_a_medium_no_view_is_clear() -> None:
    made = unit(removable=True)
    mine, theirs = view(made, "a"), view(made, "b")
    made.eject()
    assert not mine.clear
    made.load(mine)
    assert mine.clear
    assert codes(theirs) == [Code.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED]


def test_a_nexus_that_comes_while_something_is_reserved_is_held_back() -> None:
    made = unit()
    mine = view(made, "a")
    made.reservations.legacy = mine
    made.refresh()
    late = view(made, "b")
    assert late.ceiling is Access.RELEASES
    assert not late.clear
    assert mine.clear


def test_detach_takes_what_the_session_alone_held() -> None:
    made = unit()
    mine, theirs = view(made, "a"), view(made, "b")
    mine.prevents = True
    made.reservations.legacy = mine
    made.refresh()
    assert not theirs.clear
    made.detach(mine)
    made.detach(mine)
    assert made.views == [theirs]
    assert not made.prevented
    assert theirs.clear


def test_a_detached_view_hears_nothing_more() -> None:
    made = unit()
    mine = view(made)
    made.detach(mine)
    made.resize(2 << 20)
    assert codes(mine) == []

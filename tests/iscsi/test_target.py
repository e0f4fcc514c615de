"""Names, portals, LUN fields, and who gives way to whom."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.iscsi import target
from netboot.iscsi.target import Identity, displaced

NAME = "iqn.2026-11.lab.netboot:client.52-54-00-12-34-56"
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        "iqn.1991-05.com.microsoft:ws1",
        "iqn.2010-04.org.ipxe:00000000-0000-0000-0000-000000000000",
        "eui.02004567A425678D",
        "naa.52004567BA64678D",
        "anything",
        "x" * 223,
    ],
)
def test_names(name: str) -> None:
    assert target.valid_name(name)


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "a,b", "a;b", "a/b", "a\x00b", "x" * 224])
def test_what_is_no_name(name: str) -> None:
    assert not target.valid_name(name)


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (0x0000000000000000, 0),
        (0x0005000000000000, 5),
        (0x00FF000000000000, 255),
        (0x4005000000000000, 5),
        (0x4100000000000000, 256),
        (0x7FFF000000000000, 16383),
        (0x0100000000000000, None),  # peripheral, another bus
        (0x8000000000000000, None),  # logical unit addressing
        (0xC101000000000000, None),  # a well-known unit
        (0x0005000100000000, None),  # a second level
        (0x0000000000000001, None),
    ],
)
def test_lun_fields(field: int, number: int | None) -> None:
    assert target.lun_number(field) == number


@given(st.integers(0, 16383))
def test_a_lun_survives_the_round_trip(number: int) -> None:
    assert target.lun_number(target.lun_field(number)) == number


@given(st.integers(0, (1 << 64) - 1))
def test_any_field_is_a_number_or_none(field: int) -> None:
    number = target.lun_number(field)
    assert number is None or 0 <= number < 16384


def test_who_a_session_is() -> None:
    ipxe = Identity(NAME, bytes.fromhex("400027231234"), TARGET)
    linux = Identity(NAME, bytes.fromhex("00023d000001"), TARGET)
    assert ipxe.nexus == f"{NAME},i,0x400027231234"
    assert ipxe.firmware and not linux.firmware


@dataclass(frozen=True)
class Old:
    identity: Identity


def identity(isid: str, initiator: str = NAME, to: str = TARGET) -> Identity:
    return Identity(initiator, bytes.fromhex(isid), to)


def test_the_same_port_is_reinstated_and_others_of_the_name_are_probed() -> None:
    same = Old(identity("00023d000001"))
    other_path = Old(identity("00023d000002"))
    stranger = Old(identity("00023d000001", "iqn.1999-09.com.example:else"))
    elsewhere = Old(identity("00023d000001", to="iqn.1999-09.com.example:disk"))
    gone, probed = displaced(identity("00023d000001"), [other_path, same, stranger, elsewhere])
    assert gone == [same]
    assert probed == [other_path]


def test_the_same_isid_by_another_portal_group_is_another_nexus() -> None:
    """RFC 7143 section 4.4.3: the nexus is the initiator port and the target port."""
    first = Old(identity("00023d000001"))
    again = Identity(NAME, bytes.fromhex("00023d000001"), TARGET, group=2)
    assert displaced(again, [first]) == ([], [first])
    assert displaced(again, [first, Old(again)]) == ([Old(again)], [first])


def test_two_living_sessions_of_one_windows_stay() -> None:
    """Booting over two paths takes two sessions of one initiator name."""
    first = Old(identity("400001370000"))
    gone, probed = displaced(identity("400001370001"), [first])
    assert not gone and probed == [first]


def test_an_ipxe_that_was_reset_has_another_isid_each_time() -> None:
    before = Old(identity("40002723aaaa"))
    gone, probed = displaced(identity("40002723bbbb"), [before])
    assert not gone and probed == [before]


def test_nobody_gives_way_to_the_first() -> None:
    assert displaced(identity("00023d000001"), list[Old]()) == ([], [])

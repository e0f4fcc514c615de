"""A disk that was just opened: what its unit can, what it remembers, what is told of it."""

from dataclasses import replace
from typing import Any

import pytest

from netboot.iscsi.lun import Held, held, power_on
from netboot.model import DiskSpec, Lun
from netboot.scsi.action import Sanitize
from netboot.scsi.kept import Operation, encode
from netboot.scsi.reservations import Kind, Reservations
from netboot.storage.disk import DiskError, Fault

PORT = "iqn.1994-05.com.example:one,i,0x400001370000"
SPEC = DiskSpec("/golden.raw", 1 << 20, "sha256:00")
LUN = Lun(3, SPEC, "5254", thin=True, removable=True, physical_block_exponent=0)


class Notes:
    """What was put, or why it cannot be read."""

    def __init__(
        self, text: bytes | Exception = b"", *, lasting: bool = True, born: int = 5
    ) -> None:
        self.text = text
        self.born = born
        self.lasting = lasting

    def left(self) -> bytes:
        if isinstance(self.text, Exception):
            raise self.text
        return self.text


class Disk:
    """What is looked at of a disk."""

    def __init__(self, notes: Notes | None = None, space: Any = None) -> None:
        self.size = 1 << 20
        self.read_only = False
        self.notes = notes
        self._space = space

    def space(self) -> tuple[int, int] | None:
        if isinstance(self._space, Exception):
            raise self._space
        return self._space  # type: ignore[no-any-return]


def test_a_unit_is_what_its_lun_says() -> None:
    unit = power_on(LUN, Disk(), "iqn.x").unit
    assert (unit.number, unit.size, unit.serial, unit.target_name) == (3, 1 << 20, "5254", "iqn.x")
    assert (unit.thin, unit.removable, unit.physical_block_exponent) == (True, True, 0)
    assert (unit.remembers, unit.lasting, unit.measured, unit.read_only) == (False,) * 4


def test_what_it_can_is_what_its_disk_can() -> None:
    unit = power_on(LUN, Disk(Notes(), (1, 2)), "iqn.x").unit
    assert (unit.remembers, unit.lasting, unit.measured) == (True, True, True)
    # An ephemeral disk is gone with the power, and so are its reservations: PTPL_C is 0.
    unit = power_on(LUN, Disk(Notes(lasting=False)), "iqn.x").unit
    assert (unit.remembers, unit.lasting) == (True, False)
    assert power_on(LUN, Disk(space=DiskError(Fault.MEDIUM, "EIO")), "iqn.x").unit.measured


def test_a_reservation_is_remembered() -> None:
    state = Reservations({PORT: 7}, 9, Kind.EXCLUSIVE_ACCESS, PORT, persists=True)
    on = power_on(LUN, Disk(Notes(encode(state, None))), "iqn.x")
    assert (on.unit.reservations.holder, on.todo, on.trouble) == (PORT, None, "")


def test_a_sanitize_operation_is_to_be_done() -> None:
    on = power_on(LUN, Disk(Notes(encode(Reservations(), Operation(0)))), "iqn.x")
    assert isinstance(on.todo, Sanitize) and on.unit.barred is not None


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        (Notes(DiskError(Fault.MEDIUM, "ws1.scsi: is damaged")), "ws1.scsi: is damaged"),
        (Notes(b'{"registrations": 7}'), "cannot be read"),
        (Notes(encode(Reservations(), Operation(1, bytes(4096)))), "no block of this unit"),
    ],
)
def test_what_cannot_be_read_is_told_and_the_disk_is_there(notes: Notes, words: str) -> None:
    on = power_on(LUN, Disk(notes), "iqn.x")
    assert words in on.trouble
    assert on.todo is None and on.unit.barred is None and not on.unit.reservations.keys


# A disk that was closed because nobody used it


def closed(notes: Notes | None, *, persists: bool = False) -> Held:
    """The reservations of such a disk."""
    unit = power_on(LUN, Disk(notes), "iqn.x").unit
    state = Reservations({PORT: 7}, 9, Kind.EXCLUSIVE_ACCESS, PORT, persists=persists)
    state.legacy = object()
    unit.reservations = state
    found = held(LUN, Disk(notes), unit)
    assert found is not None
    return found


@pytest.mark.parametrize("notes", [None, Notes()])
def test_its_reservations_are_held(notes: Notes | None) -> None:
    state = power_on(LUN, Disk(notes), "iqn.x", closed(notes)).unit.reservations
    assert (state.keys, state.kind, state.holder) == ({PORT: 7}, Kind.EXCLUSIVE_ACCESS, PORT)
    # For an initiator there was no power on; RESERVE(6) went with its session.
    assert (state.generation, state.legacy) == (9, None)


def test_nothing_is_held_of_a_disk_that_nobody_ever_registered_with() -> None:
    assert held(LUN, Disk(), power_on(LUN, Disk(), "iqn.x").unit) is None


def test_a_disk_that_was_reset_since_is_nobodys() -> None:
    before = closed(Notes())
    assert not power_on(LUN, Disk(Notes(born=6)), "iqn.x", before).unit.reservations.keys
    other = Lun(3, replace(SPEC, generation=1), "5254")
    assert not power_on(other, Disk(Notes()), "iqn.x", before).unit.reservations.keys


def test_what_was_kept_counts_where_it_was_kept() -> None:
    """And where its file is damaged, or an operator took it away, nothing brings it back."""
    before = closed(Notes(), persists=True)
    other = Reservations({"another": 8}, persists=True)
    state = power_on(LUN, Disk(Notes(encode(other, None))), "iqn.x", before).unit.reservations
    assert (state.keys, state.generation) == ({"another": 8}, 9)
    assert not power_on(LUN, Disk(Notes()), "iqn.x", before).unit.reservations.keys

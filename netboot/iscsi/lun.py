"""A disk that was just opened becomes a logical unit: what it can, and what it remembers.

Called in a worker, as it reads what was kept. A disk that nobody uses is closed, of which no
initiator may learn: its reservations are held meanwhile (``Held``), whatever APTPL says. Must
never keep a disk from its machine over what it remembers: what cannot be read is told to the
operator, and the unit begins without it.
"""

from dataclasses import dataclass
from typing import Protocol

from netboot.model import DiskSpec, Lun
from netboot.scsi.action import Action
from netboot.scsi.power import recall
from netboot.scsi.reservations import Reservations
from netboot.scsi.unit import Unit


class Notes(Protocol):
    """What a disk can remember (``storage.disk.Memory``)."""

    @property
    def born(self) -> int:
        """Tells the disk from others that had its name."""

    @property
    def lasting(self) -> bool:
        """Whether it outlives a power cut."""

    def left(self) -> bytes:
        """What was put there last."""


class Opened(Protocol):
    """What is looked at of an open disk."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def read_only(self) -> bool:
        """Whether it takes no writes."""

    @property
    def notes(self) -> Notes | None:
        """What it can remember."""

    def space(self) -> tuple[int, int] | None:
        """What it takes, and what there is for more."""


@dataclass(frozen=True, slots=True)
class Held:
    """The reservations of a disk that was closed."""

    spec: DiskSpec
    born: int  #: 0: the disk is the golden image itself
    reservations: Reservations


def held(lun: Lun, disk: Opened, unit: Unit) -> Held | None:
    """What a closed disk's reservations come to; None: there are none."""
    state = unit.reservations.copy()
    state.legacy = None
    return Held(lun.disk, _born(disk), state) if state.generation else None


def _born(disk: Opened) -> int:
    return disk.notes.born if disk.notes is not None else 0


@dataclass(frozen=True, slots=True)
class PoweredOn:
    """A unit, what it has to do at once, and what is to be told of it."""

    unit: Unit
    todo: Action | None = None
    trouble: str = ""


def power_on(lun: Lun, disk: Opened, target_name: str, before: Held | None = None) -> PoweredOn:
    """The unit of a disk; never an exception over what it remembers or measures.

    ``before`` counts when it is of this very disk, and not of one that was reset since.
    """
    notes = disk.notes
    try:
        measured = disk.space() is not None
    except Exception:  # it may be asked, and say so, later
        measured = True
    unit = Unit(
        *(lun.number, disk.size, lun.serial),
        target_name=target_name,
        read_only=disk.read_only,
        thin=lun.thin,
        removable=lun.removable,
        physical_block_exponent=lun.physical_block_exponent,
        remembers=notes is not None,
        lasting=notes is not None and notes.lasting,
        measured=measured,
    )
    todo, trouble = None, ""
    if notes is not None:
        try:
            todo = recall(unit, notes.left())
        except Exception as problem:  # DiskError, or ValueError for what nobody kept
            trouble = str(problem)
    if before is not None and (before.spec, before.born) == (lun.disk, _born(disk)):
        state = unit.reservations
        if not state.persists and not before.reservations.persists:
            state.become(before.reservations)
        state.generation = before.reservations.generation  # no power on that anybody would see
    return PoweredOn(unit, todo, trouble)

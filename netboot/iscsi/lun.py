"""A disk that was just opened becomes a logical unit: what it can, and what it remembers.

Called in a worker, as it reads what was kept. Must never keep a disk from its machine over what
it remembers: what cannot be read is told to the operator, and the unit begins without it.
"""

from dataclasses import dataclass
from typing import Protocol

from netboot.model import Lun
from netboot.scsi.action import Action
from netboot.scsi.power import recall
from netboot.scsi.unit import Unit


class Notes(Protocol):
    """What a disk can remember (``storage.disk.Memory``)."""

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
class PoweredOn:
    """A unit, what it has to do at once, and what is to be told of it."""

    unit: Unit
    todo: Action | None = None
    trouble: str = ""


def power_on(lun: Lun, disk: Opened, target_name: str) -> PoweredOn:
    """The unit of a disk; never an exception over what it remembers or measures."""
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
    if notes is None:
        return PoweredOn(unit)
    try:
        return PoweredOn(unit, recall(unit, notes.left()))
    except Exception as problem:  # DiskError, or ValueError for what nobody kept
        return PoweredOn(unit, trouble=str(problem))

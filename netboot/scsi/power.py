"""Power on: what a unit is told of the time before (SPC-4 section 5.13.5, SBC-4 section 4.11.3).

Reservations hold before the first initiator comes, and a sanitize operation that had not ended
goes on. Pure: whoever opens the disk brings the text, and does what is left to be done.
"""

from netboot.scsi.action import Action
from netboot.scsi.kept import decode
from netboot.scsi.sanitize import resumed
from netboot.scsi.unit import Unit


def recall(unit: Unit, text: bytes) -> Action | None:
    """Put a new unit where it was when ``text`` was kept; what must be done now, if anything.

    ValueError for a text that no ``Keep`` of such a unit wrote: the unit is then as new.
    """
    reservations, operation = decode(text)
    if operation is not None and operation.passes and len(operation.pattern) != unit.block_size:
        raise ValueError(f"a pattern of {len(operation.pattern)} bytes is no block of this unit")
    unit.reservations.become(reservations)
    unit.sanitizing = operation
    unit.refresh()
    return resumed(unit)

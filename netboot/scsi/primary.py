"""The small commands every unit answers: ready, sense, capacity, LUNs, start, prevent.

None of them touches a block. SPC-4 chapter 6; READ CAPACITY and START STOP UNIT are SBC-3.
"""

import struct
from collections.abc import Iterable

from netboot.scsi.action import Action, Flush, Reply, Status
from netboot.scsi.cdb import Buffer, be32, cut, invalid_field, refuse
from netboot.scsi.reservations import Access
from netboot.scsi.sense import Code, Key, Sense
from netboot.scsi.unit import Unit, View

NO_MEDIUM = Sense(Key.NOT_READY, Code.MEDIUM_NOT_PRESENT)
#: Task management functions: abort task, abort task set, clear task set, logical unit reset,
#: target reset (REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, SPC-4 section 6.36).
TASK_MANAGEMENT = 0x80 | 0x40 | 0x10 | 0x08 | 0x02

#: Power conditions of START STOP UNIT in which no disk is read: STANDBY, FORCE_STANDBY_0.
STANDBY = (0x3, 0xB)


def test_unit_ready(view: View, cdb: Buffer, edtl: int) -> Action:
    """TEST UNIT READY: whoever gets here is ready."""
    return Reply()


test_unit_ready.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def sense_reply(sense: Sense, cdb: Buffer) -> Reply:
    """REQUEST SENSE data in the format that the DESC bit asks for."""
    return cut(sense.descriptor() if cdb[1] & 1 else sense.fixed(), cdb[4])


def request_sense(view: View, cdb: Buffer, edtl: int) -> Action:
    """REQUEST SENSE: the next unit attention, else why the unit is not ready, else nothing."""
    sense = view.next_attention()
    if sense is None:
        nothing = Sense(Key.NO_SENSE, Code.NO_ADDITIONAL_SENSE_INFORMATION)
        sense = view.unit.barred or (nothing if view.unit.loaded else NO_MEDIUM)
    return sense_reply(sense, cdb)


def read_capacity10(view: View, cdb: Buffer, edtl: int) -> Action:
    """READ CAPACITY(10): FFFFFFFFh sends the initiator to READ CAPACITY(16)."""
    unit = view.unit
    return Reply(struct.pack(">II", min(unit.blocks - 1, 0xFFFFFFFF), unit.block_size))


def read_capacity16(view: View, cdb: Buffer, edtl: int) -> Action:
    """READ CAPACITY(16) (SBC-3 section 5.16)."""
    unit = view.unit
    thin = 0xC000 if unit.thin else 0  # LBPME, LBPRZ; lowest aligned block 0
    data = struct.pack(
        ">QIBBH16x", unit.blocks - 1, unit.block_size, 0, unit.physical_block_exponent, thin
    )
    return cut(data, be32(cdb, 10))


def lun_fields(number: int) -> tuple[int, ...]:
    """A LUN as the 64-bit fields it may come in, the one we use first (SAM-5 section 4.7).

    Peripheral addressing below 256, flat space addressing for every number.
    """
    flat = (0x4000 | number) << 48
    return (number << 48, flat) if number < 256 else (flat,)


def report_luns_of(units: Iterable[Unit], cdb: Buffer) -> Action:
    """REPORT LUNS for a target that has these units; it has no well-known ones."""
    if cdb[2] > 2:
        return invalid_field(2)
    numbers = [] if cdb[2] == 1 else sorted({unit.number for unit in units})
    rows = b"".join(struct.pack(">Q", lun_fields(number)[0]) for number in numbers)
    return cut(struct.pack(">I4x", len(rows)) + rows, be32(cdb, 6))


def report_luns(view: View, cdb: Buffer, edtl: int) -> Action:
    """REPORT LUNS at a unit that exists."""
    return report_luns_of((other.unit for other in view.nexus.views.values()), cdb)


def start_stop_unit(view: View, cdb: Buffer, edtl: int) -> Action:
    """START STOP UNIT (SBC-3 section 5.25).

    A stop flushes, and the unit stays ready: a guest that stops its disk when it halts would
    otherwise find NOT READY in the firmware of its next boot, which never sends a START. Power
    conditions are accepted and change nothing, as there is nothing to spin down; but whoever
    sends a disk to sleep wants nothing left in its cache.
    """
    unit = view.unit
    immediate = cdb[1] & 0x01 != 0
    condition, no_flush, eject, start = cdb[4] >> 4, cdb[4] & 0x04, cdb[4] & 0x02, cdb[4] & 0x01
    if view.ceiling < Access.CHANGES and (condition or not start):
        return Reply(status=Status.RESERVATION_CONFLICT)
    if condition:
        return Reply() if no_flush or condition not in STANDBY else Flush(immediate)
    if eject:
        if not unit.removable:
            return invalid_field(4, 1)
        # A lock holds the door either way: libiscsi's suite wants no medium to go in, either.
        if unit.prevented and not (start and unit.loaded):
            return refuse(Key.ILLEGAL_REQUEST, Code.MEDIUM_REMOVAL_PREVENTED)
        if start:
            unit.load(view)
            return Reply()
        if unit.loaded:
            unit.eject()
            unit.tell(Code.MEDIUM_NOT_PRESENT, but=view)  # SBC-4 section 4.4
        return Flush(immediate)
    if start or no_flush:
        return Reply()
    return Flush(immediate)


def prevent_allow_medium_removal(view: View, cdb: Buffer, edtl: int) -> Action:
    """PREVENT ALLOW MEDIUM REMOVAL: each nexus has its own word (SBC-3 section 5.6)."""
    prevent = cdb[4] & 0x03
    if prevent > 1:
        return invalid_field(4, 1)
    if view.ceiling < Access.CHANGES and prevent:
        return Reply(status=Status.RESERVATION_CONFLICT)
    view.prevents = prevent == 1
    return Reply()


def report_task_management(view: View, cdb: Buffer, edtl: int) -> Action:
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, in 4 or (REPD) 16 bytes."""
    if cdb[2] & 0x80:
        data = bytes((TASK_MANAGEMENT, 0, 0, 12)) + bytes(12)
    else:
        data = bytes((TASK_MANAGEMENT, 0, 0, 0))
    return cut(data, be32(cdb, 6))

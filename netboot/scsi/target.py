"""The door to SCSI: all units of one target, and the gates a command goes through.

``execute`` turns a CDB into an Action; the gates stand in the order of SAM-5: the LUN, the
opcode, reservations, unit attentions, forbidden bits, the medium, write protection. READ and
WRITE at a unit where nothing stands in the way go past them all. Never a disk, never an
exception, whatever the CDB.
"""

from collections.abc import Iterable

from netboot.scsi import commands
from netboot.scsi.action import Action, Check, Reply, Status
from netboot.scsi.blocks import write_protected
from netboot.scsi.cdb import Buffer, be16, cut, first_refused, invalid_field, refuse
from netboot.scsi.commands import HOT, Command, Needs
from netboot.scsi.inquiry import standard
from netboot.scsi.primary import NO_MEDIUM, lun_fields, report_luns_of, sense_reply
from netboot.scsi.reservations import Access
from netboot.scsi.sanitize import FAILED
from netboot.scsi.sense import Code, Key, Sense
from netboot.scsi.unit import Nexus, Unit, View

INQUIRY, REQUEST_SENSE, REPORT_LUNS, SANITIZE = 0x12, 0x03, 0xA0, 0x48
UNKNOWN_LUN = Sense(Key.ILLEGAL_REQUEST, Code.LOGICAL_UNIT_NOT_SUPPORTED)


def _luns(unit: Unit) -> tuple[int, ...]:
    """All that ``lun`` may be for this unit: a field has bits above 48, or is 0 like LUN 0."""
    return (unit.number, *lun_fields(unit.number))


class LogicalUnits:
    """All units of one target."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self.units = tuple(units)
        self._by_lun = {lun: unit for unit in self.units for lun in _luns(unit)}
        if len({unit.number for unit in self.units}) != len(self.units):
            raise ValueError("two units of one target have the same LUN")

    def find(self, lun: int) -> Unit | None:
        """The unit that ``lun`` names."""
        return self._by_lun.get(lun)

    @property
    def sanitizing(self) -> bool:
        """Whether any unit is being sanitized."""
        return any(unit.sanitizing and not unit.sanitizing.failed for unit in self.units)

    # Sessions

    def attach(self, initiator: str, isid: bytes = b"", group: int = 1) -> Nexus:
        """A session enters its full-feature phase; ``isid`` is its 6 bytes, ``group`` the tag of
        the portal group that it came in by."""
        nexus = Nexus(initiator, isid, group)
        for unit in self.units:
            view = unit.attach(nexus)
            for lun in _luns(unit):
                nexus.views[lun] = view
        return nexus

    def detach(self, nexus: Nexus) -> None:
        """The session is over, however it ended. Twice is harmless."""
        for view in nexus.views.values():
            view.unit.detach(view)
        nexus.views.clear()

    # Commands

    def execute(self, nexus: Nexus, lun: int, cdb: Buffer, data_out_length: int = 0) -> Action:
        """What the CDB wants.

        ``lun`` is the header's LUN field as a 64-bit number, or the LUN it stands for; ``cdb``
        is 16 bytes; ``data_out_length`` the Expected Data Transfer Length of a write, else 0.
        The Action's lengths are the CDB's; residuals are the transport's business.
        """
        if len(cdb) < 16:
            cdb = bytes(cdb).ljust(16, b"\0")
        view = nexus.views.get(lun)
        if view is None:
            return self._nowhere(lun, cdb)
        if view.clear:
            decode = HOT[cdb[0]]
            if decode is not None:
                return decode(view, cdb, data_out_length)
        return self._gates(view, bytes(cdb), data_out_length)

    def _gates(self, view: View, cdb: bytes, data_out_length: int) -> Action:
        row = commands.find(cdb)
        unit = view.unit
        if isinstance(row, Check):
            return row
        if not row.known_to(unit):
            return refuse(Key.ILLEGAL_REQUEST, Code.INVALID_COMMAND_OPERATION_CODE)
        if row.access > view.ceiling:
            return Reply(status=Status.RESERVATION_CONFLICT)
        if row.access is not Access.ANSWERS:
            attention = view.next_attention()
            if attention is not None:
                return Check(attention)
        return (
            first_refused(cdb, row.size, row.refused)
            or self._unmet(row, unit)
            or row.decode(view, cdb, data_out_length)
        )

    @staticmethod
    def _unmet(row: Command, unit: Unit) -> Check | None:
        # After a failure another SANITIZE may succeed, or end the failure mode.
        again = row.opcode == SANITIZE and unit.barred is FAILED
        if unit.barred is not None and not row.calm and not again:
            return Check(unit.barred)
        if row.needs & Needs.MEDIUM and not unit.loaded:
            return Check(NO_MEDIUM)
        return write_protected(unit) if row.needs & Needs.WRITABLE else None

    def _nowhere(self, lun: int, cdb: Buffer) -> Action:
        """Commands to a LUN that does not exist (SAM-5 section 5.11, SPC-4 6.6.1)."""
        opcode = cdb[0]
        if opcode == INQUIRY:
            if cdb[1] & 0x03 or cdb[2]:
                return invalid_field(1 if cdb[1] & 0x03 else 2)
            return cut(standard(None), be16(cdb, 3))
        if opcode == REQUEST_SENSE:
            return sense_reply(UNKNOWN_LUN, cdb)
        if opcode == REPORT_LUNS and lun == 0:
            return report_luns_of(self.units, cdb)
        return Check(UNKNOWN_LUN)

    def sense_bytes(self, lun: int, sense: Sense) -> bytes:
        """Sense data in the format the unit is set to (D_SENSE of its Control mode page)."""
        unit = self.find(lun)
        return sense.descriptor() if unit and unit.descriptor_sense else sense.fixed()

    # Task management: the tasks themselves are the transport's, the rest happens here

    def reset_unit(self, lun: int) -> bool:
        """LOGICAL UNIT RESET; False when there is no such unit."""
        unit = self.find(lun)
        if unit is not None:
            unit.reset()
        return unit is not None

    def reset_target(self, *, cold: bool = False) -> None:
        """TARGET WARM RESET or COLD RESET: every unit is reset."""
        power_on = Code.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED
        for unit in self.units:
            unit.reset(power_on if cold else Code.SCSI_BUS_RESET_OCCURRED)

    def commands_cleared(self, lun: int, victims: Iterable[Nexus]) -> None:
        """CLEAR TASK SET took tasks of these other sessions: they learn it by 2F/00."""
        for nexus in victims:
            view = nexus.views.get(lun)
            if view is not None:
                view.attend(Code.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)

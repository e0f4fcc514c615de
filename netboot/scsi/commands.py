"""THE table: every command we speak, one row each.

A row answers for the dispatch, for REPORT SUPPORTED OPERATION CODES, for what reservations,
unit attentions, a missing medium and write protection do to the command, for the documentation
(``markdown``) and for the tests. A new command is a decode function and a row here.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag

from netboot.scsi import (
    atomic,
    blocks,
    copy,
    defects,
    inquiry,
    logs,
    modes,
    persistent,
    ports,
    primary,
    provisioning,
    sanitize,
)
from netboot.scsi.action import Action, Check
from netboot.scsi.blocks import TRANSFER_FLAGS, Decode
from netboot.scsi.cdb import Buffer, be16, be32, cut, invalid_field, mask, refuse
from netboot.scsi.reservations import Access
from netboot.scsi.sense import Code, Key
from netboot.scsi.unit import Unit, View

ANSWERS, RELEASES, ASKS, READS, CHANGES = Access


class Needs(IntFlag):
    """What must be there for a command to be decoded at all."""

    NOTHING = 0
    MEDIUM = 1  #: else NOT READY
    WRITABLE = 2  #: the medium changes: else DATA PROTECT
    THIN = 4  #: else the unit does not know the command


NOTHING, MEDIUM, THIN = Needs.NOTHING, Needs.MEDIUM, Needs.THIN
WRITES = Needs.MEDIUM | Needs.WRITABLE


@dataclass(frozen=True, slots=True)
class Command:
    """One row. ``usage`` is the CDB usage data: its length is the CDB's size, its first byte
    the opcode, and a bit is set where the CDB is looked at (SPC-4 section 6.35.3)."""

    name: str
    usage: bytes
    service_action: int | None
    access: Access
    needs: Needs
    refused: int  #: bits that must be zero, as a number as long as the CDB
    reference: str
    decode: Decode
    calm: bool  #: answered while the unit is sanitized, too (SBC-4 section 4.11.2)

    @property
    def opcode(self) -> int:
        """The operation code."""
        return self.usage[0]

    @property
    def size(self) -> int:
        """Bytes of the CDB."""
        return len(self.usage)

    @property
    def writes(self) -> bool:
        """Whether the medium is changed."""
        return bool(self.needs & Needs.WRITABLE)

    def known_to(self, unit: Unit) -> bool:
        """Whether this unit speaks the command at all."""
        return unit.thin or not self.needs & Needs.THIN


def _row(
    name: str,
    usage: str,
    access: Access,
    needs: Needs,
    reference: str,
    decode: Decode,
    *,
    refuse: Mapping[int, int] | None = None,
    action: bool = False,
    calm: bool = False,
) -> Command:
    """``refuse`` is byte → bits that must be zero; ``action``: byte 1 of usage is one."""
    data = bytes.fromhex(usage)
    must_be_zero = mask(len(data), refuse or {})
    service_action = data[1] & 0x1F if action else None
    return Command(name, data, service_action, access, needs, must_be_zero, reference, decode, calm)


def report_opcodes(view: View, cdb: Buffer, edtl: int) -> Action:
    """REPORT SUPPORTED OPERATION CODES: the rows of the table, all or one (SPC-4 6.35)."""
    rctd, options, opcode = cdb[2] & 0x80, cdb[2] & 0x07, cdb[3]
    action, allocation = be16(cdb, 4), be32(cdb, 6)
    if options == 0:
        return cut(_all_commands(view.unit, bool(rctd)), allocation)
    entry = TABLE[opcode]
    if options == 1 and isinstance(entry, dict):
        return invalid_field(2, 2)
    if options == 2 and isinstance(entry, Command):
        return invalid_field(2, 2)
    if options > 3:
        return invalid_field(2, 2)
    if isinstance(entry, dict):
        row = entry.get(action)
    else:
        row = entry if options == 1 or not action else None
    return cut(
        _one_command(row if row and row.known_to(view.unit) else None, bool(rctd)), allocation
    )


#: Command timeouts descriptor: nothing is promised (SPC-4 section 6.35.4).
TIMEOUTS = struct.pack(">HBBII", 10, 0, 0, 0, 0)


def _all_commands(unit: Unit, timeouts: bool) -> bytes:
    made = b""
    for row in COMMANDS:
        if not row.known_to(unit):
            continue
        flags = (0x02 if timeouts else 0) | (0x01 if row.service_action is not None else 0)
        made += struct.pack(
            ">BBHBBH", row.opcode, 0, row.service_action or 0, 0, flags, row.size
        ) + (TIMEOUTS if timeouts else b"")
    return struct.pack(">I", len(made)) + made


def _one_command(row: Command | None, timeouts: bool) -> bytes:
    if row is None:
        return struct.pack(">BBH", 0, 1, 0)
    flags = 0x03 | (0x80 if timeouts else 0)
    made = struct.pack(">BBH", 0, flags, row.size) + row.usage
    return made + TIMEOUTS if timeouts else made


PROTECT = {1: TRANSFER_FLAGS}
VERIFY = {1: 0xE1}
SAME = {1: 0xE0 | 0x10 | 0x06}  # WRPROTECT, ANCHOR, PBDATA and LBDATA
CLEAN = {1: 0x40} | dict.fromkeys(range(2, 7), 0xFF)
IN, OUT = persistent, persistent.persistent_reserve_out

# Every row's last byte is CONTROL, of which NACA is looked at, and refused.
# fmt: off
COMMANDS = (
    _row("TEST UNIT READY", "00 00000000 04",
         ASKS, MEDIUM, "SPC-4 6.47", primary.test_unit_ready),
    _row("REQUEST SENSE", "03 01 0000 FF 04",
         ANSWERS, NOTHING, "SPC-4 6.39", primary.request_sense, calm=True),
    _row("READ(6)", "08 1FFFFF FF 04",
         READS, MEDIUM, "SBC-2 5.5", blocks.read6),
    _row("WRITE(6)", "0A 1FFFFF FF 04",
         CHANGES, WRITES, "SBC-2 5.24", blocks.write6),
    _row("INQUIRY", "12 03 FF FFFF 04",
         ANSWERS, NOTHING, "SPC-4 6.6", inquiry.inquiry, refuse={1: 0x02}, calm=True),
    _row("MODE SELECT(6)", "15 11 0000 FF 04",
         CHANGES, NOTHING, "SPC-4 6.11", modes.mode_select, refuse={1: 0x01}),
    _row("RESERVE(6)", "16 11 000000 04",
         CHANGES, NOTHING, "SPC-2 7.21", persistent.reserve6, refuse={1: 0x11}),
    _row("RELEASE(6)", "17 11 000000 04",
         RELEASES, NOTHING, "SPC-2 7.17", persistent.release6, refuse={1: 0x11}),
    _row("MODE SENSE(6)", "1A 08 FF FF FF 04",
         READS, NOTHING, "SPC-4 6.13", modes.mode_sense, calm=True),
    _row("START STOP UNIT", "1B 01 0000 F7 04",
         ASKS, NOTHING, "SBC-3 5.25", primary.start_stop_unit),
    _row("PREVENT ALLOW MEDIUM REMOVAL", "1E 000000 03 04",
         ASKS, NOTHING, "SBC-3 5.10", primary.prevent_allow_medium_removal),
    _row("READ CAPACITY(10)", "25 00 00000000 0000 00 04",
         ASKS, MEDIUM, "SBC-3 5.15", primary.read_capacity10, calm=True),
    _row("READ(10)", "28 FB FFFFFFFF 00 FFFF 04",
         READS, MEDIUM, "SBC-3 5.11", blocks.read10, refuse=PROTECT),
    _row("WRITE(10)", "2A FB FFFFFFFF 00 FFFF 04",
         CHANGES, WRITES, "SBC-3 5.33", blocks.write10, refuse=PROTECT),
    _row("WRITE AND VERIFY(10)", "2E F7 FFFFFFFF 00 FFFF 04",
         CHANGES, WRITES, "SBC-3 5.37", blocks.write_and_verify, refuse=VERIFY),
    _row("VERIFY(10)", "2F F7 FFFFFFFF 00 FFFF 04",
         READS, MEDIUM, "SBC-3 5.29", blocks.verify, refuse=VERIFY),
    _row("PRE-FETCH(10)", "34 03 FFFFFFFF 00 FFFF 04",
         READS, MEDIUM, "SBC-3 5.8", blocks.prefetch, refuse={1: 0x01}),
    _row("SYNCHRONIZE CACHE(10)", "35 03 FFFFFFFF 00 FFFF 04",
         CHANGES, MEDIUM, "SBC-3 5.26", blocks.synchronize_cache, refuse={1: 0x01}),
    _row("READ DEFECT DATA(10)", "37 00 1F 00000000 FFFF 04",
         READS, MEDIUM, "SBC-3 5.17", defects.read_defect_data10),
    _row("WRITE SAME(10)", "41 FE FFFFFFFF 00 FFFF 04",
         CHANGES, WRITES, "SBC-3 5.43", provisioning.write_same, refuse=SAME),
    _row("UNMAP", "42 01 00000000 00 FFFF 04",
         CHANGES, WRITES | THIN, "SBC-3 5.28", provisioning.unmap, refuse={1: 0x01}),
    _row("SANITIZE: OVERWRITE", "48 E1 FFFFFFFFFF FFFF 04",
         CHANGES, WRITES, "SBC-3 5.22.2", sanitize.overwrite, refuse=CLEAN, action=True),
    _row("SANITIZE: BLOCK ERASE", "48 E2 FFFFFFFFFF FFFF 04",
         CHANGES, WRITES | THIN, "SBC-3 5.22.3", sanitize.erase, refuse=CLEAN, action=True),
    _row("SANITIZE: CRYPTOGRAPHIC ERASE", "48 E3 FFFFFFFFFF FFFF 04",
         CHANGES, WRITES | THIN, "SBC-3 5.22.4", sanitize.erase, refuse=CLEAN, action=True),
    _row("SANITIZE: EXIT FAILURE MODE", "48 FF FFFFFFFFFF FFFF 04",
         CHANGES, MEDIUM, "SBC-3 5.22.5", sanitize.exit_failure_mode, refuse=CLEAN, action=True),
    _row("LOG SENSE", "4D 01 FF FF 00 FFFF FFFF 04",
         READS, NOTHING, "SPC-4 6.8", logs.log_sense, refuse={1: 0x01}),
    _row("MODE SELECT(10)", "55 11 0000000000 FFFF 04",
         CHANGES, NOTHING, "SPC-4 6.12", modes.mode_select, refuse={1: 0x01}),
    _row("MODE SENSE(10)", "5A 18 FF FF 000000 FFFF 04",
         READS, NOTHING, "SPC-4 6.14", modes.mode_sense, calm=True),
    _row("PERSISTENT RESERVE IN: READ KEYS", "5E 00 0000000000 FFFF 04",
         ASKS, NOTHING, "SPC-4 6.15.2", IN.read_keys, action=True),
    _row("PERSISTENT RESERVE IN: READ RESERVATION", "5E 01 0000000000 FFFF 04",
         ASKS, NOTHING, "SPC-4 6.15.3", IN.read_reservation, action=True),
    _row("PERSISTENT RESERVE IN: REPORT CAPABILITIES", "5E 02 0000000000 FFFF 04",
         ASKS, NOTHING, "SPC-4 6.15.4", IN.report_capabilities, action=True),
    _row("PERSISTENT RESERVE IN: READ FULL STATUS", "5E 03 0000000000 FFFF 04",
         ASKS, NOTHING, "SPC-4 6.15.5", IN.read_full_status, action=True),
    _row("PERSISTENT RESERVE OUT: REGISTER", "5F 00 000000 FFFFFFFF 04",
         ASKS, NOTHING, "SPC-4 6.16", OUT, action=True),
    _row("PERSISTENT RESERVE OUT: RESERVE", "5F 01 FF0000 FFFFFFFF 04",
         ASKS, NOTHING, "SPC-4 6.16", OUT, action=True),
    _row("PERSISTENT RESERVE OUT: RELEASE", "5F 02 FF0000 FFFFFFFF 04",
         ASKS, NOTHING, "SPC-4 6.16", OUT, action=True),
    _row("PERSISTENT RESERVE OUT: CLEAR", "5F 03 000000 FFFFFFFF 04",
         ASKS, NOTHING, "SPC-4 6.16", OUT, action=True),
    _row("PERSISTENT RESERVE OUT: PREEMPT", "5F 04 FF0000 FFFFFFFF 04",
         ASKS, NOTHING, "SPC-4 6.16", OUT, action=True),
    _row("PERSISTENT RESERVE OUT: PREEMPT AND ABORT", "5F 05 FF0000 FFFFFFFF 04",
         ASKS, NOTHING, "SPC-4 6.16", OUT, action=True),
    _row("PERSISTENT RESERVE OUT: REGISTER AND IGNORE EXISTING KEY", "5F 06 000000 FFFFFFFF 04",
         ASKS, NOTHING, "SPC-4 6.16", OUT, action=True),
    _row("EXTENDED COPY(LID1)", "83 00 0000000000000000 FFFFFFFF 00 04",
         CHANGES, MEDIUM, "SPC-4 6.4", copy.extended_copy, action=True),
    _row("RECEIVE COPY STATUS(LID1)", "84 00 FF 00000000000000 FFFFFFFF 00 04",
         READS, NOTHING, "SPC-4 6.18.2", copy.copy_status, action=True),
    _row("RECEIVE COPY OPERATING PARAMETERS", "84 03 0000000000000000 FFFFFFFF 00 04",
         READS, NOTHING, "SPC-4 6.18.4", copy.operating_parameters, action=True),
    _row("READ(16)", "88 FB FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         READS, MEDIUM, "SBC-3 5.13", blocks.read16, refuse=PROTECT),
    _row("COMPARE AND WRITE", "89 FB FFFFFFFFFFFFFFFF 000000 FF 00 04",
         CHANGES, WRITES, "SBC-3 5.2", blocks.compare_and_write, refuse=PROTECT),
    _row("WRITE(16)", "8A FB FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         CHANGES, WRITES, "SBC-3 5.35", blocks.write16, refuse=PROTECT),
    _row("ORWRITE(16)", "8B FB FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         CHANGES, WRITES, "SBC-3 5.5", blocks.or_write, refuse=PROTECT),
    _row("WRITE AND VERIFY(16)", "8E F7 FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         CHANGES, WRITES, "SBC-3 5.39", blocks.write_and_verify, refuse=VERIFY),
    _row("VERIFY(16)", "8F F7 FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         READS, MEDIUM, "SBC-3 5.31", blocks.verify, refuse=VERIFY),
    _row("PRE-FETCH(16)", "90 03 FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         READS, MEDIUM, "SBC-3 5.9", blocks.prefetch, refuse={1: 0x01}),
    _row("SYNCHRONIZE CACHE(16)", "91 03 FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         CHANGES, MEDIUM, "SBC-3 5.27", blocks.synchronize_cache, refuse={1: 0x01}),
    _row("WRITE SAME(16)", "93 FF FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         CHANGES, WRITES, "SBC-3 5.44", provisioning.write_same, refuse=SAME),
    _row("WRITE ATOMIC(16)", "9C FB FFFFFFFFFFFFFFFF FFFF FFFF 00 04",
         CHANGES, WRITES, "SBC-4 5.47", atomic.write_atomic, refuse=PROTECT | {10: 0xFF, 11: 0xFF}),
    _row("READ CAPACITY(16)", "9E 10 0000000000000000 FFFFFFFF 00 04",
         ASKS, MEDIUM, "SBC-3 5.16", primary.read_capacity16, action=True, calm=True),
    _row("GET LBA STATUS", "9E 12 FFFFFFFFFFFFFFFF FFFFFFFF 00 04",
         READS, MEDIUM, "SBC-3 5.4", provisioning.get_lba_status, action=True),
    _row("REPORT LUNS", "A0 00 FF 000000 FFFFFFFF 00 04",
         ANSWERS, NOTHING, "SPC-4 6.33", primary.report_luns, calm=True),
    _row("REPORT TARGET PORT GROUPS", "A3 EA 00000000 FFFFFFFF 00 04",
         ASKS, NOTHING, "SPC-4 6.37", ports.report_target_port_groups, action=True),
    _row("REPORT SUPPORTED OPERATION CODES", "A3 0C 87 FF FFFF FFFFFFFF 00 04",
         READS, NOTHING, "SPC-4 6.35", report_opcodes, action=True, calm=True),
    _row("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "A3 0D 80 000000 FFFFFFFF 00 04",
         READS, NOTHING, "SPC-4 6.36", primary.report_task_management,
         action=True, calm=True),
    _row("READ(12)", "A8 FB FFFFFFFF FFFFFFFF 00 04",
         READS, MEDIUM, "SBC-3 5.12", blocks.read12, refuse=PROTECT),
    _row("WRITE(12)", "AA FB FFFFFFFF FFFFFFFF 00 04",
         CHANGES, WRITES, "SBC-3 5.34", blocks.write12, refuse=PROTECT),
    _row("WRITE AND VERIFY(12)", "AE F7 FFFFFFFF FFFFFFFF 00 04",
         CHANGES, WRITES, "SBC-3 5.38", blocks.write_and_verify, refuse=VERIFY),
    _row("VERIFY(12)", "AF F7 FFFFFFFF FFFFFFFF 00 04",
         READS, MEDIUM, "SBC-3 5.30", blocks.verify, refuse=VERIFY),
    _row("READ DEFECT DATA(12)", "B7 1F 00000000 FFFFFFFF 00 04",
         READS, MEDIUM, "SBC-3 5.18", defects.read_defect_data12),
)
# fmt: on


def _index(rows: tuple[Command, ...]) -> list[Command | dict[int, Command] | None]:
    table: list[Command | dict[int, Command] | None] = [None] * 256
    for row in rows:
        if row.service_action is None:
            table[row.opcode] = row
            continue
        actions = table[row.opcode]
        if not isinstance(actions, dict):
            actions = table[row.opcode] = {}
        actions[row.service_action] = row
    return table


#: By opcode: the row, or the rows by service action, or None.
TABLE = _index(COMMANDS)
#: By opcode: decoders that check everything themselves, for a view that is ``clear``.
HOT: list[Decode | None] = [
    row.decode if isinstance(row, Command) and row.decode in blocks.UNGATED else None
    for row in TABLE
]


def find(cdb: Buffer) -> Command | Check:
    """The row of a CDB, or why there is none: opcode, or service action, unknown."""
    entry = TABLE[cdb[0]]
    if isinstance(entry, dict):
        return entry.get(cdb[1] & 0x1F) or invalid_field(1, 4)
    return entry or refuse(Key.ILLEGAL_REQUEST, Code.INVALID_COMMAND_OPERATION_CODE)


def markdown() -> str:
    """The table for people."""
    lines = [
        "| Code | Command | CDB usage | Writes | Under a reservation of another "
        "| While sanitized | Reference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in COMMANDS:
        code = (
            f"{row.opcode:02X}"
            if row.service_action is None
            else (f"{row.opcode:02X}/{row.service_action:02X}")
        )
        lines.append(
            f"| `{code}` | {row.name} | `{row.usage.hex(' ').upper()}` "
            f"| {'yes' if row.writes else ''} | {ALLOWED[row.access]} "
            f"| {'answered' if row.calm else ''} | {row.reference} |"
        )
    return "\n".join(lines) + "\n"


#: What a row's access says, for people.
ALLOWED = {
    ANSWERS: "always answered",
    RELEASES: "always answered",
    ASKS: "allowed (not under RESERVE(6))",
    READS: "allowed under Write Exclusive",
    CHANGES: "conflict",
}

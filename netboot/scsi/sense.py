"""Sense data: why a command was refused (SPC-4 section 4.5).

``Sense`` is a value; ``fixed`` and ``descriptor`` give its two wire formats. ``Code`` holds
the additional sense codes this product uses, each once, under its name in SPC-4 annex F.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum


class Key(IntEnum):
    """Sense keys (SPC-4 table 48)."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    MISCOMPARE = 0xE


class Code(IntEnum):
    """Additional sense code and qualifier, ASC << 8 | ASCQ (SPC-4 annex F)."""

    NO_ADDITIONAL_SENSE_INFORMATION = 0x0000
    LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS = 0x041B
    UNREACHABLE_COPY_TARGET = 0x0804
    WRITE_ERROR = 0x0C00
    COPY_TARGET_DEVICE_NOT_REACHABLE = 0x0D02
    UNRECOVERED_READ_ERROR = 0x1100
    PARAMETER_LIST_LENGTH_ERROR = 0x1A00
    MISCOMPARE_DURING_VERIFY_OPERATION = 0x1D00
    INVALID_COMMAND_OPERATION_CODE = 0x2000
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = 0x2100
    INVALID_FIELD_IN_CDB = 0x2400
    LOGICAL_UNIT_NOT_SUPPORTED = 0x2500
    INVALID_FIELD_IN_PARAMETER_LIST = 0x2600
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x2604
    TOO_MANY_TARGET_DESCRIPTORS = 0x2606
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE = 0x2607
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x2608
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE = 0x2609
    WRITE_PROTECTED = 0x2700
    LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED = 0x2702
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x2707
    NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED = 0x2800
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = 0x2900
    SCSI_BUS_RESET_OCCURRED = 0x2902
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x2903
    MODE_PARAMETERS_CHANGED = 0x2A01
    RESERVATIONS_PREEMPTED = 0x2A03
    RESERVATIONS_RELEASED = 0x2A04
    REGISTRATIONS_PREEMPTED = 0x2A05
    CAPACITY_DATA_HAS_CHANGED = 0x2A09
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2F00
    SANITIZE_COMMAND_FAILED = 0x3103
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900
    MEDIUM_NOT_PRESENT = 0x3A00
    INTERNAL_TARGET_FAILURE = 0x4400
    MEDIUM_REMOVAL_PREVENTED = 0x5302
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense key with additional sense code and qualifier (``asc`` = ASC << 8 | ASCQ)."""

    key: Key
    asc: int
    information: int | None = None  #: e.g. the first miscomparing byte, or an LBA
    field: int | None = None  #: byte of the CDB (or parameter list) at fault
    in_data: bool = False  #: ``field`` counts in the parameter list, not in the CDB
    bit: int | None = None  #: the most significant bit at fault in that byte
    progress: int | None = None  #: of what is under way, in 65536ths

    def _pointer(self) -> bytes:
        """Sense key specific data: field pointer or progress (SPC-4 section 4.5.2.4)."""
        if self.progress is not None:
            return struct.pack(">BH", 0x80, self.progress)
        if self.field is None:
            return b"\0\0\0"
        flags = 0x80 | (0 if self.in_data else 0x40)
        if self.bit is not None:
            flags |= 0x08 | self.bit
        return struct.pack(">BH", flags, self.field)

    def fixed(self) -> bytes:
        """Fixed format, response code 70h, 18 bytes (SPC-4 section 4.5.3)."""
        valid = self.information is not None and self.information < 1 << 32
        return struct.pack(
            ">BBBIBIHB3s",
            0x70 | (0x80 if valid else 0),
            0,
            self.key,
            self.information or 0 if valid else 0,
            10,
            0,
            self.asc,
            0,
            self._pointer(),
        )

    def descriptor(self) -> bytes:
        """Descriptor format, response code 72h, 8 to 28 bytes (SPC-4 section 4.5.2)."""
        rows = b""
        if self.information is not None:
            rows += struct.pack(">BBBBQ", 0x00, 0x0A, 0x80, 0, self.information)
        if self.field is not None or self.progress is not None:
            rows += struct.pack(">BBH3sB", 0x02, 0x06, 0, self._pointer(), 0)
        return struct.pack(">BBH3xB", 0x72, self.key, self.asc, len(rows)) + rows


#: What an initiator is told when the storage below failed while reading. The words are those of
#: ``storage.disk.Fault``, which this package must not import.
READ_FAULTS = {
    "medium": Sense(Key.MEDIUM_ERROR, Code.UNRECOVERED_READ_ERROR),
    "space": Sense(Key.HARDWARE_ERROR, Code.INTERNAL_TARGET_FAILURE),
    "failed": Sense(Key.HARDWARE_ERROR, Code.INTERNAL_TARGET_FAILURE),
    "read-only": Sense(Key.HARDWARE_ERROR, Code.INTERNAL_TARGET_FAILURE),
}
#: The same while writing, unmapping or flushing.
WRITE_FAULTS = {
    "medium": Sense(Key.MEDIUM_ERROR, Code.WRITE_ERROR),
    "space": Sense(Key.DATA_PROTECT, Code.SPACE_ALLOCATION_FAILED_WRITE_PROTECT),
    "failed": Sense(Key.HARDWARE_ERROR, Code.INTERNAL_TARGET_FAILURE),
    "read-only": Sense(Key.DATA_PROTECT, Code.WRITE_PROTECTED),
}


def for_fault(fault: str, *, writing: bool) -> Sense:
    """The sense for a storage fault; a word nobody knows is an internal target failure."""
    table = WRITE_FAULTS if writing else READ_FAULTS
    return table.get(fault, WRITE_FAULTS["failed"])


def miscompare(offset: int) -> Sense:
    """MISCOMPARE; ``offset`` is the first byte of the Data-Out buffer that differed (SBC-3 5.3)."""
    return Sense(Key.MISCOMPARE, Code.MISCOMPARE_DURING_VERIFY_OPERATION, information=offset)

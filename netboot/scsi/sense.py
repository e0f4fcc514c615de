"""Sense data: why a command was refused (SPC-4 section 4.5).

``Sense`` is a value; ``fixed`` and ``descriptor`` give its two wire formats. The table holds
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


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense key with additional sense code and qualifier (``asc`` = ASC << 8 | ASCQ)."""

    key: Key
    asc: int
    information: int | None = None  #: e.g. the first miscomparing byte, or an LBA
    field: int | None = None  #: byte of the CDB (or parameter list) at fault
    in_data: bool = False  #: ``field`` counts in the parameter list, not in the CDB

    def fixed(self) -> bytes:
        """Fixed format, response code 70h, 18 bytes (SPC-4 section 4.5.3)."""
        valid = self.information is not None and self.information < 1 << 32
        specific = b"\0\0\0"
        if self.field is not None:
            specific = struct.pack(">BH", 0x80 | (0 if self.in_data else 0x40), self.field)
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
            specific,
        )

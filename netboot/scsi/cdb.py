"""Command descriptor blocks: their sizes, their common fields, and how to refuse one.

Nothing here knows a command. A CDB arrives padded to at least 16 bytes, as the iSCSI header
carries it, so fixed offsets can be read without asking (SAM-5 section 5.2, SPC-4 section 4.2).
"""

import struct
from collections.abc import Mapping
from typing import TypeAlias

from netboot.scsi.action import Check, Reply
from netboot.scsi.sense import Code, Key, Sense

Buffer: TypeAlias = bytes | bytearray | memoryview

#: CDB size by the opcode's top three bits; 7Fh and vendor codes have none of their own.
SIZES = (6, 10, 10, 16, 16, 12, 16, 16)
#: CONTROL byte: NACA asks for auto contingent allegiance, which we do not offer (SAM-5 5.2).
NACA = 0x04

#: (flags, lba, count) of a block command by CDB size; byte 1 holds the flags in each.
EXTENTS = {
    10: struct.Struct(">xBIxH"),
    12: struct.Struct(">xBII"),
    16: struct.Struct(">xBQI"),
}


def extent(cdb: Buffer) -> tuple[int, int, int]:
    """Flags, first block and number of blocks of a 10, 12 or 16 byte block command."""
    flags, lba, count = EXTENTS[SIZES[cdb[0] >> 5]].unpack_from(cdb)
    return flags, lba, count


def be16(cdb: Buffer, offset: int) -> int:
    """Two bytes, most significant first."""
    return cdb[offset] << 8 | cdb[offset + 1]


def be24(cdb: Buffer, offset: int) -> int:
    """Three bytes, most significant first."""
    return cdb[offset] << 16 | cdb[offset + 1] << 8 | cdb[offset + 2]


def be32(cdb: Buffer, offset: int) -> int:
    """Four bytes, most significant first."""
    return int.from_bytes(cdb[offset : offset + 4], "big")


def be64(cdb: Buffer, offset: int) -> int:
    """Eight bytes, most significant first."""
    return int.from_bytes(cdb[offset : offset + 8], "big")


def cut(data: bytes, allocation: int) -> Reply:
    """Parameter data as far as the initiator has room; truncation is no error (SPC-4 4.2.5.6)."""
    return Reply(data[:allocation])


def refuse(key: Key, code: Code) -> Check:
    """CHECK CONDITION without a field pointer."""
    return Check(Sense(key, code))


def invalid_field(byte: int, bit: int | None = None) -> Check:
    """INVALID FIELD IN CDB, pointing at ``byte`` and, when known, its highest bad bit."""
    return Check(Sense(Key.ILLEGAL_REQUEST, Code.INVALID_FIELD_IN_CDB, field=byte, bit=bit))


def invalid_parameter(byte: int, bit: int | None = None) -> Check:
    """INVALID FIELD IN PARAMETER LIST, pointing into the Data-Out buffer."""
    code = Code.INVALID_FIELD_IN_PARAMETER_LIST
    return Check(Sense(Key.ILLEGAL_REQUEST, code, field=byte, in_data=True, bit=bit))


def list_length_error() -> Check:
    """PARAMETER LIST LENGTH ERROR: the list ends inside a header or a page."""
    return refuse(Key.ILLEGAL_REQUEST, Code.PARAMETER_LIST_LENGTH_ERROR)


def out_of_range() -> Check:
    """LOGICAL BLOCK ADDRESS OUT OF RANGE."""
    return refuse(Key.ILLEGAL_REQUEST, Code.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def mask(size: int, bits: Mapping[int, int]) -> int:
    """The bits of a CDB that must be zero, as one number: ``bits`` by byte, and NACA."""
    made = bytearray(size)
    made[-1] = NACA
    for byte, value in bits.items():
        made[byte] |= value
    return int.from_bytes(made, "big")


def first_refused(cdb: Buffer, size: int, refused: int) -> Check | None:
    """INVALID FIELD IN CDB for the first bit of ``refused`` that is set in the CDB."""
    wrong = int.from_bytes(cdb[:size], "big") & refused
    if not wrong:
        return None
    position = size * 8 - wrong.bit_length()
    return invalid_field(position // 8, 7 - position % 8)

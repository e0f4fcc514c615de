"""Commands that address blocks: from CDB to offsets and lengths, range-checked (SBC-3 chapter 5).

READ and WRITE are the data path: one ``struct`` unpack, one chain of comparisons, one Action.
They are called without the gates of ``target`` when nothing can stand in their way, so each
checks its own forbidden bits. Nothing here knows what the bytes are or where they live.
"""

import struct
from collections.abc import Callable
from typing import TypeAlias

from netboot.scsi.action import (
    Action,
    Check,
    Collect,
    Compare,
    Flush,
    Merge,
    Prefetch,
    Read,
    Reply,
    Store,
    Verify,
    Write,
)
from netboot.scsi.cdb import (
    NACA,
    SIZES,
    Buffer,
    be16,
    be64,
    extent,
    first_refused,
    invalid_field,
    list_length_error,
    mask,
    out_of_range,
    refuse,
)
from netboot.scsi.sense import Code, Key
from netboot.scsi.unit import Unit, View

Decode: TypeAlias = Callable[[View, Buffer, int], Action]

#: Byte 1 of READ and WRITE that must be zero: protection information, obsolete RELADR.
TRANSFER_FLAGS = 0xE1
#: DPO is advice and may be set anywhere; FUA_NV without a non-volatile cache is FUA.
FUA = 0x08 | 0x02
IMMED = 0x02
BYTCHK = 0x06

#: COMPARE AND WRITE counts its blocks in one byte.
MAX_COMPARE_BLOCKS = 255


def outside(unit: Unit, lba: int, count: int, byte: int, limit: int | None = None) -> Check | None:
    """Refuse a range that leaves the disk, or is longer than the limit; ``byte`` is its count."""
    if lba + count > unit.blocks:
        return out_of_range()
    if count > (unit.max_blocks if limit is None else limit):
        return invalid_field(byte)
    return None


#: First byte of the number of blocks, by CDB size.
COUNT_BYTE = {6: 4, 10: 7, 12: 6, 16: 10}


def count_byte(cdb: Buffer) -> int:
    return COUNT_BYTE[SIZES[cdb[0] >> 5]]


# READ and WRITE


def _layouts(size: int) -> tuple[struct.Struct, int]:
    layout = {10: ">xBIxHB", 12: ">xBIIxB", 16: ">xBQIxB"}[size]
    return struct.Struct(layout), mask(size, {1: TRANSFER_FLAGS})


def reader(size: int) -> Decode:
    """READ(10), (12) and (16) differ in where the numbers are, and in nothing else."""
    layout, refused = _layouts(size)
    unpack = layout.unpack_from

    def read(view: View, cdb: Buffer, edtl: int) -> Action:
        flags, lba, count, control = unpack(cdb)
        unit = view.unit
        if (
            flags & TRANSFER_FLAGS
            or control & NACA
            or lba + count > unit.blocks
            or count > unit.max_blocks
        ):
            return (
                first_refused(cdb, size, refused)
                or outside(unit, lba, count, COUNT_BYTE[size])
                or Reply()
            )
        if not count:
            return Reply()
        block_size = unit.block_size
        return Read(lba * block_size, count * block_size)

    return read


def writer(size: int) -> Decode:
    """WRITE(10), (12) and (16); with the write cache switched off every write is FUA."""
    layout, refused = _layouts(size)
    unpack = layout.unpack_from

    def write(view: View, cdb: Buffer, edtl: int) -> Action:
        flags, lba, count, control = unpack(cdb)
        unit = view.unit
        if (
            unit.protected
            or flags & TRANSFER_FLAGS
            or control & NACA
            or lba + count > unit.blocks
            or count > unit.max_blocks
        ):
            return (
                write_protected(unit)
                or first_refused(cdb, size, refused)
                or outside(unit, lba, count, COUNT_BYTE[size])
                or Reply()
            )
        if not count:
            return Reply()
        block_size = unit.block_size
        return Write(lba * block_size, count * block_size, flags & FUA != 0 or not unit.write_cache)

    return write


def write_protected(unit: Unit) -> Check | None:
    """DATA PROTECT, when the unit takes no writes."""
    if unit.read_only:
        return refuse(Key.DATA_PROTECT, Code.WRITE_PROTECTED)
    if unit.software_protected:
        return refuse(Key.DATA_PROTECT, Code.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED)
    return None


def _short(cdb: Buffer) -> tuple[int, int]:
    """Block and count of READ(6) and WRITE(6): 21 bits, and 0 means 256 (SBC-3 5.7, 5.30)."""
    return (cdb[1] & 0x1F) << 16 | be16(cdb, 2), cdb[4] or 256


def read6(view: View, cdb: Buffer, edtl: int) -> Action:
    """READ(6)."""
    lba, count = _short(cdb)
    unit = view.unit
    return outside(unit, lba, count, 4) or Read(lba * unit.block_size, count * unit.block_size)


def write6(view: View, cdb: Buffer, edtl: int) -> Action:
    """WRITE(6)."""
    lba, count = _short(cdb)
    unit = view.unit
    return outside(unit, lba, count, 4) or Write(
        lba * unit.block_size, count * unit.block_size, not unit.write_cache
    )


def write_and_verify(view: View, cdb: Buffer, edtl: int) -> Action:
    """WRITE AND VERIFY: a write that has reached stable storage when it is answered.

    Reading it back would come from the page cache and prove nothing; the file system's answer
    to the flush is the verification. BYTCHK 10b is reserved (SBC-3 section 5.36).
    """
    flags, lba, count = extent(cdb)
    unit = view.unit
    if flags & BYTCHK == 0x04:
        return invalid_field(1, 2)
    wrong = outside(unit, lba, count, count_byte(cdb))
    if wrong or not count:
        return wrong or Reply()
    return Write(lba * unit.block_size, count * unit.block_size, True)


def verify(view: View, cdb: Buffer, edtl: int) -> Action:
    """VERIFY: read only, or compare with all of the Data-Out buffer, or with one block of it."""
    flags, lba, count = extent(cdb)
    unit = view.unit
    check = flags & BYTCHK
    if check == 0x04:
        return invalid_field(1, 2)
    wrong = outside(unit, lba, count, count_byte(cdb))
    if wrong or not count:
        return wrong or Reply()
    offset, length = lba * unit.block_size, count * unit.block_size
    if not check:
        return Verify(offset, length)
    if check == 0x02:
        return collect(cdb, length, edtl, lambda data: Compare(offset, data))
    return collect(cdb, unit.block_size, edtl, lambda data: Compare(offset, data * count))


def collect(
    cdb: Buffer, length: int, edtl: int, then: Callable[[bytes], Action], *, exact: bool = False
) -> Action:
    """Ask for ``length`` bytes, unless the initiator announced fewer (or, if exact, others)."""
    if edtl < length or (exact and edtl != length):
        return invalid_field(count_byte(cdb))
    return Collect(length, lambda data: then(data) if len(data) == length else list_length_error())


def compare_and_write(view: View, cdb: Buffer, edtl: int) -> Action:
    """COMPARE AND WRITE: the first half is compared, the second written (SBC-3 section 5.2)."""
    lba, count = be64(cdb, 2), cdb[13]
    unit = view.unit
    offset, half = lba * unit.block_size, count * unit.block_size
    wrong = outside(unit, lba, count, 13) or (invalid_field(13) if edtl != 2 * half else None)
    if wrong or not count:
        return wrong or Reply()
    fua = cdb[1] & FUA != 0

    def then(data: bytes) -> Action:
        store = Store(offset, data[half:], fua or not unit.write_cache)
        return Compare(offset, data[:half], store)

    return collect(cdb, 2 * half, edtl, then)


def or_write(view: View, cdb: Buffer, edtl: int) -> Action:
    """ORWRITE(16) (SBC-3 section 5.4)."""
    flags, lba, count = extent(cdb)
    unit = view.unit
    wrong = outside(unit, lba, count, 10)
    if wrong or not count:
        return wrong or Reply()
    offset, length = lba * unit.block_size, count * unit.block_size
    fua = flags & FUA != 0
    return collect(cdb, length, edtl, lambda data: Merge(offset, data, fua or not unit.write_cache))


def prefetch(view: View, cdb: Buffer, edtl: int) -> Action:
    """PRE-FETCH(10) and (16); count 0 means up to the end (SBC-3 section 5.5)."""
    _, lba, count = extent(cdb)
    unit = view.unit
    if lba + count > unit.blocks:
        return out_of_range()
    count = min(count or unit.blocks - lba, unit.max_blocks)
    if not count:
        return Reply()
    return Prefetch(lba * unit.block_size, count * unit.block_size)


def synchronize_cache(view: View, cdb: Buffer, edtl: int) -> Action:
    """SYNCHRONIZE CACHE(10) and (16): the range is checked, then everything is flushed."""
    flags, lba, count = extent(cdb)
    if lba + count > view.unit.blocks:
        return out_of_range()
    return Flush(immediate=flags & IMMED != 0)


read10, read12, read16 = reader(10), reader(12), reader(16)
write10, write12, write16 = writer(10), writer(12), writer(16)
#: Decoders that make every check themselves, so that a clear view may call them directly.
UNGATED = frozenset((read10, read12, read16, write10, write12, write16))

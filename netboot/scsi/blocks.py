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
    Extents,
    Fill,
    Flush,
    Merge,
    Prefetch,
    Read,
    Reply,
    Store,
    Unmap,
    Verify,
    Write,
    Zero,
)
from netboot.scsi.cdb import (
    NACA,
    SIZES,
    Buffer,
    be16,
    be32,
    be64,
    cut,
    extent,
    first_refused,
    invalid_field,
    invalid_parameter,
    list_length_error,
    mask,
    out_of_range,
    refuse,
)
from netboot.scsi.sense import Code, Key
from netboot.scsi.unit import MAX_TRANSFER, Unit, View

Decode: TypeAlias = Callable[[View, Buffer, int], Action]

#: Byte 1 of READ and WRITE that must be zero: protection information, obsolete RELADR.
TRANSFER_FLAGS = 0xE1
#: DPO is advice and may be set anywhere; FUA_NV without a non-volatile cache is FUA.
FUA = 0x08 | 0x02
IMMED = 0x02
BYTCHK = 0x06

#: UNMAP limits of VPD B0. libiscsi's suite calls more than 1 Mi blocks insane.
MAX_UNMAP_BYTES = 512 << 20
MAX_UNMAP_DESCRIPTORS = 128
#: COMPARE AND WRITE counts its blocks in one byte.
MAX_COMPARE_BLOCKS = 255
#: GET LBA STATUS rows in one answer, whatever room the initiator has.
MAX_STATUS_ROWS = 512


def max_write_same(unit: Unit) -> int:
    """Blocks one WRITE SAME may cover; a multiple of the physical block, and under 64 Ki.

    Were it 64 Ki or more, the 16-bit count of WRITE SAME(10) could not exceed it, and what
    follows from asking too much could not be told from asking for the rest of the disk.
    """
    blocks = min(MAX_TRANSFER // unit.block_size, 1 << 16)
    return blocks - (1 << unit.physical_block_exponent)


def _outside(unit: Unit, lba: int, count: int, byte: int, limit: int | None = None) -> Check | None:
    """Refuse a range that leaves the disk, or is longer than the limit; ``byte`` is its count."""
    if lba + count > unit.blocks:
        return out_of_range()
    if count > (unit.max_blocks if limit is None else limit):
        return invalid_field(byte)
    return None


#: First byte of the number of blocks, by CDB size.
COUNT_BYTE = {6: 4, 10: 7, 12: 6, 16: 10}


def _count_byte(cdb: Buffer) -> int:
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
                or _outside(unit, lba, count, COUNT_BYTE[size])
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
                or _outside(unit, lba, count, COUNT_BYTE[size])
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
    return _outside(unit, lba, count, 4) or Read(lba * unit.block_size, count * unit.block_size)


def write6(view: View, cdb: Buffer, edtl: int) -> Action:
    """WRITE(6)."""
    lba, count = _short(cdb)
    unit = view.unit
    return _outside(unit, lba, count, 4) or Write(
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
    wrong = _outside(unit, lba, count, _count_byte(cdb))
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
    wrong = _outside(unit, lba, count, _count_byte(cdb))
    if wrong or not count:
        return wrong or Reply()
    offset, length = lba * unit.block_size, count * unit.block_size
    if not check:
        return Verify(offset, length)
    if check == 0x02:
        return _collect(cdb, length, edtl, lambda data: Compare(offset, data))
    return _collect(cdb, unit.block_size, edtl, lambda data: Compare(offset, data * count))


def _collect(
    cdb: Buffer, length: int, edtl: int, then: Callable[[bytes], Action], *, exact: bool = False
) -> Action:
    """Ask for ``length`` bytes, unless the initiator announced fewer (or, if exact, others)."""
    if edtl < length or (exact and edtl != length):
        return invalid_field(_count_byte(cdb))
    return Collect(length, lambda data: then(data) if len(data) == length else list_length_error())


def compare_and_write(view: View, cdb: Buffer, edtl: int) -> Action:
    """COMPARE AND WRITE: the first half is compared, the second written (SBC-3 section 5.2)."""
    lba, count = be64(cdb, 2), cdb[13]
    unit = view.unit
    offset, half = lba * unit.block_size, count * unit.block_size
    wrong = _outside(unit, lba, count, 13) or (invalid_field(13) if edtl != 2 * half else None)
    if wrong or not count:
        return wrong or Reply()
    fua = cdb[1] & FUA != 0 or not unit.write_cache

    def then(data: bytes) -> Action:
        return Compare(offset, data[:half], Store(offset, data[half:], fua))

    return _collect(cdb, 2 * half, edtl, then)


def or_write(view: View, cdb: Buffer, edtl: int) -> Action:
    """ORWRITE(16) (SBC-3 section 5.4)."""
    flags, lba, count = extent(cdb)
    unit = view.unit
    wrong = _outside(unit, lba, count, 10)
    if wrong or not count:
        return wrong or Reply()
    offset, fua = lba * unit.block_size, flags & FUA != 0 or not unit.write_cache
    length = count * unit.block_size
    return _collect(cdb, length, edtl, lambda data: Merge(offset, data, fua))


def write_same(view: View, cdb: Buffer, edtl: int) -> Action:
    """WRITE SAME(10) and (16): one block again and again; of zeros, perhaps unmapped.

    Count 0 means up to the end of the disk (WSNZ is 0). A pattern that is not zero is written
    even under UNMAP, as it would not read back otherwise (SBC-3 section 5.44).
    """
    flags, lba, count = extent(cdb)
    unit = view.unit
    unmap = flags & 0x08 != 0
    if unmap and not unit.thin:
        return invalid_field(1, 3)
    if lba > unit.blocks:
        return out_of_range()
    count = count or unit.blocks - lba
    wrong = _outside(unit, lba, count, _count_byte(cdb), max_write_same(unit))
    if wrong or not count:
        return wrong or Reply()
    offset, length = lba * unit.block_size, count * unit.block_size
    fua = not unit.write_cache

    def then(pattern: bytes) -> Action:
        if any(pattern):
            return Fill(offset, length, pattern, fua)
        return Zero(offset, length, unmap, fua)

    if cdb[0] == 0x93 and flags & 0x01:  # NDOB: no Data-Out buffer, the block is zeros
        return invalid_field(1, 0) if edtl else Zero(offset, length, unmap, fua)
    return _collect(cdb, unit.block_size, edtl, then, exact=True)


def unmap(view: View, cdb: Buffer, edtl: int) -> Action:
    """UNMAP: all descriptors are checked before any takes effect (SBC-3 section 5.28)."""
    unit = view.unit
    length = be16(cdb, 7)
    if not length:
        return Reply()
    if length < 8:
        return list_length_error()
    if edtl < length:
        return invalid_field(7)

    def then(data: bytes) -> Action:
        return _unmap_list(unit, data)

    return Collect(length, then)


def _unmap_list(unit: Unit, data: bytes) -> Action:
    if len(data) < 8:
        return list_length_error()
    size = be16(data, 2)
    if size > len(data) - 8:
        return invalid_parameter(2)
    rows = size // 16  # an incomplete last one is ignored
    if rows > MAX_UNMAP_DESCRIPTORS:
        return invalid_parameter(2)
    ranges = []
    total = 0
    for row in range(rows):
        lba, count = struct.unpack_from(">QI", data, 8 + 16 * row)
        if lba + count > unit.blocks:
            return out_of_range()
        total += count
        if total * unit.block_size > MAX_UNMAP_BYTES:
            return invalid_parameter(8 + 16 * row + 8)
        if count:
            ranges.append((lba * unit.block_size, count * unit.block_size))
    return Unmap(tuple(ranges), not unit.write_cache) if ranges else Reply()


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


def get_lba_status(view: View, cdb: Buffer, edtl: int) -> Action:
    """GET LBA STATUS: runs of mapped and deallocated blocks (SBC-3 section 5.3)."""
    lba, allocation = be64(cdb, 2), be32(cdb, 10)
    unit = view.unit
    if lba >= unit.blocks:
        return out_of_range()
    limit = min(max(1, (allocation - 8) // 16), MAX_STATUS_ROWS)
    if not unit.thin:
        return cut(_status(unit, lba, [(0, unit.size, True)], 1), allocation)
    offset = lba * unit.block_size
    return Extents(
        offset,
        unit.size - offset,
        limit,
        lambda rows: cut(_status(unit, lba, rows, limit), allocation),
    )


def _status(unit: Unit, lba: int, rows: list[tuple[int, int, bool]], limit: int) -> bytes:
    """Parameter data of GET LBA STATUS; a block that is allocated in part is mapped."""
    runs: list[tuple[int, int, int]] = []  # first, last + 1, status
    at = lba
    for offset, length, allocated in rows:
        # Whole blocks only: an allocated run grows to them, a deallocated one shrinks.
        grow = unit.block_size - 1 if allocated else 0
        stop = (offset + length + grow) // unit.block_size
        stop = min(stop, unit.blocks)
        while at < stop and len(runs) < limit:
            end = min(stop, at + 0xFFFFFFFF)
            runs.append((at, end, 0 if allocated else 1))
            at = end
    if not runs:
        runs = [(lba, min(lba + 1, unit.blocks), 0)]
    body = b"".join(
        struct.pack(">QIB3x", first, stop - first, status) for first, stop, status in runs
    )
    return struct.pack(">I4x", 4 + len(body)) + body


read10, read12, read16 = reader(10), reader(12), reader(16)
write10, write12, write16 = writer(10), writer(12), writer(16)
#: Decoders that make every check themselves, so that a clear view may call them directly.
UNGATED = frozenset((read10, read12, read16, write10, write12, write16))

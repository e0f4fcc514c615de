"""Space of a thin unit: WRITE SAME, UNMAP and GET LBA STATUS (SBC-3 sections 4.7, 5.4, 5.28, 5.43).

Unmapped blocks read as zeros (LBPRZ), so zeros may be stored as nothing. All checks come before
the first block is touched. Nothing here knows how the disk keeps its books.
"""

import struct

from netboot.scsi.action import Action, Collect, Extents, Fill, Reply, Unmap, Zero
from netboot.scsi.blocks import collect, count_byte, outside
from netboot.scsi.cdb import (
    Buffer,
    be16,
    be32,
    be64,
    cut,
    extent,
    invalid_field,
    invalid_parameter,
    list_length_error,
    out_of_range,
)
from netboot.scsi.unit import MAX_TRANSFER, Unit, View

#: UNMAP limits of VPD B0. libiscsi's suite calls more than 1 Mi blocks insane.
MAX_UNMAP_BYTES = 512 << 20
MAX_UNMAP_DESCRIPTORS = 128
#: GET LBA STATUS rows in one answer, whatever room the initiator has.
MAX_STATUS_ROWS = 512


def max_write_same(unit: Unit) -> int:
    """Blocks one WRITE SAME may cover; a multiple of the physical block, and under 64 Ki.

    Were it 64 Ki or more, the 16-bit count of WRITE SAME(10) could not exceed it, and that
    command alone would have no limit to keep to.
    """
    blocks = min(MAX_TRANSFER // unit.block_size, 1 << 16)
    return blocks - (1 << unit.physical_block_exponent)


def write_same(view: View, cdb: Buffer, edtl: int) -> Action:
    """WRITE SAME(10) and (16): one block again and again; of zeros, perhaps unmapped.

    Count 0 is refused (WSNZ is 1): it would mean the rest of the disk, which is more than a
    command may cover but for the last MiBs, and a count that was lost must not overwrite those.
    A pattern that is not zero is written even under UNMAP, as it would not read back otherwise
    (SBC-3 section 5.44).
    """
    flags, lba, count = extent(cdb)
    unit = view.unit
    unmap = flags & 0x08 != 0
    if unmap and not unit.thin:
        return invalid_field(1, 3)
    if not count:
        return invalid_field(count_byte(cdb))
    wrong = outside(unit, lba, count, count_byte(cdb), max_write_same(unit))
    if wrong:
        return wrong
    offset, length = lba * unit.block_size, count * unit.block_size

    def then(pattern: bytes) -> Action:
        fua = not unit.write_cache
        if any(pattern):
            return Fill(offset, length, pattern, fua)
        return Zero(offset, length, unmap, fua)

    if cdb[0] == 0x93 and flags & 0x01:  # NDOB: no Data-Out buffer, the block is zeros
        return invalid_field(1, 0) if edtl else then(b"")
    return collect(cdb, unit.block_size, edtl, then, exact=True)


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

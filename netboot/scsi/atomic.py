"""WRITE ATOMIC(16): all of it is there or nothing, whatever happens (SBC-4 sections 4.27, 5.47).

No boundaries within a write, no alignment and no granularity but a block. Pure.
"""

from netboot.scsi.action import Action, Atomic, Collect, Reply
from netboot.scsi.blocks import FUA
from netboot.scsi.cdb import (
    Buffer,
    be16,
    be64,
    invalid_field,
    list_length_error,
    out_of_range,
)
from netboot.scsi.unit import View

#: Bytes of one write: they are written twice.
MAX_ATOMIC = 1 << 20


def write_atomic(view: View, cdb: Buffer, edtl: int) -> Action:
    """WRITE ATOMIC(16)."""
    lba, count = be64(cdb, 2), be16(cdb, 12)
    unit = view.unit
    offset, length = lba * unit.block_size, count * unit.block_size
    if lba + count > unit.blocks:
        return out_of_range()
    if length > MAX_ATOMIC or edtl < length:
        return invalid_field(12)
    if not count:
        return Reply()
    fua = cdb[1] & FUA != 0 or not unit.write_cache

    def then(data: bytes) -> Action:
        return Atomic(offset, data, fua) if len(data) == length else list_length_error()

    return Collect(length, then)

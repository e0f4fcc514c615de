"""EXTENDED COPY and RECEIVE COPY RESULTS: this target copies between its own units (SPC-4 6.4).

LID1, identification descriptors (E4h) naming one of our units, and segments from block device
to block device (02h); nothing of it is inline or held. What a copy came to is remembered per
nexus and list identifier until it is asked for. Pure; all descriptors are checked before the
first byte moves.
"""

import struct
from typing import NamedTuple

from netboot.scsi.action import Action, Check, Collect, Copy, Reply
from netboot.scsi.blocks import write_protected
from netboot.scsi.cdb import (
    Buffer,
    be16,
    be32,
    be64,
    cut,
    invalid_field,
    invalid_parameter,
    list_length_error,
    refuse,
)
from netboot.scsi.inquiry import designators
from netboot.scsi.reservations import Access
from netboot.scsi.sense import Code, Key
from netboot.scsi.unit import Nexus, Unit, View

HEADER = 16
IDENTIFICATION, BLOCK_TO_BLOCK = 0xE4, 0x02
TARGET, SEGMENT = 32, 28  #: bytes of their descriptors
MAX_TARGETS, MAX_SEGMENTS = 16, 64
MAX_LIST = MAX_TARGETS * TARGET + MAX_SEGMENTS * SEGMENT
#: Bytes of one segment: 65535 blocks of 512.
MAX_SEGMENT = 0xFFFF * 512
#: DC of a segment descriptor: the count is of the destination's blocks.
DC = 0x02
#: LIST ID USAGE 11b: the list has no identifier, and nothing is remembered of it.
DISCARD = 3
#: COPY STATUS: ended without errors, ended with errors (SPC-4 table 221).
DONE, WITH_ERRORS = 0x01, 0x02


class Segment(NamedTuple):
    """One run to copy, in bytes."""

    source: int
    source_offset: int
    destination: int
    destination_offset: int
    length: int


def _aborted(code: Code) -> Check:
    return refuse(Key.COPY_ABORTED, code)


def extended_copy(view: View, cdb: Buffer, edtl: int) -> Action:
    """EXTENDED COPY(LID1); an empty parameter list copies nothing, and is no error."""
    length = be32(cdb, 10)
    if not length:
        return Reply()
    if length < HEADER or length > HEADER + MAX_LIST:
        return list_length_error()
    if edtl < length:
        return invalid_field(10)
    return Collect(length, lambda data: _copy(view, data))


def _copy(view: View, data: bytes) -> Action:
    if len(data) < HEADER:
        return list_length_error()
    targets, segments, inline = be16(data, 2), be32(data, 8), be32(data, 12)
    usage, identifier = data[1] >> 3 & 3, data[0]
    if targets + segments > MAX_LIST or HEADER + targets + segments + inline > len(data):
        return list_length_error()
    if usage == 1:
        return invalid_parameter(1, 4)
    if usage == DISCARD and identifier:
        return invalid_parameter(0)
    units = _targets(view.nexus, data, targets)
    if isinstance(units, Check):
        return units
    runs = _segments(view.nexus, units, data, HEADER + targets, HEADER + targets + segments)
    if isinstance(runs, Check):
        return runs

    def then(done: int, failed: bool) -> Action:
        if usage != DISCARD:
            size = sum(run.length for run in runs[:done])
            row = struct.pack(">BHBI", WITH_ERRORS if failed else DONE, done, 0, size)
            view.nexus.copies[identifier] = row
        code = Code.NO_ADDITIONAL_SENSE_INFORMATION
        return _aborted(code) if failed else Reply()

    return Copy(tuple(runs), then) if runs else then(0, False)


def _targets(nexus: Nexus, data: bytes, size: int) -> list[View | None] | Check:
    """The units that the target descriptors name; None for one that is not ours."""
    found: list[View | None] = []
    for at in range(HEADER, HEADER + size, TARGET):
        if data[at] != IDENTIFICATION:
            return refuse(Key.ILLEGAL_REQUEST, Code.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE)
        if len(found) == MAX_TARGETS:
            return refuse(Key.ILLEGAL_REQUEST, Code.TOO_MANY_TARGET_DESCRIPTORS)
        if at + TARGET > HEADER + size:
            return list_length_error()
        length = data[at + 7]
        if length > 20:
            return invalid_parameter(at + 7)
        kind, value = data[at + 5] & 0x3F, data[at + 8 : at + 8 + length]
        views = {id(view): view for view in nexus.views.values()}.values()
        named = (view for view in views if (kind, value) in designators(view.unit))
        found.append(next(named, None))
    return found


def _segments(
    nexus: Nexus, views: list[View | None], data: bytes, start: int, stop: int
) -> list[Segment] | Check:
    """The segment descriptors as runs of bytes, each checked against its units."""
    runs: list[Segment] = []
    at = start
    while at < stop:
        if data[at] != BLOCK_TO_BLOCK:
            return refuse(Key.ILLEGAL_REQUEST, Code.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE)
        if len(runs) == MAX_SEGMENTS:
            return refuse(Key.ILLEGAL_REQUEST, Code.TOO_MANY_SEGMENT_DESCRIPTORS)
        if at + SEGMENT > stop:
            return list_length_error()
        if be16(data, at + 2) != SEGMENT - 4:
            return invalid_parameter(at + 2)
        ends = [_end(views, be16(data, at + place)) for place in (4, 6)]
        if ends[0] is None or ends[1] is None:
            return _aborted(Code.UNREACHABLE_COPY_TARGET)
        source, destination = ends[0].unit, ends[1].unit
        if ends[0].ceiling < Access.READS or ends[1].ceiling < Access.CHANGES:
            return _aborted(Code.UNREACHABLE_COPY_TARGET)
        counted = destination if data[at + 1] & DC else source
        length = be16(data, at + 10) * counted.block_size
        run = Segment(
            source.number,
            be64(data, at + 12) * source.block_size,
            destination.number,
            be64(data, at + 20) * destination.block_size,
            length,
        )
        wrong = _refused(run, source, destination)
        if wrong:
            return wrong
        if length:
            runs.append(run)
        at += SEGMENT
    return runs


def _end(views: list[View | None], index: int) -> View | None:
    """The unit at one end of a segment, when it is ours and can be used."""
    view = views[index] if index < len(views) else None
    return view if view and view.unit.loaded and view.unit.barred is None else None


def _refused(run: Segment, source: Unit, destination: Unit) -> Check | None:
    if run.length % destination.block_size or run.length % source.block_size:
        return _aborted(Code.COPY_TARGET_DEVICE_NOT_REACHABLE)
    inside = run.source_offset + run.length <= source.size
    if not inside or run.destination_offset + run.length > destination.size:
        return _aborted(Code.COPY_TARGET_DEVICE_NOT_REACHABLE)
    return write_protected(destination)


def copy_status(view: View, cdb: Buffer, edtl: int) -> Action:
    """RECEIVE COPY RESULTS, COPY STATUS: told once, then forgotten (SPC-4 6.18.2)."""
    row = view.nexus.copies.pop(cdb[2], None)
    if row is None:
        return invalid_field(2)
    return cut(struct.pack(">I", len(row)) + row, be32(cdb, 10))


def operating_parameters(view: View, cdb: Buffer, edtl: int) -> Action:
    """RECEIVE COPY RESULTS, OPERATING PARAMETERS (SPC-4 6.18.4)."""
    kinds = bytes((BLOCK_TO_BLOCK, IDENTIFICATION))
    body = struct.pack(
        ">B3xHHIIIII2xHBBBB3xB",
        1,  # SNLID: the list identifier may be left out
        *(MAX_TARGETS, MAX_SEGMENTS, MAX_LIST, MAX_SEGMENT),
        *(0, 0, 0),  # inline data, held data, stream transfers
        *(0, 1),  # concurrent copies of the target (not told), of a unit
        *(9, 0, 0),  # granularity of segments 512 bytes; of inline and held data
        len(kinds),
    )
    return cut(struct.pack(">I", len(body) + len(kinds)) + body + kinds, be32(cdb, 10))

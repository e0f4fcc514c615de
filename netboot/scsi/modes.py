"""MODE SENSE and MODE SELECT (SPC-4 sections 6.9-6.12, pages 7.5 and SBC-3 6.4).

``PAGES`` is the table: the bytes after a reset, and the bits of them that MODE SELECT may turn.
The bits live in the unit (``unit.KNOBS``); no page has a state of its own and none is saved.
MODE SELECT is checked as a whole before anything of it takes effect.
"""

import struct
from dataclasses import dataclass

from netboot.scsi.action import Action, Check, Collect, Flush, Reply
from netboot.scsi.cdb import (
    Buffer,
    be16,
    be24,
    be32,
    be64,
    cut,
    invalid_field,
    invalid_parameter,
    list_length_error,
    refuse,
)
from netboot.scsi.sense import Code, Key
from netboot.scsi.unit import KNOBS, Unit, View

CURRENT, CHANGEABLE, DEFAULT, SAVED = range(4)
ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF
#: Device-specific parameter of the header (SBC-3 section 6.4.1).
WP, DPOFUA = 0x80, 0x10


@dataclass(frozen=True, slots=True)
class Knob:
    """A bit of a page that follows an attribute of the unit; ``attribute`` is in KNOBS."""

    byte: int
    bit: int
    attribute: str
    name: str  #: as the standard calls it


@dataclass(frozen=True, slots=True)
class Page:
    """One mode page: ``body`` is all of it, with the bits of its knobs clear."""

    name: str
    body: bytes
    knobs: tuple[Knob, ...]
    reference: str

    @property
    def code(self) -> int:
        """The page code."""
        return self.body[0] & 0x3F

    def bytes_for(self, control: int, unit: Unit) -> bytes:
        """The page under page control CURRENT, CHANGEABLE or DEFAULT."""
        made = bytearray(self.body if control != CHANGEABLE else len(self.body))
        made[:2] = self.body[:2]
        for knob in self.knobs:
            if control == CHANGEABLE:
                on = True
            elif control == DEFAULT:
                on = KNOBS[knob.attribute]
            else:
                on = getattr(unit, knob.attribute)
            made[knob.byte] |= on << knob.bit
        return bytes(made)


PAGES = (
    # WCE: the cache is the page cache, and FLUSH and FUA are honoured.
    Page(
        "Caching",
        bytes.fromhex("0812") + bytes(18),
        (Knob(2, 2, "write_cache", "WCE"),),
        "SBC-3 6.4.5",
    ),
    # GLTSD; queue algorithm modifier 1: commands may be reordered.
    Page(
        "Control",
        bytes.fromhex("0A0A02100000000000000000"),
        (Knob(2, 2, "descriptor_sense", "D_SENSE"), Knob(4, 3, "software_protected", "SWP")),
        "SPC-4 7.5.8",
    ),
    # DEXCPT: no failure predictions are reported.
    Page("Informational Exceptions Control", bytes.fromhex("1C0A08") + bytes(9), (), "SBC-3 6.4.8"),
)


def _descriptor(unit: Unit, long: bool) -> bytes:
    """The block descriptor, 8 or (LONGLBA) 16 bytes (SBC-3 section 6.4.2)."""
    if long:
        return struct.pack(">QII", unit.blocks, 0, unit.block_size)
    return struct.pack(">II", min(unit.blocks, 0xFFFFFFFF), unit.block_size)


def _chosen(control: int, code: int, subpage: int, unit: Unit) -> bytes | Check:
    if control == SAVED:
        return refuse(Key.ILLEGAL_REQUEST, Code.SAVING_PARAMETERS_NOT_SUPPORTED)
    if subpage not in (0, ALL_SUBPAGES):
        return invalid_field(3)
    pages = [page for page in PAGES if code in (page.code, ALL_PAGES)]
    if not pages:
        return invalid_field(2, 5)
    return b"".join(page.bytes_for(control, unit) for page in pages)


def mode_sense(view: View, cdb: Buffer, edtl: int) -> Action:
    """MODE SENSE(6) and (10)."""
    unit = view.unit
    pages = _chosen(cdb[2] >> 6, cdb[2] & 0x3F, cdb[3], unit)
    if isinstance(pages, Check):
        return pages
    ten = cdb[0] == 0x5A
    long = ten and cdb[1] & 0x10 != 0
    blocks = b"" if cdb[1] & 0x08 else _descriptor(unit, long)
    specific = DPOFUA | (WP if unit.protected else 0)
    rest = blocks + pages
    if ten:
        head = struct.pack(">HBBBBH", 6 + len(rest), 0, specific, long, 0, len(blocks))
        return cut(head + rest, be16(cdb, 7))
    return cut(bytes((3 + len(rest), 0, specific, len(blocks))) + rest, cdb[4])


def mode_select(view: View, cdb: Buffer, edtl: int) -> Action:
    """MODE SELECT(6) and (10): page format only, nothing is saved."""
    ten = cdb[0] == 0x55
    length = be16(cdb, 7) if ten else cdb[4]
    if not cdb[1] & 0x10:
        return invalid_field(1, 4)
    if not length:
        return Reply()
    if edtl < length:
        return invalid_field(7 if ten else 4)
    return Collect(length, lambda data: _select(view, data, ten))


def _select(view: View, data: bytes, ten: bool) -> Action:
    unit = view.unit
    start = 8 if ten else 4
    if len(data) < start:
        return list_length_error()
    long = ten and data[4] & 0x01 != 0
    size = be16(data, 6) if ten else data[3]
    if size not in (0, 16 if long else 8):
        return invalid_parameter(6 if ten else 3)
    if start + size > len(data):
        return list_length_error()
    wrong = _wrong_descriptor(unit, data, start, long) if size else None
    if wrong:
        return wrong
    knobs: dict[str, bool] = {}
    at = start + size
    while at < len(data):
        if len(data) - at < 2:
            return list_length_error()
        page = next((page for page in PAGES if page.code == data[at] & 0x3F), None)
        if page is None or data[at] & 0x40:
            return invalid_parameter(at, 6 if page else 5)
        if data[at + 1] != page.body[1]:
            return invalid_parameter(at + 1)
        if at + len(page.body) > len(data):
            return list_length_error()
        wrong = _turned(page, unit, data, at, knobs)
        if wrong:
            return wrong
        at += len(page.body)
    cached = unit.write_cache
    if unit.turn(knobs):
        unit.tell(Code.MODE_PARAMETERS_CHANGED, but=view)
    # Without a write cache nothing may be left in it (SBC-3 section 6.4.5).
    return Flush() if cached and not unit.write_cache else Reply()


def _wrong_descriptor(unit: Unit, data: bytes, at: int, long: bool) -> Check | None:
    """Blocks and block size cannot be changed, only repeated (SBC-3 section 6.4.2)."""
    if long:
        blocks, size, size_at = be64(data, at), be32(data, at + 12), at + 12
    else:
        blocks, size, size_at = be32(data, at), be24(data, at + 5), at + 5
    every = 0xFFFFFFFFFFFFFFFF if long else 0xFFFFFFFF
    if blocks not in (0, unit.blocks, every):
        return invalid_parameter(at)
    return invalid_parameter(size_at) if size != unit.block_size else None


def _turned(page: Page, unit: Unit, data: bytes, at: int, knobs: dict[str, bool]) -> Check | None:
    """Read the knobs of a page; refuse it when any other bit differs from what it is."""
    changeable = page.bytes_for(CHANGEABLE, unit)
    current = page.bytes_for(CURRENT, unit)
    for index in range(2, len(page.body)):
        differs = (data[at + index] ^ current[index]) & ~changeable[index] & 0xFF
        if differs:
            return invalid_parameter(at + index, differs.bit_length() - 1)
    for knob in page.knobs:
        knobs[knob.attribute] = data[at + knob.byte] >> knob.bit & 1 == 1
    return None

"""LOG SENSE: what a disk of files can honestly say of itself (SPC-4 sections 6.8, 7.3; SBC-3 6.4).

``PAGES`` is the table. No page counts errors, hours or starts, and none tells a temperature: all
that belongs to the disks below, which nobody here can see. Nothing is saved and nothing can be
reset, so there is no LOG SELECT. Pure; the space is asked of the disk.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from netboot.scsi.action import Action, Reply, Space
from netboot.scsi.cdb import Buffer, be16, cut, invalid_field
from netboot.scsi.unit import Unit, View

SUPPORTED, ALL_SUBPAGES = 0x00, 0xFF
#: DS: the page is not saved. SPF: the page code is followed by a subpage code.
DS, SPF = 0x80, 0x40
#: Parameter control byte of a list in binary: TSD, format and linking 11b (SPC-4 section 7.3.2.2).
LIST = 0x20 | 0x03
#: Whether others use the resource too: it is the unit's own; anybody may take it away.
DEDICATED, SHARED = 0x01, 0x02
#: Bytes that one count of the Logical Block Provisioning page stands for.
THRESHOLD_SET = 1 << 20


def threshold_exponent(unit: Unit) -> int:
    """THRESHOLD_SET in blocks, as a power of two (VPD B2); 0: space cannot be told."""
    return (THRESHOLD_SET // unit.block_size).bit_length() - 1 if unit.measured else 0


def _parameter(code: int, body: bytes) -> bytes:
    return struct.pack(">HBB", code, LIST, len(body)) + body


def _exceptions(unit: Unit) -> bytes:
    """No failure is predicted; no temperature can be told (SPC-4 section 7.3.8)."""
    return _parameter(0, bytes((0, 0, 0xFF, 0)))


def _space(used: int, available: int) -> bytes:
    """Available and Used LBA Mapping Resource Count (SBC-3 sections 6.4.4.2 and 6.4.4.3)."""
    rows = ((1, available // THRESHOLD_SET, SHARED), (2, -(-used // THRESHOLD_SET), DEDICATED))
    return b"".join(
        _parameter(code, struct.pack(">IB3x", min(count, 0xFFFFFFFF), scope))
        for code, count, scope in rows
    )


@dataclass(frozen=True, slots=True)
class Page:
    """One log page; without ``body`` it is made of what the disk says of its space."""

    code: int
    name: str
    reference: str
    body: Callable[[Unit], bytes] | None = None


PAGES = (
    Page(0x0C, "Logical Block Provisioning", "SBC-3 6.4.4"),
    Page(0x2F, "Informational Exceptions", "SPC-4 7.3.8", _exceptions),
)


def pages_of(unit: Unit) -> tuple[Page, ...]:
    """The pages that this unit has, in rising order."""
    return tuple(page for page in PAGES if page.body is not None or unit.measured)


def log_sense(view: View, cdb: Buffer, edtl: int) -> Action:
    """LOG SENSE. Page control is not looked at: lists have no thresholds and no defaults."""
    code, subpage, first, room = cdb[2] & 0x3F, cdb[3], be16(cdb, 5), be16(cdb, 7)
    pages = pages_of(view.unit)
    page = next((page for page in pages if page.code == code), None)
    if code != SUPPORTED and page is None:
        return invalid_field(2, 5)
    if subpage not in (0, ALL_SUBPAGES):
        return invalid_field(3)
    if page is None or subpage == ALL_SUBPAGES:
        return invalid_field(5) if first else cut(_lists(pages, code, subpage), room)
    if page.body is not None:
        return _answer(code, page.body(view.unit), first, room)
    return Space(lambda used, available: _answer(code, _space(used, available), first, room))


def _lists(pages: tuple[Page, ...], code: int, subpage: int) -> bytes:
    """The pages there are (00), with all subpages (00/FF), or the subpages of one (its code/FF).

    The lists of subpages are subpages themselves.
    """
    if not subpage:
        body = bytes((SUPPORTED, *(page.code for page in pages)))
        return struct.pack(">BBH", SUPPORTED, 0, len(body)) + body
    codes = [code] if code else [SUPPORTED, *(page.code for page in pages)]
    body = b"".join(bytes((each, 0, each, ALL_SUBPAGES)) for each in codes)
    return struct.pack(">BBH", SPF | code, ALL_SUBPAGES, len(body)) + body


def _answer(code: int, parameters: bytes, first: int, room: int) -> Action:
    """The parameters from code ``first`` on; there must be one (SPC-4 section 6.8)."""
    at = 0
    while at < len(parameters) and be16(parameters, at) < first:
        at += 4 + parameters[at + 3]
    if at == len(parameters):
        return invalid_field(5)
    body = parameters[at:]
    return Reply((struct.pack(">BBH", DS | code, 0, len(body)) + body)[:room])

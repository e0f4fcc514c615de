"""INQUIRY: who this unit says it is (SPC-4 section 6.4, VPD pages 7.8, SBC-3 section 6.5).

``PAGES`` is the table of vital product data pages. The identifiers are made of the target's
name, the LUN and the serial number alone, so they outlive every golden update; nothing here
depends on who asks, or on what lies on the disk.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from netboot.scsi.action import Action
from netboot.scsi.atomic import MAX_ATOMIC
from netboot.scsi.blocks import MAX_COMPARE_BLOCKS
from netboot.scsi.cdb import Buffer, be16, cut, invalid_field
from netboot.scsi.logs import threshold_exponent
from netboot.scsi.ports import GROUP, PORT
from netboot.scsi.provisioning import MAX_UNMAP_BYTES, MAX_UNMAP_DESCRIPTORS, max_write_same
from netboot.scsi.unit import Unit, View

#: SAM-5, iSCSI, SPC-4, SBC-3 (no version claimed of each): SPC-4 annex E.
VERSION_DESCRIPTORS = (0x00A0, 0x0960, 0x0460, 0x04C0)
#: Peripheral qualifier 011b with type 1Fh: no unit here (SPC-4 section 6.4.2).
NO_UNIT = 0x7F
#: PROTOCOL IDENTIFIER of iSCSI (SPC-4 section 7.6.1).
ISCSI = 5
#: The target has several ports.
MULTIP = 0x10


def _padded(text: str, size: int) -> bytes:
    """ASCII, left-aligned, filled with spaces (SPC-4 section 4.3.1)."""
    return text.encode("ascii", "replace")[:size].ljust(size)


def standard(unit: Unit | None) -> bytes:
    """Standard INQUIRY data, 96 bytes; for no unit at all, qualifier 3 and type 1Fh."""
    if unit is None:
        head = bytes((NO_UNIT, 0, 6, 0x12, 91, 0, 0, 0x02))
        names = _padded("", 28)
    else:
        removable = 0x80 if unit.removable else 0
        several = MULTIP if len(unit.ports) > 1 else 0
        # Version SPC-4; HISUP and response format 2; implicit TPGS, 3PC; CMDQUE.
        head = bytes((0, removable, 6, 0x12, 91, 0x18, several, 0x02))
        names = _padded(unit.vendor, 8) + _padded(unit.product, 16) + _padded(unit.revision, 4)
    versions = struct.pack(">4H", *VERSION_DESCRIPTORS)
    return (head + names).ljust(58, b"\0") + versions.ljust(38, b"\0")


def _supported_pages(unit: Unit) -> bytes:
    return bytes(page.code for page in PAGES)


def _serial(unit: Unit) -> bytes:
    return unit.serial.encode("ascii", "replace")[:252]


def _designator(code_set: int, kind: int, value: bytes, protocol: int = 0) -> bytes:
    """One designation descriptor (SPC-4 section 7.8.5); ``kind``: association << 4 | type."""
    if protocol:
        kind |= 0x80  # PIV
    return bytes((protocol << 4 | code_set, kind, 0, len(value))) + value


def _name(text: str) -> bytes:
    """A SCSI name string: UTF-8, NUL-ended, a multiple of four bytes."""
    value = text.encode("utf-8")[:251] + b"\0"
    return value.ljust(-(-len(value) // 4) * 4, b"\0")


def naa(unit: Unit) -> bytes:
    """NAA 3h, locally assigned: we own no IEEE company id, and a hash collides with nobody's."""
    seed = f"{unit.target_name}\0{unit.number}\0{unit.serial}".encode()
    digest = hashlib.sha256(seed).digest()
    return bytes((0x30 | digest[0] & 0x0F,)) + digest[1:8]


def _port_name(unit: Unit, port: int) -> bytes:
    """A target port by its name (RFC 7143 section 4.4.4)."""
    return _designator(3, 0x18, _name(f"{unit.target_name},t,0x{port:04x}"), ISCSI)


def _identification(unit: Unit, port: int = PORT) -> bytes:
    serial = _serial(unit)
    made = _designator(2, 0x01, _padded(unit.vendor, 8) + _padded(unit.product, 16) + serial[:200])
    made += _designator(1, 0x03, naa(unit))
    # The target port that the question came in by.
    made += _designator(1, 0x14, struct.pack(">I", port), ISCSI)
    made += _designator(1, 0x15, struct.pack(">I", GROUP), ISCSI)
    if unit.target_name:
        logical_unit = _name(f"{unit.target_name},L,0x{unit.number:016x}")
        made += _designator(3, 0x08, logical_unit)
        made += _port_name(unit, port)
        made += _designator(3, 0x28, _name(unit.target_name), ISCSI)
    return made


def _extended(unit: Unit) -> bytes:
    # HEADSUP, ORDSUP and SIMPSUP; V_SUP: the cache is volatile. Nothing else.
    return bytes((0, 0x07, 0x01)).ljust(60, b"\0")


def _ports(unit: Unit) -> bytes:
    made = b""
    for port in unit.ports:  # no initiator port is one of ours
        name = _port_name(unit, port) if unit.target_name else b""
        made += struct.pack(">HHHHHH", 0, port, 0, 0, 0, len(name)) + name
    return made


def designators(unit: Unit) -> tuple[tuple[int, bytes], ...]:
    """How EXTENDED COPY may name the unit: (association << 4 | type, value), 20 bytes at most."""
    t10 = _padded(unit.vendor, 8) + _padded(unit.product, 16) + _serial(unit)[:200]
    return tuple(row for row in ((0x01, t10), (0x03, naa(unit))) if len(row[1]) <= 20)


def _block_limits(unit: Unit) -> bytes:
    physical = 1 << unit.physical_block_exponent
    unmap_blocks = MAX_UNMAP_BYTES // unit.block_size if unit.thin else 0
    return struct.pack(
        ">BBHIIIIIIIQI16x",
        1,  # WSNZ: WRITE SAME of 0 blocks, which would mean to the end, is refused
        MAX_COMPARE_BLOCKS,
        physical,  # optimal transfer length granularity
        unit.max_blocks,
        0,  # optimal transfer length: no preference
        0,  # maximum prefetch length: no limit told
        unmap_blocks,
        MAX_UNMAP_DESCRIPTORS if unit.thin else 0,
        physical if unit.thin else 0,  # optimal unmap granularity
        0x80000000 if unit.thin else 0,  # UGAVALID, alignment 0
        max_write_same(unit),
        MAX_ATOMIC // unit.block_size,  # no alignment, granularity or boundary
    )


def _characteristics(unit: Unit) -> bytes:
    # Medium rotation rate: none. Reading after a block or cryptographic erase works (01b).
    return struct.pack(">HBB56x", 1, 0, 0x50)


def _provisioning(unit: Unit) -> bytes:
    # LBPU, LBPWS, LBPWS10, LBPRZ; provisioning type 2: thin. The threshold exponent is there
    # for the counts of the log page; no threshold can be set.
    return bytes((threshold_exponent(unit), 0xE4, 2, 0)) if unit.thin else bytes(4)


@dataclass(frozen=True, slots=True)
class Page:
    """One vital product data page."""

    code: int
    name: str
    body: Callable[[Unit], bytes]
    reference: str


PAGES = (
    Page(0x00, "Supported VPD Pages", _supported_pages, "SPC-4 7.8.15"),
    Page(0x80, "Unit Serial Number", _serial, "SPC-4 7.8.18"),
    Page(0x83, "Device Identification", _identification, "SPC-4 7.8.6"),
    Page(0x86, "Extended INQUIRY Data", _extended, "SPC-4 7.8.8"),
    Page(0x88, "SCSI Ports", _ports, "SPC-4 7.8.14"),
    Page(0xB0, "Block Limits", _block_limits, "SBC-3 6.5.3"),
    Page(0xB1, "Block Device Characteristics", _characteristics, "SBC-3 6.5.2"),
    Page(0xB2, "Logical Block Provisioning", _provisioning, "SBC-3 6.5.4"),
)


def vital(unit: Unit, code: int, port: int = PORT) -> bytes | None:
    """A VPD page with its header, or None when there is no such page; ``port``: who asks."""
    for page in PAGES:
        if page.code == code:
            body = _identification(unit, port) if code == 0x83 else page.body(unit)
            return struct.pack(">BBH", 0, code, len(body)) + body
    return None


def inquiry(view: View, cdb: Buffer, edtl: int) -> Action:
    """INQUIRY; a page code without EVPD is an error, and so is a page we lack."""
    code, allocation = cdb[2], be16(cdb, 3)
    if not cdb[1] & 0x01:
        return invalid_field(2) if code else cut(standard(view.unit), allocation)
    data = vital(view.unit, code, view.nexus.group)
    return invalid_field(2) if data is None else cut(data, allocation)

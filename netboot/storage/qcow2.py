"""The qcow2 layout of an overlay: bytes ⇄ records, and nothing else.

We write one shape of the format only: version 3, clusters of 128 KiB with 32 sub-clusters of
4 KiB (extended L2 entries), an external data file in which each guest offset is its own offset,
and a raw golden image as backing file. Every table has its place from the beginning:

    cluster 0   header, header extensions, backing file name
            1   refcount table: one entry
            2   refcount block: 1 for each cluster of this file, written once
            3   L1 table: one entry per GiB, written once
            4…  L2 tables, one cluster per GiB, holes until an entry is written

so the entry of guest cluster ``n`` is the 16 bytes at ``L2 + 16 * n``: the only bytes that
change afterwards. This module must never touch a file, and never accept a shape it did not
write itself: what QEMU added that we do not understand is refused, not ignored.

Source: docs/interop/qcow2.txt in QEMU; section names in the comments are its own.
"""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from netboot.binary import U32, U64, pack, record, unpack
from netboot.binary import size as size_of
from netboot.errors import ImageError

CLUSTER_BITS = 17
CLUSTER = 1 << CLUSTER_BITS
SUB_BITS = 12
SUB = 1 << SUB_BITS
SUBS = CLUSTER // SUB

REFCOUNT_TABLE = 1 * CLUSTER
REFCOUNT_BLOCK = 2 * CLUSTER
L1 = 3 * CLUSTER
L2 = 4 * CLUSTER
ENTRY = 16
L2_SPAN = CLUSTER // ENTRY * CLUSTER  #: guest bytes under one L2 table: 1 GiB
MAX_SIZE = CLUSTER // 8 * L2_SPAN  #: guest bytes under an L1 table of one cluster: 16 TiB
HEADER_AREA = 16384  #: header, extensions and names lie within; more than QEMU ever writes

# What one sub-cluster holds. A byte each, in memory and in the ``.live`` file.
GOLDEN, DATA, ZERO, HOLE = range(4)
"""GOLDEN: not written yet. DATA: in the data file. ZERO, HOLE: zeros; of a HOLE the space in the
data file is, or may be, given back. The format has one bit for both."""

_MAGIC = 0x514649FB
_INCOMPATIBLE_DIRTY = 1 << 0
_INCOMPATIBLE_CORRUPT = 1 << 1
_INCOMPATIBLE = 1 << 2 | 1 << 4  # external data file, extended L2 entries
_LIVE_BIT = 63
_AUTOCLEAR_LIVE = 1 << _LIVE_BIT
_EXT_END, _EXT_FORMAT, _EXT_DATA, _EXT_FEATURES = 0, 0xE2792ACA, 0x44415441, 0x6803F857
_EXT_NETBOOT = 0x4E424F54  # "NBOT": unknown to others, who keep it as it is
_COPIED = 1 << 63
_OFFSET = 0x00FFFFFFFFFFFE00
_FULL = 0xFFFFFFFF


@record
class Header:
    """Header, bytes 0 to 111 (version 3, with the compression type and its padding)."""

    magic: U32
    version: U32
    backing_offset: U64
    backing_length: U32
    cluster_bits: U32
    size: U64
    crypt_method: U32
    l1_size: U32
    l1_offset: U64
    refcount_offset: U64
    refcount_clusters: U32
    snapshots: U32
    snapshots_offset: U64
    incompatible: U64
    compatible: U64
    autoclear: U64
    refcount_order: U32
    header_length: U32
    compression_type: U64  # one byte and seven of padding; zlib is 0


@dataclass(frozen=True, slots=True)
class Meta:
    """What the header of an overlay says.

    ``live`` is an auto-clear feature bit of ours: every other program that opens the file for
    writing must clear it, so that we learn that somebody else has been at the tables.
    """

    size: int  #: bytes of the virtual disk
    golden: str  #: path of the backing file
    data: str  #: absolute path of the data file
    digest: str  #: identity of the golden version
    generation: int = 0
    live: bool = True
    born: int = 0  #: tells this overlay from all that had its name before; 0: nobody noted it


def l2_tables(size: int) -> int:
    """How many L2 tables a disk of ``size`` bytes has."""
    return -(-size // L2_SPAN)


def clusters(size: int) -> int:
    """How many guest clusters a disk of ``size`` bytes has; the last may be a part of one."""
    return -(-size // CLUSTER)


def file_size(size: int) -> int:
    """Bytes of the qcow2 file for a disk of ``size`` bytes."""
    return L2 + l2_tables(size) * CLUSTER


def l1_table(size: int) -> bytes:
    """The L1 table: every L2 table at its fixed place, with a refcount of exactly one."""
    count = l2_tables(size)
    return struct.pack(f">{count}Q", *(_COPIED | (L2 + i * CLUSTER) for i in range(count)))


def check_size(size: int) -> None:
    """ImageError when no overlay can have so many bytes."""
    if not 0 < size <= MAX_SIZE or size % 512:
        raise ImageError(
            f"a disk of {size} bytes cannot have an overlay: "
            f"the size must be a multiple of 512 and at most {MAX_SIZE >> 40} TiB"
        )


def tables(meta: Meta) -> tuple[tuple[int, bytes], ...]:
    """All that is written at creation, as (offset, bytes); the rest of the file is holes."""
    check_size(meta.size)
    used = L2 // CLUSTER + l2_tables(meta.size)
    return (
        (0, encode(meta)),
        (REFCOUNT_TABLE, struct.pack(">Q", REFCOUNT_BLOCK)),
        (REFCOUNT_BLOCK, b"\0\1" * used),
        (L1, l1_table(meta.size)),
    )


def _extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def encode(meta: Meta) -> bytes:
    """Header, extensions and backing file name; ImageError when a path is too long."""
    golden, data = meta.golden.encode(), meta.data.encode()
    if len(golden) > 1023:
        raise ImageError(f"{meta.golden}: the path is longer than the 1023 bytes qcow2 allows")
    identity = {"digest": meta.digest, "generation": meta.generation}
    if meta.born:
        identity["born"] = meta.born
    name = b"netboot: unflushed map"
    body = (
        _extension(_EXT_FORMAT, b"raw")
        + _extension(_EXT_DATA, data)
        + _extension(_EXT_NETBOOT, json.dumps(identity).encode())
        + _extension(_EXT_FEATURES, struct.pack(">BB46s", 2, _LIVE_BIT, name))
        + _extension(_EXT_END, b"")
    )
    header = Header(
        magic=_MAGIC,
        version=3,
        backing_offset=size_of(Header) + len(body),
        backing_length=len(golden),
        cluster_bits=CLUSTER_BITS,
        size=meta.size,
        crypt_method=0,
        l1_size=l2_tables(meta.size),
        l1_offset=L1,
        refcount_offset=REFCOUNT_TABLE,
        refcount_clusters=1,
        snapshots=0,
        snapshots_offset=0,
        incompatible=_INCOMPATIBLE,
        compatible=0,
        autoclear=_AUTOCLEAR_LIVE if meta.live else 0,
        refcount_order=4,
        header_length=size_of(Header),
        compression_type=0,
    )
    whole = pack(header) + body + golden
    if len(whole) > HEADER_AREA:
        raise ImageError(f"{meta.data}: the path is too long for the header of an overlay")
    return whole


def decode(area: bytes) -> Meta:
    """The meaning of the first ``HEADER_AREA`` bytes; ImageError says what is not ours in them."""
    if len(area) < size_of(Header):
        raise ImageError(f"only {len(area)} bytes, no qcow2 header")
    header = unpack(Header, area)
    if header.magic != _MAGIC:
        raise ImageError("no qcow2 file: the magic number is missing")
    if header.incompatible & _INCOMPATIBLE_CORRUPT:
        raise ImageError("marked corrupt; `qemu-img check -r all` tells more")
    if header.incompatible & _INCOMPATIBLE_DIRTY:
        raise ImageError("left dirty by another program; `qemu-img check -r all` mends that")
    expected = {
        "version": 3,
        "cluster_bits": CLUSTER_BITS,
        "crypt_method": 0,
        "l1_size": l2_tables(header.size),
        "l1_offset": L1,
        "refcount_offset": REFCOUNT_TABLE,
        "snapshots": 0,
        "incompatible": _INCOMPATIBLE,
        "refcount_order": 4,
    }
    for field, value in expected.items():
        if getattr(header, field) != value:
            raise ImageError(
                f"not an overlay of netboot: {field} is {getattr(header, field)}, not {value}"
            )
    extensions = dict(_extensions(area, header.header_length))
    try:
        identity = json.loads(extensions[_EXT_NETBOOT])
        digest, generation = identity["digest"], identity["generation"]
        born = identity.get("born", 0)
        data = extensions[_EXT_DATA].decode()
        name = area[header.backing_offset : header.backing_offset + header.backing_length]
        golden = name.decode()
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as problem:
        raise ImageError("not an overlay of netboot: its header extensions lack ours") from problem
    if not isinstance(digest, str) or type(generation) is not int or generation < 0:
        raise ImageError("not an overlay of netboot: its header extension is not readable")
    if type(born) is not int or not 0 <= born < 1 << 64:
        raise ImageError("not an overlay of netboot: its header extension is not readable")
    live = bool(header.autoclear & _AUTOCLEAR_LIVE)
    return Meta(header.size, golden, data, digest, generation, live, born)


def _extensions(area: bytes, at: int) -> Iterable[tuple[int, bytes]]:
    """Header extensions: type, length, data, padding to 8; type 0 ends them."""
    while at + 8 <= len(area):
        kind, length = struct.unpack_from(">II", area, at)
        if kind == _EXT_END:
            return
        yield kind, area[at + 8 : at + 8 + length]
        at += 8 + length + -length % 8


_TO_DATA_DIGITS = bytes.maketrans(bytes(range(4)), b"0100")
_TO_ZERO_DIGITS = bytes.maketrans(bytes(range(4)), b"0011")
_ALL_DATA = bytes([DATA]) * SUBS
_BITMAPS = {_ALL_DATA: _FULL, bytes([HOLE]) * SUBS: _FULL << 32, bytes(SUBS): 0}
_CELLS = {_FULL: _ALL_DATA, _FULL << 32: bytes([HOLE]) * SUBS}


def entries(first: int, cells: bytes) -> bytes:
    """The L2 entries of the guest clusters from ``first`` on; 32 ``cells`` for each of them.

    Extended L2 Entries: descriptor (offset, bit 63), then the sub-cluster bitmap, whose low
    half says "allocated" and whose high half says "reads as zeros", least bit first. An entry
    with nothing in it stays all zeros.
    """
    words: list[int] = []
    for at in range(0, len(cells), SUBS):
        part = cells[at : at + SUBS]
        bitmap = _BITMAPS.get(part)
        if bitmap is None:
            digits = part[::-1]
            bitmap = int(digits.translate(_TO_DATA_DIGITS), 2)
            bitmap |= int(digits.translate(_TO_ZERO_DIGITS), 2) << 32
        words.append((_COPIED | (first + at // SUBS) << CLUSTER_BITS) if bitmap else 0)
        words.append(bitmap)
    return struct.pack(f">{len(words)}Q", *words)


def cells_of(first: int, raw: bytes) -> bytes:
    """The inverse of ``entries``: 32 cells for each entry; ImageError when one is not ours.

    A zero bit becomes HOLE. Entries of other writers are understood as far as they may occur in
    a file of this shape: QEMU clears a descriptor when it discards a whole cluster.
    """
    parts: list[bytes] = []
    words = struct.unpack(f">{len(raw) // 8}Q", raw)
    for at in range(0, len(words), 2):
        descriptor, bitmap = words[at], words[at + 1]
        cluster = first + at // 2
        cells = _CELLS.get(bitmap) or _spread(bitmap)
        if bitmap & _FULL and descriptor != _COPIED | cluster << CLUSTER_BITS:
            raise ImageError(
                f"the L2 entry of cluster {cluster} is {descriptor:#x}: "
                "a data cluster must lie at its own offset; `qemu-img check` tells more"
            )
        if bitmap & bitmap >> 32 & _FULL:
            raise ImageError(f"the L2 entry of cluster {cluster} is data and zeros at once")
        parts.append(cells)
    return b"".join(parts)


def _spread(bitmap: int) -> bytes:
    low, high = bitmap & _FULL, bitmap >> 32
    return bytes(DATA if low >> i & 1 else HOLE if high >> i & 1 else GOLDEN for i in range(SUBS))

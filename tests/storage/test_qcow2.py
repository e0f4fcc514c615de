"""The layout of an overlay, byte by byte."""

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.errors import ImageError
from netboot.storage import qcow2
from netboot.storage.qcow2 import CLUSTER, DATA, GOLDEN, HOLE, SUBS, ZERO, Meta

GIB = 1 << 30
META = Meta(2 * GIB, "/images/debian/3.raw", "/overlays/ws1.data", "sha256:00ff", 4)


def test_the_header_is_the_one_of_the_specification():
    area = qcow2.encode(META)
    assert area[:4] == b"QFI\xfb"
    version, backing_at, backing_length, cluster_bits, size = struct.unpack_from(">IQIIQ", area, 4)
    assert (version, cluster_bits, size) == (3, 17, 2 * GIB)
    assert area[backing_at : backing_at + backing_length] == b"/images/debian/3.raw"
    crypt, l1_size, l1_at, table_at, table_clusters, snapshots, snapshots_at = struct.unpack_from(
        ">IIQQIIQ", area, 32
    )
    assert (crypt, l1_size, l1_at) == (0, 2, 3 * CLUSTER)
    assert (table_at, table_clusters, snapshots, snapshots_at) == (CLUSTER, 1, 0, 0)
    incompatible, compatible, autoclear, order, length = struct.unpack_from(">QQQII", area, 72)
    assert incompatible == 1 << 2 | 1 << 4  # external data file, extended L2 entries
    assert (compatible, autoclear, order, length) == (0, 1 << 63, 4, 112)
    assert area[104:112] == bytes(8)  # zlib, padding


def test_the_header_extensions_in_order():
    area = qcow2.encode(META)
    found = []
    at = 112
    while True:
        kind, length = struct.unpack_from(">II", area, at)
        found.append((kind, area[at + 8 : at + 8 + length]))
        at += 8 + (length + 7) // 8 * 8
        if kind == 0:
            break
    assert [kind for kind, _ in found] == [0xE2792ACA, 0x44415441, 0x4E424F54, 0x6803F857, 0]
    assert found[0][1] == b"raw"
    assert found[1][1] == b"/overlays/ws1.data"
    assert json.loads(found[2][1]) == {"digest": "sha256:00ff", "generation": 4}
    assert found[3][1] == b"\x02\x3f" + b"netboot: unflushed map".ljust(46, b"\0")
    assert struct.unpack_from(">Q", area, 8)[0] == at  # the backing file name follows them


@given(
    size=st.integers(1, qcow2.MAX_SIZE // 512).map(lambda n: n * 512),
    golden=st.text(min_size=1, max_size=200).filter(lambda t: "\0" not in t),
    data=st.text(min_size=1, max_size=200),
    digest=st.text(max_size=80),
    generation=st.integers(0, 1 << 40),
    live=st.booleans(),
)
def test_decode_is_the_inverse_of_encode(size, golden, data, digest, generation, live):
    meta = Meta(size, golden, data, digest, generation, live)
    area = qcow2.encode(meta)
    assert qcow2.decode(area) == meta
    assert qcow2.decode(area + bytes(qcow2.HEADER_AREA - len(area))) == meta


@given(st.binary(max_size=400))
def test_rubbish_is_an_image_error(data):
    with pytest.raises(ImageError):
        qcow2.decode(data)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_damaged_header_is_refused_or_means_the_same_shape(at, flip):
    area = bytearray(qcow2.encode(META))
    area[at % len(area)] ^= flip
    try:
        meta = qcow2.decode(bytes(area))
    except ImageError:
        return
    assert qcow2.l2_tables(meta.size) == 2


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (0, b"QFI\0", "magic"),
        (4, b"\0\0\0\2", "version is 2"),
        (20, b"\0\0\0\x10", "cluster_bits is 16"),
        (32, b"\0\0\0\1", "crypt_method is 1"),
        (36, b"\0\0\0\7", "l1_size is 7"),
        (60, b"\0\0\0\1", "snapshots is 1"),
        (79, b"\x15", "dirty"),
        (79, b"\x16", "corrupt"),
        (79, b"\x04", "incompatible is 4"),
        (79, b"\x34", "incompatible is 52"),
        (96, b"\0\0\0\3", "refcount_order is 3"),
    ],
)
def test_a_shape_that_is_not_ours_is_named(offset, value, words):
    area = bytearray(qcow2.encode(META))
    area[offset : offset + len(value)] = value
    with pytest.raises(ImageError, match=words):
        qcow2.decode(bytes(area))


def test_a_qcow2_without_our_extension_is_not_ours():
    area = qcow2.encode(META).replace(b"NBOT", b"ELSE")
    with pytest.raises(ImageError, match="header extensions"):
        qcow2.decode(area)


@pytest.mark.parametrize(
    "identity",
    [
        b'{"digest": 7, "generation": 0}',
        b'{"digest": "x", "generation": -1}',
        b'{"digest": "x", "generation": true}',
        *(b"[]", b'"x"', b"{"),
    ],
)
def test_our_extension_must_be_readable(identity):
    area = qcow2.encode(META)
    at = area.index(b'{"digest"')
    text = identity + b" " * (len(b'{"digest": "sha256:00ff", "generation": 4}') - len(identity))
    area = area[:at] + text + area[at + len(text) :]
    with pytest.raises(ImageError, match="header extension"):
        qcow2.decode(area)


def test_an_extension_nested_too_deep_is_refused():
    """As long as the JSON of a long digest, all of it brackets."""
    area = qcow2.encode(replace(META, digest="x" * 9000))
    at = area.index(b'{"digest"')
    area = area[:at] + b"[" * 9000 + area[at + 9000 :]
    with pytest.raises(ImageError, match="header extensions lack ours"):
        qcow2.decode(area)


def test_paths_that_do_not_fit_are_refused():
    with pytest.raises(ImageError, match="1023"):
        qcow2.encode(replace(META, golden="/" + "x" * 1023))
    with pytest.raises(ImageError, match="too long"):
        qcow2.encode(replace(META, data="/" + "x" * 20000))


@pytest.mark.parametrize("size", [0, 511, 513, qcow2.MAX_SIZE + 512])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ImageError, match=f"a disk of {size} bytes"):
        qcow2.tables(replace(META, size=size))


@pytest.mark.parametrize(
    ("size", "tables", "clusters"),
    [(512, 1, 1), (GIB, 1, 8192), (GIB + 512, 2, 8193), (40 * GIB, 40, 327680)],
)
def test_tables_lie_at_fixed_places(size, tables, clusters):
    assert qcow2.l2_tables(size) == tables
    assert qcow2.clusters(size) == clusters
    assert qcow2.file_size(size) == (4 + tables) * CLUSTER
    written = dict(qcow2.tables(replace(META, size=size)))
    assert set(written) == {0, CLUSTER, 2 * CLUSTER, 3 * CLUSTER}
    assert written[CLUSTER] == struct.pack(">Q", 2 * CLUSTER)
    assert written[2 * CLUSTER] == b"\0\1" * (4 + tables)
    entries = struct.unpack(f">{tables}Q", written[3 * CLUSTER])
    assert entries == tuple(1 << 63 | (4 + i) * CLUSTER for i in range(tables))


def test_the_largest_disk_fits_one_cluster_of_each_table():
    written = dict(qcow2.tables(replace(META, size=qcow2.MAX_SIZE)))
    assert all(len(content) <= CLUSTER for content in written.values())


def test_an_entry_is_a_descriptor_and_a_bitmap():
    cells = bytearray(SUBS)
    cells[0], cells[4], cells[5], cells[31] = DATA, ZERO, HOLE, DATA
    descriptor, bitmap = struct.unpack(">QQ", qcow2.entries(5, bytes(cells)))
    assert descriptor == 1 << 63 | 5 * CLUSTER
    assert bitmap & 0xFFFFFFFF == 1 << 0 | 1 << 31
    assert bitmap >> 32 == 1 << 4 | 1 << 5


def test_an_entry_with_nothing_in_it_is_all_zeros():
    assert qcow2.entries(9, bytes([GOLDEN]) * SUBS) == bytes(16)


def test_the_first_cluster_lies_at_offset_zero():
    # Only bit 63 tells it from an unallocated one, which an external data file allows.
    assert struct.unpack(">QQ", qcow2.entries(0, bytes([DATA]) * SUBS)) == (1 << 63, 0xFFFFFFFF)


cells_of_clusters = st.integers(1, 5).flatmap(
    lambda n: st.lists(
        st.one_of(
            st.sampled_from([GOLDEN, DATA, ZERO, HOLE]).map(lambda cell: bytes([cell]) * SUBS),
            st.binary(min_size=SUBS, max_size=SUBS).map(lambda b: bytes(x & 3 for x in b)),
        ),
        min_size=n,
        max_size=n,
    )
)


@given(cells_of_clusters, st.integers(0, 1 << 27))
def test_cells_come_back_with_every_zero_a_hole(parts, first):
    cells = b"".join(parts)
    raw = qcow2.entries(first, cells)
    assert len(raw) == 16 * len(parts)
    assert qcow2.cells_of(first, raw) == cells.replace(bytes([ZERO]), bytes([HOLE]))


def test_a_zero_entry_without_an_offset_is_understood():
    # So QEMU leaves a cluster that it discarded.
    raw = struct.pack(">QQ", 0, 0xFFFFFFFF << 32)
    assert qcow2.cells_of(3, raw) == bytes([HOLE]) * SUBS


@pytest.mark.parametrize(
    ("descriptor", "bitmap", "words"),
    [
        (1 << 63 | 6 * CLUSTER, 1, "its own offset"),
        (5 * CLUSTER, 1, "its own offset"),
        (1 << 62 | 5 * CLUSTER, 1, "its own offset"),
        (1 << 63 | 5 * CLUSTER, 1 | 1 << 32, "data and zeros at once"),
    ],
)
def test_entries_that_are_not_ours_are_refused(descriptor, bitmap, words):
    with pytest.raises(ImageError, match=words):
        qcow2.cells_of(5, struct.pack(">QQ", descriptor, bitmap))

"""WRITE SAME, UNMAP and GET LBA STATUS: what is written, what is given back, what is told."""

import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.action import Check, Collect, Extents, Fill, Reply, Unmap, Zero
from netboot.scsi.provisioning import MAX_UNMAP_BYTES, max_write_same
from netboot.scsi.sense import Code
from tests.scsi.conftest import Bench

BLOCKS = (64 << 20) // 512
PATTERN = bytes(range(256)) * 2
parametrize = pytest.mark.parametrize


def write_same_cdb(opcode: int, lba: int, count: int, flags: int = 0) -> bytes:
    """WRITE SAME(10) or (16)."""
    if opcode == 0x41:
        return struct.pack(">BBIBHB", opcode, flags, lba, 0, count, 0)
    return struct.pack(">BBQIBB", opcode, flags, lba, count, 0, 0)


#: The first byte of the number of blocks.
COUNT_AT = {0x41: 7, 0x93: 10}


# WRITE SAME


@parametrize("opcode", [0x41, 0x93])
def test_write_same(bench: Bench, opcode: int) -> None:
    run = bench.run
    assert run(write_same_cdb(opcode, 4, 8), data=PATTERN) == Fill(2048, 4096, PATTERN)
    assert run(write_same_cdb(opcode, 4, 8), data=bytes(512)) == Zero(2048, 4096)
    assert run(write_same_cdb(opcode, 4, 8, 0x08), data=bytes(512)) == Zero(2048, 4096, unmap=True)
    # What would not read back as written is written, whatever UNMAP says.
    assert run(write_same_cdb(opcode, 4, 8, 0x08), data=PATTERN) == Fill(2048, 4096, PATTERN)


@parametrize("opcode", [0x41, 0x93])
def test_write_same_of_no_blocks_is_refused(bench: Bench, opcode: int) -> None:
    for lba in (0, BLOCKS - 3, BLOCKS, BLOCKS + 1):
        for flags in (0, 0x08):
            cdb = write_same_cdb(opcode, lba, 0, flags)
            assert bench.field(cdb, edtl=512) == (COUNT_AT[opcode], None)


@parametrize("opcode", [0x41, 0x93])
def test_write_same_at_the_end(bench: Bench, opcode: int) -> None:
    limit = max_write_same(bench.unit)
    for count in (3, limit - 1, limit):
        cdb = write_same_cdb(opcode, BLOCKS - count, count)
        assert bench.run(cdb, data=PATTERN) == Fill((BLOCKS - count) * 512, count * 512, PATTERN)
    over = write_same_cdb(opcode, BLOCKS - limit - 1, limit + 1)
    assert bench.field(over, edtl=512) == (COUNT_AT[opcode], None)
    assert bench.asc(write_same_cdb(opcode, BLOCKS - 2, 3), edtl=512) == 0x2100
    assert bench.asc(write_same_cdb(opcode, BLOCKS + 1, 1), edtl=512) == 0x2100


@parametrize("opcode", [0x41, 0x93])
def test_write_same_refusals(bench: Bench, opcode: int) -> None:
    at = COUNT_AT[opcode]
    limit = max_write_same(bench.unit)
    assert isinstance(bench.run(write_same_cdb(opcode, 0, limit), edtl=512), Collect)
    assert bench.field(write_same_cdb(opcode, 0, limit + 1), edtl=512) == (at, None)
    assert bench.asc(write_same_cdb(opcode, BLOCKS - 1, 2), edtl=512) == 0x2100
    assert bench.field(write_same_cdb(opcode, 0, 1, 0x10), edtl=512) == (1, 4)  # ANCHOR
    assert bench.field(write_same_cdb(opcode, 0, 1, 0x18), edtl=512) == (1, 4)
    assert bench.field(write_same_cdb(opcode, 0, 1, 0x20), edtl=512) == (1, 5)  # WRPROTECT
    for announced in (0, 256, 1024):
        assert bench.field(write_same_cdb(opcode, 0, 1, 0x08), edtl=announced) == (at, None)


def test_write_same_without_a_buffer(bench: Bench) -> None:
    assert bench.run(write_same_cdb(0x93, 4, 8, 0x01)) == Zero(2048, 4096)
    assert bench.run(write_same_cdb(0x93, 4, 8, 0x09)) == Zero(2048, 4096, unmap=True)
    assert bench.field(write_same_cdb(0x93, 4, 8, 0x01), edtl=512) == (1, 0)


def test_write_same_of_a_thick_unit(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(thin=False)
    assert bench.field(write_same_cdb(0x93, 0, 8, 0x08), edtl=512) == (1, 3)
    assert bench.run(write_same_cdb(0x93, 0, 8), data=bytes(512)) == Zero(0, 4096)


def test_write_same_with_the_cache_switched_off(bench: Bench) -> None:
    bench.unit.turn({"write_cache": False})
    assert bench.run(write_same_cdb(0x93, 0, 1), data=PATTERN) == Fill(0, 512, PATTERN, True)
    assert bench.run(write_same_cdb(0x93, 0, 1), data=bytes(512)) == Zero(0, 512, False, True)
    assert bench.run(write_same_cdb(0x93, 0, 1, 0x09)) == Zero(0, 512, True, True)


def test_the_write_same_limit_is_whole_physical_blocks(make_bench: Callable[..., Bench]) -> None:
    for block_size, exponent in ((512, 3), (512, 0), (4096, 0)):
        unit = make_bench(block_size=block_size, physical_block_exponent=exponent).unit
        assert max_write_same(unit) % (1 << exponent) == 0
        assert max_write_same(unit) < 1 << 16


# UNMAP


def unmap_list(*rows: tuple[int, int]) -> bytes:
    body = b"".join(struct.pack(">QI4x", lba, count) for lba, count in rows)
    return struct.pack(">HH4x", 6 + len(body), len(body)) + body


def unmap_cdb(length: int, flags: int = 0) -> bytes:
    return struct.pack(">BB5xHB", 0x42, flags, length, 0)


def unmap(bench: Bench, data: bytes, how: str = "run") -> object:
    return getattr(bench, how)(unmap_cdb(len(data)), data=data)


def test_unmap(bench: Bench) -> None:
    rows = unmap_list((8, 8), (0, 0), (BLOCKS - 1, 1))
    assert unmap(bench, rows) == Unmap(((4096, 4096), ((BLOCKS - 1) * 512, 512)))


def test_unmap_of_nothing(bench: Bench) -> None:
    assert bench.run(unmap_cdb(0)) == Reply()
    assert unmap(bench, unmap_list()) == Reply()
    assert unmap(bench, unmap_list((0, 0), (BLOCKS, 0))) == Reply()


def test_unmap_with_the_cache_switched_off(bench: Bench) -> None:
    bench.unit.turn({"write_cache": False})
    assert unmap(bench, unmap_list((0, 8))) == Unmap(((0, 4096),), True)


def test_unmap_beyond_the_end(bench: Bench) -> None:
    assert unmap(bench, unmap_list((0, 8), (BLOCKS - 1, 2)), "asc") == 0x2100
    assert unmap(bench, unmap_list(((1 << 64) - 1, 0xFFFFFFFF)), "asc") == 0x2100
    assert unmap(bench, unmap_list((BLOCKS + 1, 0)), "asc") == 0x2100


def test_unmap_limits(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(size=2 << 30)
    most = MAX_UNMAP_BYTES // 512
    assert unmap(bench, unmap_list((0, most))) == Unmap(((0, MAX_UNMAP_BYTES),))
    assert unmap(bench, unmap_list((0, most), (most, 1)), "parameter") == (32, None)
    assert isinstance(unmap(bench, unmap_list(*[(0, 1)] * 128)), Unmap)
    assert unmap(bench, unmap_list(*[(0, 1)] * 129), "parameter") == (2, None)


def test_unmap_lists_that_end_too_soon(bench: Bench) -> None:
    assert bench.asc(unmap_cdb(7), edtl=7) == Code.PARAMETER_LIST_LENGTH_ERROR
    assert bench.field(unmap_cdb(24), edtl=23) == (7, None)
    # More descriptors announced than there are.
    assert unmap(bench, unmap_list((0, 1), (8, 1))[:-16], "parameter") == (2, None)
    collect = bench.run(unmap_cdb(24), edtl=24)
    assert isinstance(collect, Collect)
    assert isinstance(collect.then(b"abc"), Check)


def test_an_incomplete_last_descriptor_is_ignored(bench: Bench) -> None:
    data = struct.pack(">HH4x", 6 + 20, 20) + struct.pack(">QI4x", 1, 1) + bytes(4)
    assert unmap(bench, data) == Unmap(((512, 512),))


def test_unmap_does_not_anchor(bench: Bench) -> None:
    assert bench.field(unmap_cdb(0, 1)) == (1, 0)


def test_a_thick_unit_has_no_unmap(make_bench: Callable[..., Bench]) -> None:
    assert make_bench(thin=False).asc(unmap_cdb(0)) == Code.INVALID_COMMAND_OPERATION_CODE


# GET LBA STATUS


def status_cdb(lba: int, allocation: int) -> bytes:
    return struct.pack(">BBQIBB", 0x9E, 0x12, lba, allocation, 0, 0)


def rows_of(data: bytes) -> list[tuple[int, int, int]]:
    length, _ = struct.unpack_from(">II", data)
    assert length == len(data) - 4
    return [struct.unpack_from(">QIB", data, at) for at in range(8, len(data), 16)]


def status(bench: Bench, lba: int, allocation: int, extents: list[tuple[int, int, bool]]) -> bytes:
    action = bench.run(status_cdb(lba, allocation))
    assert isinstance(action, Extents)
    assert action.offset == lba * bench.unit.block_size
    assert action.offset + action.length == bench.unit.size
    answer = action.then(extents[: action.limit])
    assert isinstance(answer, Reply)
    return answer.data


def test_get_lba_status(bench: Bench) -> None:
    data = status(bench, 8, 8 + 32, [(4096, 4096, True), (8192, 1 << 20, False)])
    assert data == bytes.fromhex(
        "00000024 000000000000000000000008 00000008 00 0000000000000000000010 00000800 01 000000"
    )


@parametrize(("allocation", "limit"), [(0, 1), (24, 1), (39, 1), (40, 2), (1 << 20, 512)])
def test_get_lba_status_asks_for_what_fits(bench: Bench, allocation: int, limit: int) -> None:
    action = bench.run(status_cdb(0, allocation))
    assert isinstance(action, Extents)
    assert action.limit == limit


def test_get_lba_status_is_cut(bench: Bench) -> None:
    assert len(status(bench, 0, 12, [(0, 4096, True)])) == 12


def test_get_lba_status_beyond_the_end(bench: Bench) -> None:
    assert bench.asc(status_cdb(BLOCKS, 24)) == 0x2100
    assert bench.asc(status_cdb((1 << 64) - 1, 24)) == 0x2100


def test_get_lba_status_of_a_thick_unit(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(thin=False)
    assert rows_of(bench.data(status_cdb(9, 24))) == [(9, BLOCKS - 9, 0)]


def test_a_run_longer_than_its_count_goes_on_in_the_next_row(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(size=4 << 40)
    data = status(bench, 0, 56, [(0, 3 << 40, False), (3 << 40, 1 << 40, True)])
    first = 0xFFFFFFFF
    rest = (3 << 40) // 512 - first
    assert rows_of(data) == [(0, first, 1), (first, rest, 1), (first + rest, (1 << 40) // 512, 0)]


def test_a_block_allocated_in_part_is_mapped(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(block_size=4096)
    extents = [(0, 512, True), (512, 8192 - 1024, False), (7680, 512, True), (8192, 8192, False)]
    assert rows_of(status(bench, 0, 999, extents)) == [(0, 1, 0), (1, 1, 0), (2, 2, 1)]


def test_get_lba_status_of_a_disk_that_says_nothing(bench: Bench) -> None:
    assert rows_of(status(bench, 5, 24, [])) == [(5, 1, 0)]


@given(
    st.lists(st.tuples(st.integers(1, 64), st.booleans()), min_size=1, max_size=9),
    st.integers(0, 3),
)
def test_status_rows_follow_one_another(runs: list[tuple[int, bool]], lba: int) -> None:
    bench = Bench()
    extents, at = [], lba * 512
    for count, allocated in runs:
        extents.append((at, count * 512, allocated))
        at += count * 512
    rows = rows_of(status(bench, lba, 4096, extents))
    assert rows[0][0] == lba
    for (first, count, _), (following, _, _) in itertools.pairwise(rows):
        assert first + count == following
    assert [(row[1], not row[2]) for row in rows] == [*runs]

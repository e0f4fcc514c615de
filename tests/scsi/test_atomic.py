"""WRITE ATOMIC: one range, within its limit, and what is refused."""

import struct

import pytest

from netboot.scsi.action import Atomic, Check, Collect, Reply
from netboot.scsi.atomic import MAX_ATOMIC
from netboot.scsi.inquiry import vital
from tests.scsi.conftest import SIZE, Bench

BLOCKS = SIZE // 512


def cdb(lba: int, count: int, *, flags: int = 0, boundary: int = 0) -> bytes:
    return struct.pack(">BBQHHBB", 0x9C, flags, lba, boundary, count, 0, 0)


@pytest.mark.parametrize("count", [1, 8, 256, MAX_ATOMIC // 512])
def test_a_write(bench: Bench, count: int) -> None:
    data = b"a" * (512 * count)
    assert bench.run(cdb(3, count), data=data) == Atomic(3 * 512, data)
    assert bench.run(cdb(BLOCKS - count, count), data=data) == Atomic(SIZE - len(data), data)


def test_fua_and_the_cache_switched_off(bench: Bench) -> None:
    assert bench.run(cdb(0, 1, flags=0x18), data=bytes(512)) == Atomic(0, bytes(512), True)
    bench.unit.turn({"write_cache": False})
    assert bench.run(cdb(0, 1), data=bytes(512)) == Atomic(0, bytes(512), True)


def test_nothing_to_write(bench: Bench) -> None:
    assert bench.run(cdb(0, 0)) == Reply()
    assert bench.run(cdb(BLOCKS, 0)) == Reply()
    assert bench.asc(cdb(BLOCKS + 1, 0)) == 0x2100


def test_ranges_that_leave_the_disk(bench: Bench) -> None:
    for lba, count in ((BLOCKS, 1), (BLOCKS - 1, 2), (1 << 63, 1), ((1 << 64) - 1, 1)):
        assert bench.asc(cdb(lba, count), edtl=512 * count) == 0x2100


def test_what_is_refused(bench: Bench) -> None:
    assert bench.field(cdb(0, MAX_ATOMIC // 512 + 1), edtl=MAX_ATOMIC + 512) == (12, None)
    assert bench.field(cdb(0, 2), edtl=512) == (12, None)
    assert bench.field(cdb(0, 1, flags=0x20), edtl=512) == (1, 5)
    assert bench.field(cdb(0, 1, boundary=0x100), edtl=512) == (10, 0)


def test_less_data_than_announced(bench: Bench) -> None:
    action = bench.run(cdb(0, 1), edtl=512)
    assert isinstance(action, Collect) and action.length == 512
    short = action.then(bytes(511))
    assert isinstance(short, Check) and short.sense.asc == 0x1A00


def test_the_limits_page_tells(bench: Bench) -> None:
    page = vital(bench.unit, 0xB0)
    assert page is not None and len(page) == 64
    assert struct.unpack_from(">IIIII", page, 44) == (MAX_ATOMIC // 512, 0, 0, 0, 0)

"""Commands that address blocks: offsets, limits, and each way to be wrong."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.action import (
    Check,
    Collect,
    Compare,
    Flush,
    Merge,
    Prefetch,
    Read,
    Reply,
    Store,
    Verify,
    Write,
)
from netboot.scsi.sense import Code
from netboot.scsi.unit import Unit
from tests.scsi.conftest import Bench

BLOCKS = (64 << 20) // 512
PATTERN = bytes(range(256)) * 2


def sized(opcode: int, lba: int, count: int, flags: int = 0) -> bytes:
    """A 10, 12 or 16 byte CDB of a block command."""
    if opcode >> 5 in (1, 2):
        return struct.pack(">BBIBHB", opcode, flags, lba, 0, count, 0)
    if opcode >> 5 == 5:
        return struct.pack(">BBIIBB", opcode, flags, lba, count, 0, 0)
    return struct.pack(">BBQIBB", opcode, flags, lba, count, 0, 0)


READS, WRITES = (0x28, 0xA8, 0x88), (0x2A, 0xAA, 0x8A)
parametrize = pytest.mark.parametrize
COUNT_AT = {1: 7, 2: 7, 4: 10, 5: 6}


# READ and WRITE


@parametrize("opcode", READS)
def test_read(bench: Bench, opcode: int) -> None:
    assert bench.run(sized(opcode, 7, 9)) == Read(7 * 512, 9 * 512)
    assert bench.run(sized(opcode, BLOCKS - 1, 1)) == Read((BLOCKS - 1) * 512, 512)


@parametrize("opcode", WRITES)
def test_write(bench: Bench, opcode: int) -> None:
    assert bench.run(sized(opcode, 7, 9), edtl=9 * 512) == Write(7 * 512, 9 * 512)


@parametrize("opcode", READS + WRITES)
def test_zero_blocks_are_good_but_not_beyond_the_end(bench: Bench, opcode: int) -> None:
    assert bench.run(sized(opcode, 0, 0)) == Reply()
    assert bench.run(sized(opcode, BLOCKS, 0)) == Reply()
    assert bench.asc(sized(opcode, BLOCKS + 1, 0)) == Code.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE


@parametrize("opcode", READS + WRITES)
@parametrize(("lba", "count"), [(BLOCKS, 1), (BLOCKS - 1, 2), (1 << 31, 1), (0xFFFFFFFF, 1)])
def test_beyond_the_end(bench: Bench, opcode: int, lba: int, count: int) -> None:
    assert bench.asc(sized(opcode, lba, count)) == Code.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE


@parametrize("opcode", [0x88, 0x8A])
def test_the_last_address_of_all_does_not_wrap(bench: Bench, opcode: int) -> None:
    cdb = sized(opcode, (1 << 64) - 1, 0xFFFFFFFF)
    assert bench.asc(cdb) == Code.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE


@parametrize("opcode", READS + WRITES)
@parametrize("protect", range(1, 8))
def test_protection_information_is_refused(bench: Bench, opcode: int, protect: int) -> None:
    assert bench.field(sized(opcode, 0, 1, protect << 5))[0] == 1


@parametrize("opcode", READS)
@parametrize("flags", [0x10, 0x08, 0x18, 0x02, 0x1A])
def test_read_takes_dpo_and_fua(bench: Bench, opcode: int, flags: int) -> None:
    assert bench.run(sized(opcode, 0, 1, flags)) == Read(0, 512)


@parametrize("opcode", WRITES)
@parametrize(
    ("flags", "fua"), [(0x10, False), (0x08, True), (0x18, True), (0x02, True), (0x1A, True)]
)
def test_write_takes_dpo_and_heeds_fua(bench: Bench, opcode: int, flags: int, fua: bool) -> None:
    """FUA_NV asks for a non-volatile cache; there is none, so it is FUA."""
    assert bench.run(sized(opcode, 0, 1, flags), edtl=512) == Write(0, 512, fua)


@parametrize("opcode", READS + WRITES)
def test_naca_is_refused(bench: Bench, opcode: int) -> None:
    cdb = bytearray(sized(opcode, 0, 1))
    cdb[-1] = 0x04
    assert bench.field(bytes(cdb)) == (len(cdb) - 1, 2)


@parametrize("opcode", [0x88, 0xA8, 0x8A, 0xAA])
def test_more_than_the_transfer_limit(make_bench: Callable[..., Bench], opcode: int) -> None:
    bench = make_bench(size=1 << 30)
    assert isinstance(bench.run(sized(opcode, 0, 65536)), Read | Write)
    assert bench.field(sized(opcode, 0, 65537)) == (COUNT_AT[opcode >> 5], None)


def test_read10_never_meets_the_limit(make_bench: Callable[..., Bench]) -> None:
    """Firmware asks for 65535 blocks without having read the limits."""
    assert make_bench(size=1 << 30).run(sized(0x28, 0, 65535)) == Read(0, 65535 * 512)


@parametrize("opcode", WRITES)
def test_write_through_makes_every_write_fua(bench: Bench, opcode: int) -> None:
    bench.unit.turn({"write_cache": False})
    assert bench.run(sized(opcode, 0, 1), edtl=512) == Write(0, 512, True)


@parametrize("opcode", (*WRITES, 0x2E, 0x8E, 0xAE, 0x41, 0x93, 0x8B))
def test_write_protection(make_bench: Callable[..., Bench], opcode: int) -> None:
    bench = make_bench(read_only=True)
    sense = bench.sense(sized(opcode, 0, 1), edtl=512)
    assert (sense.key, sense.asc) == (7, Code.WRITE_PROTECTED)
    bench = make_bench()
    bench.unit.turn({"software_protected": True})
    sense = bench.sense(sized(opcode, 0, 1), edtl=512)
    assert (sense.key, sense.asc) == (7, Code.LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED)


def test_read6_and_write6(bench: Bench) -> None:
    assert bench.run("08 010203 04 00") == Read(0x010203 * 512, 4 * 512)
    assert bench.run("08 000000 00 00") == Read(0, 256 * 512)
    assert bench.run("0A 010203 04 00") == Write(0x010203 * 512, 4 * 512)
    assert bench.run("0A 000000 00 00") == Write(0, 256 * 512)
    # The three bits above the address were the LUN once.
    assert bench.run("08 E00001 01 00") == Read(512, 512)


def test_read6_and_write6_beyond_the_end(bench: Bench) -> None:
    last = f"{BLOCKS - 1:06X}"
    assert bench.run(f"08 {last} 01 00") == Read((BLOCKS - 1) * 512, 512)
    assert bench.asc(f"08 {last} 02 00") == Code.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
    assert bench.asc(f"0A {last} 00 00") == Code.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
    bench.unit.turn({"write_cache": False})
    assert bench.run("0A 000000 01 00") == Write(0, 512, True)


def test_blocks_of_4096_bytes(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(block_size=4096, physical_block_exponent=0)
    assert bench.run(sized(0x28, 3, 2)) == Read(3 * 4096, 2 * 4096)
    assert bench.field(sized(0x28, 0, 8193)) == (7, None)
    assert bench.asc(sized(0x28, (64 << 20) // 4096, 1)) == 0x2100


@given(
    st.sampled_from(READS + WRITES),
    st.integers(0, BLOCKS + 5) | st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFF),
)
def test_a_transfer_is_always_inside_the_disk(opcode: int, lba: int, count: int) -> None:
    action = Bench().run(sized(opcode, lba, count))
    if isinstance(action, Read | Write):
        assert action.offset >= 0
        assert action.length == count * 512
        assert action.offset + action.length <= BLOCKS * 512
    else:
        assert action == Reply() or isinstance(action, Check)
        assert lba + count > BLOCKS or not count


# WRITE AND VERIFY, VERIFY


@parametrize("opcode", [0x2E, 0xAE, 0x8E])
def test_write_and_verify_is_durable(bench: Bench, opcode: int) -> None:
    for flags in (0x00, 0x02, 0x06, 0x10):
        assert bench.run(sized(opcode, 4, 2, flags), edtl=1024) == Write(2048, 1024, True)
    assert bench.run(sized(opcode, 4, 0)) == Reply()
    assert bench.asc(sized(opcode, BLOCKS, 1)) == 0x2100
    assert bench.field(sized(opcode, 0, 1, 0x20)) == (1, 5)
    assert bench.field(sized(opcode, 0, 1, 0x04)) == (1, 2)


@parametrize("opcode", [0x2F, 0xAF, 0x8F])
def test_verify_without_data_reads(bench: Bench, opcode: int) -> None:
    assert bench.run(sized(opcode, 4, 2)) == Verify(2048, 1024)
    assert bench.run(sized(opcode, 4, 2, 0x10)) == Verify(2048, 1024)
    assert bench.run(sized(opcode, 4, 0)) == Reply()
    assert bench.asc(sized(opcode, BLOCKS + 1, 0)) == 0x2100
    assert bench.asc(sized(opcode, BLOCKS - 1, 2)) == 0x2100
    assert bench.field(sized(opcode, 0, 1, 0xE0)) == (1, 7)
    assert bench.field(sized(opcode, 0, 1, 0x04)) == (1, 2)


@parametrize("opcode", [0x2F, 0xAF, 0x8F])
def test_verify_compares(bench: Bench, opcode: int) -> None:
    both = PATTERN + PATTERN[::-1]
    assert bench.run(sized(opcode, 4, 2, 0x02), data=both) == Compare(2048, both)
    assert bench.run(sized(opcode, 4, 3, 0x06), data=PATTERN) == Compare(2048, PATTERN * 3)


@parametrize("opcode", [0x2F, 0xAF, 0x8F])
def test_verify_needs_all_its_data(bench: Bench, opcode: int) -> None:
    at = COUNT_AT[opcode >> 5]
    assert bench.field(sized(opcode, 4, 2, 0x02), edtl=1023) == (at, None)
    assert bench.field(sized(opcode, 4, 2, 0x06), edtl=0) == (at, None)
    collect = bench.run(sized(opcode, 4, 2, 0x02), edtl=1024)
    assert isinstance(collect, Collect)
    short = collect.then(b"short")
    assert isinstance(short, Check)
    assert short.sense.asc == Code.PARAMETER_LIST_LENGTH_ERROR


# COMPARE AND WRITE, ORWRITE


def caw(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQ3xBBB", 0x89, flags, lba, count, 0, 0)


def test_compare_and_write(bench: Bench) -> None:
    old, new = PATTERN * 2, bytes(1024)
    assert bench.run(caw(8, 2), data=old + new) == Compare(4096, old, Store(4096, new))
    assert bench.run(caw(8, 2, 0x18), data=old + new) == Compare(4096, old, Store(4096, new, True))
    assert bench.run(caw(8, 0)) == Reply()


def test_compare_and_write_refusals(bench: Bench) -> None:
    assert bench.asc(caw(BLOCKS, 1), edtl=1024) == 0x2100
    assert bench.field(caw(0, 1, 0x20), edtl=1024) == (1, 5)
    for announced in (0, 512, 1023, 2048):
        assert bench.field(caw(0, 1), edtl=announced) == (13, None)
    # 256 blocks, whose count did not fit its byte, are not taken for none.
    assert bench.field(caw(0, 256 & 0xFF), edtl=2 * 256 * 512) == (13, None)


def test_compare_and_write_with_the_cache_switched_off(bench: Bench) -> None:
    bench.unit.turn({"write_cache": False})
    action = bench.run(caw(0, 1), data=bytes(1024))
    assert action == Compare(0, bytes(512), Store(0, bytes(512), True))


def test_orwrite(bench: Bench) -> None:
    assert bench.run(sized(0x8B, 2, 1), data=PATTERN) == Merge(1024, PATTERN)
    assert bench.run(sized(0x8B, 2, 1, 0x08), data=PATTERN) == Merge(1024, PATTERN, True)
    assert bench.run(sized(0x8B, 2, 0)) == Reply()
    assert bench.asc(sized(0x8B, BLOCKS, 1), edtl=512) == 0x2100
    assert bench.field(sized(0x8B, 0, 1, 0xE0), edtl=512) == (1, 7)
    assert bench.field(sized(0x8B, 0, 2), edtl=512) == (10, None)


# PRE-FETCH, SYNCHRONIZE CACHE


@parametrize("opcode", [0x34, 0x90])
def test_prefetch(bench: Bench, opcode: int) -> None:
    assert bench.run(sized(opcode, 8, 8)) == Prefetch(4096, 4096)
    assert bench.run(sized(opcode, 8, 8, 0x02)) == Prefetch(4096, 4096)
    assert bench.run(sized(opcode, BLOCKS - 2, 0)) == Prefetch((BLOCKS - 2) * 512, 1024)
    assert bench.run(sized(opcode, BLOCKS, 0)) == Reply()
    assert bench.run(sized(opcode, 0, 0)) == Prefetch(0, 32 << 20)
    assert bench.asc(sized(opcode, BLOCKS + 1, 0)) == 0x2100
    assert bench.asc(sized(opcode, BLOCKS - 1, 2)) == 0x2100
    assert bench.field(sized(opcode, 0, 1, 0x01)) == (1, 0)


@parametrize("opcode", [0x35, 0x91])
def test_synchronize_cache(bench: Bench, opcode: int) -> None:
    assert bench.run(sized(opcode, 0, 0)) == Flush()
    assert bench.run(sized(opcode, 5, 5)) == Flush()
    assert bench.run(sized(opcode, 0, 0, 0x02)) == Flush(immediate=True)
    assert bench.run(sized(opcode, 0, 0, 0x06)) == Flush(immediate=True)
    assert bench.asc(sized(opcode, BLOCKS, 1)) == 0x2100
    assert bench.field(sized(opcode, 0, 0, 0x01)) == (1, 0)


def test_units_are_made_of_whole_blocks() -> None:
    with pytest.raises(ValueError, match="not made of"):
        Unit(0, 1000, "x")


@parametrize("cdb", [sized(0x8B, 0, 1), sized(0x8E, 0, 1), "89 00 " + "00" * 11 + " 01 00 00"])
def test_data_that_comes_after_the_cache_was_switched_off(bench: Bench, cdb: bytes | str) -> None:
    raw = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
    action = bench.run(raw, edtl=1024 if raw[0] == 0x89 else 512)
    bench.unit.turn({"write_cache": False})
    if isinstance(action, Collect):
        action = action.then(bytes(action.length))
    if isinstance(action, Compare) and action.then is not None:
        action = action.then
    assert getattr(action, "fua", False) is True

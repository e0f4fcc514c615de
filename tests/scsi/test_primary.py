"""Ready, sense, capacity, LUNs, start and stop, prevent and allow."""

import struct
from collections.abc import Callable

import pytest

from netboot.scsi.action import Flush, Reply
from netboot.scsi.primary import TASK_MANAGEMENT, lun_fields
from netboot.scsi.sense import Code, Key
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Unit
from tests.scsi.conftest import Bench

READY = "00 00000000 00"
NOTHING = bytes.fromhex("70 00 00 00000000 0A 00000000 0000 00 000000")


def removable(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(removable=True)


# TEST UNIT READY, REQUEST SENSE


def test_ready(bench: Bench) -> None:
    assert bench.run(READY) == Reply()


def test_not_ready_without_a_medium(make_bench: Callable[..., Bench]) -> None:
    bench = removable(make_bench)
    bench.unit.eject()
    sense = bench.sense(READY)
    assert (sense.key, sense.asc) == (2, Code.MEDIUM_NOT_PRESENT)


def test_request_sense_with_nothing_to_say(bench: Bench) -> None:
    assert bench.data("03 00 0000 FF 00") == NOTHING
    assert bench.data("03 00 0000 04 00") == NOTHING[:4]
    assert bench.data("03 00 0000 00 00") == b""
    assert bench.data("03 01 0000 FF 00") == bytes.fromhex("72 00 0000 000000 00")


def test_request_sense_takes_the_unit_attention(bench: Bench) -> None:
    bench.unit.resize(32 << 20)
    assert bench.data("03 00 0000 12 00")[2:14:10] == bytes((6, 0x2A))
    assert bench.run(READY) == Reply()
    assert bench.asc(READY, nexus=bench.other) == Code.CAPACITY_DATA_HAS_CHANGED


def test_request_sense_says_why_the_unit_is_not_ready(make_bench: Callable[..., Bench]) -> None:
    bench = removable(make_bench)
    bench.unit.eject()
    assert bench.data("03 01 0000 FF 00") == bytes.fromhex("72 02 3A00 000000 00")


def test_naca_is_refused_in_request_sense_too(bench: Bench) -> None:
    assert bench.field("03 00 0000 FF 04") == (5, 2)


# READ CAPACITY


def test_read_capacity10(bench: Bench) -> None:
    assert bench.data("25 00 00000000 0000 00 00") == bytes.fromhex("0001FFFF 00000200")


@pytest.mark.parametrize(
    ("blocks", "last"),
    [(1 << 32, 0xFFFFFFFF), ((1 << 32) - 1, 0xFFFFFFFE), (1 << 33, 0xFFFFFFFF)],
)
def test_read_capacity10_sends_on_to_16(
    make_bench: Callable[..., Bench], blocks: int, last: int
) -> None:
    bench = make_bench(size=blocks * 512)
    assert struct.unpack(">II", bench.data("25 00 00000000 0000 00 00")) == (last, 512)


def test_read_capacity16(bench: Bench) -> None:
    data = bench.data("9E 10 0000000000000000 00000020 00 00")
    # 8 blocks per physical block; LBPME and LBPRZ.
    assert data == bytes.fromhex("000000000001FFFF 00000200 00 03 C000" + "00" * 16)


def test_read_capacity16_of_a_thick_unit_of_large_blocks(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(size=5 << 40, block_size=4096, physical_block_exponent=0, thin=False)
    data = bench.data("9E 10 0000000000000000 000000FF 00 00")
    assert data == bytes.fromhex("000000004FFFFFFF 00001000 00 00 0000" + "00" * 16)


@pytest.mark.parametrize("room", [0, 8, 12, 31, 32, 0xFFFFFFFF])
def test_read_capacity16_is_cut(bench: Bench, room: int) -> None:
    cdb = struct.pack(">BBQIBB", 0x9E, 0x10, 0, room, 0, 0)
    assert len(bench.data(cdb)) == min(room, 32)


def test_read_capacity_refusals(make_bench: Callable[..., Bench]) -> None:
    bench = removable(make_bench)
    assert bench.field("25 00 00000000 0000 00 04") == (9, 2)
    assert bench.field("9E 10 0000000000000000 00000020 00 04") == (15, 2)
    bench.unit.eject()
    assert bench.asc("25 00 00000000 0000 00 00") == Code.MEDIUM_NOT_PRESENT
    assert bench.asc("9E 10 0000000000000000 00000020 00 00") == Code.MEDIUM_NOT_PRESENT


# REPORT LUNS


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (0, (0, 0x4000_0000_0000_0000)),
        (255, (0x00FF_0000_0000_0000, 0x40FF_0000_0000_0000)),
        (256, (0x4100_0000_0000_0000,)),
        (16383, (0x7FFF_0000_0000_0000,)),
    ],
)
def test_lun_fields(number: int, fields: tuple[int, ...]) -> None:
    assert lun_fields(number) == fields


def test_report_luns(bench: Bench) -> None:
    assert bench.data("A0 00 00 000000 00000010 00 00") == bytes.fromhex(
        "00000008 00000000 0000000000000000"
    )
    assert bench.data("A0 00 02 000000 00000004 00 00") == bytes.fromhex("00000008")
    # Well-known units: none.
    assert bench.data("A0 00 01 000000 00000010 00 00") == bytes(8)


def test_report_luns_of_several_units() -> None:
    units = LogicalUnits([Unit(number, 1 << 20, f"s{number}") for number in (300, 7, 0)])
    nexus = units.attach("iqn.x")
    cdb = bytes.fromhex("A0 00 00 000000 000000FF 00 00")
    for lun in (0, 7, 0x0007_0000_0000_0000, 0x412C_0000_0000_0000):
        assert units.execute(nexus, lun, cdb) == Reply(
            bytes.fromhex("00000018 00000000 0000000000000000 0007000000000000 412C000000000000")
        )


def test_report_luns_refusals(bench: Bench) -> None:
    assert bench.field("A0 00 03 000000 00000010 00 00") == (2, None)
    assert bench.field("A0 00 00 000000 00000010 00 04") == (11, 2)


def test_report_luns_does_not_meet_a_unit_attention(bench: Bench) -> None:
    bench.unit.resize(32 << 20)
    assert len(bench.data("A0 00 00 000000 00000010 00 00")) == 16
    assert bench.asc(READY) == Code.CAPACITY_DATA_HAS_CHANGED


# START STOP UNIT


def test_a_stop_flushes_and_the_unit_stays_ready(bench: Bench) -> None:
    assert bench.run("1B 00 0000 00 00") == Flush()
    assert bench.run("1B 01 0000 00 00") == Flush(immediate=True)
    assert bench.run(READY) == Reply()


def test_start_and_no_flush_do_nothing(bench: Bench) -> None:
    for flags in ("01", "04", "05"):
        assert bench.run(f"1B 00 0000 {flags} 00") == Reply()


@pytest.mark.parametrize("condition", range(1, 16))
def test_power_conditions_change_nothing(make_bench: Callable[..., Bench], condition: int) -> None:
    bench = removable(make_bench)
    # LOEJ is ignored then; a disk that is sent to sleep is flushed, unless NO_FLUSH is set.
    sleeps = Flush(immediate=True) if condition in (3, 11) else Reply()
    assert bench.run(bytes((0x1B, 1, 0, 0, condition << 4 | 2, 0))) == sleeps
    assert bench.run(bytes((0x1B, 1, 0, 0, condition << 4 | 4, 0))) == Reply()
    assert bench.run(READY) == Reply()


def test_eject_and_load(make_bench: Callable[..., Bench]) -> None:
    bench = removable(make_bench)
    assert bench.run("1B 00 0000 02 00") == Flush()
    assert bench.run("1B 00 0000 02 00") == Flush()
    assert bench.asc(READY) == Code.MEDIUM_NOT_PRESENT
    # The other one is told once that it has gone, and then that it is not there.
    for key in (Key.UNIT_ATTENTION, Key.NOT_READY, Key.NOT_READY):
        sense = bench.sense(READY, nexus=bench.other)
        assert (sense.key, sense.asc) == (key, Code.MEDIUM_NOT_PRESENT)
    assert bench.run("1B 00 0000 03 00") == Reply()
    assert bench.run(READY) == Reply()
    assert (
        bench.asc(READY, nexus=bench.other)
        == Code.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED
    )
    assert bench.run(READY, nexus=bench.other) == Reply()


def test_loading_what_is_loaded_tells_nobody(make_bench: Callable[..., Bench]) -> None:
    bench = removable(make_bench)
    assert bench.run("1B 00 0000 03 00") == Reply()
    assert bench.run(READY, nexus=bench.other) == Reply()


def test_a_fixed_disk_is_not_ejected(bench: Bench) -> None:
    assert bench.field("1B 00 0000 02 00") == (4, 1)
    assert bench.run(READY) == Reply()


# PREVENT ALLOW MEDIUM REMOVAL


def test_prevent(make_bench: Callable[..., Bench]) -> None:
    bench = removable(make_bench)
    assert bench.run("1E 000000 01 00") == Reply()
    for nexus in (bench.nexus, bench.other):
        assert bench.asc("1B 00 0000 02 00", nexus=nexus) == Code.MEDIUM_REMOVAL_PREVENTED
    # What the other nexus allows was never prevented by it.
    assert bench.run("1E 000000 00 00", nexus=bench.other) == Reply()
    assert bench.asc("1B 00 0000 02 00") == Code.MEDIUM_REMOVAL_PREVENTED
    assert bench.run("1E 000000 00 00") == Reply()
    assert bench.run("1B 00 0000 02 00") == Flush()


def test_a_lock_holds_the_door_either_way(make_bench: Callable[..., Bench]) -> None:
    bench = removable(make_bench)
    assert bench.run("1B 00 0000 02 00") == Flush()
    assert bench.run("1E 000000 01 00") == Reply()
    assert bench.asc("1B 00 0000 03 00") == Code.MEDIUM_REMOVAL_PREVENTED
    assert bench.run("1E 000000 00 00") == Reply()
    assert bench.run("1B 00 0000 03 00") == Reply()
    assert bench.run("1E 000000 01 00") == Reply()
    assert bench.run("1B 00 0000 03 00") == Reply()  # it is in already


@pytest.mark.parametrize("end", ["logout", "unit reset", "target reset"])
def test_prevent_ends_with_its_nexus_or_a_reset(make_bench: Callable[..., Bench], end: str) -> None:
    bench = removable(make_bench)
    bench.run("1E 000000 01 00", nexus=bench.other)
    assert bench.unit.prevented
    if end == "logout":
        bench.units.detach(bench.other)
    elif end == "unit reset":
        bench.units.reset_unit(0)
    else:
        bench.units.reset_target()
    assert not bench.unit.prevented


def test_prevent_refusals(bench: Bench) -> None:
    assert bench.field("1E 000000 02 00") == (4, 1)
    assert bench.field("1E 000000 03 00") == (4, 1)
    assert bench.field("1E 000000 01 04") == (5, 2)


# REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS


def test_report_task_management_functions(bench: Bench) -> None:
    assert TASK_MANAGEMENT == 0b1101_1010  # ATS ATSS CTSS LURS TRS
    assert bench.data("A3 0D 00 000000 00000010 00 00") == bytes.fromhex("DA000000")
    assert bench.data("A3 0D 80 000000 00000010 00 00") == bytes.fromhex("DA00000C") + bytes(12)
    assert bench.data("A3 0D 80 000000 00000002 00 00") == bytes.fromhex("DA00")
    assert bench.field("A3 0D 00 000000 00000010 00 04") == (11, 2)

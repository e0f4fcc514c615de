"""The door: LUNs that are not there, the order of the gates, resets, and no exception ever."""

from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.scsi.action import Action, Check, Collect, Compare, Extents, Read, Reply, Status, Write
from netboot.scsi.sense import Code, Key, Sense
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Nexus, Unit
from tests.scsi.conftest import Bench

READY = "00 00000000 00"
READ = "28 00 00000000 00 0001 00"
CONFLICT = Reply(status=Status.RESERVATION_CONFLICT)
KINDS = get_args(Action)
LUN1 = 0x0001_0000_0000_0000


# LUNs


@pytest.mark.parametrize("lun", [0, 0x4000_0000_0000_0000])
def test_lun_0_either_way(bench: Bench, lun: int) -> None:
    assert bench.run(READ, lun=lun) == Read(0, 512)
    assert bench.units.find(lun) is bench.unit


def test_two_units_do_not_meet() -> None:
    units = LogicalUnits([Unit(0, 1 << 20, "a"), Unit(1, 2 << 20, "b")])
    nexus = units.attach("iqn.x")
    capacity = bytes.fromhex("25 00 00000000 0000 00 00")
    for lun, blocks in ((0, 2048), (1, 4096), (LUN1, 4096), (0x4001_0000_0000_0000, 4096)):
        units.execute(nexus, lun, bytes(6))
        assert units.execute(nexus, lun, capacity) == Reply(
            (blocks - 1).to_bytes(4) + (512).to_bytes(4)
        )


def test_two_units_of_one_number() -> None:
    with pytest.raises(ValueError, match="same LUN"):
        LogicalUnits([Unit(0, 512, "a"), Unit(0, 512, "b")])


def test_commands_to_a_lun_that_is_not_there(bench: Bench) -> None:
    for cdb in (READY, READ, "25 00 00000000 0000 00 00", "FF 00 00 00 00 00"):
        sense = bench.sense(cdb, lun=LUN1)
        assert sense == Sense(Key.ILLEGAL_REQUEST, Code.LOGICAL_UNIT_NOT_SUPPORTED)
    assert bench.asc("A0 00 00 000000 00000010 00 00", lun=LUN1) == 0x2500


def test_inquiry_of_a_lun_that_is_not_there(bench: Bench) -> None:
    data = bench.data("12 00 00 0024 00", lun=LUN1)
    assert len(data) == 36
    assert data[0] == 0x7F
    assert bench.field("12 01 83 0024 00", lun=LUN1) == (1, None)
    assert bench.field("12 00 83 0024 00", lun=LUN1) == (2, None)


def test_request_sense_of_a_lun_that_is_not_there(bench: Bench) -> None:
    data = bench.data("03 00 0000 FF 00", lun=LUN1)
    assert data == Sense(Key.ILLEGAL_REQUEST, Code.LOGICAL_UNIT_NOT_SUPPORTED).fixed()
    assert bench.data("03 01 0000 FF 00", lun=LUN1) == bytes.fromhex("72 05 2500 000000 00")


def test_report_luns_of_a_target_without_lun_0() -> None:
    units = LogicalUnits([Unit(3, 1 << 20, "a")])
    nexus = units.attach("iqn.x")
    cdb = bytes.fromhex("A0 00 00 000000 00000010 00 00")
    assert units.execute(nexus, 0, cdb) == Reply(
        bytes.fromhex("00000008 00000000 0003000000000000")
    )


def test_a_target_without_units() -> None:
    units = LogicalUnits([])
    nexus = units.attach("iqn.x")
    assert units.execute(nexus, 0, bytes(16)) == Check(
        Sense(Key.ILLEGAL_REQUEST, Code.LOGICAL_UNIT_NOT_SUPPORTED)
    )
    assert not units.reset_unit(0)


# The order of the gates


def test_an_unknown_opcode_comes_before_everything(bench: Bench) -> None:
    bench.unit.resize(32 << 20)
    assert bench.asc("FF 00 00 00 00 00") == Code.INVALID_COMMAND_OPERATION_CODE
    assert bench.asc("9E 1F 0000000000000000 00000000 00 00") == Code.INVALID_FIELD_IN_CDB
    # The attention was not lost by it.
    assert bench.asc(READY) == Code.CAPACITY_DATA_HAS_CHANGED


def test_a_conflict_comes_before_a_unit_attention(bench: Bench) -> None:
    bench.run("16 00 000000 00")
    bench.unit.resize(32 << 20)
    assert bench.run(READ, nexus=bench.other) == CONFLICT
    bench.run(READY)
    bench.run("17 00 000000 00")
    assert bench.asc(READ, nexus=bench.other) == Code.CAPACITY_DATA_HAS_CHANGED
    assert bench.run(READ, nexus=bench.other) == Read(0, 512)


def test_a_unit_attention_comes_before_wrong_fields(bench: Bench) -> None:
    bench.unit.resize(32 << 20)
    assert bench.asc("28 E0 00000000 00 0001 00") == Code.CAPACITY_DATA_HAS_CHANGED
    assert bench.asc("28 E0 00000000 00 0001 00") == Code.INVALID_FIELD_IN_CDB


def test_a_missing_medium_comes_before_write_protection(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(removable=True, read_only=True)
    assert bench.asc("2A 00 00000000 00 0001 00", edtl=512) == Code.WRITE_PROTECTED
    bench.unit.eject()
    assert bench.asc("2A 00 00000000 00 0001 00", edtl=512) == Code.MEDIUM_NOT_PRESENT
    assert bench.asc(READ) == Code.MEDIUM_NOT_PRESENT


def test_write_protection_comes_before_the_length_of_the_data(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(read_only=True)
    for cdb in ("41 08 00000000 00 0001 00", "42 00 00000000 00 0018 00"):
        assert bench.asc(cdb, edtl=0) == Code.WRITE_PROTECTED


@pytest.mark.parametrize("opcode", ["28", "2A"])
def test_the_way_past_the_gates_gives_the_same_answers(bench: Bench, opcode: str) -> None:
    """With and without anything in the way, the same CDBs end the same."""
    cdbs = [
        f"{opcode} {flags} {lba} 00 {count} {control}"
        for flags in ("00", "08", "18", "20", "01")
        for lba in ("00000000", "0001FFFF", "00020000", "00020001")
        for count in ("0000", "0001", "FFFF")
        for control in ("00", "04")
    ]
    (view,) = set(bench.nexus.views.values())
    straight = [bench.run(cdb, edtl=512) for cdb in cdbs]
    assert view.clear
    view.clear = False
    assert [bench.run(cdb, edtl=512) for cdb in cdbs] == straight


# Sessions


def test_each_session_meets_power_on_once(bench: Bench) -> None:
    nexus = bench.units.attach("iqn.third", b"\0\0\0\0\0\3")
    assert bench.asc(READ, nexus=nexus) == 0x2900
    assert bench.run(READ, nexus=nexus) == Read(0, 512)
    assert bench.run(READ) == Read(0, 512)


def test_a_session_that_ended_sees_nothing(bench: Bench) -> None:
    bench.units.detach(bench.nexus)
    bench.units.detach(bench.nexus)
    assert bench.asc(READ) == Code.LOGICAL_UNIT_NOT_SUPPORTED
    assert bench.run(READ, nexus=bench.other) == Read(0, 512)


def test_a_nexus_nobody_attached(bench: Bench) -> None:
    assert bench.asc(READ, nexus=Nexus("iqn.x")) == Code.LOGICAL_UNIT_NOT_SUPPORTED


# Task management


def test_unit_reset_is_told_to_every_session(bench: Bench) -> None:
    assert bench.units.reset_unit(0)
    for nexus in (bench.nexus, bench.other):
        assert bench.asc(READY, nexus=nexus) == Code.BUS_DEVICE_RESET_FUNCTION_OCCURRED
        assert bench.run(READY, nexus=nexus) == Reply()
    assert not bench.units.reset_unit(LUN1)


@pytest.mark.parametrize(("cold", "code"), [(False, 0x2902), (True, 0x2900)])
def test_target_reset_reaches_every_unit(cold: bool, code: int) -> None:
    units = LogicalUnits([Unit(0, 1 << 20, "a"), Unit(1, 1 << 20, "b")])
    nexus = units.attach("iqn.x")
    for lun in (0, 1):
        units.execute(nexus, lun, bytes(16))
    units.reset_target(cold=cold)
    for lun in (0, 1):
        action = units.execute(nexus, lun, bytes(16))
        assert isinstance(action, Check)
        assert action.sense.asc == code


def test_cleared_commands_are_told_to_their_owners(bench: Bench) -> None:
    bench.units.commands_cleared(0, [bench.other])
    bench.units.commands_cleared(LUN1, [bench.other])
    assert bench.run(READY) == Reply()
    assert bench.asc(READY, nexus=bench.other) == Code.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR
    assert bench.run(READY, nexus=bench.other) == Reply()


def test_sense_bytes_of_no_unit_are_fixed(bench: Bench) -> None:
    bench.unit.turn({"descriptor_sense": True})
    sense = Sense(Key.ILLEGAL_REQUEST, Code.LOGICAL_UNIT_NOT_SUPPORTED)
    assert bench.units.sense_bytes(0, sense)[0] == 0x72
    assert bench.units.sense_bytes(LUN1, sense)[0] == 0x70


# Whatever comes


@pytest.mark.parametrize("size", [0, 1, 5, 6, 9, 10, 12, 15, 16, 32])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_cdbs_of_any_length_and_type(
    bench: Bench, size: int, kind: Callable[[bytes], bytes]
) -> None:
    for opcode in range(256):
        cdb = kind((bytes((opcode,)) + bytes(31))[:size])
        assert isinstance(bench.units.execute(bench.nexus, 0, cdb, 512), KINDS)


@pytest.mark.parametrize("opcode", range(256))
def test_every_opcode_is_answered(bench: Bench, opcode: int) -> None:
    for fill in (0x00, 0xFF, 0x55):
        cdb = bytes((opcode,)) + bytes((fill,)) * 15
        for lun in (0, LUN1):
            assert isinstance(bench.run(cdb, lun=lun, edtl=fill), KINDS)


def follow(action: Action, data: bytes, rows: list[tuple[int, int, bool]]) -> list[Action]:
    """An action and everything that can follow it."""
    met = [action]
    for _ in range(4):
        last = met[-1]
        if isinstance(last, Collect):
            met.append(last.then(data[: last.length].ljust(min(last.length, 4096), b"\0")))
        elif isinstance(last, Extents):
            met.append(last.then(rows[: last.limit]))
        elif isinstance(last, Compare) and last.then is not None:
            met.append(last.then)
        else:
            break
    return met


SPOKEN = "03 12 15 1A 28 2A 2F 41 42 55 5A 5E 5F 88 89 8A 8B 93 9E A0 A3 A8"
OPCODES = st.sampled_from(bytes.fromhex(SPOKEN)) | st.integers(0, 255)
ADDRESSES = st.binary(min_size=15, max_size=15) | st.lists(
    st.sampled_from([0, 0, 0, 0, 1, 2, 8, 16, 24, 255]), min_size=15, max_size=15
).map(bytes)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(OPCODES, ADDRESSES, st.integers(0, 4096), st.booleans()), min_size=1, max_size=8
    ),
    st.binary(max_size=64),
    st.sampled_from([{}, {"read_only": True}, {"thin": False}, {"removable": True}]),
)
def test_nothing_raises_and_nothing_leaves_the_disk(
    steps: list[tuple[int, bytes, int, bool]], data: bytes, unit: dict[str, bool]
) -> None:
    bench = Bench(**unit)
    for opcode, rest, edtl, mine in steps:
        nexus = bench.nexus if mine else bench.other
        action = bench.run(bytes((opcode,)) + rest, edtl=edtl, nexus=nexus)
        for met in follow(action, data, [(0, 4096, True), (4096, 1 << 20, False)]):
            assert isinstance(met, KINDS)
            offset = getattr(met, "offset", 0)
            length = getattr(met, "length", len(getattr(met, "data", b"")))
            if isinstance(met, Collect):
                assert 0 < met.length <= edtl
            elif not isinstance(met, Reply):
                assert offset >= 0
                assert offset + length <= bench.unit.size
            if isinstance(met, Check):
                assert len(met.sense.fixed()) == 18
        if unit.get("read_only"):
            assert not isinstance(action, Write)

"""LOG SENSE: each page byte by byte, the lists of pages, and what is asked in vain."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.action import Check, Reply, Space
from netboot.scsi.inquiry import vital
from netboot.scsi.logs import PAGES, THRESHOLD_SET, pages_of, threshold_exponent
from tests.scsi.conftest import Bench

MakeBench = Callable[..., Bench]


def cdb(page: int, subpage: int = 0, *, first: int = 0, room: int = 512, control: int = 1) -> bytes:
    """LOG SENSE."""
    head = bytes((0x4D, 0, control << 6 | page, subpage, 0))
    return head + first.to_bytes(2, "big") + room.to_bytes(2, "big") + b"\0"


@pytest.fixture
def measured(make_bench: MakeBench) -> Bench:
    return make_bench(measured=True)


def told(bench: Bench, used: int, available: int, **more: int) -> bytes:
    """The page of Logical Block Provisioning of such a disk."""
    action = bench.run(cdb(0x0C, **more))
    assert isinstance(action, Space)
    answer = action.then(used, available)
    assert isinstance(answer, Reply)
    return answer.data


def test_the_pages_there_are(bench: Bench, measured: Bench) -> None:
    assert bench.data(cdb(0)) == bytes.fromhex("00 00 0002 00 2F")
    assert measured.data(cdb(0)) == bytes.fromhex("00 00 0003 00 0C 2F")


def test_the_pages_and_their_subpages(bench: Bench, measured: Bench) -> None:
    assert bench.data(cdb(0, 0xFF)) == bytes.fromhex("40 FF 0008 0000 00FF 2F00 2FFF")
    wanted = "40 FF 000C 0000 00FF 0C00 0CFF 2F00 2FFF"
    assert measured.data(cdb(0, 0xFF)) == bytes.fromhex(wanted)


def test_the_subpages_of_one(measured: Bench) -> None:
    assert measured.data(cdb(0x2F, 0xFF)) == bytes.fromhex("6F FF 0004 2F00 2FFF")
    assert measured.data(cdb(0x0C, 0xFF)) == bytes.fromhex("4C FF 0004 0C00 0CFF")


def test_no_failure_and_no_temperature(bench: Bench) -> None:
    assert bench.data(cdb(0x2F)) == bytes.fromhex("AF 00 0008 0000 23 04 00 00 FF 00")


def test_the_space_there_is(measured: Bench) -> None:
    data = told(measured, 5 * THRESHOLD_SET + 1, 900 * THRESHOLD_SET - 1)
    assert data == bytes.fromhex(
        "8C 00 0018  0001 23 08 00000383 02 000000  0002 23 08 00000006 01 000000"
    )


def test_more_space_than_the_field_holds(measured: Bench) -> None:
    data = told(measured, 1 << 70, 1 << 70)
    assert data[8:12] == data[20:24] == b"\xff" * 4


def test_the_unit_of_the_counts_is_in_vpd_b2(make_bench: MakeBench) -> None:
    for block, exponent in ((512, 11), (4096, 8)):
        unit = make_bench(block_size=block, measured=True).unit
        assert threshold_exponent(unit) == exponent
        page = vital(unit, 0xB2)
        assert page is not None and page[4] == exponent
        assert block << exponent == THRESHOLD_SET
    unmeasured = vital(make_bench().unit, 0xB2)
    assert unmeasured is not None and unmeasured[4] == 0


def test_a_thick_unit_has_no_page_of_its_space(make_bench: MakeBench) -> None:
    bench = make_bench(thin=False, measured=True)
    assert [page.code for page in pages_of(bench.unit)] == [0x2F]
    assert bench.field(cdb(0x0C)) == (2, 5)


def test_parameters_from_a_code_on(measured: Bench) -> None:
    whole = told(measured, 0, 0)
    assert told(measured, 0, 0, first=1) == whole
    assert told(measured, 0, 0, first=2) == b"\x8c\0\0\x0c" + whole[16:]
    action = measured.run(cdb(0x0C, first=3))
    assert isinstance(action, Space)
    refused = action.then(0, 0)
    assert isinstance(refused, Check) and (refused.sense.asc, refused.sense.field) == (0x2400, 5)
    assert measured.field(cdb(0x2F, first=1)) == (5, None)
    assert measured.field(cdb(0, first=1)) == (5, None)
    assert measured.field(cdb(0x2F, 0xFF, first=1)) == (5, None)


@pytest.mark.parametrize("control", range(4))
def test_any_page_control_is_the_same(measured: Bench, control: int) -> None:
    assert measured.data(cdb(0x2F, control=control)) == measured.data(cdb(0x2F))


def test_what_there_is_not(measured: Bench) -> None:
    for page in (0x02, 0x03, 0x0D, 0x0E, 0x11, 0x3F):
        assert measured.field(cdb(page)) == (2, 5)
    for page in (0x00, 0x0C, 0x2F):
        assert measured.field(cdb(page, 1)) == (3, None)
    assert measured.field(bytes((0x4D, 1)) + cdb(0)[2:]) == (1, 0)  # SP


@pytest.mark.parametrize("room", [0, 3, 4, 11, 12, 500])
def test_it_is_cut(bench: Bench, measured: Bench, room: int) -> None:
    assert bench.data(cdb(0x2F, room=room)) == bench.data(cdb(0x2F))[:room]
    assert told(measured, 1, 2, room=room) == told(measured, 1, 2)[:room]


def test_pages_are_in_rising_order() -> None:
    codes = [page.code for page in PAGES]
    assert codes == sorted(set(codes)) and min(codes) > 0 and max(codes) < 0x3F


@given(st.binary(min_size=8, max_size=8))
def test_any_cdb_is_answered(rest: bytes) -> None:
    bench = Bench(measured=True)
    action = bench.run(b"\x4d" + rest + b"\0")
    if isinstance(action, Space):
        action = action.then(1 << 30, 1 << 40)
    assert isinstance(action, Check | Reply)
    if isinstance(action, Reply):
        room = int.from_bytes(rest[6:8], "big")
        assert len(action.data) <= room

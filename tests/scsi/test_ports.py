"""REPORT TARGET PORT GROUPS: one group, one port, as INQUIRY and VPD 83 say."""

import pytest

from netboot.scsi.ports import GROUP, PORT
from tests.scsi.conftest import Bench

ROW = bytes.fromhex("00 01 0001 00 00 00 01  0000 0001")


def test_the_group_and_its_port(bench: Bench) -> None:
    data = bench.data("A3 0A 00000000 000000FF 00 00")
    assert data == bytes.fromhex("0000000C") + ROW


def test_the_extended_header(bench: Bench) -> None:
    data = bench.data("A3 2A 00000000 000000FF 00 00")
    assert data == bytes.fromhex("00000010 10000000") + ROW


@pytest.mark.parametrize("form", range(2, 8))
def test_other_formats_are_refused(bench: Bench, form: int) -> None:
    cdb = bytes((0xA3, form << 5 | 0x0A)) + bytes(7) + b"\xff" + bytes(2)
    assert bench.field(cdb) == (1, 7)


def test_an_answer_is_cut(bench: Bench) -> None:
    assert bench.data("A3 0A 00000000 00000004 00 00") == bytes.fromhex("0000000C")
    assert bench.data("A3 0A 00000000 00000000 00 00") == b""


def test_inquiry_says_that_access_is_implicitly_asymmetric(bench: Bench) -> None:
    assert bench.data("12 00 00 0024 00")[5] & 0x30 == 0x10


def test_the_identification_page_names_group_and_port(bench: Bench) -> None:
    page = bench.data("12 01 83 0FFF 00")
    assert bytes((0x51, 0x94, 0, 4, 0, 0, 0, PORT)) in page
    assert bytes((0x51, 0x95, 0, 4, 0, 0, 0, GROUP)) in page


def test_it_is_answered_without_a_medium_and_under_a_reservation(bench: Bench) -> None:
    bench.unit.eject()
    assert bench.data("A3 0A 00000000 000000FF 00 00")[4:] == ROW

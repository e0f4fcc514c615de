"""REPORT TARGET PORT GROUPS: one group, one port, as INQUIRY and VPD 83 say."""

import pytest

from netboot.scsi.ports import GROUP, PORT
from netboot.scsi.unit import Nexus, apart
from tests.scsi.conftest import Bench

ROW = bytes.fromhex("00 01 0001 00 00 00 01  0000 0001")


def test_the_group_and_its_port(bench: Bench) -> None:
    data = bench.data("A3 0A 00000000 000000FF 00 00")
    assert data == bytes.fromhex("0000000C") + ROW


def test_every_portal_group_is_a_port_of_the_one_group(bench: Bench) -> None:
    """The relative identifier is the tag: VPD 83 names the port that the question came in by."""
    bench.unit.ports = (1, 7)
    data = bench.data("A3 0A 00000000 000000FF 00 00")
    assert data == bytes.fromhex("00000010 00 01 0001 00 00 00 02  0000 0001 0000 0007")
    bench.nexus.group = 7
    page = bench.data("12 01 83 0FFF 00")
    assert bytes((0x51, 0x94, 0, 4, 0, 0, 0, 7)) in page and b",t,0x0007\0" in page
    assert bytes((0x51, 0x95, 0, 4, 0, 0, 0, GROUP)) in page


def test_another_target_port_is_another_nexus(bench: Bench) -> None:
    """SPC-4 5.13.5: a registration is of an initiator port at the target port it came in by."""
    one, isid = "iqn.1994-05.com.example:one", b"\x40\0\1\x37\0\0"
    first, second = Nexus(one, isid), Nexus(one, isid, 7)
    assert first.port == f"{one},i,0x400001370000" and first.port != second.port
    assert apart(first.port) == (first.port, 1) and apart(second.port) == (first.port, 7)
    bench.unit.reservations.register(second.port, 0x1234)
    status = bench.data("5E 03 0000000000 0400 00")
    assert status[8:16] == (0x1234).to_bytes(8, "big")
    assert status[26:28] == b"\0\7" and first.port.encode() + b"\0" in status[32:]
    assert b",t," not in status


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

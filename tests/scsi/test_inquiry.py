"""Standard INQUIRY data and every VPD page against the drawings of SPC-4 and SBC-3."""

import struct
from collections.abc import Callable

import pytest

from netboot.scsi import inquiry
from netboot.scsi.inquiry import PAGES, naa, standard, vital
from netboot.scsi.unit import Unit
from tests.scsi.conftest import NAME, Bench


def page(bench: Bench, code: int) -> bytes:
    return bench.data(bytes((0x12, 1, code, 0x10, 0, 0)))


def test_standard_data(bench: Bench) -> None:
    data = bench.data("12 00 00 1000 00")
    assert data == (
        bytes.fromhex("00 00 06 12 5B 18 00 02")
        + b"NETBOOT VIRTUAL-DISK    0001"
        + bytes(22)
        + bytes.fromhex("00A0 0960 0460 04C0")
        + bytes(30)
    )
    assert len(data) == 96 == data[4] + 5


def test_a_removable_unit_says_so(make_bench: Callable[..., Bench]) -> None:
    assert make_bench(removable=True).data("12 00 00 0024 00")[1] == 0x80


def test_names_are_cut_and_padded(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(vendor="A very long one", product="ü", revision="")
    assert bench.data("12 00 00 0024 00")[8:] == b"A very l" + b"?" + b" " * 19


@pytest.mark.parametrize("room", [0, 1, 5, 36, 95, 96, 255])
def test_data_is_cut_but_its_length_field_is_not(bench: Bench, room: int) -> None:
    data = bench.data(bytes((0x12, 0, 0, 0, room, 0)))
    assert data == standard(bench.unit)[:room]


def test_no_unit_here() -> None:
    data = standard(None)
    assert data[0] == 0x7F
    assert len(data) == 96


def test_refusals(bench: Bench) -> None:
    assert bench.field("12 00 80 00FF 00") == (2, None)  # a page code without EVPD
    assert bench.field("12 01 B9 00FF 00") == (2, None)  # a page we lack
    assert bench.field("12 02 00 00FF 00") == (1, 1)  # CMDDT, obsolete
    assert bench.field("12 00 00 00FF 04") == (5, 2)  # NACA


def test_supported_pages(bench: Bench) -> None:
    assert page(bench, 0x00) == bytes.fromhex("00 00 0008 00 80 83 86 88 B0 B1 B2")


@pytest.mark.parametrize("code", [row.code for row in PAGES])
def test_every_page_has_its_header(bench: Bench, code: int) -> None:
    data = page(bench, code)
    assert data[:2] == bytes((0, code))
    assert struct.unpack_from(">H", data, 2) == (len(data) - 4,)
    assert bench.data(bytes((0x12, 1, code, 0, 6, 0))) == data[:6]


def test_pages_are_in_rising_order() -> None:
    codes = [row.code for row in PAGES]
    assert codes == sorted(set(codes))
    assert all(row.name and row.reference for row in PAGES)


def test_serial_number(bench: Bench) -> None:
    assert page(bench, 0x80) == b"\0\x80\0\x0e52540012345600"


def designators(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(protocol, code set, PIV << 7 | association << 4 | type, value) of each."""
    rows, at = [], 4
    while at < len(data):
        size = data[at + 3]
        rows.append((data[at] >> 4, data[at] & 15, data[at + 1], data[at + 4 : at + 4 + size]))
        at += 4 + size
    assert at == len(data)
    return rows


def test_device_identification(bench: Bench) -> None:
    t10, binary, port, group, unit_name, port_name, device_name = designators(page(bench, 0x83))
    # T10 vendor identification, ASCII, of the logical unit.
    assert t10 == (0, 2, 0x01, b"NETBOOT VIRTUAL-DISK    52540012345600")
    # NAA locally assigned, binary, of the logical unit.
    assert binary[:3] == (0, 1, 0x03)
    assert len(binary[3]) == 8
    assert binary[3][0] >> 4 == 3
    # Relative target port 1, iSCSI.
    assert port == (5, 1, 0x94, b"\0\0\0\1")
    assert group == (5, 1, 0x95, b"\0\0\0\1")
    # SCSI name strings: the unit, the target port, the target device.
    assert unit_name[:3] == (0, 3, 0x08)
    assert unit_name[3].rstrip(b"\0").decode() == NAME + ",L,0x0000000000000000"
    assert port_name[:3] == (5, 3, 0x98)
    assert port_name[3].rstrip(b"\0").decode() == NAME + ",t,0x0001"
    assert device_name[:3] == (5, 3, 0xA8)
    assert device_name[3].rstrip(b"\0").decode() == NAME
    for row in (unit_name, port_name, device_name):
        assert len(row[3]) % 4 == 0
        assert row[3].endswith(b"\0")


def test_a_unit_without_a_target_name_is_identified_too(make_bench: Callable[..., Bench]) -> None:
    rows = designators(page(make_bench(target_name=""), 0x83))
    assert [row[2] for row in rows] == [0x01, 0x03, 0x94, 0x95]


def test_identity_is_stable_across_versions_of_the_disk() -> None:
    first = Unit(0, 1 << 20, "serial", target_name=NAME)
    second = Unit(0, 1 << 30, "serial", target_name=NAME, read_only=True, thin=False)
    assert vital(first, 0x83) == vital(second, 0x83)
    # The very bytes: a release that changes them gives every Windows a new disk.
    assert naa(first).hex() == naa(second).hex() == "3f3c6997c35a3bd8"


def test_identities_differ() -> None:
    made = {
        naa(Unit(number, 1 << 20, serial, target_name=name))
        for number in (0, 1)
        for serial in ("a", "b")
        for name in ("iqn.2026-11.lab.netboot:a", "iqn.2026-11.lab.netboot:b")
    }
    assert len(made) == 8


def test_long_names_fit_their_length_bytes() -> None:
    unit = Unit(0, 1 << 20, "s" * 400, target_name="iqn.2026-11." + "n" * 250)
    data = vital(unit, 0x83)
    assert data is not None
    assert len(designators(data)) == 7
    serial = vital(unit, 0x80)
    assert serial is not None
    assert len(serial) == 256


def test_block_limits(bench: Bench) -> None:
    assert page(bench, 0xB0) == bytes.fromhex(
        "00 B0 003C"
        "01"  # WSNZ 1
        "FF"  # maximum compare and write length
        "0008"  # optimal transfer length granularity: one physical block
        "00010000"  # maximum transfer length: 32 MiB
        "00000000"  # optimal transfer length
        "00000000"  # maximum prefetch length
        "00100000"  # maximum unmap LBA count: 512 MiB
        "00000080"  # maximum unmap block descriptor count
        "00000008"  # optimal unmap granularity
        "80000000"  # UGAVALID, alignment 0
        "000000000000FFF8"  # maximum write same length
        "00000800"  # maximum atomic transfer length: 1 MiB
        "00000000000000000000000000000000"
    )


def test_block_limits_of_a_thick_unit(make_bench: Callable[..., Bench]) -> None:
    data = page(make_bench(thin=False), 0xB0)
    assert data[20:36] == bytes(16)
    assert len(data) == 64


def test_block_limits_of_4096_byte_blocks(make_bench: Callable[..., Bench]) -> None:
    data = page(make_bench(block_size=4096, physical_block_exponent=0), 0xB0)
    assert struct.unpack_from(">HI", data, 6) == (1, 8192)
    assert struct.unpack_from(">IIII", data, 20) == (131072, 128, 1, 0x80000000)
    assert struct.unpack_from(">Q", data, 36) == (8191,)


def test_block_device_characteristics(bench: Bench) -> None:
    assert page(bench, 0xB1) == bytes.fromhex("00 B1 003C 0001 00 50") + bytes(56)


def test_logical_block_provisioning(bench: Bench, make_bench: Callable[..., Bench]) -> None:
    # LBPU, LBPWS, LBPWS10, LBPRZ; thin.
    assert page(bench, 0xB2) == bytes.fromhex("00 B2 0004 00 E4 02 00")
    assert page(make_bench(thin=False), 0xB2) == bytes.fromhex("00 B2 0004 00 00 00 00")


def test_a_page_that_is_not_there() -> None:
    assert vital(Unit(0, 512, "s"), 0x89) is None
    assert inquiry.NO_UNIT == 0x7F


def test_inquiry_neither_meets_nor_takes_a_unit_attention(bench: Bench) -> None:
    bench.unit.resize(32 << 20)
    assert len(bench.data("12 00 00 00FF 00")) == 96
    assert bench.asc("00 00000000 00") == 0x2A09


def test_a_target_of_several_ports_says_so(bench: Bench) -> None:
    """MULTIP, byte 6 bit 4 (SPC-4 section 6.6.2)."""
    assert bench.data("12 00 00 0024 00")[6] == 0
    bench.unit.ports = (1, 7)
    assert bench.data("12 00 00 0024 00")[6] == 0x10


def test_extended_inquiry_data(bench: Bench) -> None:
    data = bench.data("12 01 86 00FF 00")
    assert data == bytes.fromhex("00 86 003C 00 07 01") + bytes(57)


def test_scsi_ports(make_bench: Callable[..., Bench]) -> None:
    nameless = make_bench(target_name="")
    assert nameless.data("12 01 88 00FF 00") == bytes.fromhex(
        "00 88 000C 0000 0001 0000 0000 0000 0000"
    )
    bench = make_bench(target_name="iqn.x:y")
    bench.unit.ports = (1, 0x10)
    # Each with its number, no initiator port, and one designator: its name, padded.
    assert bench.data("12 01 88 00FF 00") == b"".join(
        (
            *(bytes.fromhex("00 88 0048"),),
            *(
                bytes.fromhex("0000 0001 0000 0000 0000 0018 53 98 00 14"),
                b"iqn.x:y,t,0x0001\0\0\0\0",
            ),
            *(
                bytes.fromhex("0000 0010 0000 0000 0000 0018 53 98 00 14"),
                b"iqn.x:y,t,0x0010\0\0\0\0",
            ),
        )
    )

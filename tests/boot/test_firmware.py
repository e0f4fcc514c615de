"""Every row of the firmware table, and the choice among its loaders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.boot.firmware import (
    BY_CODE,
    KNOWN_LOADERS,
    RASPBERRY_PI,
    RASPBERRY_PI_OUIS,
    ROWS,
    Firmware,
    Kind,
    Transport,
    loader_for,
    of,
)
from netboot.model import Client, Stage

MAC = "52:54:00:12:34:56"
TFTP, HTTP = Transport.TFTP, Transport.HTTP

#: Written down a second time, from the registry and WIRE's facts, not from the table.
EXPECTED = [
    (0, "undionly.kpxe", TFTP),
    (1, None, TFTP),
    (2, None, TFTP),
    (3, None, TFTP),
    (4, None, TFTP),
    (5, None, TFTP),
    (6, "ipxe-i386.efi", TFTP),
    (7, "snponly.efi", TFTP),
    (8, None, TFTP),
    (9, "snponly.efi", TFTP),
    (10, "ipxe-arm32.efi", TFTP),
    (11, "ipxe-arm64.efi", TFTP),
    (12, None, TFTP),
    (13, None, TFTP),
    (14, None, TFTP),
    (15, "ipxe-i386.efi", HTTP),
    (16, "snponly.efi", HTTP),
    (17, "snponly.efi", HTTP),
    (18, "ipxe-arm32.efi", HTTP),
    (19, "ipxe-arm64.efi", HTTP),
    (20, None, HTTP),
    (21, None, TFTP),
    (22, None, TFTP),
    (23, None, HTTP),
    (24, None, HTTP),
    (25, "ipxe-riscv32.efi", TFTP),
    (26, "ipxe-riscv32.efi", HTTP),
    (27, "ipxe-riscv64.efi", TFTP),
    (28, "ipxe-riscv64.efi", HTTP),
    (29, None, TFTP),
    (30, None, HTTP),
    (31, None, TFTP),
    (32, None, TFTP),
    (33, None, TFTP),
    (34, None, TFTP),
    (35, None, TFTP),
    (36, None, TFTP),
    (37, None, TFTP),
    (38, None, HTTP),
    (39, "ipxe-loong64.efi", TFTP),
    (40, "ipxe-loong64.efi", HTTP),
    (41, None, TFTP),
]


def client(*arch: int, mac: str = MAC) -> Client:
    return Client(mac=mac, stage=Stage.FIRMWARE, arch=arch)


@pytest.mark.parametrize(("code", "loader", "transport"), EXPECTED)
def test_each_architecture(code: int, loader: str | None, transport: Transport) -> None:
    row, why = of(client(code))
    assert row is not None
    assert (row.code, row.loader, row.transport) == (code, loader, transport)
    assert why == f"architecture {code}: {row.name}"


def test_the_table_has_exactly_these_rows_in_order() -> None:
    assert [row.code for row in ROWS] == [code for code, _, _ in EXPECTED]
    assert list(BY_CODE) == [row.code for row in ROWS]


@pytest.mark.parametrize("row", [*ROWS, RASPBERRY_PI], ids=lambda row: row.name)
def test_each_row_is_consistent(row: Firmware) -> None:
    assert row.name
    assert len(set(row.loaders)) == len(row.loaders)
    assert row.loaders or row.story, "a row without a loader says why"
    for loader in row.loaders:
        assert loader.endswith(".efi") is (row.kind is Kind.EFI)
        assert loader in KNOWN_LOADERS
    assert (row.transport is HTTP) is ("HTTP" in row.name)


def test_http_and_tftp_rows_of_one_machine_agree() -> None:
    by_name = {row.name: row for row in ROWS}
    pairs = [(row, by_name[row.name.replace(" HTTP", "")]) for row in ROWS if "HTTP" in row.name]
    assert len(pairs) == 13
    assert [pair[1].code for pair in pairs if pair[0].loaders != pair[1].loaders] == [0]


def test_no_architecture_is_a_bios() -> None:
    row, why = of(client())
    assert row is BY_CODE[0]
    assert why == "no architecture in the packet: taken for an x86 BIOS"


@pytest.mark.parametrize(
    ("arch", "code", "why"),
    [
        ((0, 7), 0, "architecture 0 of 0, 7: x86 BIOS"),
        ((7, 0), 7, "architecture 7 of 7, 0: x64 UEFI"),
        ((12, 7), 7, "architecture 7 of 12, 7: x64 UEFI"),
        ((999, 11), 11, "architecture 11 of 999, 11: ARM 64-bit UEFI"),
        ((12, 999), 12, "architecture 12 of 12, 999: PowerPC Open Firmware"),
    ],
)
def test_a_list_of_architectures(arch: tuple[int, ...], code: int, why: str) -> None:
    row, said = of(client(*arch))
    assert row is BY_CODE[code]
    assert said == why


def test_an_architecture_that_nobody_knows() -> None:
    assert of(client(999, 4711)) == (
        None,
        "architecture 999, 4711 is in no row of the firmware table",
    )


@pytest.mark.parametrize("oui", sorted(RASPBERRY_PI_OUIS))
def test_a_raspberry_pi_is_no_bios(oui: str) -> None:
    row, why = of(client(0, mac=f"{oui}:01:02:03"))
    assert row is RASPBERRY_PI
    assert why == "architecture 0 from a MAC of Raspberry Pi: its boot ROM"
    assert of(client(11, mac=f"{oui}:01:02:03"))[0] is BY_CODE[11], "UEFI on a Pi is UEFI"


@pytest.mark.parametrize(
    ("code", "wanted", "loader", "why"),
    [
        (0, None, "undionly.kpxe", "loader undionly.kpxe, the first choice for x86 BIOS"),
        (0, "ipxe.pxe", "ipxe.pxe", "loader ipxe.pxe, because the profile says so"),
        (0, "own.0", "own.0", "loader own.0, the profile's own"),
        (
            0,
            "ipxe.efi",
            "undionly.kpxe",
            "loader undionly.kpxe: the profile's ipxe.efi is not for x86 BIOS",
        ),
        (7, None, "snponly.efi", "loader snponly.efi, the first choice for x64 UEFI"),
        (7, "snponly.efi", "snponly.efi", "loader snponly.efi, the first choice for x64 UEFI"),
        (7, "ipxe.efi", "ipxe.efi", "loader ipxe.efi, because the profile says so"),
        (7, "shim/shimx64.EFI", "shim/shimx64.EFI", "loader shim/shimx64.EFI, the profile's own"),
        (
            7,
            "undionly.kpxe",
            "snponly.efi",
            "loader snponly.efi: the profile's undionly.kpxe is not for x64 UEFI",
        ),
        (
            11,
            "ipxe.efi",
            "ipxe-arm64.efi",
            "loader ipxe-arm64.efi: the profile's ipxe.efi is not for ARM 64-bit UEFI",
        ),
    ],
)
def test_what_the_profile_wants(code: int, wanted: str | None, loader: str, why: str) -> None:
    assert loader_for(BY_CODE[code], wanted) == (loader, why)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.loaders], ids=lambda row: row.name)
def test_a_row_without_a_loader_stays_without(row: Firmware) -> None:
    assert loader_for(row, "ipxe.efi") == (None, f"no loader for {row.name}: {row.story}")


@given(st.lists(st.integers(0, 0xFFFF), max_size=6))
def test_any_list_has_an_answer(codes: list[int]) -> None:
    row, why = of(client(*codes))
    assert why
    if row is not None and codes:
        assert row.code in codes

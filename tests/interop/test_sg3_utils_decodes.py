"""What we say is what sg3_utils reads: INQUIRY, VPD pages, sense, LUNs, GET LBA STATUS, CDBs.

These programs decode hex from their standard input; they share no line with us.
"""

import re
import struct
import subprocess
from dataclasses import replace

import pytest

from netboot.scsi.action import Extents, Reply, Space
from netboot.scsi.commands import COMMANDS, Command
from netboot.scsi.inquiry import naa, standard, vital
from netboot.scsi.primary import lun_fields
from netboot.scsi.sanitize import IN_PROGRESS
from netboot.scsi.sense import READ_FAULTS, WRITE_FAULTS, Code, Key, Sense, miscompare
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Unit

pytestmark = pytest.mark.interop

NAME = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"


def unit(**settings: object) -> Unit:
    return Unit(0, 40 << 30, "525400123456", target_name=NAME, **settings)  # type: ignore[arg-type]


def decode(data: bytes, *command: str) -> str:
    """The output of a program that reads hex from its standard input, without extra spaces."""
    made = subprocess.run(
        command, input=data.hex(" "), capture_output=True, text=True, timeout=20, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert not made.stderr, made.stderr
    return re.sub(r"[ \t]+", " ", made.stdout)


def page(of: Unit, code: int) -> str:
    data = vital(of, code)
    assert data is not None
    return decode(data, "sg_vpd", "--inhex=-", f"--page={code:#x}", "--long")


def expect(text: str, *lines: str) -> None:
    missing = [line for line in lines if line not in text]
    assert not missing, f"{missing} not in:\n{text}"


def test_standard_inquiry() -> None:
    text = decode(standard(unit(removable=True)), "sg_inq", "--inhex=-")
    expect(
        text,
        "PQual=0 PDT=0 RMB=1",
        "version=0x06 [SPC-4]",
        "NormACA=0 HiSUP=1 Resp_data_format=2",
        "Protect=0",
        "CmdQue=1",
        "length=96 (0x60) Peripheral device type: disk",
        "Vendor identification: NETBOOT",
        "Product identification: VIRTUAL-DISK",
        "Product revision level: 0001",
    )


def test_no_unit() -> None:
    expect(decode(standard(None), "sg_inq", "--inhex=-"), "PQual=3 PDT=31")


def test_version_descriptors() -> None:
    text = decode(standard(unit()), "sg_inq", "--inhex=-", "--descriptors")
    expect(text, "SAM-5 (no version claimed)", "iSCSI (no version claimed)")
    expect(text, "SPC-4 (no version claimed)", "SBC-3 (no version claimed)")


def test_supported_pages() -> None:
    listed = re.findall(r"^ 0x(..) ", page(unit(), 0x00), re.MULTILINE)
    assert listed == ["00", "80", "83", "86", "88", "b0", "b1", "b2"]


def test_serial_number() -> None:
    expect(page(unit(), 0x80), "Unit serial number: 525400123456")


def test_device_identification() -> None:
    made = unit()
    text = page(made, 0x83)
    expect(
        text,
        "Addressed logical unit:",
        "vendor id: NETBOOT",
        "NAA 3, Locally assigned:",
        f"0x{naa(made).hex()}",
        f"{NAME},L,0x0000000000000000",
        "Target port:",
        "transport: Internet SCSI (iSCSI)",
        "Relative target port: 0x1",
        f"{NAME},t,0x0001",
        "Target device that contains addressed lu:",
    )
    assert "bad" not in text.lower()


def test_extended_inquiry_data() -> None:
    text = page(unit(), 0x86)
    expect(text, "HEADSUP=1", "ORDSUP=1", "SIMPSUP=1", "NV_SUP=0", "V_SUP=1", "UASK_SUP=0")


def test_scsi_ports() -> None:
    several = unit()
    several.ports = (1, 7)
    text = page(several, 0x88)
    expect(text, "Relative port=1", "Relative port=7", f"{NAME},t,0x0001", f"{NAME},t,0x0007")
    assert text.count("Target port descriptor") == 2 and "bad" not in text.lower()


def test_block_limits() -> None:
    expect(
        page(unit(), 0xB0),
        "(WSNZ): 1",
        "Maximum compare and write length: 255 blocks",
        "Optimal transfer length granularity: 8 blocks",
        "Maximum transfer length: 65536 blocks",
        "Maximum unmap LBA count: 1048576",
        "Maximum unmap block descriptor count: 128",
        "Optimal unmap granularity: 8 blocks",
        "Unmap granularity alignment valid: true",
        "Maximum write same length: 0xfff8 blocks",
    )


def test_block_device_characteristics() -> None:
    expect(page(unit(), 0xB1), "Non-rotating medium")


def test_logical_block_provisioning() -> None:
    expect(
        page(unit(), 0xB2),
        "(LBPU): 1",
        "(LBPWS): 1",
        "(LBPWS10): 1",
        "(LBPRZ): 1",
        "(ANC_SUP): 0",
        "Provisioning type: 2 (thin provisioned)",
    )
    expect(page(unit(thin=False), 0xB2), "(LBPU): 0", "(LBPRZ): 0")
    expect(page(unit(), 0xB2), "Threshold exponent: 0")
    expect(page(unit(measured=True), 0xB2), "Threshold exponent: 11")


def logged(code: int, subpage: int = 0) -> str:
    """A log page of a disk that takes 5 MiB, with 900 MiB for more, as sg_logs reads it."""
    units = LogicalUnits([unit(measured=True)])
    nexus = units.attach("iqn.x")
    units.execute(nexus, 0, bytes(16))
    cdb = struct.pack(">BBBBxHHB", 0x4D, 0, 0x40 | code, subpage, 0, 512, 0)
    action = units.execute(nexus, 0, cdb)
    if isinstance(action, Space):
        action = action.then(5 << 20, 900 << 20)
    assert isinstance(action, Reply)
    return decode(action.data, "sg_logs", "--in=-", "--no_inq", "--pcb")


def test_log_pages() -> None:
    text = logged(0x00)
    expect(text, "Supported log pages", "0x00 Supported log pages")
    expect(text, "0x0c Logical block provisioning", "0x2f Informational exceptions")
    listed = re.findall(r"^ *0x(..)(?:,0x(..))? ", logged(0x00, 0xFF), re.MULTILINE)
    assert listed == [(page, sub) for page in ("00", "0c", "2f") for sub in ("", "ff")]


def test_log_page_of_the_space() -> None:
    text = logged(0x0C)
    expect(text, "Logical block provisioning page", "resource count: 900", "resource count: 5")
    expect(text, "Scope: dedicated to lu", "Scope: not dedicated to lu")


def test_log_page_of_exceptions() -> None:
    expect(logged(0x2F), "IE asc = 0x0, ascq = 0x0")


def spoken(code: int) -> str:
    """An additional sense code's name as these programs write it, as far as letters go."""
    return re.sub(r"[^a-z]", "", Code(code).name.lower())


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_additional_sense_codes_have_the_names_we_gave_them(code: Code) -> None:
    text = decode(Sense(Key.ILLEGAL_REQUEST, code).fixed(), "sg_decode_sense", "--file=-")
    said = re.search(r"Additional sense: (.*)", text)
    assert said is not None
    assert re.sub(r"[^a-z]", "", said[1].lower()) == spoken(code)


@pytest.mark.parametrize("form", ["fixed", "descriptor"])
@pytest.mark.parametrize(
    ("sense", "lines"),
    [
        (
            Sense(Key.ILLEGAL_REQUEST, Code.INVALID_FIELD_IN_CDB, field=1, bit=7),
            ("Sense key: Illegal Request", "Error in Command: byte 1 bit 7"),
        ),
        (
            Sense(Key.ILLEGAL_REQUEST, 0x2600, field=20, in_data=True),
            ("Error in Data parameters: byte 20",),
        ),
        (miscompare(0x1234), ("Sense key: Miscompare", "1234")),
        (WRITE_FAULTS["space"], ("Sense key: Data Protect", "Space allocation failed")),
        (READ_FAULTS["medium"], ("Sense key: Medium Error", "Unrecovered read error")),
        (
            replace(IN_PROGRESS, progress=0x8000),
            ("Sense key: Not Ready", "sanitize in progress", "Progress indication: 50.00%"),
        ),
    ],
)
def test_sense(form: str, sense: Sense, lines: tuple[str, ...]) -> None:
    text = decode(getattr(sense, form)(), "sg_decode_sense", "--file=-")
    expect(text, f"{form.capitalize()} format, current", *lines)


@pytest.mark.parametrize("number", [0, 1, 255, 256, 300, 16383])
def test_lun_fields(number: int) -> None:
    for field in lun_fields(number):
        text = decode(b"", "sg_luns", f"--test={field:016x}")
        flat = field >> 62 == 1
        shown = f"Flat space addressing: lun={number}"
        assert (shown if flat else f"Peripheral device addressing: lun={number}") in text


def test_get_lba_status() -> None:
    units = LogicalUnits([unit()])
    nexus = units.attach("iqn.x")
    units.execute(nexus, 0, bytes(16))
    cdb = struct.pack(">BBQIBB", 0x9E, 0x12, 8, 56, 0, 0)
    action = units.execute(nexus, 0, cdb)
    assert isinstance(action, Extents)
    reply = action.then([(4096, 4096, True), (8192, 1 << 20, False), (1056768, 512, True)])
    assert isinstance(reply, Reply)
    text = decode(reply.data, "sg_get_lba_status", "--inhex=-", "--maxlen=56", "--lba=8")
    expect(
        text,
        "[1] LBA: 0x0000000000000008 blocks: 8 mapped",
        "[2] LBA: 0x0000000000000010 blocks: 2048 deallocated",
        "[3] LBA: 0x0000000000000810 blocks: 1 mapped",
    )


def plain(name: str) -> str:
    """A command's name without the differences of spelling between SPC-4 and the program."""
    made = re.sub(r"[^a-z0-9]", "", name.lower())
    return made.replace("operationcodes", "opcodes").replace("supportedoperationcodes", "opcodes")


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_cdbs_have_the_names_of_the_table(row: Command) -> None:
    cdb = bytes((row.opcode, row.service_action or 0)) + bytes(row.size - 2)
    said = plain(decode(cdb, "sg_decode_sense", "--cdb", "--file=-"))
    wanted = plain(row.name)
    assert said.removesuffix("16") == wanted.removesuffix("16") or said == wanted

"""The table: each row by one success and one refusal, and what is told of it."""

import struct
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from netboot.scsi.action import (
    Atomic,
    Check,
    Collect,
    Compare,
    Extents,
    Fill,
    Flush,
    Merge,
    Prefetch,
    Read,
    Reply,
    Sanitize,
    Store,
    Unmap,
    Verify,
    Write,
    Zero,
)
from netboot.scsi.cdb import SIZES
from netboot.scsi.commands import COMMANDS, HOT, TABLE, Access, Command, Needs, find, markdown
from netboot.scsi.unit import Unit
from tests.scsi.conftest import Bench

DOCUMENT = Path(__file__).parents[2] / "docs" / "scsi.md"
ROWS = pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
ONE = bytes(512)
END = "0000000000020000"  # the block after the last of 64 MiB

#: name → a CDB that works, what is sent with it, what comes of it (a value, or a type);
#: then a CDB that is refused, and the additional sense code.
EXAMPLES: dict[str, tuple[str, bytes | None, object, str, int]] = {
    "TEST UNIT READY": ("00 00000000 00", None, Reply(), "00 00000000 04", 0x2400),
    "REQUEST SENSE": ("03 00 0000 00 00", None, Reply(), "03 00 0000 00 04", 0x2400),
    "READ(6)": ("08 000001 01 00", None, Read(512, 512), "08 1FFFFF 01 00", 0x2100),
    "WRITE(6)": ("0A 000001 01 00", ONE, Write(512, 512), "0A 1FFFFF 01 00", 0x2100),
    "INQUIRY": ("12 00 00 0000 00", None, Reply(), "12 00 01 0000 00", 0x2400),
    "MODE SELECT(6)": ("15 10 0000 04 00", bytes(4), Reply(), "15 11 0000 04 00", 0x2400),
    "RESERVE(6)": ("16 00 000000 00", None, Reply(), "16 01 000000 00", 0x2400),
    "RELEASE(6)": ("17 00 000000 00", None, Reply(), "17 01 000000 00", 0x2400),
    "MODE SENSE(6)": ("1A 00 3F 00 00 00", None, Reply(), "1A 00 FF 00 FF 00", 0x3900),
    "START STOP UNIT": ("1B 00 0000 00 00", None, Flush(), "1B 00 0000 03 00", 0x2400),
    "PREVENT ALLOW MEDIUM REMOVAL": ("1E 000000 01 00", None, Reply(), "1E 000000 02 00", 0x2400),
    "READ CAPACITY(10)": (
        *("25 00 00000000 0000 00 00", None, Reply(bytes.fromhex("0001FFFF 00000200"))),
        *("25 00 00000000 0000 00 04", 0x2400),
    ),
    "READ(10)": (
        "28 00 00000001 00 0001 00",
        None,
        Read(512, 512),
        "28 00 00020000 00 0001 00",
        0x2100,
    ),
    "WRITE(10)": (
        "2A 08 00000001 00 0001 00",
        ONE,
        Write(512, 512, True),
        "2A 20 00000000 00 0001 00",
        0x2400,
    ),
    "WRITE AND VERIFY(10)": (
        "2E 00 00000001 00 0001 00",
        ONE,
        Write(512, 512, True),
        "2E 00 00020000 00 0001 00",
        0x2100,
    ),
    "VERIFY(10)": (
        "2F 00 00000001 00 0001 00",
        None,
        Verify(512, 512),
        "2F 00 00020000 00 0001 00",
        0x2100,
    ),
    "PRE-FETCH(10)": (
        "34 00 00000001 00 0001 00",
        None,
        Prefetch(512, 512),
        "34 00 00020000 00 0001 00",
        0x2100,
    ),
    "SYNCHRONIZE CACHE(10)": (
        "35 00 00000000 00 0000 00",
        None,
        Flush(),
        "35 00 00020000 00 0001 00",
        0x2100,
    ),
    "READ DEFECT DATA(10)": (
        *("37 00 00 00000000 0004 00", None, Reply(bytes(4))),
        *("37 00 00 00000000 0004 04", 0x2400),
    ),
    "WRITE SAME(10)": (
        "41 08 00000001 00 0001 00",
        ONE,
        Zero(512, 512, True),
        "41 10 00000000 00 0001 00",
        0x2400,
    ),
    "UNMAP": (
        *(
            "42 00 00000000 00 0018 00",
            bytes.fromhex("0016 0010 00000000 0000000000000001 00000001 00000000"),
        ),
        *(Unmap(((512, 512),)), "42 01 00000000 00 0000 00", 0x2400),
    ),
    "SANITIZE: OVERWRITE": (
        *("48 01 0000000000 0008 00", bytes.fromhex("01000004 AAAAAAAA"), Sanitize),
        *("48 01 0000000000 0004 00", 0x2400),
    ),
    "SANITIZE: BLOCK ERASE": (
        *("48 02 0000000000 0000 00", None, Sanitize),
        *("48 42 0000000000 0000 00", 0x2400),
    ),
    "SANITIZE: CRYPTOGRAPHIC ERASE": (
        *("48 03 0000000000 0000 00", None, Sanitize),
        *("48 43 0000000000 0000 00", 0x2400),
    ),
    "SANITIZE: EXIT FAILURE MODE": (
        *("48 1F 0000000000 0000 00", None, Reply()),
        *("48 1F 0000000000 0008 00", 0x2400),
    ),
    "LOG SENSE": (
        *("4D 00 6F 00 00 0000 00FF 00", None),
        Reply(bytes.fromhex("AF 00 0008 0000 23 04 00 00 FF 00")),
        *("4D 01 6F 00 00 0000 00FF 00", 0x2400),
    ),
    "MODE SELECT(10)": (
        "55 10 0000000000 0008 00",
        bytes(8),
        Reply(),
        "55 00 0000000000 0008 00",
        0x2400,
    ),
    "MODE SENSE(10)": (
        "5A 00 3F 00 000000 0000 00",
        None,
        Reply(),
        "5A 00 02 00 000000 00FF 00",
        0x2400,
    ),
    "PERSISTENT RESERVE IN: READ KEYS": (
        "5E 00 0000000000 0008 00",
        None,
        Reply(bytes(8)),
        "5E 00 0000000000 0008 04",
        0x2400,
    ),
    "PERSISTENT RESERVE IN: READ RESERVATION": (
        "5E 01 0000000000 0008 00",
        None,
        Reply(bytes(8)),
        "5E 01 0000000000 0008 04",
        0x2400,
    ),
    "PERSISTENT RESERVE IN: REPORT CAPABILITIES": (
        "5E 02 0000000000 0002 00",
        None,
        Reply(b"\0\x08"),
        "5E 02 0000000000 0008 04",
        0x2400,
    ),
    "PERSISTENT RESERVE IN: READ FULL STATUS": (
        "5E 03 0000000000 0008 00",
        None,
        Reply(bytes(8)),
        "5E 03 0000000000 0008 04",
        0x2400,
    ),
    "PERSISTENT RESERVE OUT: REGISTER": (
        "5F 00 000000 00000018 00",
        bytes(24),
        Reply(),
        "5F 00 000000 00000000 00",
        0x1A00,
    ),
    "PERSISTENT RESERVE OUT: RESERVE": (
        "5F 01 010000 00000018 00",
        bytes(24),
        Reply(status=0x18),
        "5F 01 020000 00000018 00",
        0x2400,
    ),
    "PERSISTENT RESERVE OUT: RELEASE": (
        "5F 02 010000 00000018 00",
        bytes(24),
        Reply(status=0x18),
        "5F 02 020000 00000018 00",
        0x2400,
    ),
    "PERSISTENT RESERVE OUT: CLEAR": (
        "5F 03 000000 00000018 00",
        bytes(24),
        Reply(status=0x18),
        "5F 03 000000 00000000 00",
        0x1A00,
    ),
    "PERSISTENT RESERVE OUT: PREEMPT": (
        "5F 04 010000 00000018 00",
        bytes(24),
        Reply(status=0x18),
        "5F 04 020000 00000018 00",
        0x2400,
    ),
    "PERSISTENT RESERVE OUT: PREEMPT AND ABORT": (
        "5F 05 010000 00000018 00",
        bytes(24),
        Reply(status=0x18),
        "5F 05 020000 00000018 00",
        0x2400,
    ),
    "PERSISTENT RESERVE OUT: REGISTER AND IGNORE EXISTING KEY": (
        "5F 06 000000 00000018 00",
        bytes(24),
        Reply(),
        "5F 06 000000 00000000 00",
        0x1A00,
    ),
    "EXTENDED COPY(LID1)": (
        *("83 00 0000000000000000 00000000 00 00", None, Reply()),
        *("83 00 0000000000000000 00000001 00 00", 0x1A00),
    ),
    "RECEIVE COPY STATUS(LID1)": (
        *("84 00 00 00000000000000 00000000 00 00", None, Check),
        *("84 00 00 00000000000000 00000000 00 04", 0x2400),
    ),
    "RECEIVE COPY OPERATING PARAMETERS": (
        *("84 03 0000000000000000 00000000 00 00", None, Reply()),
        *("84 03 0000000000000000 00000000 00 04", 0x2400),
    ),
    "READ(16)": (
        "88 00 0000000000000001 00000001 00 00",
        None,
        Read(512, 512),
        f"88 00 {END} 00000001 00 00",
        0x2100,
    ),
    "COMPARE AND WRITE": (
        "89 00 0000000000000001 000000 01 00 00",
        ONE + ONE,
        Compare(512, ONE, Store(512, ONE)),
        f"89 00 {END} 000000 01 00 00",
        0x2100,
    ),
    "WRITE(16)": (
        "8A 00 0000000000000001 00000001 00 00",
        ONE,
        Write(512, 512),
        f"8A 00 {END} 00000001 00 00",
        0x2100,
    ),
    "ORWRITE(16)": (
        "8B 00 0000000000000001 00000001 00 00",
        ONE,
        Merge(512, ONE),
        f"8B 00 {END} 00000001 00 00",
        0x2100,
    ),
    "WRITE AND VERIFY(16)": (
        "8E 00 0000000000000001 00000001 00 00",
        ONE,
        Write(512, 512, True),
        f"8E 00 {END} 00000001 00 00",
        0x2100,
    ),
    "VERIFY(16)": (
        "8F 02 0000000000000001 00000001 00 00",
        ONE,
        Compare(512, ONE),
        f"8F 00 {END} 00000001 00 00",
        0x2100,
    ),
    "PRE-FETCH(16)": (
        "90 00 0000000000000001 00000001 00 00",
        None,
        Prefetch(512, 512),
        f"90 00 {END} 00000001 00 00",
        0x2100,
    ),
    "SYNCHRONIZE CACHE(16)": (
        "91 02 0000000000000001 00000001 00 00",
        None,
        Flush(True),
        f"91 00 {END} 00000001 00 00",
        0x2100,
    ),
    "WRITE SAME(16)": (
        "93 00 0000000000000001 00000001 00 00",
        b"x" * 512,
        Fill(512, 512, b"x" * 512),
        f"93 00 {END} 00000001 00 00",
        0x2100,
    ),
    "WRITE ATOMIC(16)": (
        "9C 08 0000000000000001 0000 0001 00 00",
        ONE,
        Atomic(512, ONE, True),
        "9C 08 0000000000000001 0001 0001 00 00",
        0x2400,
    ),
    "READ CAPACITY(16)": (
        "9E 10 0000000000000000 00000008 00 00",
        None,
        Reply(bytes.fromhex("000000000001FFFF")),
        "9E 10 0000000000000000 00000008 00 04",
        0x2400,
    ),
    "GET LBA STATUS": (
        "9E 12 0000000000000001 00000018 00 00",
        None,
        Extents,
        f"9E 12 {END} 00000018 00 00",
        0x2100,
    ),
    "REPORT LUNS": (
        "A0 00 00 000000 00000004 00 00",
        None,
        Reply(b"\0\0\0\x08"),
        "A0 00 13 000000 00000010 00 00",
        0x2400,
    ),
    "REPORT TARGET PORT GROUPS": (
        *("A3 0A 00000000 00000000 00 00", None, Reply()),
        *("A3 4A 00000000 00000000 00 00", 0x2400),
    ),
    "REPORT SUPPORTED OPERATION CODES": (
        "A3 0C 00 00 0000 00000000 00 00",
        None,
        Reply(),
        "A3 0C 04 00 0000 00000000 00 00",
        0x2400,
    ),
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": (
        "A3 0D 00 000000 00000001 00 00",
        None,
        Reply(b"\xda"),
        "A3 0D 00 000000 00000001 00 04",
        0x2400,
    ),
    "READ(12)": (
        "A8 00 00000001 00000001 00 00",
        None,
        Read(512, 512),
        "A8 00 00020000 00000001 00 00",
        0x2100,
    ),
    "WRITE(12)": (
        "AA 00 00000001 00000001 00 00",
        ONE,
        Write(512, 512),
        "AA 00 00020000 00000001 00 00",
        0x2100,
    ),
    "WRITE AND VERIFY(12)": (
        "AE 00 00000001 00000001 00 00",
        ONE,
        Write(512, 512, True),
        "AE 00 00020000 00000001 00 00",
        0x2100,
    ),
    "VERIFY(12)": (
        "AF 00 00000001 00000001 00 00",
        None,
        Verify(512, 512),
        "AF 00 00020000 00000001 00 00",
        0x2100,
    ),
    "READ DEFECT DATA(12)": (
        *("B7 00 00000000 00000008 00 00", None, Reply(bytes(8))),
        *("B7 00 00000000 00000008 00 04", 0x2400),
    ),
}


def cdb_of(row: Command) -> bytes:
    """The row's opcode and service action, everything else zero."""
    made = bytearray(row.size)
    made[0] = row.opcode
    if row.service_action is not None:
        made[1] = row.service_action
    return bytes(made)


def test_every_row_has_its_example() -> None:
    assert list(EXAMPLES) == [row.name for row in COMMANDS]


@ROWS
def test_a_row_works_and_refuses(bench: Bench, row: Command) -> None:
    good, data, expected, bad, asc = EXAMPLES[row.name]
    assert find(bytes.fromhex(good)) is row
    assert len(bytes.fromhex(good)) == len(bytes.fromhex(bad)) == row.size
    action = bench.run(good, data=data)
    if isinstance(expected, type):
        assert isinstance(action, expected)
    else:
        assert action == expected
    bench.unit.bar(None)  # a SANITIZE has begun
    edtl = 1024 if row.name == "COMPARE AND WRITE" else len(data or b"")
    assert bench.asc(bad, edtl=edtl) == asc


@ROWS
def test_a_row_is_well_formed(row: Command) -> None:
    assert row.size == SIZES[row.opcode >> 5]
    assert row.usage[-1] == 0x04
    assert row.service_action is None or row.usage[1] & 0x1F == row.service_action
    assert row.refused >> row.size * 8 == 0
    # What is refused is looked at, so the usage data says so.
    assert row.refused & ~int.from_bytes(row.usage) == 0
    assert row.reference.startswith(("SPC-", "SBC-"))
    assert not row.writes or row.needs & Needs.MEDIUM


@ROWS
def test_naca_is_refused_by_every_row(bench: Bench, row: Command) -> None:
    cdb = bytearray(cdb_of(row))
    cdb[-1] = 0x04
    assert bench.field(bytes(cdb), edtl=512) == (row.size - 1, 2)


@ROWS
def test_every_refused_bit_is_refused(bench: Bench, row: Command) -> None:
    for bit in range(row.size * 8):
        if row.refused >> bit & 1:
            wrong = int.from_bytes(cdb_of(row)) | 1 << bit
            at = (row.size - 1 - bit // 8, bit % 8)
            assert bench.field(wrong.to_bytes(row.size), edtl=512) == at


@ROWS
def test_writes_are_refused_when_protected(make_bench: Callable[..., Bench], row: Command) -> None:
    bench = make_bench(read_only=True)
    action = bench.run(EXAMPLES[row.name][0], data=EXAMPLES[row.name][1])
    protected = isinstance(action, Check) and action.sense.asc == 0x2700
    assert protected == row.writes


@ROWS
def test_the_medium_is_asked_for(make_bench: Callable[..., Bench], row: Command) -> None:
    bench = make_bench(removable=True)
    bench.unit.eject()
    action = bench.run(EXAMPLES[row.name][0], data=EXAMPLES[row.name][1])
    missing = isinstance(action, Check) and action.sense.asc == 0x3A00
    assert missing == bool(row.needs & Needs.MEDIUM)


@ROWS
def test_only_answers_pass_a_unit_attention(bench: Bench, row: Command) -> None:
    bench.unit.tell(0x2A09)
    action = bench.run(EXAMPLES[row.name][0], data=EXAMPLES[row.name][1])
    met = isinstance(action, Check) and action.sense.asc == 0x2A09
    assert met == (row.access is not Access.ANSWERS)


@ROWS
def test_reserve6_of_another_stops_all_but_answers(bench: Bench, row: Command) -> None:
    bench.run("16 00 000000 00", nexus=bench.other)
    action = bench.run(EXAMPLES[row.name][0], data=EXAMPLES[row.name][1])
    assert (action == Reply(status=0x18)) == (row.access > Access.RELEASES)


def test_rows_are_in_order_and_once() -> None:
    keys = [(row.opcode, row.service_action or 0) for row in COMMANDS]
    assert keys == sorted(set(keys))
    assert len({row.name for row in COMMANDS}) == len(COMMANDS)


def test_the_hot_ones() -> None:
    hot = {opcode for opcode, decode in enumerate(HOT) if decode is not None}
    assert hot == {0x28, 0x2A, 0x88, 0x8A, 0xA8, 0xAA}
    for opcode in hot:
        row = TABLE[opcode]
        assert isinstance(row, Command)
        assert row.decode is HOT[opcode]


@pytest.mark.parametrize("opcode", range(256))
def test_what_has_no_row_is_an_invalid_opcode(bench: Bench, opcode: int) -> None:
    known = {row.opcode for row in COMMANDS}
    if opcode not in known:
        sense = bench.sense(bytes((opcode,)) + bytes(15))
        assert (sense.key, sense.asc, sense.field) == (5, 0x2000, None)


# REPORT SUPPORTED OPERATION CODES


def rsoc(bench: Bench, options: int, opcode: int = 0, action: int = 0) -> bytes:
    return bench.data(struct.pack(">BBBBHIBB", 0xA3, 0x0C, options, opcode, action, 65535, 0, 0))


@pytest.mark.parametrize(("rctd", "size"), [(0, 8), (0x80, 20)])
def test_all_commands(bench: Bench, rctd: int, size: int) -> None:
    data = rsoc(bench, rctd)
    assert struct.unpack_from(">I", data) == (len(data) - 4,)
    assert len(data) == 4 + size * len(COMMANDS)
    for number, row in enumerate(COMMANDS):
        at = 4 + size * number
        flags = (row.service_action is not None) | (rctd >> 6)
        head = struct.pack(">BxHxBH", row.opcode, row.service_action or 0, flags, row.size)
        assert data[at : at + 8] == head
        assert data[at + 8 : at + size] == (bytes((0, 10)) + bytes(10) if rctd else b"")


@ROWS
def test_one_command(bench: Bench, row: Command) -> None:
    plain = row.service_action is None
    action = row.service_action or 0
    expected = struct.pack(">BBH", 0, 3, row.size) + row.usage
    assert rsoc(bench, 1 if plain else 2, row.opcode, action) == expected
    assert rsoc(bench, 3, row.opcode, action) == expected
    timed = rsoc(bench, 0x83, row.opcode, action)
    assert timed == struct.pack(">BBH", 0, 0x83, row.size) + row.usage + b"\0\x0a" + bytes(10)
    wrong = struct.pack(">BBBBHIBB", 0xA3, 0x0C, 2 if plain else 1, row.opcode, action, 255, 0, 0)
    assert bench.field(wrong) == (2, 2)


def test_one_command_that_is_not_supported(bench: Bench) -> None:
    absent = bytes.fromhex("00 01 0000")
    assert rsoc(bench, 1, 0xFF) == absent
    assert rsoc(bench, 2, 0xFF, 1) == absent
    assert rsoc(bench, 3, 0xFF) == absent
    assert rsoc(bench, 2, 0x9E, 0x1F) == absent
    assert rsoc(bench, 3, 0x28, 1) == absent


def test_a_thick_unit_does_not_list_unmap(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(thin=False)
    assert rsoc(bench, 1, 0x42) == bytes.fromhex("00 01 0000")
    assert len(rsoc(bench, 0)) == 4 + 8 * (len(COMMANDS) - 3)


def test_known_to() -> None:
    thin, thick = Unit(0, 512, "a"), Unit(0, 512, "a", thin=False)
    assert [row.name for row in COMMANDS if not row.known_to(thick)] == [
        "UNMAP",
        "SANITIZE: BLOCK ERASE",
        "SANITIZE: CRYPTOGRAPHIC ERASE",
    ]
    assert all(row.known_to(thin) for row in COMMANDS)


def test_an_unknown_service_action_points_at_its_field() -> None:
    check = find(bytes.fromhex("9E 1F") + bytes(14))
    assert isinstance(check, Check)
    assert (check.sense.asc, check.sense.field, check.sense.bit) == (0x2400, 1, 4)


# Documentation


def test_the_document_holds_the_table() -> None:
    """When a row changes: ``make docs``."""
    assert markdown() in DOCUMENT.read_text()


def test_markdown_has_a_line_for_each_row() -> None:
    lines = markdown().splitlines()
    assert len(lines) == 2 + len(COMMANDS)
    assert all(line.count("|") == 8 for line in lines)
    assert "| `28` | READ(10) | `28 FB FF FF FF FF 00 FF FF 04` |" in lines[14]


def test_a_collect_is_never_longer_than_what_was_announced(bench: Bench) -> None:
    for good, data, _, _, _ in EXAMPLES.values():
        action = bench.run(good, edtl=len(data or b""))
        assert not isinstance(action, Collect) or action.length <= len(data or b"")


# CDB usage data is the truth (SPC-4 section 6.35.3)


def seen(action: object) -> object:
    """An action without what cannot be compared."""
    if not is_dataclass(action):
        return action
    return type(action), [
        getattr(action, field.name)
        for field in fields(action)
        if not callable(getattr(action, field.name))
    ]


@ROWS
def test_a_bit_that_is_not_in_the_usage_data_changes_nothing(row: Command) -> None:
    good, data, *_ = EXAMPLES[row.name]
    cdb = bytes.fromhex(good)
    wanted = seen(Bench().run(cdb, data=data))
    for byte in range(1, row.size):
        for bit in range(8):
            named = row.service_action is not None and byte == 1 and bit < 5
            if named or row.usage[byte] & 1 << bit:
                continue
            other = bytearray(cdb)
            other[byte] ^= 1 << bit
            assert seen(Bench().run(bytes(other), data=data)) == wanted, (byte, bit)

"""What an initiator must not send, and what RFC 7143 says must come back: a row a mistake.

``FULL`` speaks to a session that has had one command, ``DISCOVERY`` to a discovery session and
``LOGINS`` to a connection that has not begun. A group names the section and what it demands;
the rows below it are held to that by ``test_malformed`` (the engine alone) and over TCP, and
docs/iscsi.md prints them.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from netboot.model import Admission, Chap

NAME = "iqn.2026-11.lab.netboot:client.52-54-00-12-34-56"
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
NAMES = (f"InitiatorName={NAME}", f"TargetName={TARGET}", "SessionType=Normal")
NO_TAG = 0xFFFFFFFF
FIRST = 2  #: CmdSN of a row's first request: the session has had one command
BLOCK = bytes(range(256)) * 2


@dataclass(frozen=True)
class Reject:
    """A Reject PDU (section 11.17), with the header of what it rejects."""

    reason: int


@dataclass(frozen=True)
class Sense:
    """CHECK CONDITION with this sense key and additional code."""

    asc: int
    key: int = 0x0B  #: ABORTED COMMAND (section 11.4.7.2)


@dataclass(frozen=True)
class Said:
    """A PDU of this opcode, its byte 2 (an answer's code) and its data."""

    opcode: int
    code: int = 0
    data: bytes = b""


GOOD = Said(0x21)
READY = "r2t"
DROP = "dropped"
DATA_DIGEST, PROTOCOL, NOT_SUPPORTED, IMMEDIATE, IN_PROGRESS, INVALID_FIELD = 2, 4, 5, 6, 7, 9
UNEXPECTED, INCORRECT, MISSING = 0x0C0C, 0x0C0D, 0x4705
#: First to last, what a row sends: ``i`` builds PDUs.
Build: TypeAlias = Callable[[Any], list[bytes]]
Keys: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One mistake; ``keys`` are offered in the login before it."""

    name: str
    keys: Keys
    build: Build
    expected: list[object]
    writes: bool = False  #: all the data, or the bursts before the mistake, are written


@dataclass(frozen=True)
class Login:
    """One mistake in a login; ``admission`` answers the Knock."""

    name: str
    admission: Admission
    build: Build
    status: int | None  #: that ends the login; None: silence


@dataclass(frozen=True)
class Group:
    """The rows of one section of RFC 7143, and what it demands."""

    section: str
    demand: str
    rows: tuple[Row | Login, ...]


def group(section: str, demand: str, *rows: tuple[Any, ...] | Iterator[tuple[Any, ...]]) -> Group:
    """Rows may be given one by one or by generators."""
    made: list[Row | Login] = []
    for row in rows:
        for each in [row] if isinstance(row, tuple) else row:
            made.append(Login(*each) if isinstance(each[1], Admission) else Row(*each))
    return Group(section, demand, tuple(made))


def raw(op: int, byte1: int = 0x80, ahs: int = 0, length: int = 0, **more: int) -> bytes:
    """A header whose lengths may lie."""
    return struct.pack(
        ">BBHIQIIII16x",
        *(op, byte1, 0, ahs << 24 | length, more.get("lun", 0), more.get("itt", 0x99)),
        *(more.get("word20", 0), more.get("cmd_sn", FIRST), 0),
    )


def wrote(i: Any, *pieces: tuple[int, int, int, bytes, bool], **more: Any) -> list[bytes]:
    """A write of 8 blocks and Data-Out of (tag, DataSN, offset, data, F) for it."""
    command = i.write(more.pop("lba", 0), 8, **{"itt": 0x77, **more})
    outs = [i.data_out(0x77, *piece[:4], final=piece[4]) for piece in pieces]
    return [command, *outs]


def abort(i: Any, tag: int, number: int, own: int) -> bytes:
    """An immediate ABORT TASK with a Referenced Task Tag, RefCmdSN, and a CmdSN of its own."""
    rest = struct.pack(">I12x", number)
    made = i.request(0x02, 0x81, immediate=True, word20=tag, rest=rest, cmd_sn=own)
    return bytes(made)


def dirty(pdu: bytes, **bits: int) -> bytes:
    """``pdu`` with bits set in bytes named ``b<offset>``."""
    changed = bytearray(pdu)
    for name, value in bits.items():
        changed[int(name[1:])] |= value
    return bytes(changed)


EAGER = ("InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=1024")
NO_DATA = ("ImmediateData=No", "InitialR2T=Yes")
SMALL = ("MaxBurstLength=2048", "FirstBurstLength=512")
#: Additional headers: a CDB of 32 bytes, and the read length of a bidirectional command.
LONG_CDB = b"\x00\x11\x01\x00" + bytes(16)
BIDIRECTIONAL = b"\x00\x05\x02\x00\x00\x00\x02\x00"

FULL = (
    group(
        "11",
        "Reserved bits and fields, and the padding, are not looked at.",
        (
            "reserved bits of a NOP",
            (),
            lambda i: [dirty(i.request(0, itt=9), b0=0x80, b1=0x7F, b2=0xFF, b3=0xFF, b40=0xFF)],
            [Said(0x20)],
        ),
        (
            "reserved bits of a command",
            (),
            lambda i: [dirty(i.command(b"", itt=9), b0=0x80, b1=0x18, b2=0xFF, b3=0xFF)],
            [GOOD],
        ),
        ("a reserved task attribute", (), lambda i: [i.command(b"", flags=0x87)], [GOOD]),
        (
            "padding that is not zero",
            (),
            lambda i: [dirty(i.request(0, data=b"abc"), b51=0xFF)],
            [Said(0x20, data=b"abc")],
        ),
        (
            "an ExpStatSN of no answer",
            (),
            lambda i: [dirty(i.request(0, itt=9), b28=0x7F)],
            [Said(0x20)],
        ),
    ),
    group(
        "11.2.1.2",
        "An opcode that is reserved, or the target's own, is rejected: command not supported. "
        "Its CmdSN does not count.",
        (
            (f"opcode {op:#04x}", (), lambda i, op=op: [raw(op)], [Reject(NOT_SUPPORTED)])
            for op in (0x07, 0x0F, 0x11, 0x1B, 0x1C, 0x1E, 0x1F)
        ),
        (
            (
                f"the target's opcode {op:#04x}",
                (),
                lambda i, op=op: [raw(op)],
                [Reject(NOT_SUPPORTED)],
            )
            for op in (0x20, 0x21, 0x25, 0x31, 0x32, 0x3F)
        ),
        ("an immediate reserved opcode", (), lambda i: [raw(0x4A)], [Reject(NOT_SUPPORTED)]),
    ),
    group(
        "11.12, 11.16",
        "A login in full-feature phase, and SNACK where the recovery level is 0, are protocol "
        "errors.",
        ("a login in full-feature phase", (), lambda i: [i.login(0x87)], [Reject(PROTOCOL)]),
        (
            "an immediate login in full-feature phase, with keys",
            (),
            lambda i: [i.login(0x87, *NAMES)],
            [Reject(PROTOCOL)],
        ),
        *(
            (
                f"SNACK of type {kind}",
                (),
                lambda i, kind=kind: [raw(0x10, kind)],
                [Reject(PROTOCOL)],
            )
            for kind in (0x80, 0x81, 0x82, 0x83)
        ),
    ),
    group(
        "7.7, 11.2.1.6",
        "A data segment longer than we said we take is a format error; at recovery level 0 the "
        "connection ends.",
        ("a segment over what we take", (), lambda i: [raw(0x05, length=262145)], [DROP]),
        ("the longest segment there is", (), lambda i: [raw(0x01, length=0xFFFFFF)], [DROP]),
        (
            "the longest headers and segment",
            (),
            lambda i: [raw(0x00, ahs=255, length=1 << 23)],
            [DROP],
        ),
    ),
    group(
        "11.2.2",
        "An additional header whose length is none makes the command one with an invalid field, "
        "whose CmdSN was not taken. Headers of other types, and at other requests, are skipped.",
        (
            (name, (), lambda i, ahs=ahs: [i.command(b"\x7f", ahs=ahs)], [Reject(INVALID_FIELD)])
            for name, ahs in (
                ("AHSLength 0", b"\0\0\1\0"),
                ("AHSLength over the headers", b"\0\6\1\0\0\0\0\0"),
                ("AHSLength 65535", b"\xff\xff\1\0"),
                ("a second AHS that is cut", b"\0\5\1\0\0\0\0\0\0\5\1\0"),
            )
        ),
        ("AHS of an unknown type", (), lambda i: [i.command(b"", ahs=b"\0\1\x3f\0")], [GOOD]),
        ("AHS of the reserved type 0", (), lambda i: [i.command(b"", ahs=b"\0\1\0\0")], [GOOD]),
        (
            "TotalAHSLength 255",
            (),
            lambda i: [i.command(b"", ahs=b"\x03\xf9\x3f" + bytes(1017))],
            [GOOD],
        ),
        ("AHS at a NOP", (), lambda i: [i.request(0, ahs=bytes(8))], [Said(0x20)]),
        (
            "a CDB of 32 bytes that we do not know",
            (),
            lambda i: [i.command(b"\x7f", ahs=LONG_CDB)],
            [Sense(0x2000, 5)],
        ),
        (
            "a bidirectional read length at a command that is none",
            (),
            lambda i: [i.command(b"", ahs=BIDIRECTIONAL)],
            [GOOD],
        ),
    ),
    group(
        "11.3.1",
        "F is set where no data goes to the target. Bidirectional commands are not supported, "
        "for none of ours is one. Data in the wrong direction is not moved: the residual is all of "
        "it.",
        ("neither F nor W", (), lambda i: [i.read(0, 1, flags=0x41)], [Reject(PROTOCOL)]),
        (
            "R and W",
            (),
            lambda i: [i.read(0, 1, flags=0xE1)],
            [Reject(NOT_SUPPORTED)],
        ),
        (
            "R and W, with a bidirectional read length",
            (),
            lambda i: [i.read(0, 1, flags=0xE1, ahs=BIDIRECTIONAL)],
            [Reject(NOT_SUPPORTED)],
        ),
        (
            "a WRITE with R",
            (),
            lambda i: [i.write(0, 1, BLOCK, flags=0xC1)],
            [GOOD],
        ),
        (
            "a READ with W",
            (),
            lambda i: [i.read(0, 1, flags=0xA1)],
            [GOOD],
        ),
        ("data with a command that takes none", (), lambda i: [i.command(b"", data=BLOCK)], [GOOD]),
        (
            "a command to no unit",
            (),
            lambda i: [i.read(0, 1, lun=7 << 48)],
            [Sense(0x2500, 5)],
        ),
    ),
    group(
        "4.2.2.1",
        "What is outside the command window is ignored in silence, and nothing changes; what is "
        "early waits for what is missing; a number counts once. Immediate requests have none.",
        ("an old CmdSN", (), lambda i: [i.command(b"", cmd_sn=FIRST - 1)], []),
        (
            "a very old CmdSN",
            (),
            lambda i: [i.command(b"", cmd_sn=FIRST - 0x7FFFFFFF & 0xFFFFFFFF)],
            [],
        ),
        ("CmdSN just beyond the window", (), lambda i: [i.command(b"", cmd_sn=FIRST + 128)], []),
        ("CmdSN far beyond the window", (), lambda i: [i.command(b"", cmd_sn=0x70000000)], []),
        ("an old NOP", (), lambda i: [i.request(0, cmd_sn=0)], []),
        ("an old text request", (), lambda i: [i.request(4, word20=NO_TAG, cmd_sn=1)], []),
        ("an old reset", (), lambda i: [i.request(2, 0x85, cmd_sn=1)], []),
        ("an old logout", (), lambda i: [i.request(6, cmd_sn=1)], []),
        (
            "a CmdSN twice: the second is old",
            (),
            lambda i: [i.command(b"", cmd_sn=FIRST), i.command(b"", cmd_sn=FIRST)],
            [GOOD],
        ),
        (
            "an early CmdSN twice: the second is ignored",
            (),
            lambda i: [
                i.request(0, cmd_sn=FIRST + 1, data=b"b"),
                i.request(0, cmd_sn=FIRST + 1, data=b"c"),
                i.request(0, cmd_sn=FIRST, data=b"a"),
            ],
            [Said(0x20, data=b"a"), Said(0x20, data=b"b")],
        ),
        (
            "a gap, then what fills it",
            (),
            lambda i: [
                i.request(0, cmd_sn=FIRST + 1, data=b"b"),
                i.request(0, cmd_sn=FIRST, data=b"a"),
            ],
            [Said(0x20, data=b"a"), Said(0x20, data=b"b")],
        ),
        (
            "an immediate NOP with any CmdSN",
            (),
            lambda i: [i.request(0, immediate=True, cmd_sn=0x70000000)],
            [Said(0x20)],
        ),
    ),
    group(
        "11.2.1.8",
        "A task tag that is in use is rejected: task in progress. The reserved tag is no task's.",
        (
            "the reserved tag at a command",
            (),
            lambda i: [i.command(b"", itt=NO_TAG)],
            [Reject(PROTOCOL)],
        ),
        (
            "a tag in use",
            (),
            lambda i: [i.write(0, 8, itt=0x77), i.read(0, 1, itt=0x77)],
            [READY, Reject(IN_PROGRESS)],
        ),
        (
            "a tag in use, immediate",
            (),
            lambda i: [i.write(0, 8, itt=0x77), i.read(0, 1, itt=0x77, immediate=True)],
            [READY, Reject(IN_PROGRESS)],
        ),
        (
            (
                f"a tag in use, at {what}",
                (),
                lambda i, op=op, flags=flags: [
                    i.write(0, 8, itt=0x77),
                    i.request(op, flags, itt=0x77, word20=NO_TAG),
                ],
                [READY, Reject(IN_PROGRESS)],
            )
            for what, op, flags in (
                ("a NOP", 0x00, 0x80),
                ("a reset", 0x02, 0x85),
                ("a text request", 0x04, 0x80),
                ("a logout", 0x06, 0x80),
            )
        ),
    ),
    group(
        "11.18",
        "A NOP without a task tag wants no answer, and must be immediate.",
        ("a NOP without a tag", (), lambda i: [i.request(0, itt=NO_TAG, immediate=True)], []),
        (
            "a NOP without a tag that answers no ping of ours",
            (),
            lambda i: [i.request(0, itt=NO_TAG, word20=5, immediate=True)],
            [],
        ),
        (
            "a NOP without a tag that takes a CmdSN",
            (),
            lambda i: [i.request(0, itt=NO_TAG)],
            [Reject(PROTOCOL)],
        ),
        (
            "a NOP with both tags",
            (),
            lambda i: [i.request(0, itt=9, word20=5)],
            [Said(0x20)],
        ),
    ),
    group(
        "11.4.7.2",
        "Data that was not to come, or is not as much as was to come, ends the command: ABORTED "
        "COMMAND with 0C/0C (unexpected unsolicited data) or 0C/0D (incorrect amount). Nothing of "
        "that burst is written.",
        (
            "immediate data, agreed not",
            NO_DATA,
            lambda i: wrote(i, data=BLOCK),
            [Sense(UNEXPECTED)],
        ),
        (
            "immediate data over FirstBurstLength",
            EAGER,
            lambda i: wrote(i, data=BLOCK * 3),
            [Sense(UNEXPECTED)],
        ),
        (
            "immediate data beyond EDTL",
            EAGER,
            lambda i: [i.write(0, 1, BLOCK * 2, edtl=512)],
            [Sense(INCORRECT)],
        ),
        (
            "unsolicited data where R2T was agreed",
            (),
            lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK, True), flags=0x21),
            [READY, Sense(UNEXPECTED)],
        ),
        (
            "unsolicited data after F",
            EAGER,
            lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK, True)),
            [READY, Sense(UNEXPECTED)],
        ),
        (
            "unsolicited data beyond FirstBurstLength",
            EAGER,
            lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK * 3, True), flags=0x21),
            [Sense(INCORRECT)],
        ),
        (
            "unsolicited data short of FirstBurstLength, and F",
            EAGER,
            lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK, True), flags=0x21),
            [Sense(INCORRECT)],
        ),
        (
            "immediate and unsolicited data short of FirstBurstLength, and F",
            (*EAGER[:2], "FirstBurstLength=2048"),
            lambda i: wrote(i, (NO_TAG, 0, 512, BLOCK, True), flags=0x21, data=BLOCK),
            [Sense(INCORRECT)],
        ),
        (
            "unsolicited data that begins again with the immediate",
            EAGER,
            lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK * 2, True), flags=0x21, data=BLOCK),
            [Sense(INCORRECT)],
        ),
        (
            "unsolicited data beyond EDTL",
            EAGER,
            lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK * 2, True), flags=0x21, edtl=512),
            [Sense(INCORRECT)],
        ),
        (
            "unsolicited data with a Target Transfer Tag",
            EAGER,
            lambda i: wrote(i, (1, 0, 0, BLOCK * 2, True), flags=0x21),
            [Sense(UNEXPECTED)],
        ),
    ),
    group(
        "11.7, 11.8",
        "The answer to an R2T has its tag, begins where it says, ends where it says with F, and "
        "counts DataSN from 0. A number left out is a lost PDU: 47/05.",
        ("Data-Out for no task", (), lambda i: [i.data_out(0x55, NO_TAG, 0, 0, BLOCK)], []),
        (
            (name, (), lambda i, piece=piece: wrote(i, piece), [READY, Sense(asc)])
            for name, piece, asc in (
                (
                    "a Target Transfer Tag that was not given",
                    (9, 0, 0, BLOCK * 8, True),
                    UNEXPECTED,
                ),
                ("DataSN 1 first", (1, 1, 0, BLOCK * 8, True), MISSING),
                ("DataSN 2^32 - 1", (1, 0xFFFFFFFF, 0, BLOCK * 8, True), MISSING),
                ("an offset behind the R2T's", (1, 0, 512, BLOCK * 7, True), INCORRECT),
                ("an offset beyond EDTL", (1, 0, 4096, BLOCK, True), INCORRECT),
                ("an offset of 4 GiB - 512", (1, 0, 0xFFFFFE00, BLOCK, True), INCORRECT),
                ("more than the R2T asked for", (1, 0, 0, BLOCK * 9, True), INCORRECT),
                ("less than the R2T asked for, and F", (1, 0, 0, BLOCK * 7, True), INCORRECT),
                ("nothing, and F", (1, 0, 0, b"", True), INCORRECT),
            )
        ),
        (
            "a DataSN twice",
            (),
            lambda i: wrote(i, (1, 0, 0, BLOCK, False), (1, 0, 512, BLOCK * 7, True)),
            [READY, Sense(MISSING)],
        ),
        (
            "a DataSN left out",
            (),
            lambda i: wrote(i, (1, 0, 0, BLOCK, False), (1, 2, 512, BLOCK * 7, True)),
            [READY, Sense(MISSING)],
        ),
        (
            "an offset twice",
            (),
            lambda i: wrote(i, (1, 0, 0, BLOCK, False), (1, 1, 0, BLOCK * 8, True)),
            [READY, Sense(INCORRECT)],
        ),
        (
            "an offset left out",
            (),
            lambda i: wrote(i, (1, 0, 0, BLOCK, False), (1, 1, 1024, BLOCK * 6, True)),
            [READY, Sense(INCORRECT)],
        ),
        (
            "an offset before the R2T's",
            SMALL,
            lambda i: wrote(i, (1, 0, 0, BLOCK * 4, True), (2, 0, 0, BLOCK * 4, True)),
            [READY, READY, Sense(INCORRECT)],
            True,
        ),
        (
            "over the end of a burst",
            SMALL,
            lambda i: wrote(i, (1, 0, 0, BLOCK * 8, True)),
            [READY, Sense(INCORRECT)],
        ),
        (
            "the tag of a burst that is over",
            SMALL,
            lambda i: wrote(i, (1, 0, 0, BLOCK * 4, True), (1, 1, 2048, BLOCK * 4, True)),
            [READY, READY, Sense(UNEXPECTED)],
            True,
        ),
        (
            "a DataSN that goes on from the burst before",
            SMALL,
            lambda i: wrote(i, (1, 0, 0, BLOCK * 4, True), (2, 1, 2048, BLOCK * 4, True)),
            [READY, READY, Sense(MISSING)],
            True,
        ),
        (
            "data for a task that was ended",
            (),
            lambda i: wrote(i, (9, 0, 0, BLOCK, True), (1, 0, 0, BLOCK * 8, True)),
            [READY, Sense(UNEXPECTED)],
        ),
        (
            "all the data, and no F: what ends is plain",
            (),
            lambda i: wrote(i, (1, 0, 0, BLOCK * 8, False)),
            [READY, GOOD],
            True,
        ),
        (
            "all the data, and F in a PDU of its own",
            SMALL,
            lambda i: wrote(
                i,
                *((1, 0, 0, BLOCK * 4, False), (1, 1, 2048, b"", True)),
                (2, 0, 2048, BLOCK * 4, True),
            ),
            [READY, READY, GOOD],
            True,
        ),
    ),
    group(
        "11.4.2",
        "A status waits for the last Data-Out that is under way, also when the command has failed.",
        (
            "a mistake in the middle of a burst",
            (),
            lambda i: wrote(i, (1, 1, 0, BLOCK, False), (1, 2, 512, BLOCK, False)),
            [READY],
        ),
        (
            "a mistake in the middle of a burst, then its end",
            (),
            lambda i: wrote(i, (1, 1, 0, BLOCK, False), (1, 2, 512, BLOCK * 7, True)),
            [READY, Sense(MISSING)],
        ),
        (
            "beyond the disk, with unsolicited data to come",
            EAGER,
            lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK, False), flags=0x21, lba=1 << 30),
            [],
        ),
        (
            "beyond the disk, with unsolicited data that came",
            EAGER,
            lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK * 2, True), flags=0x21, lba=1 << 30),
            [Sense(0x2100, 5)],
        ),
        (
            "aborted while its status waits",
            EAGER,
            lambda i: [
                *wrote(i, flags=0x21, lba=1 << 30),
                i.request(0x02, 0x82, immediate=True),
                i.data_out(0x77, NO_TAG, 0, 0, BLOCK * 2),
            ],
            [Said(0x22, 0)],
        ),
    ),
    group(
        "6.1, 6.2, 11.10",
        "Text is pairs of key=value, each key once; a name has 63 bytes at most and a value 8192; "
        "F and C exclude one another; a Target Transfer Tag is one that we gave.",
        (
            (
                name,
                (),
                lambda i, flags=flags, tag=tag, data=data: [
                    i.request(0x04, flags, word20=tag, data=data)
                ],
                [Reject(PROTOCOL)],
            )
            for name, flags, tag, data in (
                ("text with F and C", 0xC0, NO_TAG, b"SendTargets=\0"),
                ("text with a tag that was not given", 0x80, 5, b"SendTargets=\0"),
                ("text without an equals sign", 0x80, NO_TAG, b"SendTargets\0"),
                ("a key without a name", 0x80, NO_TAG, b"=x\0"),
                ("a key of 64 bytes", 0x80, NO_TAG, b"K" * 64 + b"=x\0"),
                ("a value of 8193 bytes", 0x80, NO_TAG, b"K=" + b"v" * 8193 + b"\0"),
                ("a name that is not ASCII", 0x80, NO_TAG, b"K\xff=x\0"),
                ("a value that is not UTF-8", 0x80, NO_TAG, b"K=\xff\0"),
                ("a key twice", 0x80, NO_TAG, b"SendTargets=\0SendTargets=\0"),
                ("text over 64 KiB", 0x40, NO_TAG, b"K=" + b"v" * 65536),
            )
        ),
        (
            "a key over two PDUs, broken in its name",
            (),
            lambda i: [
                i.request(0x04, 0x40, itt=9, word20=NO_TAG, data=b"HeaderDi"),
                i.request(0x04, 0x80, itt=9, word20=1, data=b"gest=CRC32C\0"),
            ],
            [Said(0x24), Said(0x24, data=b"HeaderDigest=Reject\0")],
        ),
        (
            "all targets in a normal session",
            (),
            lambda i: [i.request(0x04, word20=NO_TAG, data=b"SendTargets=All\0")],
            [Said(0x24, data=b"SendTargets=Reject\0")],
        ),
        (
            "a target of somebody else",
            (),
            lambda i: [i.request(0x04, word20=NO_TAG, data=b"SendTargets=iqn.a:b\0")],
            [Said(0x24)],
        ),
        (
            "an unknown key",
            (),
            lambda i: [i.request(0x04, word20=NO_TAG, data=b"X-lab.who=me\0")],
            [Said(0x24, data=b"X-lab.who=NotUnderstood\0")],
        ),
        (
            "a login's key in full-feature phase",
            (),
            lambda i: [i.request(0x04, word20=NO_TAG, data=b"MaxConnections=2\0")],
            [Said(0x24, data=b"MaxConnections=Reject\0")],
        ),
    ),
    group(
        "11.5, 11.6.1",
        "Functions that we have not, tasks and units that are not: each has its answer. A task "
        "that is still to come counts as received, if RefCmdSN is in the window and before the "
        "request's own CmdSN.",
        ("no such function", (), lambda i: [i.request(0x02, 0x89)], [Said(0x22, 5)]),
        ("function 0", (), lambda i: [i.request(0x02, 0x80)], [Said(0x22, 5)]),
        ("CLEAR ACA", (), lambda i: [i.request(0x02, 0x83)], [Said(0x22, 5)]),
        ("TASK REASSIGN at level 0", (), lambda i: [i.request(0x02, 0x88)], [Said(0x22, 4)]),
        (
            (
                f"{what} of no unit",
                (),
                lambda i, flags=flags: [i.request(0x02, flags, lun=7 << 48)],
                [Said(0x22, 2)],
            )
            for what, flags in (
                ("ABORT TASK SET", 0x82),
                ("CLEAR TASK SET", 0x84),
                ("LOGICAL UNIT RESET", 0x85),
            )
        ),
        ("data with a request", (), lambda i: [i.request(2, 0x83, data=b"x")], [Said(0x22, 5)]),
        ("ABORT TASK of no task", (), lambda i: [i.request(2, 0x81, word20=5)], [Said(0x22, 1)]),
        (
            "ABORT TASK of a task that is, with any RefCmdSN",
            (),
            lambda i: [i.write(0, 8, itt=0x77), abort(i, 0x77, 0x70000000, FIRST + 1)],
            [READY, Said(0x22, 0)],
        ),
        (
            "ABORT TASK of a command that comes later",
            (),
            lambda i: [abort(i, 0x77, FIRST, FIRST + 1), i.read(0, 1, itt=0x77, cmd_sn=FIRST)],
            [Said(0x22, 0)],
        ),
        (
            "ABORT TASK of a command behind a gap",
            (),
            lambda i: [
                i.read(0, 1, itt=0x77, cmd_sn=FIRST + 1),
                abort(i, 0x77, FIRST + 1, FIRST + 2),
                i.request(0, cmd_sn=FIRST, data=b"a"),
            ],
            [Said(0x22, 0), Said(0x20, data=b"a")],
        ),
        (
            "a reset before a command that waits behind a gap",
            (),
            lambda i: [
                i.write(0, 1, BLOCK, itt=0x77, cmd_sn=FIRST + 1),
                i.request(0x02, 0x85, immediate=True, cmd_sn=FIRST + 2),
                i.request(0, cmd_sn=FIRST, data=b"a"),
            ],
            [Said(0x22, 0), Said(0x20, data=b"a")],
        ),
        *(
            (
                f"ABORT TASK with a RefCmdSN {where}",
                (),
                lambda i, number=number: [abort(i, 0x77, number & 0xFFFFFFFF, FIRST)],
                [Said(0x22, 1)],
            )
            for where, number in (
                ("that was received", FIRST - 1),
                ("of its own", FIRST),
                ("after its own", FIRST + 1),
                ("beyond the window", FIRST + 128),
                ("of long ago", FIRST - 0x7FFFFFFF),
            )
        ),
    ),
    group(
        "11.14, 11.15",
        "Reasons that are reserved are an invalid field. Whoever closes the session does so also "
        "with tasks under way: they end without an answer.",
        (
            "logout of no connection",
            (),
            lambda i: [i.request(0x06, 0x81, word20=9 << 16)],
            [Said(0x26, 1)],
        ),
        ("logout for recovery", (), lambda i: [i.request(0x06, 0x82)], [Said(0x26, 2)]),
        ("logout for no reason", (), lambda i: [i.request(0x06, 0x83)], [Reject(INVALID_FIELD)]),
        ("logout for reason 127", (), lambda i: [i.request(6, 0xFF)], [Reject(INVALID_FIELD)]),
        (
            "logout with a task under way",
            (),
            lambda i: [*wrote(i), i.request(0x06), i.data_out(0x77, 1, 0, 0, BLOCK * 8)],
            [READY, Said(0x26), DROP],
        ),
    ),
)

DISCOVERY = (
    group(
        "4.3",
        "A discovery session may ask for targets and leave; all else is rejected.",
        *(
            (f"{what} in a discovery session", (), build, [Reject(PROTOCOL)])
            for what, build in (
                ("a command", lambda i: [i.command(b"")]),
                ("an immediate command", lambda i: [i.command(b"", immediate=True)]),
                ("a NOP", lambda i: [i.request(0)]),
                ("a reset", lambda i: [i.request(2, 0x87)]),
                ("the logout of a connection", lambda i: [i.request(6, 0x81)]),
                ("the logout for recovery", lambda i: [i.request(6, 0x82)]),
            )
        ),
        (
            "data in a discovery session",
            (),
            lambda i: [i.data_out(0x55, NO_TAG, 0, 0, BLOCK)],
            [],
        ),
    ),
)

CHAP = Admission(0, "m", TARGET, chap=Chap("ws1", "a secret of 12+"))
OPEN = Admission(0, "m", TARGET)
MOVED, ERROR, AUTH, NOT_FOUND, VERSION, MISSING_KEY = 0x101, 0x200, 0x201, 0x203, 0x205, 0x207
TYPE, NO_SESSION, INVALID, RESOURCES = 0x209, 0x20A, 0x20B, 0x302
SILENCE = None

LOGINS = (
    group(
        "6.3",
        "Before the first login request nothing is answered; between that and the last, nothing "
        "but login requests is taken.",
        ("a NOP before the login", OPEN, lambda i: [i.request(0)], SILENCE),
        ("a command before the login", OPEN, lambda i: [i.command(b"")], SILENCE),
        ("a reserved opcode before the login", OPEN, lambda i: [raw(0x1C)], SILENCE),
        ("a login segment over 8192", OPEN, lambda i: [raw(0x43, 0x87, length=8193)], SILENCE),
        ("a NOP during it", OPEN, lambda i: [i.login(0, *NAMES), i.request(0)], INVALID),
        ("a command during it", OPEN, lambda i: [i.login(0, *NAMES), i.command(b"")], INVALID),
        ("text during it", OPEN, lambda i: [i.login(0, *NAMES), i.request(4)], INVALID),
        ("a logout during it", OPEN, lambda i: [i.login(0, *NAMES), i.request(6)], INVALID),
    ),
    group(
        "11.12",
        "Stages go forward only and to stages that are; T and C exclude one another; version, "
        "ISID, TSIH and CID stay what they were.",
        ("version 1 at least", OPEN, lambda i: [i.login(0x87, *NAMES, version_min=1)], VERSION),
        ("CSG 2", OPEN, lambda i: [i.login(0x8B, *NAMES)], INVALID),
        ("CSG 3", OPEN, lambda i: [i.login(0x8F, *NAMES)], INVALID),
        ("NSG 2", OPEN, lambda i: [i.login(0x82, *NAMES)], INVALID),
        ("T to where it is", OPEN, lambda i: [i.login(0x85, *NAMES)], INVALID),
        ("T backwards", OPEN, lambda i: [i.login(0x84, *NAMES)], INVALID),
        ("T and C", OPEN, lambda i: [i.login(0xC7, *NAMES)], ERROR),
        (
            "back to the security stage",
            OPEN,
            lambda i: [i.login(0x04, *NAMES), i.login(0x81)],
            INVALID,
        ),
        (
            "past the security stage, then back",
            OPEN,
            lambda i: [i.login(0x81, *NAMES), i.login(0x81)],
            INVALID,
        ),
        ("a TSIH of nobody", OPEN, lambda i: [i.login(0x87, *NAMES, tsih=77)], NO_SESSION),
        (
            "another ISID midway",
            OPEN,
            lambda i: [i.login(0x04, *NAMES), i.login(0x87, isid=b"\x40\0\0\0\0\1")],
            ERROR,
        ),
        ("another TSIH midway", OPEN, lambda i: [i.login(4, *NAMES), i.login(0x87, tsih=5)], ERROR),
        ("another CID midway", OPEN, lambda i: [i.login(4, *NAMES), i.login(0x87, cid=5)], ERROR),
        (
            "requests without end",
            OPEN,
            lambda i: [i.login(0x04, *NAMES), *[i.login(0x04) for _ in range(40)]],
            ERROR,
        ),
    ),
    group(
        "13.4-13.21",
        "The first request says who speaks, and to whom; a key comes where it may come.",
        ("no InitiatorName", OPEN, lambda i: [i.login(0x87, NAMES[1])], MISSING_KEY),
        ("no key at all", OPEN, lambda i: [i.login(0x87)], MISSING_KEY),
        ("no TargetName", OPEN, lambda i: [i.login(0x87, NAMES[0])], MISSING_KEY),
        (
            "a name that is none",
            OPEN,
            lambda i: [i.login(0x87, "InitiatorName=a b", *NAMES[1:])],
            ERROR,
        ),
        ("SessionType=Odd", OPEN, lambda i: [i.login(0x87, *NAMES[:2], "SessionType=Odd")], TYPE),
        ("SendTargets", OPEN, lambda i: [i.login(0x87, *NAMES, "SendTargets=")], INVALID),
        (
            "a machine nobody knows",
            Admission(NOT_FOUND),
            lambda i: [i.login(0x87, *NAMES)],
            NOT_FOUND,
        ),
    ),
    group(
        "6.1, 6.2, 6.3",
        "Text of a login is pairs of key=value, each key once in a whole login, not without end.",
        ("a key twice in a request", OPEN, lambda i: [i.login(0x87, *NAMES, NAMES[2])], ERROR),
        (
            "a key twice in a login",
            OPEN,
            lambda i: [i.login(4, *NAMES, "InitialR2T=No"), i.login(0x87, "InitialR2T=No")],
            ERROR,
        ),
        (
            "a login key without a value",
            OPEN,
            lambda i: [i.login(0x87, *NAMES, "InitialR2T")],
            ERROR,
        ),
        (
            "a login key of 64 bytes",
            OPEN,
            lambda i: [i.login(0x87, *NAMES, "K" * 64 + "=1")],
            ERROR,
        ),
        (
            "a login value of 8193 bytes",
            OPEN,
            lambda i: [i.login(0x44, *NAMES, "K=" + "v" * 8000), i.login(0x87, "v" * 300)],
            ERROR,
        ),
        (
            "login text without end",
            OPEN,
            lambda i: [i.login(0x44, "K=" + "v" * 8000) for _ in range(9)],
            RESOURCES,
        ),
    ),
    group(
        "12.1",
        "Who must prove who it is does so in the security stage, by an algorithm that we have, "
        "and in order.",
        (
            "AuthMethod too late",
            OPEN,
            lambda i: [i.login(0x87, *NAMES, "AuthMethod=None")],
            INVALID,
        ),
        (
            "a method we have not",
            OPEN,
            lambda i: [i.login(0x81, *NAMES, "AuthMethod=KRB5")],
            AUTH,
        ),
        (
            "None where CHAP is due",
            CHAP,
            lambda i: [i.login(0x81, *NAMES, "AuthMethod=None")],
            AUTH,
        ),
        (
            "no security stage where CHAP is due",
            CHAP,
            lambda i: [i.login(0x87, *NAMES)],
            AUTH,
        ),
        (
            "an algorithm we have not",
            CHAP,
            lambda i: [i.login(0, *NAMES, "AuthMethod=CHAP"), i.login(0, "CHAP_A=4,99")],
            AUTH,
        ),
        (
            "CHAP_R before CHAP_A",
            CHAP,
            lambda i: [
                i.login(0, *NAMES, "AuthMethod=CHAP"),
                i.login(0, "CHAP_N=a", "CHAP_R=0x00"),
            ],
            AUTH,
        ),
        (
            "a wrong answer",
            CHAP,
            lambda i: [
                i.login(0, *NAMES, "AuthMethod=CHAP"),
                i.login(0, "CHAP_A=5"),
                i.login(0x81, "CHAP_N=ws1", "CHAP_R=0x" + "00" * 16),
            ],
            AUTH,
        ),
    ),
)


def rows(groups: tuple[Group, ...]) -> list[Any]:
    """All rows of some groups."""
    return [row for each in groups for row in each.rows]


def words(answers: list[Any]) -> list[object]:
    """Answers in the words of the table."""
    said: list[object] = []
    for pdu in answers:
        if pdu.opcode == 0x3F:
            assert len(pdu.data) == 48, "a Reject carries the header"
            said.append(Reject(pdu.byte2))
        elif pdu.opcode == 0x21 and pdu.byte3 == 2:
            sense = pdu.data[2:]
            said.append(Sense(sense[12] << 8 | sense[13], sense[2] & 0x0F))
        elif pdu.opcode == 0x31:
            said.append(READY)
        else:
            said.append(Said(pdu.opcode, pdu.byte2 if pdu.opcode != 0x21 else 0, pdu.data))
    return said

"""What RFC 7143 says must come back for what an initiator must not send: a row a mistake.

Each row speaks to an engine that has just entered its full-feature phase, or has not begun to
log in, and names all that comes back. Where the session must live it is asked for a NOP
afterwards, with the number that it says it expects: so a row also holds what became of CmdSN.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from netboot.iscsi.engine import Arrived, Connection
from netboot.model import Admission, Chap, Knock, Portal

NAME = "iqn.2026-11.lab.netboot:client.52-54-00-12-34-56"
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
NAMES = (f"InitiatorName={NAME}", f"TargetName={TARGET}", "SessionType=Normal")
DISCOVERY = (NAMES[0], "SessionType=Discovery")
NO_TAG = 0xFFFFFFFF
FIRST = 2  #: CmdSN of a row's first request: the session has had one command
BLOCK = bytes(512)


@dataclass(frozen=True)
class Reject:
    """A Reject PDU (section 11.17), with the header of what it rejects."""

    reason: int


@dataclass(frozen=True)
class Sense:
    """CHECK CONDITION with ABORTED COMMAND and this code (section 11.4.7.2)."""

    asc: int


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
Build = Callable[[Any], list[bytes]]


def raw(op: int, byte1: int = 0x80, ahs: int = 0, length: int = 0, **more: int) -> bytes:
    """A header whose lengths may lie."""
    return struct.pack(
        ">BBHIQIIII16x",
        *(op, byte1, 0, ahs << 24 | length, more.get("lun", 0), more.get("itt", 0x99)),
        *(more.get("word20", 0), more.get("cmd_sn", FIRST), 0),
    )


def wrote(i: Any, *pieces: tuple[int, int, int, bytes, bool], **more: Any) -> list[bytes]:
    """A write of 8 blocks and Data-Out of (tag, DataSN, offset, data, F) for it."""
    command = i.write(0, 8, **{"itt": 0x77, **more})
    outs = [i.data_out(0x77, *piece[:4], final=piece[4]) for piece in pieces]
    return [command, *outs]


EAGER = ("InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=1024")
NO_DATA = ("ImmediateData=No", "InitialR2T=Yes")
SMALL = ("MaxBurstLength=2048", "FirstBurstLength=512")

#: name, keys of the login, what is sent, what comes back.
ROWS: list[tuple[str, tuple[str, ...], Build, list[object]]] = [
    # Opcodes (11.2.1.2): reserved and the target's own are not supported; CmdSN is not read.
    *(
        (f"opcode {op:#04x}", (), lambda i, op=op: [raw(op)], [Reject(NOT_SUPPORTED)])
        for op in (0x07, 0x0F, 0x11, 0x1B, 0x1C, 0x1E, 0x1F)
    ),
    *(
        (f"the target's opcode {op:#04x}", (), lambda i, op=op: [raw(op)], [Reject(NOT_SUPPORTED)])
        for op in (0x20, 0x21, 0x25, 0x31, 0x32, 0x3F)
    ),
    ("an immediate reserved opcode", (), lambda i: [raw(0x4A)], [Reject(NOT_SUPPORTED)]),
    ("a login in full-feature phase", (), lambda i: [i.login(0x87)], [Reject(PROTOCOL)]),
    ("SNACK at recovery level 0", (), lambda i: [raw(0x10)], [Reject(PROTOCOL)]),
    # Lengths (11.2.1.5, 13.12): a format error ends the connection (7.6 at level 0).
    ("a segment over what we take", (), lambda i: [raw(0x05, length=262145)], [DROP]),
    ("the longest segment there is", (), lambda i: [raw(0x01, length=0xFFFFFF)], [DROP]),
    ("the longest headers and segment", (), lambda i: [raw(0x00, ahs=255, length=1 << 23)], [DROP]),
    # Additional headers (11.2.2): bad lengths are an invalid field, and the CmdSN was not taken.
    *(
        (name, (), lambda i, ahs=ahs: [i.command(b"\x7f", ahs=ahs)], [Reject(INVALID_FIELD)])
        for name, ahs in (
            ("AHSLength 0", b"\0\0\1\0"),
            ("AHSLength over the headers", b"\0\6\1\0\0\0\0\0"),
            ("AHSLength 65535", b"\xff\xff\1\0"),
            ("a second AHS that is cut", b"\0\5\1\0\0\0\0\0\0\5\1\0"),
        )
    ),
    ("AHS of an unknown type", (), lambda i: [i.command(b"", ahs=b"\0\1\x3f\0")], [GOOD]),
    ("AHS at a NOP", (), lambda i: [i.request(0, ahs=bytes(8))], [Said(0x20)]),
    # Command numbers (4.2.2.1): outside the window silence, and nothing changes.
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
    (
        "a CmdSN twice: the second is old",
        (),
        lambda i: [i.command(b"", cmd_sn=FIRST), i.command(b"", cmd_sn=FIRST)],
        [GOOD],
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
    # Task tags (11.2.1.8).
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
    ("a NOP that wants no answer", (), lambda i: [i.request(0, itt=NO_TAG, immediate=True)], []),
    # Write data (11.7, 11.8, 11.4.7.2).
    ("Data-Out for no task", (), lambda i: [i.data_out(0x55, NO_TAG, 0, 0, BLOCK)], []),
    ("immediate data, agreed not", NO_DATA, lambda i: wrote(i, data=BLOCK), [Sense(UNEXPECTED)]),
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
        "unsolicited data beyond EDTL",
        EAGER,
        lambda i: wrote(i, (NO_TAG, 0, 0, BLOCK * 2, True), flags=0x21, edtl=512),
        [Sense(INCORRECT)],
    ),
    *(
        (name, (), lambda i, piece=piece: wrote(i, piece), [READY, Sense(asc)])
        for name, piece, asc in (
            ("a Target Transfer Tag that was not given", (9, 0, 0, BLOCK * 8, True), UNEXPECTED),
            ("DataSN 1 first", (1, 1, 0, BLOCK * 8, True), MISSING),
            ("DataSN 2^32 - 1", (1, 0xFFFFFFFF, 0, BLOCK * 8, True), MISSING),
            ("an offset before the R2T's end", (1, 0, 512, BLOCK * 7, True), INCORRECT),
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
    ),
    (
        "data for a task that was ended",
        (),
        lambda i: wrote(i, (9, 0, 0, BLOCK, True), (1, 0, 0, BLOCK * 8, True)),
        [READY, Sense(UNEXPECTED)],
    ),
    # Text (6.2, 11.10).
    *(
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
        "an unknown key",
        (),
        lambda i: [i.request(0x04, word20=NO_TAG, data=b"X-lab.who=me\0")],
        [Said(0x24, data=b"X-lab.who=NotUnderstood\0")],
    ),
    # Task management and logout (11.5, 11.6, 11.14, 11.15).
    ("no such function", (), lambda i: [i.request(0x02, 0x89)], [Said(0x22, 5)]),
    ("function 0", (), lambda i: [i.request(0x02, 0x80)], [Said(0x22, 5)]),
    ("a reset of no unit", (), lambda i: [i.request(0x02, 0x85, lun=7 << 48)], [Said(0x22, 2)]),
    ("abort of no task", (), lambda i: [i.request(0x02, 0x81, word20=5)], [Said(0x22, 1)]),
    ("reassignment at level 0", (), lambda i: [i.request(0x02, 0x88)], [Said(0x22, 4)]),
    (
        "logout of no connection",
        (),
        lambda i: [i.request(0x06, 0x81, word20=9 << 16)],
        [Said(0x26, 1)],
    ),
    ("logout for recovery", (), lambda i: [i.request(0x06, 0x82)], [Said(0x26, 2)]),
]


def outcome(engine: Connection, answers: list[Any]) -> list[object]:
    """The answers in the words of the table."""
    words: list[object] = []
    for pdu in answers:
        if pdu.opcode == 0x3F:
            assert len(pdu.data) == 48, "a Reject carries the header"
            words.append(Reject(pdu.byte2))
        elif pdu.opcode == 0x21 and pdu.byte3 == 2:
            sense = pdu.data[2:]
            assert sense[2] & 0x0F == 0x0B, "ABORTED COMMAND"
            words.append(Sense(sense[12] << 8 | sense[13]))
        elif pdu.opcode == 0x31:
            words.append(READY)
        else:
            words.append(Said(pdu.opcode, pdu.byte2 if pdu.opcode != 0x21 else 0, pdu.data))
    return [*words, DROP] if engine.ended else words


@pytest.mark.parametrize(
    ("keys", "build", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_in_full_feature_phase(
    bench: Any, keys: tuple[str, ...], build: Build, expected: list[object]
) -> None:
    session = bench.session(*keys)
    answers = []
    for pdu in build(session.initiator):
        answers += session.say(pdu)
    assert outcome(session.engine, answers) == expected
    if DROP in expected:
        assert session.say(session.initiator.request(0)) == []
        return
    number = session.engine.session.exp_cmd_sn
    assert all(pdu.exp_cmd_sn <= number for pdu in answers)
    (alive,) = session.say(session.initiator.request(0, cmd_sn=number, data=b"alive"))
    assert (alive.opcode, alive.data) == (0x20, b"alive")
    assert bytes(bench.disk.data) == bytes(bench.disk.size)  # nothing of it was written


def test_the_rows_are_many_and_differ() -> None:
    names = [row[0] for row in ROWS] + [row[0] for row in LOGINS]
    assert len(names) == len(set(names)) >= 60


# A login (6.3, 11.12, 11.13.5).

CHAP = Admission(0, "m", TARGET, chap=Chap("ws1", "a secret of 12+"))
OPEN = Admission(0, "m", TARGET)
MOVED, ERROR, AUTH, NOT_FOUND, VERSION, MISSING_KEY = 0x101, 0x200, 0x201, 0x203, 0x205, 0x207
TYPE, NO_SESSION, INVALID, RESOURCES = 0x209, 0x20A, 0x20B, 0x302
SILENCE = None

#: name, who answers the Knock, what is sent, the status that ends the login.
LOGINS: list[tuple[str, Admission, Build, int | None]] = [
    ("a NOP before the login", OPEN, lambda i: [i.request(0)], SILENCE),
    ("a command before the login", OPEN, lambda i: [i.command(b"")], SILENCE),
    ("a reserved opcode before the login", OPEN, lambda i: [raw(0x1C)], SILENCE),
    ("a login segment over 8192", OPEN, lambda i: [raw(0x43, 0x87, length=8193)], SILENCE),
    ("a NOP during it", OPEN, lambda i: [i.login(0, *NAMES), i.request(0)], INVALID),
    ("a command during it", OPEN, lambda i: [i.login(0, *NAMES), i.command(b"")], INVALID),
    ("text during it", OPEN, lambda i: [i.login(0, *NAMES), i.request(4)], INVALID),
    ("a logout during it", OPEN, lambda i: [i.login(0, *NAMES), i.request(6)], INVALID),
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
    ("a TSIH of nobody", OPEN, lambda i: [i.login(0x87, *NAMES, tsih=77)], NO_SESSION),
    (
        "another ISID midway",
        OPEN,
        lambda i: [i.login(0x04, *NAMES), i.login(0x87, isid=b"\x40\0\0\0\0\1")],
        ERROR,
    ),
    ("another TSIH midway", OPEN, lambda i: [i.login(4, *NAMES), i.login(0x87, tsih=5)], ERROR),
    ("another CID midway", OPEN, lambda i: [i.login(4, *NAMES), i.login(0x87, cid=5)], ERROR),
    ("a key twice in a request", OPEN, lambda i: [i.login(0x87, *NAMES, NAMES[2])], ERROR),
    (
        "a key twice in a login",
        OPEN,
        lambda i: [i.login(4, *NAMES, "InitialR2T=No"), i.login(0x87, "InitialR2T=No")],
        ERROR,
    ),
    ("a login key without a value", OPEN, lambda i: [i.login(0x87, *NAMES, "InitialR2T")], ERROR),
    ("a login key of 64 bytes", OPEN, lambda i: [i.login(0x87, *NAMES, "K" * 64 + "=1")], ERROR),
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
    (
        "requests without end",
        OPEN,
        lambda i: [i.login(0x04, *NAMES), *[i.login(0x04) for _ in range(40)]],
        ERROR,
    ),
    ("SendTargets", OPEN, lambda i: [i.login(0x87, *NAMES, "SendTargets=")], INVALID),
    ("AuthMethod too late", OPEN, lambda i: [i.login(0x87, *NAMES, "AuthMethod=None")], INVALID),
    ("a method we have not", OPEN, lambda i: [i.login(0x81, *NAMES, "AuthMethod=KRB5")], AUTH),
    ("None where CHAP is due", CHAP, lambda i: [i.login(0x81, *NAMES, "AuthMethod=None")], AUTH),
    ("no security stage where CHAP is due", CHAP, lambda i: [i.login(0x87, *NAMES)], AUTH),
    (
        "an algorithm we have not",
        CHAP,
        lambda i: [i.login(0, *NAMES, "AuthMethod=CHAP"), i.login(0, "CHAP_A=4,99")],
        AUTH,
    ),
    (
        "CHAP_R before CHAP_A",
        CHAP,
        lambda i: [i.login(0, *NAMES, "AuthMethod=CHAP"), i.login(0, "CHAP_N=a", "CHAP_R=0x00")],
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
    ("a machine nobody knows", Admission(NOT_FOUND), lambda i: [i.login(0x87, *NAMES)], NOT_FOUND),
]


@pytest.mark.parametrize(
    ("admission", "build", "status"), [row[1:] for row in LOGINS], ids=[row[0] for row in LOGINS]
)
def test_in_a_login(
    initiator: Any, pdus: Any, admission: Admission, build: Build, status: int | None
) -> None:
    engine = Connection("10.0.0.9", (Portal("10.0.0.1", 3260),), lambda n: bytes(range(1, n + 1)))
    for pdu in build(initiator):
        events = engine.receive(memoryview(bytearray(pdu)))
        while events:
            event = events.pop(0)
            assert not isinstance(event, Arrived), "let in"
            assert isinstance(event, Knock)
            events += engine.admit(admission)
    assert engine.ended
    answers = pdus(b"".join(bytes(part) for part in engine.data_to_send()))
    if status is SILENCE:
        assert answers == []
        return
    *before, last = answers
    assert all(pdu.opcode == 0x23 and not pdu.word36 for pdu in before)
    assert (last.opcode, last.word36 >> 16, last.data) == (0x23, status, b"")
    assert engine.receive(memoryview(initiator.request(0))) == []
    assert engine.data_to_send() == []

"""iSCSI PDUs as bytes (RFC 7143 section 11): one struct for each header, and text segments.

Every PDU begins with a Basic Header Segment of 48 bytes; then additional header segments, a
header digest, the data segment padded to four bytes and a data digest, each where it applies.

    byte  0               1               2               3
    +---+-+-----------+-+-------------+---------------+---------------+
    0   |.|I| opcode  |F| opcode-specific fields                      |
    4   | TotalAHSLength| DataSegmentLength                             |
    8   | LUN, or opcode-specific fields                                |
    16  | Initiator Task Tag                                            |
    20  | opcode-specific fields                                        |
    48  +---------------------------------------------------------------+

The headers of the data path are bare ``struct.Struct`` and tuples: a dataclass for each PDU
would cost more than everything else done with it. Must never look at a session or a socket.
"""

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import Final

from netboot.errors import WireError

BHS: Final = 48
#: "No tag": the reserved Initiator or Target Transfer Tag.
NO_TAG: Final = 0xFFFFFFFF
#: What either side may send before it was told otherwise (section 13.12).
DEFAULT_SEGMENT: Final = 8192
IMMEDIATE: Final = 0x40
FINAL: Final = 0x80
TRANSIT: Final = 0x80
CONTINUE: Final = 0x40


class Op(IntEnum):
    """Opcodes (section 11.2.1.2)."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT = 0x02
    LOGIN = 0x03
    TEXT = 0x04
    DATA_OUT = 0x05
    LOGOUT = 0x06
    SNACK = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC = 0x32
    REJECT = 0x3F


class LoginStatus(IntEnum):
    """Status-Class << 8 | Status-Detail (section 11.13.5)."""

    SUCCESS = 0x0000
    MOVED_TEMPORARILY = 0x0101
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    FORBIDDEN = 0x0202
    NOT_FOUND = 0x0203
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    CANNOT_INCLUDE = 0x0208
    TYPE_NOT_SUPPORTED = 0x0209
    NO_SESSION = 0x020A
    INVALID_REQUEST = 0x020B
    TARGET_ERROR = 0x0300
    UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class Reason(IntEnum):
    """Why a PDU is rejected (section 11.17.1)."""

    DATA_DIGEST = 0x02
    SNACK = 0x03
    PROTOCOL = 0x04
    NOT_SUPPORTED = 0x05
    IMMEDIATE = 0x06
    IN_PROGRESS = 0x07
    INVALID_FIELD = 0x09


class Function(IntEnum):
    """Task management functions (section 11.5.1)."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LUN_RESET = 5
    WARM_RESET = 6
    COLD_RESET = 7
    REASSIGN = 8


#: Those that end many tasks.
ENDS_TASKS: Final = frozenset(
    {
        *(Function.ABORT_TASK_SET, Function.CLEAR_TASK_SET, Function.LUN_RESET),
        *(Function.WARM_RESET, Function.COLD_RESET),
    }
)


class FunctionAnswer(IntEnum):
    """Answers to task management (section 11.6.1)."""

    COMPLETE = 0
    NO_TASK = 1
    NO_LUN = 2
    NO_REASSIGN = 4
    NOT_SUPPORTED = 5
    REJECTED = 255


class LogoutReason(IntEnum):
    """Why an initiator logs out (section 11.14.1)."""

    SESSION = 0
    CONNECTION = 1
    RECOVERY = 2


class LogoutAnswer(IntEnum):
    """Answers to a logout (section 11.15.1)."""

    CLOSED = 0
    NO_CONNECTION = 1
    NO_RECOVERY = 2


class Order(IntEnum):
    """Task attributes of a SCSI Command (section 11.3.1.1)."""

    UNTAGGED = 0
    SIMPLE = 1
    ORDERED = 2
    HEAD = 3
    ACA = 4


#: Any request: opcode, byte 1, AHS and data lengths, bytes 8-15, ITT, words 20 24 28, rest.
#: The same layout is the SCSI Command's (section 11.3): flags F R W 0 0 ATTR; EDTL CmdSN
#: ExpStatSN; and the CDB of 16 bytes.
REQUEST: Final = Struct(">BB2xIQIIII16s")

#: Task Management Function Request (section 11.5), from byte 20: Referenced Task Tag, CmdSN,
#: ExpStatSN, RefCmdSN.
TASK_MANAGEMENT: Final = Struct(">20xIIII12x")

#: Data-Out (section 11.7): byte 1 F; LUN, ITT, TTT, ExpStatSN, DataSN, Buffer Offset.
DATA_OUT: Final = Struct(">BB2xIQII4xI4xII4x")

#: Login Request (section 11.12): T C 0 0 CSG NSG, Version-max, Version-min, lengths, ISID,
#: TSIH, ITT, CID, CmdSN, ExpStatSN.
LOGIN: Final = Struct(">BBBBI6sHIH2xII16x")

#: Login Response (section 11.13): T C 0 0 CSG NSG, Version-max, Version-active, length, ISID,
#: TSIH, ITT, StatSN, ExpCmdSN, MaxCmdSN, status.
LOGIN_RESPONSE: Final = Struct(">BBBBI6sHI4xIIIH10x")

#: SCSI Response (section 11.4): flags 1 0 0 o u O U 0, response, status, length, ITT, StatSN,
#: ExpCmdSN, MaxCmdSN, ExpDataSN, bidirectional residual, residual.
SCSI_RESPONSE: Final = Struct(">BBBBI8xI4xIIIIII")

#: Data-In (section 11.7): F A 0 0 0 O U S, status, length, LUN, ITT, TTT, StatSN, ExpCmdSN,
#: MaxCmdSN, DataSN, Buffer Offset, residual.
DATA_IN: Final = Struct(">BBxBIQIIIIIIII")

#: R2T (section 11.8): F, LUN, ITT, TTT, StatSN, ExpCmdSN, MaxCmdSN, R2TSN, Buffer Offset,
#: Desired Data Transfer Length.
R2T: Final = Struct(">BB2x4xQIIIIIIII")

#: Any other answer: opcode, byte 1, byte 2, length, bytes 8-15, ITT, TTT, StatSN, ExpCmdSN,
#: MaxCmdSN. NOP-In, Text Response, Logout Response, Task Management Response (byte 2 the
#: answer) and Reject (byte 2 the reason) all have this form (sections 11.6 to 11.19).
ANSWER: Final = Struct(">BBBxIQIIIII12x")

#: Async Message (section 11.9): byte 1 is 80h; length, LUN, FFFFFFFFh, StatSN, ExpCmdSN,
#: MaxCmdSN, AsyncEvent, AsyncVCode, Parameter1 to Parameter3.
ASYNC: Final = Struct(">BB2xIQI4xIIIBBHHH4x")
#: AsyncEvent "target requests logout"; Parameter3 is the time in seconds.
REQUEST_LOGOUT: Final = 1

_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
#: No key-value pair is longer than this (section 6.1: 63 and 8192 bytes).
KEY_LIMIT: Final = 63
VALUE_LIMIT: Final = 8192


def padding(length: int) -> bytes:
    """The zero bytes that follow a data segment of ``length``."""
    return _PADDING[length & 3]


def lengths(word: int) -> tuple[int, int]:
    """Bytes of additional headers and of data, from bytes 4-7 of a header."""
    return (word >> 24) * 4, word & 0xFFFFFF


def pdu_size(word: int, header_digest: bool = False, data_digest: bool = False) -> int:
    """Bytes of a whole PDU, from bytes 4-7 of its header."""
    ahs, data = lengths(word)
    size = BHS + ahs + (4 if header_digest else 0)
    if data:
        size += (data + 3) & ~3
        size += 4 if data_digest else 0
    return size


def extended_cdb(pdu: memoryview) -> bytes | None:
    """Bytes 16 and more of the CDB, from the additional headers of a SCSI Command; may be empty.

    None when a header's length is not one (sections 11.2.2.1 and 11.2.2.3): the length counts
    what follows the type, and the whole is padded to words. Headers of other types are skipped.
    """
    at, end, cdb = BHS, BHS + pdu[4] * 4, b""
    while at < end:
        length = int.from_bytes(pdu[at : at + 2], "big")
        behind = at + 3 + length
        if not length or behind > end:
            return None
        if pdu[at + 2] & 0x3F == 1:
            cdb = bytes(pdu[at + 4 : behind])
        at = (behind + 3) & ~3
    return cdb


def after(a: int, b: int) -> bool:
    """Whether serial number ``a`` comes after ``b`` (RFC 1982, 32 bits; section 4.2.2.1)."""
    return a != b and (a - b) & 0xFFFFFFFF < 0x80000000


def read_text(data: bytes) -> list[tuple[str, str]]:
    """The pairs of a text segment, in order, duplicates kept (section 6.1).

    Raises WireError for anything that is not ``key=value`` followed by a zero byte.
    """
    pairs: list[tuple[str, str]] = []
    for piece in data.rstrip(b"\0").split(b"\0") if data.strip(b"\0") else ():
        name, equals, value = piece.partition(b"=")
        if not equals or not 0 < len(name) <= KEY_LIMIT or len(value) > VALUE_LIMIT:
            raise WireError(f"not a key=value pair: {piece[:80]!r}")
        try:
            pairs.append((name.decode("ascii"), value.decode("utf-8")))
        except UnicodeDecodeError:
            raise WireError(f"not text: {piece[:80]!r}") from None
    return pairs


def write_text(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A text segment, without its padding."""
    return b"".join(f"{name}={value}\0".encode() for name, value in pairs)

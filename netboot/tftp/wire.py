"""TFTP packets: bytes ⇄ records (RFC 1350 section 5, options of RFC 2347).

Reading is lenient where old boot ROMs are sloppy (missing final NUL, upper case) and strict in
everything else: what does not parse is a ``WireError``. It never looks at a socket or a file.

     2 bytes   string    1   string   1   string    1   string    1
    | 1 or 2 | file name | 0 | mode  | 0 | option | 0 | value | 0 | ...   RRQ, WRQ
    | 3      | block #   | 0 .. blksize bytes                             DATA
    | 4      | block #   |                                                ACK
    | 5      | code      | message | 0 |                                  ERROR
    | 6      | option | 0 | value | 0 | ...                               OACK
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from netboot.errors import WireError


class Opcode(IntEnum):
    """RFC 1350 section 5; OACK is RFC 2347."""

    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class ErrorCode(IntEnum):
    """RFC 1350 appendix; 8 is RFC 2347."""

    UNDEFINED = 0
    NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TID = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    OPTIONS_REFUSED = 8


@dataclass(frozen=True, slots=True)
class Request:
    """RRQ or WRQ. ``mode`` and the names of ``options`` are lower case."""

    opcode: Opcode
    name: str  #: bytes that are not UTF-8 are kept as surrogates
    mode: str = "octet"
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Data:
    """One block; shorter than the block size means the last."""

    block: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """All blocks up to ``block`` have arrived (modulo 65536)."""

    block: int


@dataclass(frozen=True, slots=True)
class Error:
    """The transfer is over. ``code`` may be one that RFC 1350 does not know."""

    code: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class OptionAck:
    """The options that the server grants (RFC 2347)."""

    options: Mapping[str, str]


Packet: TypeAlias = Request | Data | Ack | Error | OptionAck

_NUMBERS = struct.Struct("!HH")
_OPCODE = struct.Struct("!H")


def parse(data: bytes) -> Packet:
    """The record in ``data``; ``WireError`` when it is not a TFTP packet."""
    if len(data) < 4:
        raise WireError(f"a TFTP packet has at least 4 bytes, not {len(data)}")
    opcode, number = _NUMBERS.unpack_from(data)
    match opcode:
        case Opcode.RRQ | Opcode.WRQ:
            return _request(Opcode(opcode), data)
        case Opcode.DATA:
            return Data(number, data[4:])
        case Opcode.ACK:  # some ROMs pad it to the Ethernet minimum: the rest is nothing to us
            return Ack(number)
        case Opcode.ERROR:
            return Error(number, _text(data[4:].partition(b"\0")[0]))
        case Opcode.OACK:
            return OptionAck(_options(_strings(data[2:])))
    raise WireError(f"there is no TFTP opcode {opcode}")


def encode(packet: Packet) -> bytes:
    """The bytes of ``packet``; ``ValueError`` for a NUL inside a string, which is our bug."""
    match packet:
        case Request():
            strings = [packet.name, packet.mode, *_flat(packet.options)]
            return _OPCODE.pack(packet.opcode) + _joined(strings)
        case Data():
            return data_header(packet.block) + packet.payload
        case Ack():
            return _NUMBERS.pack(Opcode.ACK, packet.block)
        case Error():
            return _NUMBERS.pack(Opcode.ERROR, packet.code) + _joined([packet.message])
        case OptionAck():
            return _OPCODE.pack(Opcode.OACK) + _joined(_flat(packet.options))


def data_header(block: int) -> bytes:
    """The four bytes before the payload of block ``block`` (counted modulo 65536)."""
    return _NUMBERS.pack(Opcode.DATA, block & 0xFFFF)


def data_packets(first: int, body: bytes | memoryview, size: int, count: int) -> list[bytes]:
    """``count`` DATA packets of ``size`` bytes each, the last of what is left of ``body``."""
    pack, opcode, end = _NUMBERS.pack, int(Opcode.DATA), count * size
    return [
        pack(opcode, block & 0xFFFF) + body[start : start + size]
        for block, start in zip(range(first, first + count), range(0, end, size), strict=True)
    ]


def ack_number(data: bytes) -> int:
    """The block number of an ACK, -1 for any other packet: the short way for the hot path."""
    if len(data) < 4:
        return -1
    opcode, number = _NUMBERS.unpack_from(data)
    return number if opcode == Opcode.ACK else -1


def printable(text: str) -> str:
    """Text from the network, fit for logs and JSON."""
    if text.isascii() and text.isprintable():
        return text
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "\ufffd" for char in clean)


def _request(opcode: Opcode, data: bytes) -> Request:
    strings = _strings(data[2:])
    if len(strings) < 2 or not strings[0]:
        raise WireError("a TFTP request needs a file name and a mode")
    return Request(opcode, strings[0], strings[1].lower(), _options(strings[2:]))


def _strings(data: bytes) -> list[str]:
    """NUL-terminated strings; the terminator of the last one may be missing."""
    parts = data.split(b"\0")
    if not parts[-1]:
        parts.pop()
    return [_text(part) for part in parts]


def _options(strings: list[str]) -> dict[str, str]:
    """Pairs of name and value; of a name given twice the first counts (RFC 2347: at most once).

    Empty names are skipped: ROMs that pad a request with NULs mean nothing by it.
    """
    options: dict[str, str] = {}
    for name, value in zip(strings[::2], strings[1::2], strict=False):
        if name:
            options.setdefault(name.lower(), value)
    return options


def _flat(options: Mapping[str, str]) -> list[str]:
    return [text for pair in options.items() for text in pair]


def _joined(strings: list[str]) -> bytes:
    joined = "".join([text + "\0" for text in strings])
    if joined.count("\0") != len(strings):
        raise ValueError("a TFTP string cannot hold a NUL")
    return joined.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")

"""A boot as what it asks of its disk: from a capture of the wire, and as a small file.

A step is one command: read, write or flush, with the moment it may begin. A guest asks for the
next thing when it has the last, so a step does not wait for a moment on a clock but for
``after``: so many of the steps before it are done, and ``think`` microseconds have passed since.
Whatever a slow disk does to such a guest, it does to the replay.

Pure: bytes in, steps out. Sources: RFC 7143 (PDUs), SBC-4 (CDBs), the pcap file format.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

MAGIC = b"netboot storm 1\n"
BLOCK = 512
PORT = 3260
READ, WRITE, FLUSH = "R", "W", "F"
_STEP = struct.Struct("<cIIIH")
_RECORD = struct.Struct("<IIII")
_COMMAND, _DATA_IN, _RESPONSE = 0x01, 0x25, 0x21
#: More steps than any boot has; a file that says so is not one of ours.
MOST = 1 << 20


class TraceError(Exception):
    """The capture or the file is not what it should be."""


class Step(NamedTuple):
    """One command of a boot."""

    kind: str
    block: int  #: of 512 bytes
    blocks: int
    think: int  #: microseconds
    after: int  #: steps that are done before


@dataclass(slots=True)
class Moment:
    """A command on the wire."""

    kind: str
    block: int
    blocks: int
    sent: float
    done: float = 0.0


class _Stream:
    """One direction of a connection: its bytes in order, and the PDUs in them."""

    def __init__(self, first: int) -> None:
        self._next = first
        self._early: dict[int, bytes] = {}
        self._have = bytearray()

    def take(self, number: int, data: bytes) -> Iterator[bytes]:
        """The headers (and what follows of a login) of the PDUs that a segment completes."""
        self._early[number] = max(self._early.get(number, b""), data, key=len)
        while True:
            fits = [at for at in self._early if (self._next - at) & 0xFFFFFFFF < 1 << 31]
            if not fits:
                break
            for at in fits:
                old = (self._next - at) & 0xFFFFFFFF
                more = self._early.pop(at)[old:]
                self._have += more
                self._next = (self._next + len(more)) & 0xFFFFFFFF
        while len(self._have) >= 48:
            length = int.from_bytes(self._have[5:8], "big")
            whole = 48 + 4 * self._have[4] + (length + 3 & ~3)
            if len(self._have) < whole:
                break
            yield bytes(self._have[:whole])
            del self._have[:whole]

    @property
    def gap(self) -> bool:
        """Whether something was never captured."""
        return bool(self._early)


def of_capture(file: BinaryIO, port: int = PORT) -> list[Step]:
    """The steps of the one machine in a capture; TraceError when something is missing in it."""
    streams: dict[tuple[bytes, bytes], _Stream] = {}
    commands: dict[tuple[bytes, int], Moment] = {}
    found: list[Moment] = []
    for when, source, target, number, flags, data in segments(file, port):
        key = source, target
        if flags & 2:  # SYN
            streams[key] = _Stream(number + 1 & 0xFFFFFFFF)
        elif data and key in streams:
            client = source if int.from_bytes(target[4:], "big") == port else target
            for pdu in streams[key].take(number, data):
                _note(pdu, when, client, commands, found)
    if any(stream.gap for stream in streams.values()):
        raise TraceError("the capture has a gap: packets were lost, record it again")
    if not found:
        raise TraceError("nobody asked anything of a disk in this capture")
    return steps_of(found)


def segments(file: BinaryIO, port: int) -> Iterator[tuple[float, bytes, bytes, int, int, bytes]]:
    """(time, source, target, sequence number, flags, data) of the TCP segments of a port."""
    head = file.read(24)
    if len(head) < 24 or head[:4] != b"\xd4\xc3\xb2\xa1" or head[20] != 1:
        raise TraceError("no capture of an Ethernet (pcap, microseconds)")
    while len(record := file.read(16)) == 16:
        seconds, micros, kept, was = _RECORD.unpack(record)
        frame = file.read(kept)
        if len(frame) < kept:
            return  # the capture ended in it
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        ip = 14 + 4 * (frame[14] & 15)
        end = 14 + int.from_bytes(frame[16:18], "big") if frame[16:18] != b"\0\0" else was
        source, target = frame[ip : ip + 2], frame[ip + 2 : ip + 4]
        if port not in (int.from_bytes(source, "big"), int.from_bytes(target, "big")):
            continue
        if end > kept:
            raise TraceError("the capture has only a part of each packet")
        data = frame[ip + 4 * (frame[ip + 12] >> 4) : end]
        number = int.from_bytes(frame[ip + 4 : ip + 8], "big")
        when = seconds + micros / 1e6
        yield when, frame[26:30] + source, frame[30:34] + target, number, frame[ip + 13], data


def _note(
    pdu: bytes,
    when: float,
    client: bytes,
    commands: dict[tuple[bytes, int], Moment],
    found: list[Moment],
) -> None:
    """Keep a command that is a step, and when it was done."""
    key = client, int.from_bytes(pdu[16:20], "big")
    kind = pdu[0] & 0x3F
    if kind == _COMMAND:
        known = decoded(pdu[32:48])
        if known is not None:
            commands[key] = Moment(*known, when)
            found.append(commands[key])
    elif key in commands and (kind == _RESPONSE or (kind == _DATA_IN and pdu[1] & 1)):
        commands.pop(key).done = when


def decoded(cdb: bytes) -> tuple[str, int, int] | None:
    """What a CDB does to the disk; None for all that a replay leaves out."""
    code = cdb[0]
    if code in (0x28, 0x2A):
        where, count = struct.unpack_from(">IxH", cdb, 2)
    elif code in (0x88, 0x8A):
        where, count = struct.unpack_from(">QI", cdb, 2)
    elif code in (0x35, 0x91):
        return FLUSH, 0, 0
    else:
        return None
    return (READ if code in (0x28, 0x88) else WRITE, where, count) if count else None


def steps_of(moments: Sequence[Moment]) -> list[Step]:
    """Each command with how many were done when it was sent, and how long that was ago.

    What was never answered (the machine was switched off) is left out.
    """
    begun = [moment for moment in moments if moment.done]
    begun.sort(key=lambda moment: moment.sent)
    ends = sorted(moment.done for moment in begun)
    steps: list[Step] = []
    done, before = 0, begun[0].sent if begun else 0.0
    for moment in begun:
        while ends[done] <= moment.sent:
            done += 1
        since = max(before, ends[done - 1]) if done else before
        think = max(0, round((moment.sent - since) * 1e6))
        steps.append(Step(moment.kind, moment.block, moment.blocks, think, done))
        before = moment.sent
    return steps


def encode(steps: Sequence[Step]) -> bytes:
    """The file: a magic line, then the compressed steps."""
    rows = [
        _STEP.pack(step.kind.encode(), step.block, step.think, number - step.after, step.blocks)
        for number, step in enumerate(steps)
    ]
    # Byte by byte: like compresses best beside like.
    columns = (bytes(row[byte] for row in rows) for byte in range(_STEP.size))
    return MAGIC + zlib.compress(b"".join(columns), 9)


def decode(raw: bytes) -> list[Step]:
    """The steps of a file; TraceError when it is none."""
    if not raw.startswith(MAGIC):
        raise TraceError("no trace of a boot")
    try:
        flat = zlib.decompressobj().decompress(raw[len(MAGIC) :], MOST * _STEP.size)
    except zlib.error as error:
        raise TraceError(f"the trace is damaged: {error}") from None
    count = len(flat) // _STEP.size
    if len(flat) != count * _STEP.size:
        raise TraceError("the trace is cut short")
    steps = []
    for number in range(count):
        row = bytes(flat[number + byte * count] for byte in range(_STEP.size))
        kind, block, think, behind, blocks = _STEP.unpack(row)
        if kind.decode("latin-1") not in (READ, WRITE, FLUSH) or behind > number:
            raise TraceError(f"step {number} of the trace makes no sense")
        steps.append(Step(kind.decode(), block, blocks, think, number - behind))
    return steps


def quickened(steps: Iterable[Step], factor: float, longest: int) -> list[Step]:
    """The same boot on a machine ``factor`` times as fast, that thinks at most ``longest`` µs."""
    return [step._replace(think=min(longest, round(step.think / factor))) for step in steps]


def lines(steps: Iterable[Step]) -> str:
    """What ``storm.c`` reads: a line for each step."""
    return "".join(f"{s.kind} {s.block} {s.blocks} {s.think} {s.after}\n" for s in steps)


class Shape(NamedTuple):
    """A trace in a few figures."""

    steps: int
    reads: int
    writes: int
    flushes: int
    read_bytes: int
    write_bytes: int
    first_read: int  #: bytes of the golden image that are read, each counted once
    think: float  #: seconds


def shape(steps: Sequence[Step]) -> Shape:
    """What a boot is made of."""
    kinds = [step.kind for step in steps]
    size = {
        kind: BLOCK * sum(step.blocks for step in steps if step.kind == kind)
        for kind in (READ, WRITE)
    }
    return Shape(
        *(len(steps), kinds.count(READ), kinds.count(WRITE), kinds.count(FLUSH)),
        *(size[READ], size[WRITE], sum(length for _, length in ranges(steps))),
        sum(step.think for step in steps) / 1e6,
    )


def ranges(steps: Iterable[Step], near: int = 0) -> list[tuple[int, int]]:
    """(offset, length) in bytes of all that is read, in order, what is ``near`` joined."""
    found: list[list[int]] = []
    reads = (step for step in steps if step.kind == READ)
    for begin, end in sorted((s.block * BLOCK, (s.block + s.blocks) * BLOCK) for s in reads):
        if found and begin <= found[-1][1] + near:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([begin, end])
    return [(begin, end - begin) for begin, end in found]

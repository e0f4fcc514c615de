"""The fuzz targets: whatever a stranger can send us, and the files that a crash may leave.

A target runs one input, a row of frames (see ``frames``), from a fresh state, so that an input
alone brings its finding about. It checks what must hold for every input as far as that can be
said: PDUs that are whole, offsets inside the disk, replies that can be read. ``seeds`` are valid
conversations, and ``tweak`` damages a frame as one who knows where its lengths and flags are.
"""

import atexit
import contextlib
import itertools
import os
import random
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from netboot.disks import wire as channel
from netboot.dns import engine as dns
from netboot.dns.zone import Zone
from netboot.errors import ImageError, WireError
from netboot.http.files import parse_range
from netboot.iscsi.engine import Connection
from netboot.iscsi.entering import Arrived
from netboot.model import Admission, Chap, DhcpMode, DiskSpec, Knock, Portal
from netboot.ndp.engine import Engine as Ndp
from netboot.rooted import resolve
from netboot.scsi.action import (
    Action,
    Amend,
    Check,
    Collect,
    Compare,
    Extents,
    Keep,
    Reply,
    Sanitize,
    Space,
)
from netboot.scsi.kept import decode, encode
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Unit
from netboot.storage import qcow2
from netboot.storage.attach import attach
from netboot.storage.disk import DiskError
from netboot.tftp import engine as tftp
from netboot.tftp import wire as tftp_wire
from netboot.tftp.netascii import Netascii
from netboot.tftp.options import Limits, negotiate
from tests.dhcp.conftest import PROGRAMS, Kit, datagram
from tests.fuzz.frames import Tweak, havoc, join, split
from tests.iscsi import mistakes
from tests.iscsi.conftest import NAME, TARGET, Bench, Initiator, read_pdus, text


@dataclass(frozen=True)
class Target:
    """One row: ``run`` returns for every input but one that is a finding."""

    name: str
    what: str  #: for the documentation
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    tweak: Tweak
    quick: int = 3000  #: inputs that a run of the tests takes


def _at(frame: bytearray, at: int, width: int, number: int) -> None:
    if len(frame) >= at + width:
        frame[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "big")


# -- iSCSI ---------------------------------------------------------------------------------

_DIGESTS = ("HeaderDigest=CRC32C", "DataDigest=CRC32C")
_EAGER = ("InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=4096", "MaxBurstLength=4096")
_SHORT = ("InitialR2T=Yes", "ImmediateData=No", "MaxRecvDataSegmentLength=512")
_OFFERS = ((), _EAGER, _SHORT, _DIGESTS)


def _pdus(data: bytes) -> None:
    """Frame 0: [offers, size of the pieces, how CmdSN is kept]; then a PDU a frame."""
    frames = split(data)
    head = (frames[0] if frames else b"").ljust(3, b"\0")
    offers = _OFFERS[head[0] & 3]
    bench = Bench(1 << 16)
    session = bench.session(*offers)
    engine, initiator = session.engine, session.initiator
    stream = bytearray()
    cmd_sn = initiator.cmd_sn
    for frame in frames[1:]:
        pdu = bytearray(frame)
        if not head[2] & 1 and len(pdu) >= 28 and pdu[0] & 0x3F != 5:
            _at(pdu, 24, 4, cmd_sn)  # damage elsewhere is of more use when the number is right
            cmd_sn += not pdu[0] & 0x40
        stream += pdu
    piece = head[1] or len(stream) or 1
    sent = bytearray()
    for at in range(0, len(stream), max(piece, len(stream) // 64)):
        view = memoryview(bytearray(stream[at : at + max(piece, len(stream) // 64)]))
        session.breathe(view)
        bench.workers.work(200)
        sent += session.take()
    bench.workers.work()
    sent += session.take()
    assert len(engine.session.tasks) <= 4 * engine.session.window
    under_way = [
        task.transfer.length
        for task in engine.session.tasks.values()
        if task.transfer is not None and task.transfer.tag != 0xFFFFFFFF
    ]
    assert engine.session.solicited == sum(under_way)
    assert len(engine.session.early) <= engine.session.window
    if engine.answers.plain:
        read_pdus(bytes(sent))


def _tweak_pdu(frame: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(12)
    if kind == 0 and frame:
        frame[0] = rng.choice((*range(8), 0x10, 0x1C, 0x3F, rng.randrange(256)))
    elif kind == 1 and frame:
        frame[0] ^= 0x40
    elif kind == 2 and len(frame) > 1:
        frame[1] = rng.choice((0, 0x80, 0xA1, 0xC1, 0xE1, 0x21, 0x41, rng.randrange(256)))
    elif kind == 3:
        _at(frame, 4, 1, rng.choice((0, 1, 2, 255)))
    elif kind == 4:
        _at(frame, 5, 3, rng.choice((0, 1, 3, 511, 512, 8192, 262144, 262145, 0xFFFFFF)))
    elif kind == 5:
        _at(frame, 8, 8, rng.choice((0, 1, 1 << 48, 1 << 62, rng.getrandbits(64))))
    elif kind == 6:
        _at(frame, 16, 4, rng.choice((0xFFFFFFFF, 0x1001, 0x1002, 0x1003, rng.getrandbits(32))))
    elif kind == 7:  # EDTL, the tag meant, Target Transfer Tag
        _at(frame, 20, 4, rng.choice((0, 1, 2, 3, 511, 4096, 65536, 0x1002, 0xFFFFFFFF)))
    elif kind == 8:
        _at(frame, 36, 4, rng.choice((0, 1, 2, 0xFFFFFFFF)))  # DataSN
    elif kind == 9:
        _at(frame, 40, 4, rng.choice((0, 512, 4096, 0xFFFFFE00, 0xFFFFFFFF)))  # Buffer Offset
    elif kind == 10 and len(frame) >= 48:  # another CDB
        frame[32:48] = _cdb(rng)
    elif kind == 11 and len(frame) >= 48:  # the length that the data has
        _at(frame, 5, 3, len(frame) - 48)


def _pdu_seeds() -> tuple[bytes, ...]:
    me = Initiator(2)
    block = bytes(range(256)) * 2
    seeds = [
        [me.read(0, 1), me.read(127, 1), me.read(0, 128)],
        [me.request(0x00, itt=5, data=b"ping"), me.request(0x00, itt=0xFFFFFFFF, immediate=True)],
        [me.request(0x04, word20=0xFFFFFFFF, data=text("SendTargets="))],
        [
            me.request(0x04, 0x40, itt=9, word20=0xFFFFFFFF, data=b"Max"),
            me.request(0x04, 0x80, itt=9, word20=1, data=text("RecvDataSegmentLength=512")),
        ],
        [me.request(0x02, 0x81, itt=8, word20=0x1002), me.request(0x02, 0x85, immediate=True)],
        [me.request(0x02, 0x86), me.request(0x02, 0x87), me.request(0x06, 0x80)],
        [me.request(0x10), me.login(0x87, f"InitiatorName={NAME}")],
        [me.command(b"\x12" + bytes(2) + b"\0\xff", 255, flags=0xC1), me.command(bytes(6))],
        [me.command(b"\x35"), me.command(b"\x91", ahs=bytes(8)), me.command(b"\xa0", 512)],
    ]
    for offers in range(3):
        me = Initiator(2)
        write = me.write(0, 16, block if offers == 1 else b"", flags=0x21 if offers == 1 else 0xA1)
        itt = int.from_bytes(write[16:20], "big")
        pieces = [me.data_out(itt, 0xFFFFFFFF, 0, 512, block * 7)] if offers == 1 else []
        pieces += [
            me.data_out(itt, 1, n, 4096 * (offers == 1) + 512 * n, block, final=n == 7)
            for n in range(8)
        ]
        if offers != 1:
            pieces += [me.data_out(itt, 1, n + 8, 4096 + 512 * n, block) for n in range(8)]
        seeds.append([write, *pieces, me.read(0, 16)])
        unmap = bytes.fromhex("0016 0010 00000000 0000000000000008 00000008 00000000")
        command = me.command(
            b"\x42" + bytes(6) + b"\0\x18", 24, flags=0xA1, data=unmap if offers else b""
        )
        itt = int.from_bytes(command[16:20], "big")
        seeds.append([command, me.data_out(itt, 1, 0, 0, unmap), me.command(b"\x35")])
    # Mistakes, as they are: with the CmdSN that each names itself.
    made = [(row.keys, row.build(Initiator(2))) for row in mistakes.rows(mistakes.FULL)]
    wrong = [
        join([bytes([bool(keys), piece, 1]), *frames])
        for keys, frames in made
        for piece in (0, 47)
        if max(map(len, frames)) < 1 << 14
    ]
    return *wrong, *(
        join([bytes([offers, piece, 0]), *frames])
        for offers, piece, frames in itertools.product(range(4), (0, 47), seeds)
    )


_CHAP = Chap("ws1", "a secret of 12+", "lab", "another secret!", (5, 7))
_ADMISSIONS = (
    Admission(0, "52:54:00:12:34:56", TARGET),
    Admission(0, "52:54:00:12:34:56", TARGET, chap=_CHAP),
    Admission(0x0203, detail="no"),
)


def _login(data: bytes) -> None:
    """Frame 0: [who answers the Knock, size of the pieces]; then a PDU a frame."""
    frames = split(data)
    head = (frames[0] if frames else b"").ljust(2, b"\0")
    engine = Connection("10.0.0.9", (Portal("10.0.0.1", 3260),), lambda n: bytes(range(1, n + 1)))
    stream = b"".join(frames[1:])
    piece = max(head[1] or len(stream) or 1, len(stream) // 64)
    sent = bytearray()
    for at in range(0, len(stream), piece):
        events = engine.receive(memoryview(bytearray(stream[at : at + piece])))
        for _ in range(8):
            more = []
            for event in events:
                if isinstance(event, Knock):
                    more += engine.admit(_ADMISSIONS[head[0] % 3])
                elif isinstance(event, Arrived):
                    more += engine.establish(7)
            if not (events := more):
                break
        plain = engine.answers.plain
        out = b"".join(bytes(part) for part in engine.data_to_send())
        if plain:
            sent += out
    read_pdus(bytes(sent))


_WORDS = (
    *("InitiatorName", "TargetName", "SessionType", "AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C"),
    *("CHAP_N", "CHAP_R", "HeaderDigest", "MaxBurstLength", "MaxRecvDataSegmentLength"),
    *("SendTargets", "InitialR2T", "ErrorRecoveryLevel", "X-com.example", "0x", "0b", "=", "\0"),
    *("5", "7", "5,7", "None", "CHAP", "CHAP,None", "Discovery", "Yes", "No", "CRC32C", "0xfFfF"),
    *("9" * 5000, "0x" + "f" * 5000, "0b" + "QUJD" * 300, "٣", "²", "\x7f", "-1", "", "all", "All"),
)


def _tweak_login(frame: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind == 0:
        _tweak_pdu(frame, rng)
    elif kind == 1 and len(frame) > 1:
        flags = (0x87, 0x81, 0x04, 0x00, 0x40, 0x44, 0x83, 0x07, rng.randrange(256))
        frame[1] = rng.choice(flags)
    elif len(frame) >= 48:
        word = rng.choice(_WORDS).encode()
        if kind in (2, 3):  # a whole pair, old or new
            word = rng.choice(_WORDS).encode() + b"=" + word + b"\0"
        pairs = bytes(frame[48:]).rstrip(b"\0").split(b"\0")
        at = rng.randrange(len(pairs) + 1)
        if kind == 5 and at < len(pairs):
            pairs[at] = pairs[at].partition(b"=")[0] + b"=" + word
        elif kind == 4 and at < len(pairs):
            del pairs[at]
        else:
            pairs.insert(at, word.rstrip(b"\0"))
        body = b"\0".join(pairs) + b"\0"
        frame[48:] = body[:16000]
        _at(frame, 5, 3, len(frame) - 48)
        frame += bytes(-len(frame) % 4)


def _login_seeds() -> tuple[bytes, ...]:
    me = Initiator()
    names = (f"InitiatorName={NAME}", f"TargetName={TARGET}", "SessionType=Normal")
    mutual = ("CHAP_N=ws1", "CHAP_R=0x" + "5a" * 16, "CHAP_I=7", "CHAP_C=0b" + "QUJD" * 8)
    proof = _proof()
    conversations = [
        [me.login(0x87, *names, *_EAGER), me.read(0, 1)],
        [me.login(0x81, *names, "AuthMethod=None"), me.login(0x87, *_DIGESTS)],
        [me.login(0x87, names[0], "SessionType=Discovery"), me.request(0x04, word20=0xFFFFFFFF)],
        [me.login(0x04, *names), me.login(0x44, "MaxBurst"), me.login(0x87, "Length=512")],
        [
            me.login(0x81, *names, "AuthMethod=CHAP"),
            me.login(0x81, "CHAP_A=7,5"),
            me.login(0x81, *mutual),
        ],
        [
            me.login(0x00, *names, "AuthMethod=CHAP,None"),
            me.login(0x00, "CHAP_A=5"),
            me.login(0x81, "CHAP_N=ws1", "CHAP_R=" + proof, "CHAP_I=7", "CHAP_C=0x" + "ab" * 9),
            me.login(0x87, *_SHORT),
        ],
    ]
    return tuple(
        join([bytes([who, piece]), *frames])
        for who, piece, frames in itertools.product(range(3), (0, 31), conversations)
    )


def _proof() -> str:
    """The right answer to the challenge that ``_login`` always poses."""
    from netboot.iscsi.auth import response

    return "0x" + response(5, 1, _CHAP.secret, bytes(range(1, 33))).hex()


# -- SCSI ----------------------------------------------------------------------------------

_UNITS: tuple[dict[str, bool], ...] = (
    {"remembers": True, "measured": True},
    {"read_only": True},
    {"removable": True},
    {"thin": False, "remembers": True, "lasting": False},
)
_SIZE = 1 << 20


def _unit(number: int, settings: dict[str, bool]) -> Unit:
    return Unit(number, _SIZE, "525400123456", target_name=TARGET, **settings)


def _scsi(data: bytes) -> None:
    """A frame is a command: [LUN, session, EDTL (2), CDB (16), parameter data ...]."""
    units = LogicalUnits([_unit(n, settings) for n, settings in enumerate(_UNITS)])
    nexuses = [units.attach(NAME, b"\x40\0\1\x37\0" + bytes([n])) for n in range(2)]
    for nexus in nexuses:
        for lun in range(len(_UNITS)):
            units.execute(nexus, lun, bytes(16))  # takes the 29/00
    for frame in split(data):
        head = frame[:20].ljust(20, b"\0")
        lun, who, edtl = head[0] % (len(_UNITS) + 1), head[1] & 1, int.from_bytes(head[2:4], "big")
        action = units.execute(nexuses[who], lun, head[4:], edtl)
        _follow(action, frame[20:], units, lun)


def _follow(action: Action, data: bytes, units: LogicalUnits, lun: int) -> None:
    """Do what the action asks for as the transport would, and check what it says."""
    for _ in range(12):
        match action:
            case Collect():
                assert 0 <= action.length <= 33 << 20
                action = action.then(data[: action.length])
            case Extents():
                assert 0 <= action.offset <= action.offset + action.length <= _SIZE
                half = action.length // 2 & ~511
                rows = [(action.offset, half, True)] if half else []
                rows.append((action.offset + half, action.length - half, False))
                action = action.then(rows[: action.limit])
            case Amend():
                action = action.change()
            case Keep():
                kept = decode(action.content)
                assert encode(*kept) == action.content
                action = action.then(data[:1] != b"!")
            case Space():
                action = action.then(int.from_bytes(data[:9], "big"), 1 << 40)
            case Sanitize():
                assert action.size == _SIZE and all(len(one) == 512 for one in action.patterns)
                action.progress(len(data) % _SIZE, _SIZE)
                if data[-1:] == b"?":  # it goes on
                    return
                action = action.then(data[-1:] != b"!")
            case Compare() if action.then is not None:
                action = action.then
            case Check():
                assert len(units.sense_bytes(lun, action.sense)) >= 8
                return
            case Reply():
                assert len(action.data) <= 1 << 20
                int(action.status)
                return
            case _:
                offset, length = getattr(action, "offset", 0), getattr(action, "length", 0)
                ranges = getattr(action, "ranges", ((offset, length),))
                length = max(length, len(getattr(action, "data", b"")))
                for start, size in (*ranges, (offset, length)):
                    assert 0 <= start <= start + size <= _SIZE, action
                    assert start % 512 == size % 512 == 0, action
                return
    raise AssertionError(f"no end: {action}")


def _cdb(rng: random.Random) -> bytes:
    """Any opcode, its fields mostly small, as commands that are nearly right have them."""
    opcode = rng.randrange(256)
    cdb = bytearray(rng.choice((0, 0, 0, 1, 2, 4, 8, rng.randrange(256))) for _ in range(16))
    cdb[0] = opcode
    if rng.randrange(4) == 0:
        at = rng.randrange(1, 16)
        cdb[at : at + 8] = b"\xff" * 8
    return bytes(cdb[:16])


def _tweak_scsi(frame: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(8)
    if kind == 0 and frame:
        frame[0] = rng.randrange(6)
    elif kind == 1 and len(frame) > 1:
        frame[1] ^= 1
    elif kind == 2:
        _at(frame, 2, 2, rng.choice((0, 8, 24, 512, 1024, len(frame) - 20)))
    elif kind == 3 and len(frame) >= 20:
        frame[4:20] = _cdb(rng)
    elif kind == 4 and len(frame) >= 20:
        frame[4] = rng.randrange(256)
    elif kind == 5 and len(frame) >= 20:
        at = 5 + rng.randrange(15)
        frame[at] = rng.choice((0, 1, 2, 4, 8, 0x10, 0x20, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 6:  # a length in the parameter list
        _at(frame, 20 + 2 * rng.randrange(8), 2, rng.choice((0, 1, 8, 16, 24, 32, 0xFFFF)))
    elif kind == 7:
        frame[20:] = rng.randbytes(rng.choice((0, 4, 8, 24, 512, 1024)))


def _scsi_seeds() -> tuple[bytes, ...]:
    def command(cdb: str, data: bytes = b"", lun: int = 0, who: int = 0) -> bytes:
        raw = bytes.fromhex(cdb).ljust(16, b"\0")
        return bytes([lun, who]) + len(data).to_bytes(2, "big") + raw + data

    unmap = bytes.fromhex("0016 0010 00000000 0000000000000008 00000008 00000000")
    keys = bytes(8) + b"\0\0\0\0\0\0\0\x01" + bytes(8)
    rows = [
        [command("28 00 00000000 00 0001 00"), command("88 00 0000000000000000 00000001 00 00")],
        [command("12 01 00 00ff 00"), command("12 01 83 00ff 00"), command("12 01 b0 00ff 00")],
        [command("42 00 00000000 00 0018 00", unmap), command("9e 12" + "00" * 10 + "00000200")],
        [command("89 00 0000000000000000 000000 01 00 00", bytes(1024))],
        [command("93 08 0000000000000000 00000008 00 00", bytes(512)), command("35")],
        [command("41 08 00000000 00 0008 00", b"\1" * 512), command("2f 02 00000000 00 0001 00")],
        [
            command("5f 00 00 00 00 00 00 0018 00", keys),
            command("5f 01 03 00 00 00 00 0018 00", b"\0" * 7 + b"\x01" + bytes(16)),
            command("5e 00 00 00 00 00 00 00ff 00", who=1),
            command("5f 05 01 00 00 00 00 0018 00", keys, who=1),
        ],
        [
            command("5f 00 00 00 00 00 00 0018 00", keys[:20] + b"\1" + bytes(3)),
            command("5f 01 08 00 00 00 00 0018 00", b"\0" * 7 + b"\x01" + bytes(16)),
            command("48 01 00 00 00 00 00 0008 00", b"\x83\0\0\4ab" + b"c!"),
            command("48 22 00 00 00 00 00 0000 00", b"?"),
            command("48 3f 00 00 00 00 00 0000 00"),
            command("03 01 00 00 ff 00", who=1),
        ],
        [command("4d 00 4c 00 00 00 01 00ff 00"), command("4d 00 00 ff 00 00 00 00ff 00")],
        [command("15 10 00 00 18 00", bytes(4) + b"\x08\x12\x04" + bytes(17))],
        [command("1a 00 3f 00 ff 00"), command("5a 00 3f ff 00 00 00 00ff 00")],
        [command("a0 00 02 00 00 00 000000ff 00 00"), command("a3 0c 00 00 00 00 0000ffff 00 00")],
        [command("4d 00 40 00 00 00 00 00ff 00"), command("1b 00 00 00 02 00", lun=2)],
    ]
    rows += [[command(f"{op:02x}" + "00" * 15, bytes(24))] for op in range(256)]
    return tuple(join(frames) for frames in rows)


# -- datagrams -----------------------------------------------------------------------------


def _dhcp(data: bytes) -> None:
    """A frame is a packet after one byte: port 4011, from a relay, proxy mode, time passes."""
    frames = split(data)
    mode = DhcpMode.PROXY if frames and frames[0][:1] > b"\x7f" else DhcpMode.FULL
    lan = Kit.lan(mode)
    for frame in frames:
        how = frame[0] if frame else 0
        peer = ("192.168.77.60", 67) if how & 2 else ("0.0.0.0", 68)
        effects = lan.engine.receive(frame[1:], peer, lan.now, 4011 if how & 1 else 67)
        lan.now += (how >> 2 & 7) * 0.2
        effects += lan.engine.tick(lan.now)
        deadline = lan.engine.deadline()
        assert deadline is None or deadline < lan.now + 10
        for effect in effects:
            assert len(getattr(effect, "data", b"")) <= 1500


def _tweak_dhcp(frame: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(8)
    if kind == 0 and frame:
        frame[0] = rng.randrange(256)
    elif kind == 1 and len(frame) > 240:  # another option, or one with another length
        at = 241
        for _ in range(rng.randrange(12)):
            if at + 1 < len(frame) and frame[at] not in (0, 255):
                at += 2 + frame[at + 1]
        if at + 1 < len(frame):
            if rng.randrange(2):
                frame[at] = rng.choice((43, 52, 53, 54, 55, 57, 60, 61, 77, 82, 93, 94, 97, 175))
            else:
                frame[at + 1] = rng.choice((0, 1, 2, 3, 4, 8, 255, frame[at + 1] + 1 & 255))
    elif kind in (2, 3) and len(frame) > 241:
        codes = (12, 43, 50, 52, 53, 54, 55, 57, 60, 61, 77, 82, 93, 94, 97, 118, 150, 175, 0)
        value = rng.choice((b"", b"\0", b"\3", b"\1" * 4, b"\xff" * 16, rng.randbytes(7)))
        option = bytes([rng.choice(codes), len(value)]) + value
        frame[241:241] = option
    elif kind == 4:
        _at(frame, 1 + rng.choice((0, 1, 2, 3)), 1, rng.choice((0, 1, 2, 6, 7, 16, 17, 255)))
    elif kind == 5:  # an address: client, your, server, relay
        address = IPv4Address(
            rng.choice(("0.0.0.0", "192.168.77.60", "255.255.255.255", "1.2.3.4"))
        )
        _at(frame, 1 + rng.choice((12, 16, 20, 24)), 4, int(address))
    elif kind == 6:  # options that go on in the file and name fields
        _at(frame, 1 + rng.choice((44, 108)), 4, rng.choice((0x350103FF, 0x0C05, 0x34010300)))
    elif kind == 7:
        _at(frame, 29, 6, rng.choice((0x525400000021, 0x660000000001, 0, 0xFFFFFFFFFFFF)))


def _dhcp_seeds() -> tuple[bytes, ...]:
    mac = "52:54:00:00:00:07"
    wanted = ("requested_addr", "192.168.77.50")
    seeds = []
    for options in PROGRAMS.values():
        discover = datagram(mac, "discover", *options)
        request = datagram(mac, "request", ("server_id", "192.168.77.1"), wanted, *options)
        renew = datagram(mac, "request", *options, ciaddr="192.168.77.50")
        relayed = datagram(mac, "discover", ("relay_agent_information", b"\1\4abcd"), *options)
        inform = datagram(mac, "inform", *options, ciaddr="192.168.77.60")
        release = datagram(mac, "release", ("server_id", "192.168.77.1"), ciaddr="192.168.77.50")
        seeds += [
            [b"\x1c" + discover, b"\0" + request, b"\0" + renew, b"\0" + release],
            [b"\x80" + discover, b"\1" + request, b"\3" + inform],
            [b"\2" + relayed, b"\0" + datagram(mac, "decline", wanted), b"\x1c" + discover],
            [b"\0" + inform],
        ]
    return tuple(join(frames) for frames in seeds)


_FOLDER = Path(__file__).parent / "regressions"
_FILE = bytes(range(256)) * 23 + b"\r\n\n\r"


def _tftp(data: bytes) -> None:
    """Frame 0 opens the conversation; the others are its datagrams, after a byte of time."""
    frames = split(data)
    request = tftp.admit(frames[0] if frames else b"")
    if not isinstance(request, tftp_wire.Request):
        if request is not None:
            tftp_wire.parse(request)
        return
    resolve([_FOLDER], request.name)
    limits = Limits(blksize=1468, size=len(_FILE))
    now = 5.0
    read = lambda offset, length: _FILE[offset : offset + length]  # noqa: E731
    if request.mode == "netascii":
        read, limits = Netascii(read, len(_FILE)).read, Limits(blksize=1468)
    transfer = tftp.Transfer(read, negotiate(request.options, limits))
    packets = transfer.start(now)
    for frame in frames[1:]:
        now += (frame[0] if frame else 0) / 16
        packets += transfer.tick(now)
        packets += transfer.receive(frame[1:], now)
        packets += transfer.repeat(now)
    for head, body in packets:
        assert len(head) + len(body) <= 4 + 1468
        tftp_wire.parse(head + bytes(body))
    assert 0 <= transfer.delivered <= 2 * len(_FILE)


def _tweak_tftp(frame: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(5)
    if kind == 0:
        _at(frame, rng.randrange(2), 2, rng.randrange(9))
    elif kind == 1:
        _at(frame, 3, 2, rng.choice((0, 1, 2, 11, 12, 23, 65535)))
    elif kind == 2:
        names = (b"blksize", b"tsize", b"timeout", b"windowsize", b"multicast", b"BLKSIZE")
        values = (b"0", b"8", b"512", b"65464", b"99999999999999999999", b"-1", b"4", b"\xb2")
        frame += rng.choice(names) + b"\0" + rng.choice(values) + b"\0"
    elif kind == 3:
        frame[2:2] = rng.choice((b"../", b"\\", b"/", b"\xff", b"a/" * 300, b"%00", b"\0"))
    elif kind == 4:
        frame[:] = frame.replace(b"octet", rng.choice((b"NetASCII", b"mail", b"netascii", b"")))


def _tftp_seeds() -> tuple[bytes, ...]:
    options = b"blksize\x001468\0tsize\x000\0windowsize\x004\0timeout\x002\0"
    opens = (
        b"\0\1undionly.kpxe\0octet\0",
        b"\0\1a\0netascii\0",
        b"\0\1dir\\b.efi\0octet\0" + options,
        b"\0\2a\0octet\0",
        b"\0\4\0\1",
        b"\0\5\0\0no\0",
        b"\0\6tsize\x001\0",
    )
    acks = [bytes([n % 3, 0, 4, 0, n]) for n in (*range(13), 12, 4, 5, 5)]
    ends = (b"\x20\0\5\0\0stop\0", b"\xff\0\3\0\1abc", b"\0\0\6a\0b\0")
    return tuple(join([first, *acks, *ends[i:]]) for first in opens for i in range(3))


_ZONE = Zone(
    "lab.netboot",
    IPv4Interface("192.168.77.1/24"),
    lambda: [("ws1", IPv4Address("192.168.77.21"))],
)


def _dns(data: bytes) -> None:
    """A frame is a query after one byte: we forward, it came by TCP; an odd one is a reply."""
    asked: dns.Forward | None = None
    for frame in split(data):
        how, query = frame[0] if frame else 0, frame[1:]
        if how & 4 and asked is not None:
            answer = dns.accept(asked, 0x1234, query)
            if answer is not None:
                assert len(answer) <= asked.limit
                dns.rcode(answer)
            continue
        reply = dns.answer(query, _ZONE, forwards=bool(how & 1), stream=bool(how & 2))
        if isinstance(reply, dns.Forward):
            asked = reply
            assert len(reply.numbered(0x1234)) == len(query)
            assert dns.rcode(dns.failed(reply)) == 2
        elif reply is not None:
            assert len(reply.data) >= 12 and reply.data[:2] == query[:2]
            assert len(reply.data) <= (65535 if how & 2 else dns.EDNS_LIMIT)
            dns.rcode(reply.data)


def _tweak_dns(frame: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind == 0 and frame:
        frame[0] = rng.randrange(8)
    elif kind == 1:
        _at(frame, 3, 2, rng.choice((0x0100, 0x8180, 0x8380, 0, 0x2800, rng.getrandbits(16))))
    elif kind == 2:
        _at(frame, 5 + 2 * rng.randrange(4), 2, rng.choice((0, 1, 2, 3, 255, 65535)))
    elif kind == 3 and len(frame) > 14:  # a pointer, to anywhere
        at = rng.randrange(13, len(frame))
        frame[at : at + 2] = bytes([0xC0 | rng.randrange(64), rng.randrange(64)])
    elif kind == 4 and len(frame) > 14:
        frame[13] = rng.choice((0, 1, 63, 64, 0x80, 0xC0, 0xFF))
    elif kind == 5:
        kinds = (1, 2, 5, 6, 12, 13, 15, 16, 24, 25, 28, 33, 35, 41, 43, 46, 47, 48, 50, 251, 252)
        _at(frame, len(frame) - 4, 2, rng.choice((*kinds, 255, 257, 65535)))


def _dns_seeds() -> tuple[bytes, ...]:
    import dnslib

    rows = []
    for name in ("ws1.lab.netboot", "x.lab.netboot", "lab.netboot", "debian.org", ".", "a." * 60):
        for kind in ("A", "AAAA", "ANY", "SOA", "PTR", "NS", "AXFR"):
            question = dnslib.DNSRecord.question(name, kind)
            question.header.id = 0x1234
            plain = bytes(question.pack())
            question.add_ar(dnslib.EDNS0(udp_len=1232, version=kind == "NS"))
            reply = question.reply()
            reply.add_answer(*dnslib.RR.fromZone(f"{name} 60 IN A 1.2.3.4"))
            edns = bytes(question.pack())
            rows.append([b"\1" + plain, b"\5" + bytes(reply.pack()), b"\2" + edns])
    return tuple(join(frames) for frames in rows)


def _ndp(data: bytes) -> None:
    """A frame is an ICMPv6 message after its hop limit."""
    engine = Ndp(b"\x02\0\0\0\0\1", lambda mac: mac.startswith("52:54"))
    for frame in split(data):
        answer = engine.receive(frame[1:], frame[0] if frame else 0)
        assert answer is None or len(answer) == 24


def _tweak_ndp(frame: bytearray, rng: random.Random) -> None:
    kind = rng.randrange(3)
    if kind == 0 and frame:
        frame[0] = rng.choice((0, 1, 254, 255))
    elif kind == 1:
        _at(frame, rng.choice((1, 9, 10, 17, 18)), 1, rng.choice((0, 1, 2, 255, 133, 134)))
    else:
        frame += bytes([rng.choice((1, 2, 14)), rng.randrange(4)]) + rng.randbytes(6)


_NDP_SEEDS = (
    join([b"\xff\x85\0\0\0\0\0\0\0\1\1\x52\x54\0\0\0\7", b"\xff\x85\0\0\0\0\0\0\0"]),
    join([b"\x40\x85\0\0\0\0\0\0\0\x0e\1\1\2\3\4\5\6\1\1\x52\x54\0\0\0\7", b"\xff\x86\0\0\0"]),
)


# -- text ----------------------------------------------------------------------------------


def _range(data: bytes) -> None:
    """A frame is the size of the file (8 bytes) and a Range header."""
    for frame in split(data):
        size = int.from_bytes(frame[:8], "big")
        span = parse_range(frame[8:].decode("utf-8", "surrogateescape"), size)
        assert span is None or 0 <= span.start <= span.stop <= size


def _tweak_text(frame: bytearray, rng: random.Random) -> None:
    """Numbers of any length, brackets, signs: in JSON as well as in a header."""
    words = (
        *(b"0", b"-", b"-1", b"9" * 18, b"9" * 5000, b"1e400", b"18446744073709551616", b"[", b"]"),
        *(b"[" * 2000, b"{", b"}", b'"', b",", b":", b"null", b"true", b"NaN", b"1.5", b" "),
        *(b"\\ud800", b"bytes=", b"BYTES = ", b"1-2,3-4", b"\xd9\xa3", b'"type":', b"{}", b'""'),
    )
    at = rng.randrange(len(frame) + 1)
    frame[at : at + rng.choice((0, 0, 1, 2, 5))] = rng.choice(words)


_RANGE_SEEDS = tuple(
    join([size.to_bytes(8, "big") + value])
    for size in (0, 1, 1000, 1 << 40)
    for value in (b"bytes=0-99", b"bytes=500-", b"bytes=-5", b"bytes=0-0,5-9", b"bytes=u-u", b"")
)


def _channel(data: bytes) -> None:
    """A frame is a line of the channel between our processes."""
    for frame in split(data):
        with contextlib.suppress(WireError):
            message = channel.decode(frame)
            if message is not None:
                assert channel.decode(channel.encode(message)) is not None


def _channel_seeds() -> tuple[bytes, ...]:
    from tests.disks.test_wire import EVERY

    return tuple(join([channel.encode(message)]) for message in EVERY)


# -- files ---------------------------------------------------------------------------------

_DISK = 3 * qcow2.CLUSTER
_CELLS = 3 * qcow2.SUBS


class _Scratch:
    """One folder with a golden image, in memory where that can be had."""

    def __init__(self) -> None:
        where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.keep = tempfile.TemporaryDirectory(prefix="netboot-fuzz-", dir=where)
        self.golden = Path(self.keep.name, "golden.raw")
        self.golden.write_bytes(bytes(_DISK))
        self.path = Path(self.keep.name, "client.qcow2")
        self.spec = DiskSpec(
            str(self.golden), _DISK, "sha256:1", str(self.path), 3, ephemeral=False
        )
        attach(self.spec).close()
        self.header = self.path.read_bytes()[: qcow2.HEADER_AREA]

    def run(self, data: bytes) -> None:
        """[header as changes: (at (2), bytes) in frames up to an empty one], entries, .live."""
        frames = (*split(data), b"", b"", b"")
        self.decode(frames[0])
        self.decode(self.header[:112] + frames[0])
        with contextlib.suppress(ImageError):
            qcow2.cells_of(0, frames[1][: len(frames[1]) & ~15])
        self.attach(frames[0], frames[1], frames[2])

    @staticmethod
    def decode(area: bytes) -> None:
        with contextlib.suppress(ImageError):
            qcow2.encode(qcow2.decode(area))

    def attach(self, change: bytes, entries: bytes, live: bytes) -> None:
        at = int.from_bytes(change[:2], "big") % 600
        header = bytearray(self.header)
        header[at : at + len(change) - 2 if len(change) > 2 else at] = change[2:]
        with self.path.open("r+b") as file:
            file.write(header[: qcow2.HEADER_AREA].ljust(qcow2.HEADER_AREA, b"\0"))
            file.seek(qcow2.L2)
            file.write(entries[:4096].ljust(4096, b"\0"))
        path = self.path.with_suffix(".live")
        with path.open("wb") as file:
            file.write(live[:80])
            if len(live) > 80:
                # At any place, also behind the last cell of this disk.
                file.seek(4096 + int.from_bytes(live[80:82], "big") % (2 * _CELLS))
                file.write(live[82:])
        if len(live) >= 48:  # mostly of this run of the kernel, and of this file
            from netboot.storage.live import boot_id

            inode = self.path.stat().st_ino
            with path.open("r+b") as file:
                file.write(struct.pack(">8s36s4xQ", b"NBLIVE1\n", boot_id(), inode))
        try:
            disk = attach(self.spec)
        except ImageError:
            return
        try:
            with contextlib.suppress(DiskError):
                assert sum(map(len, disk.read(0, _DISK))) == _DISK
                disk.write(512, b"x" * 512)
                disk.unmap(0, 8192)
                disk.flush()
        finally:
            disk.close()


_SCRATCH: list[_Scratch] = []


def tidy() -> None:
    """Take away what a run has left in files."""
    while _SCRATCH:
        _SCRATCH.pop().keep.cleanup()


def _overlay(data: bytes) -> None:
    if not _SCRATCH:
        _SCRATCH.append(_Scratch())
        atexit.register(tidy)
    _SCRATCH[0].run(data)


def _tweak_overlay(frame: bytearray, rng: random.Random) -> None:
    if rng.randrange(3) == 0:
        _tweak_text(frame, rng)
    else:
        havoc(frame, rng)


def _overlay_seeds() -> tuple[bytes, ...]:
    meta = qcow2.Meta(_DISK, "/golden.raw", "/client.data", "sha256:1", 3)
    entries = qcow2.entries(0, bytes([1] * 32 + [3] * 32 + [0, 1, 2, 3] * 8))
    live = bytes(80) + b"\0\0" + bytes([1, 2, 3, 0] * 24)
    header = qcow2.encode(meta)
    changes = [at.to_bytes(2, "big") + header[at : at + 8] for at in range(0, 240, 8)]
    return tuple(join([head, entries, live]) for head in (header, b"", *changes))


TARGETS = {
    target.name: target
    for target in (
        Target("pdus", "iSCSI PDUs in full-feature phase", _pdus, _pdu_seeds(), _tweak_pdu, 1500),
        Target("login", "iSCSI login, CHAP, text", _login, _login_seeds(), _tweak_login, 4000),
        Target("scsi", "CDBs and parameter lists", _scsi, _scsi_seeds(), _tweak_scsi, 3000),
        Target("dhcp", "DHCP, PXE, proxyDHCP", _dhcp, _dhcp_seeds(), _tweak_dhcp, 1500),
        Target("tftp", "TFTP", _tftp, _tftp_seeds(), _tweak_tftp, 4000),
        Target("dns", "DNS queries and forwarded replies", _dns, _dns_seeds(), _tweak_dns, 3000),
        Target("ndp", "IPv6 router solicitations", _ndp, _NDP_SEEDS, _tweak_ndp, 8000),
        Target("range", "HTTP Range headers", _range, _RANGE_SEEDS, _tweak_text, 8000),
        Target("channel", "lines between our processes", _channel, _channel_seeds(), _tweak_text),
        Target("overlay", "overlay files", _overlay, _overlay_seeds(), _tweak_overlay, 800),
    )
}

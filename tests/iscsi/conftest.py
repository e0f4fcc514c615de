"""An initiator on the other side of an engine, written from RFC 7143 and not from our code.

``Initiator`` builds PDUs with layouts of its own and reads the answers; ``Memory`` is a disk
in a bytearray; ``Bench`` puts an engine, an edge and a disk together without a socket.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from netboot.iscsi.engine import Connection, Event
from netboot.iscsi.requests import Logout, Management
from netboot.iscsi.server import Edge, Volume
from netboot.iscsi.session import Task
from netboot.iscsi.transfer import Broken, Filled
from netboot.iscsi.volume import Done, Tally
from netboot.model import Admission, Portal
from netboot.scsi.primary import lun_fields
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Unit
from netboot.storage.disk import Buffer, DiskError, Extent, Sight

NAME = "iqn.2026-11.lab.netboot:client.52-54-00-12-34-56"
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
ISID = b"\x40\x00\x27\x23\x12\x34"
NO_TAG = 0xFFFFFFFF


class Pdu(NamedTuple):
    """One answer, its fields where most PDUs have them."""

    opcode: int
    flags: int
    byte2: int
    byte3: int
    itt: int
    word20: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    word36: int
    word40: int
    word44: int
    data: bytes
    raw: bytes


def read_pdus(stream: bytes) -> list[Pdu]:
    """All PDUs of a stream without digests; fails when it is not whole."""
    pdus = []
    while stream:
        assert len(stream) >= 48, "a header is cut"
        op, flags, byte2, byte3, lengths = struct.unpack_from(">BBBBI", stream)
        assert lengths >> 24 == 0, "a target sends no additional headers"
        words = struct.unpack_from(">8I", stream, 16)
        padded = lengths + -lengths % 4
        assert len(stream) >= 48 + padded, "a data segment is cut"
        assert not any(stream[48 + lengths : 48 + padded]), "padding is zero"
        data = stream[48 : 48 + lengths]
        pdus.append(Pdu(op, flags, byte2, byte3, *words, data, stream[: 48 + padded]))
        stream = stream[48 + padded :]
    return pdus


def text(*pairs: str) -> bytes:
    return b"".join(pair.encode() + b"\0" for pair in pairs)


class Initiator:
    """Builds requests; keeps CmdSN and task tags as an initiator does."""

    def __init__(self, cmd_sn: int = 1) -> None:
        self.cmd_sn = cmd_sn
        self.itt = 0x1000

    def tag(self) -> int:
        self.itt += 1
        return self.itt

    @staticmethod
    def segment(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    def login(
        self, flags: int, *pairs: str, isid: bytes = ISID, tsih: int = 0, **more: int
    ) -> bytes:
        data = text(*pairs)
        head = struct.pack(
            ">BBBBI6sHIHHII16x",
            *(0x43, flags, more.get("version_max", 0), more.get("version_min", 0), len(data)),
            *(isid, tsih, more.get("itt", 1), more.get("cid", 0), 0, self.cmd_sn, 0),
        )
        return head + self.segment(data)

    def request(
        self,
        op: int,
        flags: int = 0x80,
        *,
        lun: int = 0,
        itt: int | None = None,
        word20: int = 0,
        cmd_sn: int | None = None,
        rest: bytes = bytes(16),
        data: bytes = b"",
        ahs: bytes = b"",
        immediate: bool = False,
    ) -> bytes:
        if cmd_sn is None:
            cmd_sn = self.cmd_sn
            if not immediate:
                self.cmd_sn = self.cmd_sn + 1 & 0xFFFFFFFF
        head = struct.pack(
            ">BBHIQIIII16s",
            *(op | (0x40 if immediate else 0), flags, 0, len(ahs) // 4 << 24 | len(data), lun),
            *(self.tag() if itt is None else itt, word20, cmd_sn, 0, rest),
        )
        return head + ahs + self.segment(data)

    def command(self, cdb: bytes, edtl: int = 0, *, flags: int = 0x80, **more: Any) -> bytes:
        return self.request(0x01, flags, word20=edtl, rest=cdb.ljust(16, b"\0"), **more)

    def read(self, lba: int, blocks: int, edtl: int | None = None, **more: Any) -> bytes:
        cdb = struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)
        more.setdefault("flags", 0xC1)
        return self.command(cdb, blocks * 512 if edtl is None else edtl, **more)

    def write(
        self, lba: int, blocks: int, data: bytes = b"", edtl: int | None = None, **more: Any
    ) -> bytes:
        cdb = struct.pack(">BBIBHB", 0x2A, more.pop("byte1", 0), lba, 0, blocks, 0)
        more.setdefault("flags", 0xA1)
        return self.command(cdb, blocks * 512 if edtl is None else edtl, data=data, **more)

    def data_out(
        self, itt: int, ttt: int, data_sn: int, offset: int, data: bytes, *, final: bool = True
    ) -> bytes:
        head = struct.pack(
            ">BBHIQIIIIIIII",
            *(0x05, 0x80 if final else 0, 0, len(data), 0, itt, ttt, 0, 0, 0, data_sn, offset, 0),
        )
        return head + self.segment(data)


class Memory:
    """A Disk in memory that can be cold, slow to flush, or broken."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.data = bytearray(size)
        self.size = size
        self.read_only = False
        self.notes: Any = None
        self.sight: Sight | None = None
        self.cold = False
        self.error: DiskError | None = None
        self.calls: list[tuple[Any, ...]] = []

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def space(self) -> tuple[int, int] | None:
        return None

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        self._note("read", offset, length)
        assert offset % 512 == length % 512 == 0 and offset + length <= self.size
        half = length // 2 // 512 * 512
        whole = bytes(self.data[offset : offset + length])
        return (memoryview(whole)[:half], memoryview(whole)[half:])

    def write(self, offset: int, data: Buffer) -> None:
        self._note("write", offset, len(data))
        assert offset % 512 == len(data) % 512 == 0 and offset + len(data) <= self.size
        self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self._note("zero", offset, length)
        self.data[offset : offset + length] = bytes(length)

    def unmap(self, offset: int, length: int) -> None:
        self._note("unmap", offset, length)
        self.data[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        self._note("flush")

    def extents(self, offset: int, length: int) -> Sequence[Extent]:
        self._note("extents", offset, length)
        return (Extent(offset, 4096, True), Extent(offset + 4096, length - 4096, False))

    def resident(self, offset: int, length: int) -> bool:
        return not self.cold

    def at_once(self, offset: int, length: int) -> Buffer | None:
        return None if self.cold or self.error else b"".join(self.read(offset, length))

    def resize(self, size: int) -> None:
        self._note("resize", size)
        self.data += bytes(size - self.size)
        self.size = size

    def close(self) -> None:
        self.calls.append(("close",))


class Workers:
    """Worker threads that work when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], object], Done]] = []

    def submit(self, do: Callable[[], object], done: Done) -> None:
        self.jobs.append((do, done))

    def work(self, count: int = 1000) -> int:
        """Do up to ``count`` jobs, those they bring about too; how many there were."""
        for number in range(count):
            if not self.jobs:
                return number
            do, done = self.jobs.pop(0)
            result, error = None, None
            try:
                result = do()
            except Exception as problem:
                error = problem
            done(result, error)
        return count


class Session:
    """One logged-in engine with its edge at a shared unit; ``say`` sends and reads."""

    def __init__(
        self,
        bench: "Bench",
        *pairs: str,
        isid: bytes = ISID,
        cmd_sn: int = 1,
        kind: str = "Normal",
    ) -> None:
        self.initiator = Initiator(cmd_sn)
        self.engine = Connection("10.0.0.9", (Portal("10.0.0.1", 3260),), lambda n: bytes(range(n)))
        names = (f"InitiatorName={NAME}", f"TargetName={TARGET}", f"SessionType={kind}")
        login = self.initiator.login(0x87, *names, *pairs, isid=isid)
        self.engine.receive(memoryview(login))
        self.engine.admit(Admission(0, "52:54:00:12:34:56", TARGET))
        self.engine.establish(7)
        self.sent = bytearray()
        self.reads = 0
        self.edge = Edge(
            self.engine,
            bench.units,
            bench.units.attach(NAME, isid),
            bench.volumes,
            self._flush,
            self._first_read,
        )
        self.welcome = self.take()
        if self.engine.answers.plain and kind == "Normal":
            self.say(self.initiator.command(bytes(6)))  # TEST UNIT READY takes the 29/00

    def _first_read(self) -> None:
        self.reads += 1

    def _flush(self) -> None:
        for buffer in self.engine.data_to_send():
            self.sent += buffer

    def take(self) -> bytes:
        """What was sent since the last time."""
        self._flush()
        sent, self.sent = bytes(self.sent), bytearray()
        return sent

    def handle(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Task():
                    self.edge.task(event)
                case Filled():
                    self.edge.filled(event)
                case Broken():
                    self.edge.broken(event)
                case Management():
                    self.engine.managed(event, self.edge.managed(event))
                case Logout():
                    self.engine.logged_out(event)
                case _:
                    raise AssertionError(event)

    def breathe(self, view: memoryview, *, express: bool = True) -> int:
        """What came in one breath, as ``peer`` handles it; how much took the express lane."""
        tags: set[int] = set()
        at = 0
        while express and self.edge.lane is not None:
            took = self.edge.lane.run(view[at:], len(view) - at, tags)
            if not took:
                break
            at += took
        if at < len(view):
            self.handle(self.engine.receive(view[at:], tags))
        return at

    def say(self, *pdus: bytes) -> list[Pdu]:
        self.breathe(memoryview(bytearray(b"".join(pdus))))
        return read_pdus(self.take())

    def later(self) -> list[Pdu]:
        return read_pdus(self.take())


class Bench:
    """A unit over a memory disk; ``session`` logs an initiator in."""

    def __init__(self, size: int = 1 << 20, **unit: Any) -> None:
        self.disk = Memory(size)
        self.workers = Workers()
        self.tally = Tally("52:54:00:12:34:56")
        self.errors: list[str] = []
        self.unit = Unit(0, size, "525400123456", target_name=TARGET, **unit)
        self.units = LogicalUnits([self.unit])
        self.volume = Volume(
            name="test LUN 0",
            block=self.unit.block_size,
            tally=self.tally,
            submit=self.workers.submit,
            sync=self.disk.flush,
            on_error=self.errors.append,
            disk=self.disk,
        )
        self.volumes = dict.fromkeys(lun_fields(0), self.volume)

    def session(self, *pairs: str, **more: Any) -> Session:
        return Session(self, *pairs, **more)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def initiator() -> Initiator:
    return Initiator()


@pytest.fixture
def memory() -> type[Memory]:
    return Memory


@pytest.fixture
def pdus() -> Callable[[bytes], list[Pdu]]:
    return read_pdus

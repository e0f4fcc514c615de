"""What the compiled lane does by itself: see a disk's blocks without asking it.

That it answers like the lane in Python and like the long way is ``test_express``'s.
"""

import random
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.iscsi.lane import Lane
from netboot.model import DiskSpec
from netboot.storage.attach import attach
from netboot.storage.disk import Buffer, DiskError, Sight
from netboot.storage.filters import Filter
from netboot.storage.qcow2 import DATA, GOLDEN, SUB_BITS
from netboot.storage.raw import PIECE, REGION_BITS, Golden
from tests.iscsi.conftest import Bench, Session, read_pdus

SUB = 4096
SIZE = (2 << 20) + 5 * SUB
ROOM = SIZE + (1 << 20)
CONTENT = random.Random(7).randbytes(SIZE)


class Asked(Filter):
    """A disk that notes which ranges it was asked for, and lets itself be seen all the same."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.asked: list[tuple[int, int]] = []
        self.written: list[tuple[int, int]] = []

    @property
    def sight(self) -> Sight | None:
        return self.inner.sight

    def at_once(self, offset: int, length: int) -> Buffer | None:
        self.asked.append((offset, length))
        return self.inner.at_once(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        self.written.append((offset, len(data)))
        self.inner.write(offset, data)


class Machine:
    """A session with the compiled lane at an overlay that is larger than its golden image."""

    def __init__(self, folder: Path, *, overlay: bool = True) -> None:
        golden = folder / "golden.raw"
        if not golden.exists():
            golden.write_bytes(CONTENT)
        path = str(folder / "client.qcow2") if overlay else None
        self.disk = attach(DiskSpec(str(golden), SIZE, "sha256:1", path, room=ROOM * overlay))
        self.asked = Asked(self.disk)
        self.bench = Bench(self.disk.size)
        self.bench.disk = self.asked  # type: ignore[assignment]
        self.bench.volume.disk = self.asked
        self.session: Session = self.bench.session(
            *("InitialR2T=No", "ImmediateData=Yes", "MaxRecvDataSegmentLength=262144")
        )
        assert type(self.session.edge.lane) is Lane

    def command(self, offset: int, length: int, data: bytes = b"") -> bytes:
        code, flags = (0x2A, 0xA1) if data else (0x28, 0xC1)
        cdb = struct.pack(">BBIBHB", code, 0, offset // 512, 0, length // 512, 0)
        return self.session.initiator.command(cdb, length, flags=flags, data=data)

    def run(self, *commands: bytes) -> int:
        """The lane alone, on one breath; the bytes it took."""
        lane = self.session.edge.lane
        assert lane is not None
        chunk = memoryview(bytearray(b"".join(commands)))
        took = lane.run(chunk, len(chunk), set())
        chunk.release()  # nothing is kept of the receive buffer
        return took

    def read(self, offset: int, length: int) -> bytes:
        """By the lane, or else by the long way."""
        self.session.breathe(memoryview(self.command(offset, length)))
        self.bench.workers.work()
        (answer,) = read_pdus(self.session.take())
        return bytes(answer.data)

    def close(self) -> None:
        self.disk.close()


@pytest.fixture
def machine(tmp_path: Path) -> Any:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def test_what_was_found_in_memory_is_seen_and_not_asked_for(machine: Machine) -> None:
    assert machine.read(0, SUB) == CONTENT[:SUB]
    assert machine.asked.asked == [(0, SUB)]  # nobody knew of this MiB
    assert machine.read(SUB, 8 * SUB) == CONTENT[SUB : 9 * SUB]
    assert machine.read(1536, 512) == CONTENT[1536:2048]
    assert len(machine.asked.asked) == 1
    across = (1 << 20) - SUB
    assert machine.read(across, 2 * SUB) == CONTENT[across : across + 2 * SUB]
    assert machine.asked.asked[1:] == [(across, 2 * SUB)]  # nobody knew of the second one
    assert machine.read(across, 2 * SUB) == CONTENT[across : across + 2 * SUB]
    assert len(machine.asked.asked) == 2


def test_nothing_is_seen_when_its_time_is_over(machine: Machine) -> None:
    sight = machine.disk.sight
    assert sight is not None
    machine.read(0, SUB)
    assert sight.known[0] > time.monotonic()
    sight.known[0] = time.monotonic()
    machine.read(0, SUB)
    assert len(machine.asked.asked) == 2


def test_only_golden_blocks_inside_the_image_are_seen(machine: Machine) -> None:
    machine.read(0, SUB)
    machine.read(SIZE - SUB, SUB)
    machine.disk.write(2 * SUB, b"own".ljust(SUB))
    machine.disk.zero(3 * SUB, SUB)
    machine.disk.unmap(4 * SUB, SUB)
    before = len(machine.asked.asked)
    assert machine.read(2 * SUB, SUB) == b"own".ljust(SUB)
    assert machine.read(3 * SUB, SUB) == machine.read(4 * SUB, SUB) == bytes(SUB)
    assert machine.read(SUB, 2 * SUB) == CONTENT[SUB : 2 * SUB] + b"own".ljust(SUB)
    assert machine.read(SIZE - SUB, 2 * SUB) == CONTENT[-SUB:] + bytes(SUB)
    assert machine.read(ROOM - SUB, SUB) == bytes(SUB)
    assert len(machine.asked.asked) == before + 6


def test_a_golden_disk_itself_is_seen(tmp_path: Path) -> None:
    machine = Machine(tmp_path, overlay=False)
    assert machine.read(SUB, SUB) == machine.read(SUB, SUB) == CONTENT[SUB : 2 * SUB]
    assert len(machine.asked.asked) == 1
    machine.close()
    assert machine.disk.sight is None


def test_less_than_was_asked_for_is_no_answer(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.asked, "at_once", lambda offset, length: b"short")
    asked = machine.command(0, SUB)
    assert machine.run(asked) == 0 and machine.session.take() == b""
    machine.session.breathe(memoryview(asked))
    (answer,) = read_pdus(machine.session.take())
    assert bytes(answer.data) == CONTENT[:SUB]


def test_what_is_written_and_read_in_one_breath_is_in_order(machine: Machine) -> None:
    machine.read(0, SUB)
    new = b"new!" * 1024
    chunk = [
        machine.command(SUB, SUB),
        machine.command(SUB, SUB, new),
        machine.command(SUB, SUB),
        machine.command(0, SUB),
    ]
    assert machine.run(*chunk) == sum(map(len, chunk))
    first, done, second, third = read_pdus(machine.session.take())
    assert bytes(first.data) == CONTENT[SUB : 2 * SUB] and bytes(second.data) == new
    assert bytes(third.data) == CONTENT[:SUB] and not done.data
    assert machine.bench.tally.writes == 1 and machine.bench.tally.write_bytes == SUB


def test_the_disk_can_grow_after_a_run_and_within_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No buffer of the disk is held while Python runs: a mapping that is held cannot grow."""
    machine.read(0, SUB)
    machine.disk.resize(ROOM + (1 << 20))
    write, size = machine.disk.write, iter((ROOM + (2 << 20), ROOM + (3 << 20)))

    def growing(offset: int, data: Buffer) -> None:
        worker = threading.Thread(target=machine.disk.resize, args=(next(size),))
        worker.start()
        worker.join(10)
        write(offset, data)

    monkeypatch.setattr(machine.disk, "write", growing)
    chunk = [
        *(machine.command(0, SUB), machine.command(SUB, SUB, b"x" * SUB)),
        *(machine.command(0, SUB), machine.command(2 * SUB, SUB, b"x" * SUB)),
        machine.command(0, SUB),
    ]
    assert machine.run(*chunk) == sum(map(len, chunk))
    assert machine.disk.size == ROOM + (3 << 20)


def test_blocks_of_the_disks_own_are_written_over_without_asking(machine: Machine) -> None:
    first, second = (letter * 2 * SUB for letter in (b"1", b"2"))
    for data in (first, second, first):
        assert machine.run(machine.command(SUB, 2 * SUB, data))
        assert machine.disk.read(SUB, 2 * SUB) == (data,)
        machine.disk.flush()
    assert machine.run(machine.command(1536, 512, b"1" * 512))  # inside what is golden
    assert machine.run(machine.command(2 * SUB, 2 * SUB, second))  # half of it is
    machine.disk.unmap(4 * SUB, SUB)
    assert machine.run(machine.command(4 * SUB, SUB, first[:SUB]))
    large = b"l" * (16 * SUB)
    for _ in range(2):
        assert machine.run(machine.command(16 * SUB, len(large), large))  # in pieces
    assert machine.asked.written == [
        *((SUB, 2 * SUB), (1536, 512), (2 * SUB, 2 * SUB), (4 * SUB, SUB)),
        *((16 * SUB, len(large)), (16 * SUB, len(large))),
    ]
    assert machine.bench.tally.writes == 8


def test_a_write_that_is_meant_as_a_whole_is_asked_for(machine: Machine) -> None:
    old, new = b"o" * SUB, b"n" * SUB
    machine.disk.write(SUB, old)
    machine.disk.intend(SUB, new)
    assert machine.run(machine.command(SUB, SUB, new))
    assert machine.asked.written == [(SUB, SUB)]
    machine.disk.flush()
    machine.disk.settle()
    assert machine.run(machine.command(SUB, SUB, old))
    assert len(machine.asked.written) == 1


def test_what_was_written_over_is_synced(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.disk.write(SUB, b"o" * SUB)
    machine.disk.flush()
    synced: list[int] = []
    monkeypatch.setattr("os.fdatasync", synced.append)
    machine.disk.flush()
    assert synced == []
    assert machine.run(machine.command(SUB, SUB, b"n" * SUB))
    assert machine.asked.written == []
    machine.disk.flush()
    assert len(synced) == 1


def test_a_write_that_fails_is_answered_for_by_who_knows_faults(machine: Machine) -> None:
    machine.disk.write(SUB, b"o" * SUB)
    sight = machine.disk.sight
    assert sight is not None and sight.own is not None
    sight.own.fd, kept = -1, sight.own.fd
    try:
        assert machine.run(machine.command(SUB, SUB, b"n" * SUB)) == 0
        assert machine.session.take() == b""
    finally:
        sight.own.fd = kept


def test_a_read_only_disk_is_not_written(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.disk.write(SUB, b"o" * SUB)
    machine.close()
    spec = DiskSpec(
        *(str(tmp_path / "golden.raw"), SIZE, "sha256:1", str(tmp_path / "client.qcow2")),
        read_only=True,
    )
    disk = attach(spec)
    assert disk.sight is not None and disk.sight.own is None
    disk.close()


def test_nothing_is_seen_of_a_disk_that_is_out_of_service(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.read(0, SUB)
    machine.disk.write(0, b"y" * SUB)

    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fdatasync", fails)
    with pytest.raises(DiskError):
        machine.disk.flush()
    monkeypatch.undo()
    assert machine.disk.sight is None
    assert machine.run(machine.command(SUB, SUB)) == 0


def test_a_sight_that_is_gone_is_none(machine: Machine) -> None:
    """Who closed the image without telling is found out, and nothing stays held."""
    golden = Golden(str(Path(machine.disk._path).with_name("golden.raw")))  # type: ignore[attr-defined]
    seen = golden.sight
    assert seen is not None
    sight = Sight(seen.image, seen.known, machine.disk.sight.cells)  # type: ignore[union-attr]
    golden.close()
    machine.disk.sight = sight  # type: ignore[misc]
    assert machine.run(machine.command(0, SUB)) == 48
    assert machine.asked.asked == [(0, SUB)]
    machine.disk.resize(ROOM + (1 << 20))


def test_the_numbers_of_storage_that_the_lane_has_too() -> None:
    assert (REGION_BITS, PIECE, SUB_BITS, GOLDEN, DATA) == (20, 16384, 12, 0, 1)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "write", "zero", "unmap"]),
        st.integers(0, ROOM // 512 - 1),
        st.sampled_from([1, 3, 8, 8, 16, 64, 512]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(moves=MOVES)
def test_whatever_was_done_the_same_is_read(
    moves: list[tuple[str, int, int]], tmp_path_factory: Any
) -> None:
    machine = Machine(tmp_path_factory.mktemp("lane"))
    model = bytearray(CONTENT.ljust(ROOM, b"\0"))
    try:
        for number, (verb, sector, count) in enumerate(moves):
            offset = sector * 512
            length = min(count * 512, ROOM - offset)
            if verb == "read":
                assert machine.read(offset, length) == model[offset : offset + length]
                continue
            data = random.Random(number).randbytes(length) if verb == "write" else bytes(length)
            if verb == "write" and length <= 1 << 16:
                assert machine.run(machine.command(offset, length, data))
                machine.session.take()
            elif verb == "write":
                machine.disk.write(offset, data)
            else:
                getattr(machine.disk, verb)(offset, length)
            model[offset : offset + length] = data
    finally:
        machine.close()


def test_a_disk_that_fails_within_a_run_is_asked_from_then_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread's flush may find out while a write lets it run."""
    machine.disk.write(2 * SUB, b"o" * SUB)
    write = machine.disk.write

    def failing(offset: int, data: Buffer) -> None:
        write(offset, data)
        machine.disk.sight = None  # type: ignore[misc]

    monkeypatch.setattr(machine.disk, "write", failing)
    chunk = [machine.command(at * SUB, SUB, b"n" * SUB) for at in (1, 2)]
    assert machine.run(*chunk) == sum(map(len, chunk))
    assert machine.asked.written == [(SUB, SUB), (2 * SUB, SUB)]

"""Random verbs on one disk, recorded with what each of them promises."""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from netboot.model import DiskSpec, OverlayMode
from netboot.service import ledger
from netboot.storage import qcow2
from netboot.storage.attach import attach
from netboot.storage.disk import DiskError, Fault
from tests.crash.expected import SECTOR
from tests.crash.platter import Event, Replay
from tests.crash.recorder import Recorder

SIZE = 3 * qcow2.CLUSTER + 5 * SECTOR  # no whole number of clusters, nor of sub-clusters
LARGEST = 7 * qcow2.CLUSTER
LENGTHS = (512, 1024, 4096, 12288, 65536, 139776)
STEPS = 60


@dataclass(slots=True)
class Bench:
    """One golden image, and one client's overlay over it."""

    folder: Path
    content: bytes
    generation: int = 0
    room: int = 0  #: bytes that a fresh overlay has at least
    path: Path = field(init=False)
    golden: Path = field(init=False)  #: one of the two names that the image has

    def __post_init__(self) -> None:
        self.golden = self.folder / "golden.raw"
        self.golden.write_bytes(self.content)
        (self.folder / "moved-golden.raw").hardlink_to(self.golden)
        self.path = self.folder / "disk" / "client.qcow2"
        self.path.parent.mkdir()

    def attach(self) -> Any:
        return attach(
            DiskSpec(
                *(str(self.golden), len(self.content), "sha256:" + "ab" * 32, str(self.path)),
                generation=self.generation,
                room=self.room,
            )
        )


class Trace:
    """Random verbs on one disk, recorded."""

    def __init__(self, bench: Bench, seed: int, broken: str = "") -> None:
        self.bench = bench
        self.dice = random.Random(seed)
        self.recorder = Recorder(bench.path.parent, broken)
        self.verbs: Counter[str] = Counter()
        self.now = bytearray(bench.content)
        self._busy = range(0)
        self._flushes = self._meant = 0
        self._between = False  #: something may come between two calls of a verb
        overtaking = self.dice.randrange(3)
        if overtaking == 1:
            self.recorder.before_sync = self._write_meanwhile
        elif overtaking == 2:
            self.recorder.after_write = self._flush_meanwhile
        if self.dice.random() < 0.3:
            self.recorder.is_full = self._is_full

    def record(self, steps: int = STEPS) -> list[Event]:
        """The events; the disk is closed afterwards, in order, without anybody listening."""
        verbs = (self.write, self.fua, self.same, self.zero, self.unmap, self.flush, self.atomic)
        rare = (self.kill, self.stop, self.reset, self.renew, self.resize, self.resize, self.move)
        with self.recorder.listening():
            self.disk = self.bench.attach()
            for _ in range(steps):
                chosen = self.dice.choices(verbs, (8, 2, 2, 2, 3, 4, 2))[0]
                if self.dice.random() < 0.11:
                    chosen = self.dice.choice(rare)
                self.verbs[chosen.__name__] += 1
                chosen()
            self.flush()
        self.recorder.is_full = lambda number, offset: False
        content = b"".join(self.disk.read(0, self.disk.size))
        assert content == self.now, "not even without a power cut"
        self.disk.close()
        return self.recorder.events

    def _place(self) -> tuple[int, int]:
        size = len(self.now)
        offset = self.dice.randrange(size // SECTOR) * SECTOR
        return offset, min(self.dice.choice(LENGTHS), size - offset)

    def _changing(self, offset: int, data: bytes) -> None:
        self.now[offset : offset + len(data)] = data
        self.recorder.note(lambda at: at.expected.begin_change(offset, data))

    def _put(self, offset: int, data: bytes) -> None:
        before = self._busy
        self._changing(offset, data)
        self._busy = range(offset // SECTOR, (offset + len(data)) // SECTOR)
        self.disk.write(offset, data)
        self._busy = before

    # The verbs.

    def write(self) -> None:
        offset, length = self._place()
        self._overtakable(lambda: self._put(offset, self.dice.randbytes(length)))

    def fua(self) -> None:
        self.write()
        self.flush()

    def same(self) -> None:
        """WRITE SAME of a block that is not zeros."""
        offset, length = self._place()
        self._put(offset, self.dice.randbytes(SECTOR) * (length // SECTOR))

    def zero(self) -> None:
        """WRITE SAME of zeros."""
        offset, length = self._place()
        self._changing(offset, bytes(length))
        self.disk.zero(offset, length)

    def unmap(self) -> None:
        offset, length = self._place()
        self._changing(offset, bytes(length))
        self.disk.unmap(offset, length)

    def flush(self) -> None:
        self._overtakable(lambda: self._flushing(self.disk.flush))

    def atomic(self) -> None:
        """WRITE ATOMIC, as ``iscsi.jobs`` does it, with others who come to the same blocks."""
        offset, length = self._place()
        data = self.dice.randbytes(length)
        number = self._mean(offset, data)
        try:
            self._overtakable(lambda: self.disk.intend(offset, data))
        except DiskError as problem:  # an earlier one finds no room still
            assert problem.fault is Fault.SPACE, problem
            self.verbs["full"] += 1
            self.recorder.note(lambda at: at.expected.give_up(at.atomics.pop(number)))
            return
        if self.dice.random() < 0.1:
            self._changing(offset, data)  # whoever opens the disk does it, after all others
            self.kill()
            self.recorder.note(lambda at: setattr(at.atomics[number], "written", True))
            return
        self._overtakable(lambda: self._put(offset, data))
        self.recorder.note(lambda at: setattr(at.atomics[number], "written", True))
        if self.dice.random() < 0.5:
            over = offset + self.dice.randrange(length // SECTOR) * SECTOR
            self._put(over, self.dice.randbytes(min(2048, offset + length - over)))
        if self.dice.random() < 0.2:
            self.kill()
        elif self._overtakable(lambda: self._flushing(self.disk.flush)):
            self.disk.settle()

    def _mean(self, offset: int, data: bytes) -> int:
        self._meant += 1
        number = self._meant

        def begin(at: Replay) -> None:
            at.atomics[number] = at.expected.begin_atomic(offset, data)

        self.recorder.note(begin)
        return number

    def resize(self) -> None:
        """The operator lets the disk grow, while its machine goes on writing."""
        if len(self.now) >= LARGEST:
            return
        larger = len(self.now) + self.dice.randrange(1, 600) * SECTOR
        self.recorder.note(lambda at: at.expected.begin_resize(larger))
        self._overtakable(lambda: self.disk.resize(larger))
        self.recorder.note(lambda at: at.expected.end_resize())
        self.now += bytes(larger - len(self.now))

    def move(self) -> None:
        """The golden image has another name: the header is written anew."""
        self._end()
        name = "golden.raw" if self.bench.golden.name != "golden.raw" else "moved-golden.raw"
        self.bench.golden = self.bench.folder / name
        self.recorder.note(lambda at: setattr(at, "golden", name))
        self.disk = self.bench.attach()
        assert b"".join(self.disk.read(0, self.disk.size)) == self.now

    def _flushing(self, verb: Any) -> bool:
        self._flushes += 1
        number, busy = self._flushes, self._busy

        def begin(at: Replay) -> None:
            at.marks[number] = at.expected.begin_flush(busy)

        self.recorder.note(begin)
        try:
            verb()
        except DiskError as problem:  # nothing is promised then
            assert problem.fault is Fault.SPACE, problem
            self.verbs["full"] += 1
            return False
        self.recorder.note(lambda at: at.expected.end_flush(at.marks.pop(number)))
        return True

    def kill(self) -> None:
        """The disk process is killed; the next one goes on where it was."""
        self.disk._files.close()
        self.disk._release()
        self.disk = self.bench.attach()
        assert b"".join(self.disk.read(0, self.disk.size)) == self.now, "a kill lost a write"

    def stop(self) -> None:
        """The disk process ends in order; another one begins."""
        self._end()
        self.disk = self.bench.attach()

    def _end(self) -> None:
        self._flushing(self.disk.close)

    def reset(self) -> None:
        """The operator throws the overlay away; the next one may be larger."""
        room = self._fresh_size()

        def begin(at: Replay) -> None:
            at.room = room
            at.expected.begin_reset(room)

        self._end()
        self.recorder.note(begin)
        store: Any = SimpleNamespace(latest=lambda image: None, delete_overlay=lambda it: True)
        mode = OverlayMode.PERSISTENT
        named: Any = SimpleNamespace(
            mac="", image="", mode=mode, generation=0, path=str(self.bench.path)
        )
        ledger.discard(store, named)
        self.recorder.note(lambda at: at.expected.end_reset(room))
        self.disk = self.bench.attach()

    def _fresh_size(self) -> int:
        """Bytes of the next fresh disk, which is the one that is there from now on."""
        self.bench.room = SIZE + self.dice.choice((0, 0, 5 * SECTOR, 2 * qcow2.CLUSTER))
        self.now[:] = self.bench.content + bytes(self.bench.room - SIZE)
        return self.bench.room

    def renew(self) -> None:
        """A newer generation is asked for: whatever was there counts no more."""
        self._end()
        self.bench.generation += 1
        generation, room = self.bench.generation, self._fresh_size()

        def begin(at: Replay) -> None:
            at.generation, at.room = generation, room
            at.expected.end_reset(room)

        self.recorder.note(begin)
        self.disk = self.bench.attach()

    # What comes between.

    def _overtakable(self, verb: Any) -> Any:
        self._between = True
        try:
            return verb()
        finally:
            self._between = False

    def _is_full(self, number: int, offset: int) -> bool:
        """Now and then there is no room for an entry, nor when it is tried again."""
        is_entry = number in self.recorder.tables & self.recorder.begun and offset >= qcow2.L2
        return is_entry and self.dice.random() < 0.3

    def _write_meanwhile(self, number: int) -> None:
        """The owner writes while a worker is about to sync."""
        if self._between and self.dice.random() < 0.6:
            self._between = False
            offset, length = self._place()
            self._put(offset, self.dice.randbytes(min(length, 16384 - 512)))
            self._between = True

    def _flush_meanwhile(self, number: int) -> None:
        """A worker flushes when a write has put its data down and not yet said so."""
        if self._between and number in self.recorder.data and self.dice.random() < 0.5:
            self._between = False
            self._flushing(self.disk.flush)
            self._between = True

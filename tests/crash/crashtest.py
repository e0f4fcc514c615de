"""Power cuts by the thousand: what was flushed is there, and the overlay is whole.

    make crashtest                       10,000 crash images or 4 minutes, whichever is first
    crashtest.py --seed 7 --images 50000 --seconds 3000

A trace is recorded of random verbs on a disk in a folder: what the verbs did to files, call by
call, below them. It is then done again on a simulated platter (see ``platter``), and between
any two calls the power may fail. Each image that this leaves is put in the place of the files
and judged three times: ``qemu-img check`` finds nothing, the disk opens, and each sector reads as
at the last flush or as it was written since. Of each eighth, QEMU must read what we read.

The controls are the same with one thing broken in the layer below: each must be caught.
Exit 0 when no image is wrong, each control was caught, and there were 1,000 images at least.
"""

import argparse
import contextlib
import errno
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from netboot.errors import ImageError
from netboot.model import DiskSpec, OverlayMode
from netboot.service import ledger
from netboot.storage import durable as durable_module
from netboot.storage import live, qcow2
from netboot.storage.attach import attach
from netboot.storage.disk import DiskError, Fault
from netboot.storage.parts import sibling

sys.path.insert(0, str(Path(__file__).parent))
from platter import SECTOR, Event, File, Replay

SIZE = 3 * qcow2.CLUSTER + 5 * SECTOR  # no whole number of clusters, nor of sub-clusters
LENGTHS = (512, 1024, 4096, 12288, 65536, 139776)
STEPS = 60
IMAGES_OF_A_TRACE = 40
#: Below this many the run has not shown what it is there to show.
BAR = 1000
COMPARE_EACH = 8

#: What is broken on purpose, and what that is.
CONTROLS = {
    "late-data": "data is synced only after the entries that speak of it",
    "no-data-sync": "the data file is never synced",
    "no-entry-sync": "entries are never synced",
    "no-names": "the folder is never synced",
    "stray-entry": "an entry of 16 bytes lands 8 bytes late",
}


@dataclass(slots=True)
class Bench:
    """One golden image, and one client's overlay over it."""

    folder: Path
    content: bytes
    generation: int = 0
    path: Path = field(init=False)
    golden: Path = field(init=False)

    def __post_init__(self) -> None:
        self.golden = self.folder / "golden.raw"
        self.golden.write_bytes(self.content)
        self.path = self.folder / "disk" / "client.qcow2"
        self.path.parent.mkdir()

    def attach(self) -> Any:
        return attach(
            DiskSpec(
                *(str(self.golden), len(self.content), "sha256:" + "ab" * 32, str(self.path)),
                generation=self.generation,
            )
        )


class Recorder:
    """Listens below the file calls of this process, and writes down what concerns ``folder``."""

    def __init__(self, folder: Path, broken: str = "") -> None:
        self.folder = str(folder)
        self.broken = broken
        self.events: list[Event] = []
        self.calls: list[int] = []  #: which events are calls: the power may fail before each
        self._files: dict[int, int] = {}  #: descriptor → number of the file
        self._inodes: dict[int, int] = {}
        self._late: list[int] = []
        self._begun: set[int] = set()  #: synced once: a header is there
        self.data: set[int] = set()
        self.before_sync = self.after_write = lambda number: None
        self.is_full: Callable[[int, int], bool] = lambda number, offset: False

    def note(self, event: Event) -> None:
        self.events.append(event)

    def call(self, event: Event) -> None:
        self.calls.append(len(self.events))
        self.events.append(event)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        names = ("open", "close", "pwrite", "ftruncate", "fdatasync", "fsync")
        names += ("link", "rename", "unlink")
        with contextlib.ExitStack() as stack:
            for name in names:
                hook = getattr(self, f"_{name}")
                stack.enter_context(mock.patch.object(os, name, self._around(hook, name)))
            punch = self._around(self._punch, "", durable_module.punch)
            stack.enter_context(mock.patch.object(durable_module, "punch", punch))
            yield

    def _around(self, hook: Any, name: str, real: Any = None) -> Any:
        real = real or getattr(os, name)
        return lambda *arguments, **options: hook(real, *arguments, **options)

    def _inside(self, path: Any) -> str | None:
        folder, name = os.path.split(str(path))
        return name if folder == self.folder else None

    def _open(self, real: Any, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        name = self._inside(path)
        fresh = name is not None and flags & os.O_CREAT and not os.path.exists(path)
        handle: int = real(path, flags, *rest, **options)
        if str(path) == self.folder:
            self._files[handle] = -1
        if name is None:
            return handle
        inode = os.fstat(handle).st_ino
        if fresh:
            number = self._inodes[inode] = len(self.events)
            if name.endswith(".data"):
                self.data.add(number)

            def create(at: Replay) -> None:
                at.files[number] = File()
                at.folder.put(name, at.files[number])

            self.call(create)
        number = self._files[handle] = self._inodes[inode]
        if flags & os.O_TRUNC:
            self.call(lambda at: at.files[number].truncate(0))
        return handle

    def _close(self, real: Any, handle: int) -> None:
        self._files.pop(handle, None)
        real(handle)

    def _pwrite(self, real: Any, handle: int, data: Any, offset: int) -> int:
        number = self._files.get(handle)
        if number is not None and self.is_full(number, offset):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done: int = real(handle, data, offset)
        if number is not None:
            copy, at = bytes(data)[:done], offset
            if self.broken == "stray-entry" and offset >= qcow2.L2 and number not in self.data:
                at += 8
            self.call(lambda replay: replay.files[number].write(at, copy))
            self.after_write(number)
        return done

    def _ftruncate(self, real: Any, handle: int, size: int) -> None:
        real(handle, size)
        number = self._files.get(handle)
        if number is not None:
            self.call(lambda at: at.files[number].truncate(size))

    def _fdatasync(self, real: Any, handle: int) -> None:
        number = self._files.get(handle)
        if number is None:
            real(handle)  # nothing to learn from the real platter: it would only take its time
            return
        self.before_sync(number)
        is_data = number in self.data
        if self.broken == "late-data" and is_data:
            self._late.append(number)
        elif not (
            (self.broken == "no-data-sync" and is_data)
            or (self.broken == "no-entry-sync" and not is_data and number in self._begun)
        ):
            self._begun.add(number)
            self.call(lambda at: at.files[number].sync())
            for late in self._late:
                self.call(lambda at, late=late: at.files[late].sync())
            self._late.clear()

    def _fsync(self, real: Any, handle: int) -> None:
        if self._files.get(handle) != -1:
            self._fdatasync(real, handle)
        elif self.broken != "no-names":
            self.call(lambda at: at.folder.sync())

    def _link(self, real: Any, old: Any, new: Any) -> None:
        real(old, new)
        self._named(self._inside(old), self._inside(new))

    def _rename(self, real: Any, old: Any, new: Any) -> None:
        real(old, new)
        before, after = self._inside(old), self._inside(new)

        def rename(at: Replay) -> None:
            at.folder.put(after or "", at.folder.find(before or ""))
            at.folder.put(before or "", None)

        self.call(rename)

    def _named(self, old: str | None, new: str | None) -> None:
        self.call(lambda at: at.folder.put(new or "", at.folder.find(old or "")))

    def _unlink(self, real: Any, path: Any, **options: Any) -> None:
        real(path, **options)
        name = self._inside(path)
        if name is not None:
            self.call(lambda at: at.folder.put(name, None))

    def _punch(self, real: Any, handle: int, offset: int, length: int) -> None:
        real(handle, offset, length)
        number = self._files.get(handle)
        if number is not None:
            self.call(lambda at: at.files[number].write(offset, bytes(length)))


class Trace:
    """Random verbs on one disk, recorded."""

    def __init__(self, bench: Bench, seed: int, broken: str = "") -> None:
        self.bench = bench
        self.dice = random.Random(seed)
        self.recorder = Recorder(bench.path.parent, broken)
        self.verbs: Counter[str] = Counter()
        self.now = bytearray(bench.content)
        self._busy = range(0)
        self._flushes = 0
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
        verbs = (self.write, self.fua, self.same, self.zero, self.unmap, self.flush)
        rare = (self.kill, self.stop, self.reset, self.renew)
        with self.recorder.listening():
            self.disk = self.bench.attach()
            for _ in range(steps):
                chosen = self.dice.choices(verbs, (8, 2, 2, 2, 3, 4))[0]
                if self.dice.random() < 0.08:
                    chosen = self.dice.choice(rare)
                self.verbs[chosen.__name__] += 1
                chosen()
            self.flush()
        self.recorder.is_full = lambda number, offset: False
        content = b"".join(self.disk.read(0, SIZE))
        assert content == self.now, "not even without a power cut"
        self.disk.close()
        return self.recorder.events

    def _place(self) -> tuple[int, int]:
        offset = self.dice.randrange(SIZE // SECTOR) * SECTOR
        return offset, min(self.dice.choice(LENGTHS), SIZE - offset)

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

    def _flushing(self, verb: Any) -> None:
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
            return
        self.recorder.note(lambda at: at.expected.end_flush(at.marks.pop(number)))

    def kill(self) -> None:
        """The disk process is killed; the next one goes on where it was."""
        self.disk._files.close()
        self.disk._release()
        self.disk = self.bench.attach()
        assert b"".join(self.disk.read(0, SIZE)) == self.now, "a kill lost a write"

    def stop(self) -> None:
        """The disk process ends in order; another one begins."""
        self._end()
        self.disk = self.bench.attach()

    def _end(self) -> None:
        self._flushing(self.disk.close)

    def reset(self) -> None:
        """The operator throws the overlay away."""

        def begin(at: Replay) -> None:
            at.expected.begin_reset()
            at.refusable = True

        def end(at: Replay) -> None:
            at.expected.end_reset()
            at.refusable = False

        self._end()
        self.recorder.note(begin)
        store: Any = SimpleNamespace(latest=lambda image: None, delete_overlay=lambda it: True)
        mode = OverlayMode.PERSISTENT
        named: Any = SimpleNamespace(
            mac="", image="", mode=mode, generation=0, path=str(self.bench.path)
        )
        ledger.discard(store, named)
        self.recorder.note(end)
        self.now[:] = self.bench.content
        self.disk = self.bench.attach()

    def renew(self) -> None:
        """A newer generation is asked for: whatever was there counts no more."""
        self._end()
        self.bench.generation += 1
        generation = self.bench.generation

        def begin(at: Replay) -> None:
            at.generation = generation
            at.expected.end_reset()

        self.recorder.note(begin)
        self.now[:] = self.bench.content
        self.disk = self.bench.attach()

    # What comes between.

    def _overtakable(self, verb: Any) -> None:
        self._between = True
        verb()
        self._between = False

    def _is_full(self, number: int, offset: int) -> bool:
        """Now and then there is no room for an entry, nor when it is tried again."""
        is_entry = number not in self.recorder.data and offset >= qcow2.L2
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


@dataclass(slots=True)
class Outcome:
    """What one trace has shown."""

    images: int = 0
    checked: int = 0  #: by qemu-img check
    compared: int = 0  #: read by QEMU as by us
    refused: int = 0  #: rightly, within a reset
    calls: int = 0
    verbs: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def run(seed: int, images: int = IMAGES_OF_A_TRACE, broken: str = "") -> Outcome:
    """Record one trace, cut the power ``images`` times in it, judge what each left."""
    dice = random.Random(seed * 7919 + 1)
    with tempfile.TemporaryDirectory(prefix="crashtest-", dir=scratch()) as name:
        bench = Bench(Path(name), random.Random(seed).randbytes(SIZE))
        trace = Trace(bench, seed, broken)
        try:
            events = trace.record()
        except Exception:
            return Outcome(faults=[f"seed {seed}, no power cut yet: {traceback.format_exc()}"])
        calls = trace.recorder.calls
        outcome = Outcome(calls=len(calls), verbs=trace.verbs)
        cuts = Counter(dice.choices([*calls, len(events)], k=images))
        replay = Replay(bench.content)
        for at, event in enumerate([*events, None]):
            for _ in range(cuts[at]):
                fault = judge(bench, replay, dice, outcome)
                if fault:
                    outcome.faults.append(f"seed {seed}, call {at} of {len(events)}: {fault}")
                    if broken:
                        return outcome
            if event is not None:
                event(replay)
    return outcome


def judge(bench: Bench, replay: Replay, dice: random.Random, outcome: Outcome) -> str:
    """Put an image in the place of the files and look at it; what is wrong with it."""
    outcome.images += 1
    disk_folder = bench.path.parent
    for old in disk_folder.iterdir():
        old.unlink()
    for name, content in replay.after_power_cut(dice).items():
        (disk_folder / name).write_bytes(content)
    bench.generation = replay.generation
    if bench.path.exists() and Path(sibling(str(bench.path), ".data")).exists():
        outcome.checked += 1
        words = qemu_img("check", bench.path)
        if words:
            return f"qemu-img check: {words}"
    try:
        with mock.patch.object(live, "boot_id", lambda: b"after-the-power-cut".ljust(36, b".")):
            disk = bench.attach()
    except ImageError as problem:
        if replay.refusable:
            outcome.refused += 1
            return ""
        return str(problem)
    try:
        content = b"".join(disk.read(0, SIZE))
    finally:
        disk.close()
    wrong = replay.expected.wrong(content)
    if wrong:
        return f"{len(wrong)} sectors, the first {wrong[0]}, are neither old nor new"
    if outcome.images % COMPARE_EACH == 0:
        outcome.compared += 1
        ours = bench.folder / "ours.raw"
        ours.write_bytes(content)
        words = qemu_img("compare", "-f", "qcow2", "-F", "raw", bench.path, ours)
        if words:
            return f"qemu-img compare: {words}"
    return ""


def qemu_img(verb: str, *arguments: object) -> str:
    """What the program complains of; nothing when it is content."""
    done = subprocess.run(
        ["qemu-img", verb, "-q", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    words = (done.stdout + done.stderr).strip().replace("\n", "; ")
    return "" if done.returncode == 0 and not words else words or f"exit {done.returncode}"


def scratch() -> str | None:
    """Memory, where there is some: the platter is simulated anyway."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def control(job: tuple[int, str]) -> tuple[str, int, str]:
    """How many images it took until the broken layer was caught, and by what; 0: never."""
    seed, broken = job
    seen = 0
    for number in range(25):
        outcome = run(seed + number, broken=broken)
        seen += outcome.images
        if outcome.faults:
            return broken, seen, outcome.faults[0]
    return broken, 0, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="another seed, other traces")
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=240.0, help="begin no trace after this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    begun = time.monotonic()
    total = Outcome()
    traces = -(-options.images // IMAGES_OF_A_TRACE)
    first = options.seed * 1_000_000
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        caught = pool.imap(control, [(first, broken) for broken in CONTROLS])
        missed = 0
        for broken, images, fault in caught:
            missed += not images
            words = f"caught by image {images}: {fault}" if images else "NOT CAUGHT"
            print(f"control {broken} ({CONTROLS[broken]}): {words}", flush=True)
        done = 0
        for outcome in pool.imap_unordered(run, range(first, first + traces)):
            done += 1
            total.images += outcome.images
            total.checked += outcome.checked
            total.compared += outcome.compared
            total.refused += outcome.refused
            total.calls += outcome.calls
            total.verbs += outcome.verbs
            total.faults += outcome.faults
            for fault in outcome.faults:
                print(f"FAULT {fault}", flush=True)
            spent = time.monotonic() - begun
            if done % 10 == 0 or done == traces:
                print(f"{done}/{traces} traces, {total.images} images, {spent:.0f} s", flush=True)
            if spent > options.seconds:
                print(f"time is up after {done} of {traces} traces", flush=True)
                break
        pool.terminate()
    verbs = ", ".join(f"{count} {verb}" for verb, count in sorted(total.verbs.items()))
    print(f"seed {options.seed}: {total.images} crash images of {done} traces: {verbs}")
    print(f"{total.calls} calls below; {total.checked} images with files checked by qemu-img")
    print(f"{total.compared} read by QEMU as by us; {total.refused} refused within a reset")
    print(f"{len(total.faults)} faults; {missed} of {len(CONTROLS)} controls missed; ", end="")
    print(f"{time.monotonic() - begun:.0f} s")
    return int(bool(total.faults or missed or total.images < BAR))


if __name__ == "__main__":
    sys.exit(main())

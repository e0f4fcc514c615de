"""Power cuts by the thousand: what was flushed is there, and the overlay is whole.

    make crashtest                       10,000 crash images or 2 minutes, whichever is first
    python -m tests.crash.crashtest --seed 7 --images 50000 --seconds 3000

A trace is recorded of random verbs on a disk in a folder: what the verbs did to files, call by
call, below them. It is then done again on a simulated platter (see ``platter``), and between
any two calls the power may fail. Each image that this leaves is put in the place of the files
and judged three times: ``qemu-img check`` finds nothing, the disk opens, and each sector reads as
at the last flush or as it was written since. Of each eighth, QEMU must read what we read.

The controls are the same with one thing broken in the layer below: each must be caught.
Exit 0 when no image is wrong, each control was caught, and there were 1,000 images at least.
"""

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from netboot.errors import ImageError
from netboot.storage import live
from netboot.storage.parts import sibling
from tests import ending
from tests.crash.platter import Replay
from tests.crash.recorder import CONTROLS
from tests.crash.verbs import SIZE, STEPS, Bench, Trace

__all__ = ["CONTROLS", "STEPS", "run"]

IMAGES_OF_A_TRACE = 40
#: Below this many the run has not shown what it is there to show.
BAR = 1000
COMPARE_EACH = 8


@dataclass(slots=True)
class Outcome:
    """What one trace has shown."""

    images: int = 0
    checked: int = 0  #: by qemu-img check
    compared: int = 0  #: read by QEMU as by us
    calls: int = 0
    verbs: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def run(seed: int, images: int = IMAGES_OF_A_TRACE, broken: str = "") -> Outcome:
    """Record one trace, cut the power ``images`` times in it, judge what each left."""
    dice = random.Random(seed * 7919 + 1)
    with tempfile.TemporaryDirectory(prefix=f"crashtest-{os.getpid()}-", dir=scratch()) as name:
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
    bench.room, bench.golden = replay.room, bench.folder / (replay.golden or "golden.raw")
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
        return str(problem)
    try:
        content = b"".join(disk.read(0, disk.size))
    finally:
        disk.close()
    wrong = replay.expected.wrong(content)
    if wrong:
        return wrong
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
    parser.add_argument("--seconds", type=float, default=120.0, help="begin no trace after this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    begun = time.monotonic()
    total = Outcome()
    traces = -(-options.images // IMAGES_OF_A_TRACE)
    first = options.seed * 1_000_000
    ending.unwinds()
    # Its processes are told to end, too: by us, and when the time is up in the middle of a trace.
    with multiprocessing.get_context("spawn").Pool(options.jobs, ending.unwinds) as pool:
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
    print(f"{total.compared} read by QEMU as by us")
    print(f"{len(total.faults)} faults; {missed} of {len(CONTROLS)} controls missed; ", end="")
    print(f"{time.monotonic() - begun:.0f} s")
    return int(bool(total.faults or missed or total.images < BAR))


if __name__ == "__main__":
    sys.exit(main())

"""Our processes are killed under a guest that writes: it sees no error, and nothing is missing.

    make killtest                              20 kills of each process, and some of both at once
    python -m tests.kill.killtest --kills 5 --seed 7 --overlay ephemeral
    python -m tests.kill.killtest --control    the control: what was not synced is thrown away

A machine in QEMU boots from its overlay, its disk process being killed twice, and writes numbered
records, each synced before it is acknowledged on the serial line, which needs no disk; beside
them blocks that nobody syncs, and a file through the page cache. Meanwhile ``kill -9`` strikes the
disk process, the control process, or both, at times that the seed decides. At the end the guest
reads all of it from its disk; then writes on, until its plug is pulled; boots again, and finds
every acknowledged record. Last, its overlay is judged from outside: by qemu-img, by e2fsck, and
record by record.

Exit 0 when nothing is missing and the guest saw no error; with --control, when that was noticed.
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netboot.cli.image import ensure
from netboot.cli.options import Place, place
from netboot.errors import LabError
from netboot.events import Phase
from netboot.lab import namespace
from netboot.lab.console import Console, ConsoleError
from netboot.lab.machine import Machine
from netboot.lab.run import Lab, borrow, scratch
from netboot.lab.service import Settings
from netboot.model import Version
from tests import ending
from tests.kill.records import (
    LOOSE,
    LOOSE_BLOCK,
    Blow,
    Kind,
    Moment,
    judge,
    judge_loose,
    loose,
    pauses,
    plan,
)

CLONE = Path(__file__).parents[2]
ONE = Machine("ws1", "52:54:00:6e:62:01", "tap0", cores=2)
WRITER = Path(__file__).with_name("writer.pl")
BOOT = 240
#: Seconds without an acknowledged record after which the guest is taken for lost.
PATIENCE = 120.0
#: Where the golden image's root file system begins: bytes.
ROOT = 32 << 20

#: Blocks straight to the disk, that nobody syncs; now and then some through the page cache.
LOOSE_WRITER = f"""
i=0
until test -e /run/stop; do
    i=$((i + 1)); slot=$((i % {LOOSE}))
    yes "loose $i" | head -c {LOOSE_BLOCK} > /run/block
    if dd if=/run/block of=/root/kill/loose bs={LOOSE_BLOCK} seek=$slot conv=notrunc oflag=direct
    then echo $i > /run/loose.$slot; else echo "unsynced block $i" >> /run/failures; fi
    if test $((i % 20)) = 0; then
        dd if=/dev/urandom of=/root/kill/bulk bs=1M count=4 conv=notrunc ||
            echo "cached block $i" >> /run/failures
    fi
    sleep 0.1
done
echo $i > /run/loose.end
"""
#: What a kernel says when I/O has failed; that a connection was lost is no failure.
ERRORS = (
    "I/O error|EXT4-fs (error|warning)|Aborting journal|Remounting filesystem|Sense Key|"
    "blocked for more than|rejecting I/O|Medium Error"
)
LOST = "detected conn error"


class Missed(LabError):
    """The guest saw an error, or something is missing: what this test is there to find."""


@dataclass(slots=True)
class Watch:
    """The guest's acknowledgments, as its serial line shows them."""

    console: Console
    begun: int = 0  #: the record that is being synced
    acknowledged: int = 0
    times: list[float] = field(default_factory=list)  #: of each acknowledgment
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def during(self, work: Coroutine[None, None, None], within: float) -> None:
        """Follow the line until ``work`` is done; its error, or that of the guest."""
        tasks = [asyncio.create_task(self.follow()), asyncio.create_task(work)]
        try:
            done, _ = await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not done:
                raise Missed(f"no end in {within:.0f} s; {self.acknowledged} records so far")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def follow(self) -> None:
        """Read the line until cancelled. Missed when a record failed, or none comes any more."""
        while True:
            pattern = r"rec-(sync|done|fail) (\d+)([^\n]*)\n"
            try:
                match = await self.console.expect(pattern, PATIENCE, "record")
            except ConsoleError as error:
                raise Missed(f"the guest stands still: {error}") from None
            verb, number = match[1].decode(), int(match[2])
            if verb == "fail":
                raise Missed(f"record {number} could not be written:{match[3].decode()}")
            if self.times and number != self.acknowledged + 1:
                raise LabError(f"the serial line jumped from {self.acknowledged} to {number}")
            async with self._news:
                if verb == "done":
                    self.acknowledged = number
                    self.times.append(time.monotonic())
                else:
                    self.begun = number
                self._news.notify_all()

    async def next_sync(self) -> None:
        """Return when the guest begins to sync another record."""
        begun = self.begun
        async with self._news:
            await self._news.wait_for(lambda: self.begun > begun)

    async def goes_on(self) -> None:
        """Return when a record was acknowledged whose sync has begun after this call."""
        begun = self.begun
        async with self._news:
            await self._news.wait_for(lambda: self.acknowledged > begun)


@dataclass(slots=True)
class Outcome:
    """What was measured."""

    booting: int = 0  #: kills while the machine booted
    fallen: list[tuple[float, Blow]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)  #: seconds until another disk process was there
    acknowledged: int = 0
    loose: int = 0  #: unsynced blocks that were written
    lost: int = 0  #: connections, by the guest's kernel log
    again: bool = False  #: the guest was read again after a pulled plug and another boot
    outside: int = 0  #: records that were read from outside

    def kinds(self) -> dict[Kind, list[float]]:
        """The pauses after the blows of each kind; seconds."""
        return pauses(self.times, [(at, blow.kind) for at, blow in self.fallen])


class Killing:
    """One lab with one machine, and who strikes at our processes below it."""

    def __init__(self, lab: Lab, *, control: bool = False) -> None:
        """``control``: at each kill of the disk process, what was not synced is thrown away."""
        self.lab = lab
        self.outcome = Outcome()
        self._control = control
        self._killed: list[int] = []
        self._loose: dict[int, int] = {}
        self._bulk = ""

    # The guest.

    async def boot(self, kills: int = 0) -> Console:
        """The machine, with our writer in it; so many kills while its firmware reads."""
        console = await self.lab.power_on(ONE)
        for _ in range(kills):
            async with asyncio.timeout(BOOT):
                while await self.lab.last_phase(ONE.mac) != Phase.READING.label:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)
            await self._strike(Blow(Kind.DISK, Moment.ANY, 0.0, 0.0), await self.disk_process())
        try:
            await console.up(BOOT)
        except ConsoleError as error:
            raise Missed(f"killed {kills} times while it booted: {error}") from None
        if kills:  # the others are those that fall while it writes
            self.outcome.booting, self.outcome.fallen = kills, []
        await console.run(f"cat > /run/writer <<'E'\n{WRITER.read_text()}\nE\nmkdir -p /root/kill")
        return console

    async def begin(self, console: Console, first: int) -> Watch:
        """The guest writes, from this record on."""
        words = f"perl /run/writer /root/kill {first} /run/stop /dev/ttyS0 > /run/end.new 2>&1"
        await console.run(
            f"rm -f /run/stop /run/end; nohup sh -c '{words}; mv /run/end.new /run/end' "
            "> /dev/null 2>&1 & true"
        )
        return Watch(console, begun=first - 1, acknowledged=first - 1)

    async def begin_loose(self, console: Console) -> None:
        """And it writes what nobody syncs."""
        await console.run(
            f"cd /root/kill; dd if=/dev/zero of=loose bs={LOOSE_BLOCK} count={LOOSE} 2>&1; "
            "head -c 32M /dev/urandom > bulk; sync",
            120,
        )
        await console.run(f"cat > /run/loose <<'E'\n{LOOSE_WRITER}\nE")
        await console.run("nohup sh /run/loose > /dev/null 2>&1 & true")

    async def end(self, console: Console) -> None:
        """The guest has stopped writing, and says what it has written."""
        await console.run("touch /run/stop")
        await console.run(
            "until test -e /run/end && test -e /run/loose.end; do sleep 0.1; done", 180
        )
        self.outcome.acknowledged = int(await console.run("cat /run/end"))
        self.outcome.loose = int(await console.run("cat /run/loose.end"))
        last = "for x in /run/loose.[0-9]*; do echo ${x##*.} $(cat $x); done"
        words = (await console.run(last)).split()
        self._loose = dict(zip(map(int, words[::2]), map(int, words[1::2]), strict=True))
        self._bulk = await console.run("sha256sum < /root/kill/bulk", 60)
        await console.run("sync; echo 3 > /proc/sys/vm/drop_caches", 120)

    async def finds_all(self, console: Console) -> None:
        """The guest reads from its disk what it has written, and has seen no error."""
        count = self.outcome.acknowledged
        try:
            await console.run("! cat /run/failures 2> /dev/null")
            await console.run(f"perl /run/writer /root/kill {count}", 60 + count / 20)
            digests = await console.run(
                "cd /root/kill; for i in $(seq 0 15); do "
                f"dd if=loose bs={LOOSE_BLOCK} skip=$i count=1 2>/dev/null | sha256sum; done",
                120,
            )
            found = [line.split()[0] for line in digests.splitlines()]
            for slot, number in self._loose.items():
                if found[slot] != hashlib.sha256(loose(number)).hexdigest():
                    raise Missed(f"unsynced block {slot} is not write {number}")
            if await console.run("sha256sum < /root/kill/bulk", 120) != self._bulk:
                raise Missed("what went through the page cache is not what the disk has")
            await console.run(f"! dmesg | grep -E '{ERRORS}'")
            await console.run("! cat /sys/fs/ext4/*/errors_count | grep -v '^0$'")
            if "rw" not in (await console.run("findmnt -no OPTIONS /")).split(","):
                raise Missed("the guest's root file system is read-only")
            self.outcome.lost += int(await console.run(f"dmesg | grep -c '{LOST}' || true"))
        except ConsoleError as error:
            raise Missed(str(error)) from None

    async def pull_the_plug(self, console: Console) -> Console:
        """The guest writes on, ends in the middle of it, and boots again."""
        first = self.outcome.acknowledged + 1
        watch = await self.begin(console, first)

        async def some() -> None:
            while watch.acknowledged < first + 20:
                await watch.goes_on()

        await watch.during(some(), 120)
        await self.lab.power_off(ONE.name)
        self.outcome.acknowledged = watch.acknowledged
        return await self.boot()

    async def switch_off(self, console: Console) -> None:
        """The guest's file system is at rest, and the machine off."""
        await console.run("sync; echo u > /proc/sysrq-trigger", 120)
        await console.run("until findmnt -no OPTIONS / | grep -qw ro; do sleep 0.1; done", 60)
        await self.lab.power_off(ONE.name)

    # The blows.

    async def strike(self, watch: Watch, blows: Sequence[Blow]) -> None:
        """All the blows, one after the other; the guest goes on after the last."""
        for number, blow in enumerate(blows, 1):
            pid = await self.disk_process()  # also after both were killed
            if blow.moment is not Moment.AGAIN:
                await watch.goes_on()
            if blow.moment is Moment.FLUSH:
                await watch.next_sync()
            await asyncio.sleep(blow.wait)
            print(
                f"{number:4}  {blow.kind:17}{blow.moment:26}record {watch.acknowledged + 1}",
                flush=True,
            )
            await self._strike(blow, pid)
            if blow.kind is Kind.CONTROL and blow.moment is not Moment.AGAIN:
                await watch.goes_on()  # the disk process serves on, alone
                os.kill(pid, 0)
            if blow.kind is not Kind.DISK:
                await asyncio.sleep(blow.away)
                await self.lab.service.start()
            if blow.kind is Kind.DISK:
                await self.disk_process()
                self.outcome.back.append(time.monotonic() - self.outcome.fallen[-1][0])
        await watch.goes_on()

    async def _strike(self, blow: Blow, pid: int) -> None:
        self.outcome.fallen.append((time.monotonic(), blow))
        service = self.lab.service.process
        assert service is not None
        if blow.kind is not Kind.CONTROL:
            os.kill(pid, signal.SIGKILL)
            self._killed.append(pid)
            if self._control:
                for path in self.lab.settings.state.glob("overlays/*.live"):
                    path.unlink(missing_ok=True)
        if blow.kind is not Kind.DISK:
            service.kill()
            await service.wait()

    async def disk_process(self) -> int:
        """The pid of the guest's, once it is well and none of those that we have killed."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError):
                    pid = await self.lab.service.disk_process(ONE.mac)
                    if pid not in self._killed:
                        return pid
                await asyncio.sleep(0.05)

    # The judges outside.

    async def judged(self) -> None:
        """Service ended, machine off: what is in the overlay, by programs of others."""
        await self.lab.service.stop()
        (overlay,) = self.lab.settings.state.glob("overlays/*.qcow2")
        raw = self.lab.folder / "disk.raw"
        program("qemu-img", "check", overlay)
        program("qemu-img", "convert", "-O", "raw", overlay, raw)
        root = f"{raw}?offset={ROOT}"
        program("e2fsck", "-fn", root)
        records, slots, blocks = (
            program("debugfs", "-R", f"cat /root/kill/{name}", root)
            for name in ("records", "slots", "loose")
        )
        count = self.outcome.acknowledged
        wrong = judge(records, slots, count) + judge_loose(blocks, self._loose)
        if wrong:
            raise Missed(f"{len(wrong)} things are wrong, the first: {wrong[0]}")
        self.outcome.outside = count
        words = self.lab.service.log.read_text(errors="replace") + self.lab.service.disk_words()
        if "Traceback" in words:
            raise Missed(f"a log in {self.lab.settings.state} or beside it has a traceback")


def program(*words: str | Path) -> bytes:
    """What another program says; Missed when it is not content."""
    done = subprocess.run(words, capture_output=True, timeout=300)
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise Missed(f"{words[0]} {words[1]} ended with {done.returncode}: {said}")
    return done.stdout


async def scenario(
    lab: Lab,
    blows: Sequence[Blow],
    *,
    booting: int = 0,
    again: bool = False,
    control: bool = False,
) -> Outcome:
    """All of it. ``booting``: so many kills more while the machine boots; ``again``: with a
    pulled plug and another boot at the end."""
    async with lab:
        killing = Killing(lab, control=control)
        console = await killing.boot(booting)
        await killing.begin_loose(console)
        watch = await killing.begin(console, 1)
        await watch.during(killing.strike(watch, blows), 60 + 30 * len(blows))
        killing.outcome.times = watch.times
        await killing.end(console)
        await killing.finds_all(console)
        if again:
            console = await killing.pull_the_plug(console)
            await killing.finds_all(console)
            killing.outcome.again = True
        await killing.switch_off(console)
        await killing.judged()
        return killing.outcome


def figures(outcome: Outcome) -> str:
    """The outcome in lines for people."""
    seconds = outcome.times[-1] - outcome.times[0]
    all_pauses = [b - a for a, b in itertools.pairwise(outcome.times)]
    lines = [
        f"records acknowledged          {outcome.acknowledged} (in {seconds:.0f} s of blows: "
        f"{len(outcome.times)}; between two, median {statistics.median(all_pauses):.3f} s)",
        f"blocks written, never synced  {outcome.loose}",
    ]
    for kind, found in outcome.kinds().items():
        lines.append(
            f"kills: {kind:23}{len(found)}; pause after it: median "
            f"{statistics.median(found):.2f} s, longest {max(found):.2f} s"
        )
    reads = (
        "and once more after its plug was pulled" if outcome.again else "(its next boot is fresh)"
    )
    lines += [
        f"kills while firmware read     {outcome.booting}; it came up",
        f"longest pause of the guest    {max(all_pauses):.2f} s",
        f"another disk process was there after {statistics.median(outcome.back):.2f} s, at most "
        f"{max(outcome.back):.2f} s",
        f"connections the guest lost    {outcome.lost}",
        "errors the guest saw          0, in its programs, its kernel log, its file system",
        f"missing or wrong              0, read by the guest from its disk {reads}",
        f"read from outside             {outcome.outside} records, 0 wrong; "
        "qemu-img check and e2fsck: clean",
    ]
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> int:
    """Inside the namespaces."""
    version: Version = borrow("debian", library().folder)
    kills = arguments.kills
    if arguments.control:
        blows = plan(arguments.seed, kills, 0, 0)
    else:
        blows = plan(arguments.seed, kills, kills, max(1, kills // 5))
    print(
        f"seed {arguments.seed}: {len(blows)} kills of {version.image}'s {arguments.overlay} disk"
    )
    with scratch("netboot-kill-") as folder:
        settings = Settings(folder / "state", version.image, [ONE], overlay=arguments.overlay)
        lab = Lab(folder, settings, version)
        again = arguments.overlay == "persistent"
        try:
            outcome = ending.run(
                scenario(lab, blows, booting=2, again=again, control=arguments.control)
            )
        except Missed as error:
            if arguments.control:
                print(f"the control was caught: {error}")
                return 0
            raise
    print(figures(outcome))
    if arguments.control:
        print("the control was NOT caught: this test finds nothing", file=sys.stderr)
        return 1
    return 0


def library() -> Place:
    state = os.environ.get("NETBOOT_STATE")
    return place(Path(state) if state else None, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--overlay", choices=["persistent", "ephemeral"], default="persistent")
    parser.add_argument("--control", action="store_true", help="the negative control")
    arguments = parser.parse_args()
    ending.unwinds()
    try:
        if namespace.inside():
            return run(arguments)
        namespace.check()
        ensure(library(), "debian")
    except LabError as error:
        print(f"killtest: {error}", file=sys.stderr)
        return 1
    words = [sys.executable, "-m", "tests.kill.killtest", *sys.argv[1:]]
    return namespace.run(words, cwd=CLONE).returncode


if __name__ == "__main__":
    sys.exit(main())

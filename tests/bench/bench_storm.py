"""A whole lab switched on at eight o'clock: the boot of one machine, from a thousand at once.

    make bench-storm                    all of it: a quarter of an hour, 10 GB in build/
    python -m tests.bench.bench_storm --clients 1,16 --skip cold

Replays the recorded boot against our disk process, and against tgt with a copy for each client as
far as that fits; prints the table and the bars, writes ``docs/storm.md`` (a whole run only) and
``build/bench/storm.json``. Exit 1 when a bar is missed. All traffic stays on 127.0.0.1.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from netboot.errors import NetbootError
from netboot.lab.run import borrow
from netboot.service.warming import Warmer
from netboot.storage.prefetch import learned_path
from tests import ending
from tests.bench import storm_servers, storm_trace
from tests.bench.programs import BUILD, compiled
from tests.bench.storm_figures import (
    Run,
    Storm,
    bars,
    held,
    middle,
    page,
    pair,
    percentile,
    rows,
)
from tests.bench.storm_record import record
from tests.bench.storm_servers import Server
from tests.bench.storm_trace import BLOCK, READ, Step

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "storm.md"
TRACE = Path(__file__).with_name("debian-boot.trace")
#: A machine so many times as fast as the one that was recorded, which was emulated; µs.
QUICKER, LONGEST = 10, 20_000
CLIENTS = (1, 16, 64, 256, 1000)
COLD_CLIENTS = 64
#: So few clients boot in a breath, which says little: ``ROUNDS`` times, and the median counts.
SHORT = 16
#: Bytes and reads a second of a slow disk: a hard disk of a laptop.
SLOW = (80 << 20, 120)
#: Seconds that a firmware needs at least from its DISCOVER to its first block.
HEAD_START = 1.0
#: Seconds of any one storm.
PATIENCE = 600.0
TARGETS = (10, 2000)
#: Logins of which the latency is taken.
SAMPLES = 500
#: How often that is done on either side, in turn; and storms of which the cost is compared.
ROUNDS = 3
#: Bytes of a cold read.
PIECE = 1 << 16


class Clients:
    """A running ``storm``: logged in when it is here; ``boot`` lets all begin."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.logins: dict[str, Any] = {}

    @property
    def times(self) -> list[float]:
        """Seconds of each login, the shortest first."""
        return [each / 1e3 for each in self.logins["ms"]]

    async def heard(self) -> dict[str, Any]:
        """Its next line; NetbootError when it has none."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        if not line:
            raise NetbootError("the clients gave up; what they said is above")
        return dict(json.loads(line))

    async def say(self) -> None:
        """Go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go on\n")
        await self._process.stdin.drain()

    async def boot(self) -> dict[str, Any]:
        """Let all boot; returns when the last has."""
        await self.say()
        return await self.heard()


@asynccontextmanager
async def storm(
    server: Server, trace: Path, clients: int, *words: str, target: str = storm_servers.TARGET
) -> AsyncIterator[Clients]:
    """So many clients at a server, logged in."""
    process = await asyncio.create_subprocess_exec(
        *(str(compiled("storm")), "127.0.0.1", str(server.port), target, str(trace)),
        *(f"clients={clients}", f"lun={server.lun}", *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        here = Clients(process)
        here.logins = await here.heard()
        yield here
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def run(
    server: Server, trace: Path, clients: int, golden: Path, *, ahead: bool = False
) -> Run:
    """One storm, measured; ``ahead``: a DISCOVER of its first client was seen as long before as a
    firmware needs from there to its first block."""
    memory = server.memory()
    async with storm(server, trace, clients, f"golden={golden}") as here:
        idle = server.memory()
        warmer = Warmer(ahead)
        warmer.boots("storm", lambda: str(golden))
        await asyncio.sleep(HEAD_START if ahead else 0.0)
        cpu, disk = server.cpu(), server.disk()
        counting = asyncio.create_task(_most_threads(server))
        told = await here.boot()
        counting.cancel()
        await warmer.stop()
        cpu, disk = server.cpu() - cpu, server.disk() - disk
        busy = server.memory()
        return Run(
            *(server.name, clients, here.logins["seconds"], percentile(here.times, 0.99)),
            *(told["seconds"], told["fastest"], told["slowest"]),
            *(told["read_p50_us"] / 1e6, told["read_p99_us"] / 1e6, cpu),
            *((idle - memory) / clients, (busy - memory) / clients),
            *(server.most_threads, disk, int(told["read_bytes"])),
        )


async def _most_threads(server: Server) -> None:
    while True:
        server.threads()
        await asyncio.sleep(0.2)


async def warm(
    folder: Path,
    golden: Path,
    trace: Path,
    steps: Sequence[Step],
    found: Storm,
    counts: Sequence[int],
    rival: int,
) -> None:
    """Both sides, the image in the page cache; ours that are held against each other take turns."""
    golden.read_bytes()

    async def one(clients: int) -> Run:
        async with storm_servers.ours(folder / "ours", golden) as server:
            measured = await run(server, trace, clients, golden)
        shutil.rmtree(folder / "ours")
        return measured

    turns = pair(counts)
    for clients in counts:
        if clients <= rival:
            copies = await asyncio.to_thread(
                storm_servers.copies, folder / "copies", golden, storm_trace.ranges(steps), clients
            )
            async with storm_servers.tgt(folder / "tgt", copies) as server:
                tell(found, await run(server, trace, clients, golden))
            for path in (folder / "tgt", folder / "copies"):
                shutil.rmtree(path)
        if clients not in turns:
            tries = [await one(clients) for _ in range(ROUNDS if clients <= SHORT else 1)]
            tell(found, middle(tries))
    taken: dict[int, list[Run]] = {clients: [] for clients in turns}
    for _ in range(ROUNDS):
        for clients in turns:
            taken[clients] += [await one(clients) for _ in range(ROUNDS if clients <= SHORT else 1)]
    for tries in taken.values():
        tell(found, middle(tries))
    found.runs.sort(key=lambda run: run.clients)  # tgt's stays before ours


def tell(found: Storm, one: Run) -> None:
    """Keep a run, and show it: the whole takes its time."""
    found.runs.append(one)
    print(rows([one]).splitlines()[-1], flush=True)


async def cold(folder: Path, golden: Path, trace: Path, found: Storm) -> None:
    """Ours, with nothing of the image in memory; what the first boot needs is what is learned."""
    learned_path(str(golden)).unlink(missing_ok=True)
    for clients, ahead in ((1, False), (COLD_CLIENTS, False), (COLD_CLIENTS, True)):
        found.cold.append(await chill(folder, golden, trace, clients, ahead))
    try:
        with storm_servers.slow_reads(golden, *SLOW) as slowed:
            for ahead in (False, True):
                one = await chill(folder, golden, trace, COLD_CLIENTS, ahead, slowed)
                found.slow.append(one)
    except NetbootError as error:
        print(f"no slow disk: {error}", flush=True)


async def chill(
    folder: Path,
    golden: Path,
    trace: Path,
    clients: int,
    ahead: bool,
    slowed: Callable[[int], None] | None = None,
) -> Run:
    """One storm on a cold cache."""
    storm_servers.forget(golden)
    async with storm_servers.ours(folder / "cold", golden) as server:
        for pid in (server.pid, os.getpid()) if slowed is not None else ():
            slowed(pid)
        one = await run(server, trace, clients, golden, ahead=ahead)
    print(rows([one]).splitlines()[-1], flush=True)
    shutil.rmtree(folder / "cold")
    return one


async def stalls(folder: Path, golden: Path, found: Storm) -> None:
    """One client reads what is in memory, another what is not."""
    pieces = [
        at
        for begin, length in storm_servers.data_of(golden)
        for at in range(begin, begin + length - PIECE + 1, PIECE)
    ]
    cached, uncached = pieces[:100], pieces[200:]  # the kernel reads ahead past the first
    draw = random.Random(8)
    draw.shuffle(uncached)
    small = [Step(READ, draw.choice(cached) // BLOCK, 8, 500, number) for number in range(4000)]
    large = [
        Step(READ, at // BLOCK, PIECE // BLOCK, 0, max(0, number - 7))
        for number, at in enumerate(uncached[:6000])
    ]
    traces = [folder / "small", folder / "large"]
    for path, steps in zip(traces, (small, large), strict=True):
        path.write_text(storm_trace.lines(steps))
    storm_servers.forget(golden)
    with golden.open("rb") as file:
        for at in cached:
            os.pread(file.fileno(), PIECE, at)
    async with (
        storm_servers.ours(folder / "stalls", golden) as server,
        storm(server, traces[0], 1) as quick,
        storm(server, traces[1], 1, "from=1") as slow,
    ):
        told = await asyncio.gather(quick.boot(), slow.boot())
    found.stall, found.stall_cold = (one["read_p99_us"] / 1e6 for one in told)
    shutil.rmtree(folder / "stalls")


async def attach(folder: Path, golden: Path, trace: Path, found: Storm, count: int) -> None:
    """So many fresh overlays: by the storage alone, and at once by so many logins."""
    found.attached = count
    tries = []
    for _ in range(ROUNDS):
        fresh = storm_servers.apart(folder / "fresh")
        tries.append(await asyncio.to_thread(storm_servers.attach, fresh, golden, count))
        shutil.rmtree(fresh)
    found.attach = sorted(tries)[ROUNDS // 2]
    async with (
        storm_servers.ours(folder / "attach", golden) as server,
        storm(server, trace, count) as here,
    ):
        found.arrived = here.logins["seconds"]
    shutil.rmtree(folder / "attach")


async def logins(folder: Path, golden: Path, trace: Path, found: Storm) -> None:
    """The second login to each of so many targets that the settings name, one at a time."""
    names, who = storm_servers.TARGET_OF_MAC, f"initiator={storm_servers.INITIATOR_OF_MAC}"
    took: dict[int, list[float]] = {count: [] for count in TARGETS}
    async with AsyncExitStack() as stack:
        servers = {}
        for count in TARGETS:
            place = storm_servers.configured(folder / f"logins{count}", golden, count)
            servers[count] = await stack.enter_async_context(place)
            async with storm(servers[count], trace, count, who, target=names):
                pass
        for _ in range(ROUNDS):
            for count, server in servers.items():
                for _ in range(max(1, SAMPLES // count)):
                    async with storm(server, trace, count, who, "together=1", target=names) as here:
                        took[count] += here.times
    found.logins = {count: percentile(times, 0.99) for count, times in took.items()}
    for count in TARGETS:
        shutil.rmtree(folder / f"logins{count}")


def facts() -> list[str]:
    """The machine and the day."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return [
        f"when: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{os.cpu_count()} × {model}, {memory:.0f} GiB of memory",
        f"Python {platform.python_version()}, Linux {platform.release()}",
    ]


async def measure(options: argparse.Namespace, folder: Path) -> Storm:
    """All of it."""
    steps = storm_trace.quickened(storm_trace.decode(options.trace.read_bytes()), QUICKER, LONGEST)
    found = Storm(storm_trace.shape(steps))
    trace = folder / "trace"
    trace.write_text(storm_trace.lines(steps))
    golden = folder / "golden.raw"
    version = borrow(options.image, options.library)
    await asyncio.to_thread(storm_servers.copy, Path(version.path), golden)
    counts = [int(word) for word in options.clients.split(",")]
    begun = time.monotonic()
    parts: dict[str, Callable[[], Coroutine[None, None, None]]] = {
        "attach": lambda: attach(folder, golden, trace, found, 1000),
        "logins": lambda: logins(folder, golden, trace, found),
        "stalls": lambda: stalls(folder, golden, found),
        "cold": lambda: cold(folder, golden, trace, found),
        "warm": lambda: warm(folder, golden, trace, steps, found, counts, options.rival),
    }
    for name, part in parts.items():
        if name not in options.skip.split(","):
            await part()
            print(f"{name}: done after {time.monotonic() - begun:.0f} s", flush=True)
    return found


def main() -> int:
    """Measure, print, write; 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)))
    parser.add_argument("--rival", type=int, default=64, help="the most clients that tgt gets")
    parser.add_argument("--skip", default="", help="parts: attach,logins,stalls,cold,warm")
    parser.add_argument("--image", default="debian")
    parser.add_argument("--library", type=Path, default=Path("/var/lib/netboot"))
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--record", action="store_true", help="boot a guest and record it anew")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # as the service does
    for program in ("tgtd", "tgtadm", "cc"):
        if shutil.which(program) is None:
            print(f"{program} is missing: run `.ci/setup run test`", file=sys.stderr)
            return 2
    ending.unwinds()
    try:
        compiled("storm")
        if options.record:
            record(options.image, options.library, options.trace)
        with tempfile.TemporaryDirectory(dir=BUILD, prefix="storm-") as folder:
            found = ending.run(measure(options, Path(folder)))
    except (NetbootError, storm_trace.TraceError) as error:
        print(f"storm: {error}", file=sys.stderr)
        return 2
    judged = bars(found)
    print(rows(found.runs), held(judged), sep="\n\n")
    (BUILD / "storm.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
    if not options.skip and options.clients == ",".join(map(str, CLIENTS)):
        PAGE.write_text(page(found, facts()))
    missed = [bar for bar in judged if not bar.holds]
    for bar in missed:
        print(f"missed: {bar.what}: {bar.write(bar.value)}, the bar is {bar.write(bar.most)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

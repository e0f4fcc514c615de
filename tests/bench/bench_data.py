"""The data path against tgt: throughput, latency and processor time per I/O (``make bench``).

Our real disk process, with every check on, beside Debian's tgt as it comes (``rdwr``) and in its
two best settings (one thread; aio on tmpfs), and beside a C program that only echoes: the limit
of the same sockets. All serve the same 1 GiB from the page cache; every workload runs on all of
them in turn, round by round, and the median counts. The load is ``load.c``; what ``iscsi-perf``
and ``qemu-img bench`` say stands below as a cross-check. Writes ``docs/performance.md`` and
``build/bench/data.json``. Only ratios are compared with the bars: the machine cancels out.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests import ending
from tests.bench.memory import at_hand
from tests.bench.programs import BUILD, compiled
from tests.bench.servers import NAME, Server, limit, ours, tgt

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
MEMORY = Path("/dev/shm")
#: Of the folders of a run, so that it is seen whose they are.
PREFIX = f"data-{os.getpid()}-"
SIZE = 1 << 30
OWN = "## Where each microsecond goes"
GOLDEN, WRITTEN, FRESH = "golden", "written", "fresh"


@dataclass(frozen=True, slots=True)
class Workload:
    """One row: what ``load.c`` is told, at which unit, and what must hold against tgt."""

    name: str
    unit: str
    load: Mapping[str, int]
    faster: float  #: times tgt's throughput, at least
    cheaper: float  #: of tgt's processor time per I/O, at most

    @property
    def answer(self) -> int:
        """Bytes of data in an answer."""
        return 0 if "write" in self.load else self.load.get("block", 4096)


_4x8 = {"conns": 4, "depth": 8}
_16x1 = {"conns": 16, "depth": 1}
_SEQ = {**_4x8, "seq": 1}
WORKLOADS = (
    Workload("random read 4K, 4 x 8", GOLDEN, _4x8, 6.0, 0.12),
    Workload("the same, one send per command", GOLDEN, {**_4x8, "split": 1}, 3.0, 0.25),
    Workload("random read 4K, 16 x 1", GOLDEN, _16x1, 1.9, 0.40),
    Workload("sequential read 64K, 4 x 8", GOLDEN, {**_SEQ, "block": 65536}, 3.5, 0.18),
    Workload("sequential read 256K, 4 x 8", GOLDEN, {**_SEQ, "block": 262144}, 3.5, 0.18),
    Workload("random write 4K, steady, 4 x 8", WRITTEN, {**_4x8, "write": 1}, 4.0, 0.22),
    Workload("random write 4K, steady, 16 x 1", WRITTEN, {**_16x1, "write": 1}, 1.5, 0.48),
    Workload("random write 4K, first touch, 4 x 8", FRESH, {**_4x8, "write": 1}, 2.0, 0.40),
    Workload("random read 4K, 1 x 1", GOLDEN, {"conns": 1, "depth": 1}, 1.2, 0.60),
    Workload(
        "sequential read 64K, both digests",
        GOLDEN,
        {**_SEQ, "block": 65536, "digest": 1},
        2.0,
        0.35,
    ),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One run: I/Os a second, processor microseconds of the server per I/O, latency in us."""

    rate: float
    cpu: float
    p50: float
    p99: float


def middle(runs: Sequence[Figure]) -> Figure:
    """The median of each column."""
    columns = [[getattr(run, name) for run in runs] for name in Figure.__slots__]
    return Figure(*map(median, columns))


def stamped(path: Path, size: int = SIZE) -> Path:
    """A file of random bytes in which each block of 4096 begins with its own number."""
    if not path.exists() or path.stat().st_size != size:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            for chunk in range(0, size // 4096, 256):
                data = bytearray(os.urandom(256 * 4096))
                for block in range(256):
                    data[block * 4096 : block * 4096 + 8] = (chunk + block).to_bytes(8, "big")
                file.write(data)
        fresh.rename(path)
    with path.open("rb") as file:  # into the page cache
        while file.read(1 << 24):
            pass
    return path


async def load(server: Server, unit: str, seconds: float, words: Mapping[str, int]) -> Figure:
    """One run of the load; the server's processor time is what it used meanwhile."""
    command = [str(compiled("load")), "127.0.0.1", str(server.port), f"{NAME}:{unit}"]
    command += [f"lun={server.lun}", f"seconds={seconds}"]
    command += [f"{key}={value}" for key, value in words.items()]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(seconds + 40):
            await process.stdout.readline()
            before = server.cpu()
            said = json.loads(await process.stdout.read() or b"{}")
            used = server.cpu() - before
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not said:
        raise RuntimeError(f"{server.name}: the load has ended without a result")
    rate = said["ios"] / said["seconds"]
    return Figure(rate, used / said["all"] * 1e6, said["p50_us"], said["p99_us"])


Results = dict[str, dict[str, Figure]]  #: by workload, by server


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and how long."""

    rounds: int = 5
    seconds: float = 1.0  #: of each run
    only: str = ""  #: workloads whose name matches this expression
    size: int = SIZE
    whole: bool = True  #: with tgt's best settings, the limit, and what other programs say

    def rows(self) -> list[Workload]:
        """The workloads."""
        return [row for row in WORKLOADS if re.search(self.only, row.name)]


def units(place: Path, golden: Path, rounds: int) -> dict[str, Path]:
    """A tgt's files: copies of the golden image, and one with nothing in it for each round."""
    place.mkdir()
    found = {name: place / f"{name}.raw" for name in (GOLDEN, WRITTEN)}
    for path in found.values():
        shutil.copyfile(golden, path)
    for number in range(rounds):
        found[f"{FRESH}{number}"] = path = place / f"{FRESH}{number}.raw"
        with path.open("wb") as file:
            file.truncate(golden.stat().st_size)
    return found


async def measure(folder: Path, plan: Plan) -> tuple[Results, list[str]]:
    """All workloads on all servers, in turn; and what other programs find."""
    golden, rows = stamped(BUILD / f"golden-{plan.size >> 20}.raw", plan.size), plan.rows()
    runs: dict[str, dict[str, list[Figure]]] = {row.name: {} for row in rows}
    checks: list[str] = []
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        us = await enter(ours(folder / "ours", golden))
        plain = await enter(tgt(folder / "tgt", units(folder / "plain", golden, plan.rounds)))
        servers, echoes = [us, plain], {}
        if plan.whole:
            files = units(folder / "one", golden, plan.rounds)
            servers.append(await enter(tgt(folder / "tgt1", files, "-t", "1", name="tgt -t 1")))
            if shutil.disk_usage(MEMORY).free > 4 * plan.size:
                shm = Path(
                    stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY, prefix=PREFIX))
                )
                files = units(shm / "units", golden, plan.rounds)
                aio = tgt(folder / "aio", files, kind="aio", name="tgt aio, tmpfs")
                servers.append(await enter(aio))
            for size in {row.answer for row in rows}:
                echoes[size] = await enter(limit(compiled("echo"), size))
        if any(row.unit == WRITTEN for row in rows):
            await fill(us, folder / "ours" / f"{WRITTEN}.data", plan.size)
        await asyncio.to_thread(os.sync)
        written = False
        for number in range(plan.rounds):
            for row in rows:
                unit = f"{FRESH}{number}" if row.unit == FRESH else row.unit
                words = {"span": plan.size, **row.load, "stamp": int(row.unit != FRESH)}
                for server in servers:
                    if written:  # else the kernel writes one's blocks on another's time
                        await asyncio.to_thread(os.sync)
                    with at_hand(plan.size if row.unit == FRESH else 0):
                        figure = await load(server, unit, plan.seconds, words)
                    written = row.unit != GOLDEN
                    runs[row.name].setdefault(server.name, []).append(figure)
                if echoes:
                    figure = await load(
                        echoes[row.answer], unit, plan.seconds, {**words, "echo": 1, "digest": 0}
                    )
                    runs[row.name].setdefault("limit", []).append(figure)
            print(f"round {number + 1} of {plan.rounds}", file=sys.stderr, flush=True)
        if plan.whole:
            checks = await others(us, plain)
    medians = {
        name: {server: middle(figures) for server, figures in sides.items()}
        for name, sides in runs.items()
    }
    return medians, checks


async def fill(us: Server, data: Path, size: int) -> None:
    """Write every block of our overlay once, so that none is touched first while timed."""
    words = {"conns": 1, "depth": 4, "write": 1, "block": 65536, "seq": 1, "span": size}
    for _ in range(30):
        await load(us, WRITTEN, 2, words)
        if data.stat().st_blocks * 512 >= size:
            return
    raise RuntimeError("the overlay could not be written in a minute")


def best(sides: Mapping[str, Figure]) -> Figure:
    """The best that any tgt does, figure by figure."""
    rivals = [figure for name, figure in sides.items() if name.startswith("tgt")]
    return Figure(
        max(figure.rate for figure in rivals),
        *(min(getattr(figure, name) for figure in rivals) for name in ("cpu", "p50", "p99")),
    )


def misses(results: Results) -> list[str]:
    """Every bar that does not hold, in words."""
    found = []
    for row in WORKLOADS:
        if row.name not in results:
            continue
        sides = results[row.name]
        us, plain, rival = sides["netboot"], sides["tgt"], best(sides)
        for what, value, bar, holds in (
            ("throughput against tgt", us.rate / plain.rate, row.faster, float.__ge__),
            ("CPU per I/O against tgt", us.cpu / plain.cpu, row.cheaper, float.__le__),
            ("throughput against best tgt", us.rate / rival.rate, 1.0, float.__ge__),
            ("CPU per I/O against best tgt", us.cpu / rival.cpu, 1.0, float.__le__),
        ):
            if not holds(value, bar):
                found.append(f"{row.name}: {what} {value:.2f}, the bar is {bar:g}")
    return found


def _ratio(us: float, them: float, bar: float, *, more: bool) -> str:
    value = us / them if them else 0.0
    holds = value >= bar if more else value <= bar
    return f"{value:.2f} ({'≥' if more else '≤'} {bar:g}{'' if holds else ' **missed**'})"


def table(results: Results) -> str:
    """The ratios, with the bars they are held to."""
    lines = [
        "| workload | throughput / tgt | CPU per I/O / tgt | throughput / best tgt "
        "| CPU per I/O / best tgt | throughput / limit | CPU per I/O / limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in WORKLOADS:
        if row.name not in results:
            continue
        sides = results[row.name]
        us, plain, rival, echo = sides["netboot"], sides["tgt"], best(sides), sides["limit"]
        cells = [
            row.name,
            _ratio(us.rate, plain.rate, row.faster, more=True),
            _ratio(us.cpu, plain.cpu, row.cheaper, more=False),
            _ratio(us.rate, rival.rate, 1.0, more=True),
            _ratio(us.cpu, rival.cpu, 1.0, more=False),
            f"{us.rate / echo.rate:.2f}",
            f"{us.cpu / echo.cpu:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figures(results: Results) -> str:
    """What was measured, on this machine."""
    lines = [
        "| workload | server | I/O per second | CPU per I/O, us | p50, us | p99, us |",
        "|---|---|---|---|---|---|",
    ]
    for row in WORKLOADS:
        for server, one in results.get(row.name, {}).items():
            cells = f"{one.rate:,.0f} | {one.cpu:.2f} | {one.p50:.0f} | {one.p99:.0f}"
            lines.append(f"| {row.name} | {server} | {cells} |")
    return "\n".join(lines) + "\n"


def page(results: Results, checks: Sequence[str], machine: str, before: str = "") -> str:
    """``docs/performance.md``; what stands under ``OWN`` there is people's, and is kept."""
    found = misses(results)
    own = before[before.index(OWN) :] if OWN in before else ""
    parts = [
        "# Performance\n",
        "Written by `make bench`. Our disk process, with every check on, beside Debian's tgt: as\n"
        "it comes, with one thread, and with aio on tmpfs (the best of them is *best tgt*); and\n"
        "beside a C program that only echoes (*limit*). One golden image of 1 GiB in the page\n"
        "cache; all files are written before anything is timed, but for the row of first touch,\n"
        "before which free memory is touched, so that no host fetches it while we write.\n"
        "Medians of rounds in which all take turns. CPU is the server's: user and system, all\n"
        "threads.\n",
        f"Machine: {machine}.\n",
        table(results),
        "Bars that do not hold:\n" if found else "Every bar holds.\n",
        "".join(f"- {miss}\n" for miss in found),
        "## Figures\n",
        figures(results),
        "## What other programs say\n",
        "".join(f"- {line}\n" for line in checks),
        own,
    ]
    return "\n".join(filter(None, parts)).rstrip() + "\n"


def machine() -> str:
    """Processor, cores, kernel and Python, in words."""
    words = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    kernel = ".".join(os.uname().release.split(".")[:2])
    python = ".".join(map(str, sys.version_info[:3]))
    name = words[1] if words else os.uname().machine
    return f"{name}, {os.cpu_count()} cores, Linux {kernel}, Python {python}"


async def others(us: Server, plain: Server) -> list[str]:
    """``iscsi-perf`` and ``qemu-img bench`` on both, one after the other."""
    found = []
    for server in (us, plain):
        url = f"iscsi://127.0.0.1:{server.port}/{NAME}:{GOLDEN}/{server.lun}"
        perf = await _output("timeout", "-s", "INT", "4", "iscsi-perf", "-b", "8", "-m", "32", url)
        rates = [int(n) for n in re.findall(r"iops (?:current|average) (\d+)", perf)]
        say = f"{max(rates):,} IOPS" if rates else "nothing"
        found.append(f"`iscsi-perf -b 8 -m 32` (4K, 32 at once): {server.name}: {say}")
        command = ["qemu-img", "bench", "-c", "100000", "-d", "32", "-s", "4096", "-f", "raw", url]
        took = re.search(r"completed in ([\d.]+) sec", await _output("timeout", "60", *command))
        say = f"{float(took[1]):.2f} s" if took else "nothing"
        found.append(f"`qemu-img bench -c 100000 -d 32 -s 4096`: {server.name}: {say}")
    return found


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()  # `timeout`, where it is one, passes it on
            await process.wait()
    return said.decode(errors="replace")


def main() -> int:
    """Measure, print, write; 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--only", default="", help="workloads whose name matches this expression")
    parser.add_argument("--size", type=int, default=SIZE >> 20, help="of the image, in MiB")
    options = parser.parse_args()
    for program in ("tgtd", "tgtadm", "cc", "iscsi-perf", "qemu-img"):
        if shutil.which(program) is None:
            print(f"{program} is missing: run `.ci/setup run test`", file=sys.stderr)
            return 2
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix=PREFIX) as folder:
        plan = Plan(options.rounds, options.seconds, options.only, options.size << 20)
        results, checks = ending.run(measure(Path(folder), plan))
    print(table(results), figures(results), sep="\n")
    kept = {
        name: {who: asdict(one) for who, one in sides.items()} for name, sides in results.items()
    }
    (BUILD / "data.json").write_text(json.dumps(kept, indent=1) + "\n")
    if not options.only and plan.size == SIZE:
        PAGE.write_text(page(results, checks, machine(), PAGE.read_text()))
    for miss in misses(results):
        print(miss, file=sys.stderr)
    return 1 if misses(results) else 0


if __name__ == "__main__":
    sys.exit(main())

"""DHCP, TFTP and HTTP beside what people use for them: `make bench-net`.

    python -m tests.bench.bench_net                       five rounds of everything
    python -m tests.bench.bench_net --rounds 9 --only http

Run as root or where user namespaces are allowed: network, process and mount namespaces of its own
keep it from this machine's services, and end every server however it ends. A table goes to
standard output, figures to build/bench/net.json and, of a whole run, docs/network-performance.md.
Exit 0: every bar holds; 1: one is missed; 2: it could not be measured.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from netboot.lab import namespace
from netboot.lab.namespace import ip
from tests import ending
from tests.bench import net_clients as clients
from tests.bench import net_figures as figures
from tests.bench.net_figures import OURS, Sample, Workload
from tests.bench.net_servers import ADDRESS, FORKING, HTTP_PORTS, LINK, TFTP_PORTS, cpu, running

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "network-performance.md"
MARK = "NETBOOT_BENCH_NET"
SECTIONS = ("dhcp", "tftp", "http")
NEEDED = ("unshare", "nsenter", "ip", "dnsmasq", "kea-dhcp4", "perfdhcp", "in.tftpd", "nginx")
NEEDED_TOO = ("curl", "atftp", "tftp", "cc")

CLIENT = ADDRESS.network.network_address + 2
#: Exchanges a second at which every server is asked for its p99: all of them can do it.
CALM = 250
#: The longest climb from one rate to another, in tries.
TRIES = 20
CLIENTS = 1000
AT_ONCE = 300
LOADER, SMALL, LARGE = (
    ("loader.bin", 30_000_000),
    ("small.bin", 200_000),
    ("image.bin", 300_000_000),
)
MEDIUM = ("medium.bin", 10_000_000)


# DHCP


class Perfdhcp:
    """perfdhcp in the namespace of process ``holder``."""

    def __init__(self, holder: int) -> None:
        self._enter = ["nsenter", f"--net=/proc/{holder}/ns/net"]

    def _run(self, *words: str) -> str:
        firmware = ("-o", "60," + b"PXEClient:Arch:00007:UNDI:003016".hex(), "-o", "93,0007")
        command = ["perfdhcp", "-4", "-l", str(CLIENT), *firmware, *words, str(ADDRESS.ip)]
        # It ends with 3 when exchanges were lost, which is a figure and no failure.
        done = subprocess.run([*self._enter, *command], capture_output=True, text=True, timeout=60)
        if done.returncode not in (0, 3):
            raise RuntimeError(f"perfdhcp: {(done.stderr + done.stdout)[-300:].strip()}")
        return done.stdout

    def at(self, rate: float, seconds: int = 1) -> figures.Exchanges:
        """So many exchanges a second begin, for so long."""
        words = ("-r", f"{rate:.0f}", "-R", str(CLIENTS), "-p", str(seconds), "-W", "500000")
        return figures.exchanges(self._run(*words, "-x", "t"))

    def avalanche(self) -> float:
        """Seconds until ``AT_ONCE`` clients that begin at once have their leases."""
        return figures.avalanche(self._run("--scenario", "avalanche", "-R", str(AT_ONCE)))


def dhcp(folder: Path, rounds: int, say: Callable[[str], None]) -> list[Workload]:
    """Three servers in turn on one link; each round begins without leases."""
    bars = {"dnsmasq": 1.0}
    most = Workload("dhcp", "full exchanges", "per s", bars)
    calm = Workload("dhcp", f"p99 at {CALM} exchanges a second", "ms", bars, faster=False)
    storm = Workload("dhcp", f"{AT_ONCE} clients at once: the last lease", "ms", bars, faster=False)
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    best: dict[str, float] = {}
    try:
        client = _link(holder.pid)
        for number in range(rounds):
            for side in figures.turns(("dnsmasq", "Kea", OURS), number):
                shutil.rmtree(folder / f"dhcp-{side}", ignore_errors=True)
                with running("dhcp", side, folder, _dhcp_port_open) as pid:
                    storm.add(side, _timed(pid, AT_ONCE, client.avalanche, 1000))
                    before = cpu(pid)
                    quiet = client.at(CALM, 4)
                    spent = (cpu(pid) - before) / max(1, quiet.completed)
                    worst = figures.percentile(quiet.durations, 0.99)
                    calm.add(side, Sample(1000 * worst, spent))
                    start = best.get(side, 300.0)
                    best[side], sample = _climb(pid, client, start)
                    most.add(side, sample)
                say(
                    f"dhcp round {number + 1} {side}: {sample.value:.0f} a second,"
                    f" p99 {1000 * worst:.1f} ms"
                )
    finally:
        holder.terminate()
        holder.wait()
    return [most, calm, storm]


def _climb(pid: int, client: Perfdhcp, start: float) -> tuple[float, Sample]:
    """The highest rate that is served, and what was reached there."""
    passed: dict[float, bool] = {}
    best = (start, Sample(0.0, 0.0))
    for _ in range(TRIES):
        rate = figures.climb(start, passed)
        if rate is None:
            break
        before = cpu(pid)
        seen = client.at(rate)
        passed[rate] = seen.served
        sample = Sample(seen.rate, (cpu(pid) - before) / max(1, seen.completed))
        if seen.served and sample.value > best[1].value:
            best = (rate, sample)
    return best


def _link(holder: int) -> Perfdhcp:
    enter = ["nsenter", f"--net=/proc/{holder}/ns/net", "ip"]
    for _ in range(100):  # until it has left our namespace
        if os.readlink(f"/proc/{holder}/ns/net") != os.readlink("/proc/self/ns/net"):
            break
        time.sleep(0.02)
    ip("link", "add", LINK, "type", "veth", "peer", "name", "veth1", "netns", str(holder))
    ip("address", "add", str(ADDRESS), "dev", LINK)
    ip("link", "set", LINK, "up")
    clients.run([*enter, "address", "add", f"{CLIENT}/{ADDRESS.network.prefixlen}", "dev", "veth1"])
    clients.run([*enter, "link", "set", "veth1", "up"])
    return Perfdhcp(holder)


def _dhcp_port_open() -> bool:
    return any(":0043 " in line for line in Path("/proc/net/udp").read_text().splitlines())


# TFTP and HTTP


#: Fetches of a side in one round, where one takes less than a second.
OFTEN = 9
SOME = 5


def _tftp_rows(side: str) -> dict[str, clients.Fetch]:
    """What is fetched from ``side``, by row."""
    port = TFTP_PORTS[side]
    one, many = (f"tftp://{clients.HOST}:{port}/{name}" for name, _ in (LOADER, SMALL))
    rows = {
        "30 MB, curl's default": clients.curl(one, 1, LOADER[1]),
        "30 MB, tftp-hpa's default": clients.tftp_hpa(port, LOADER[0]),
        "30 MB, blksize 1468 windowsize 16": clients.atftp(port, LOADER[0], 1468, 16),
        f"{AT_ONCE} clients at once, 200 kB each": clients.tftp_load(port, *SMALL, AT_ONCE, 1468),
    }
    if side != FORKING:  # it loses requests then, and curl asks again after six seconds
        options = ("--tftp-blksize", "1468")
        rows[f"{AT_ONCE} at once, by one curl"] = clients.curl(many, AT_ONCE, SMALL[1], *options)
    return rows


def _tftp_fetches(title: str, side: str) -> int:
    if "at once" not in title or side == FORKING:
        return 1
    return SOME if "curl" in title else OFTEN


def _tftp_bars(title: str) -> dict[str, float]:
    if "one curl" in title:  # see net_clients: it has no more to give, whoever serves
        return {}
    bar = 3.0 if "windowsize" in title else 1.0
    return {"dnsmasq": bar, FORKING: bar}


def tftp(folder: Path, rounds: int, say: Callable[[str], None]) -> list[Workload]:
    """All three answer on loopback; one is asked at a time."""
    rows = {side: _tftp_rows(side) for side in TFTP_PORTS}
    works = {title: Workload("tftp", title, "MB/s", _tftp_bars(title)) for title in rows[OURS]}
    with ExitStack() as stack:
        pids = {}
        for side, port in TFTP_PORTS.items():
            ready = clients.probe(f"tftp://{clients.HOST}:{port}/{SMALL[0]}", 1)
            pids[side] = stack.enter_context(running("tftp", side, folder, ready))
        for number in range(rounds):
            for title, work in works.items():
                size, count = (SMALL[1], AT_ONCE) if "at once" in title else (LOADER[1], 1)
                times = {side: _tftp_fetches(title, side) for side in rows if title in rows[side]}
                gets = {side: rows[side][title] for side in times}
                _round(work, number, pids, gets, times, count, size)
            say(f"tftp round {number + 1}")
    return list(works.values())


def http(folder: Path, rounds: int, say: Callable[[str], None]) -> list[Workload]:
    """Both answer on loopback; one is asked at a time."""
    bars = {"nginx": 0.8}
    one = Workload("http", "300 MB", "MB/s", bars)
    many = Workload("http", f"{AT_ONCE} clients at once, 10 MB each", "MB/s", bars)
    with ExitStack() as stack:
        pids, urls = {}, {}
        for side, port in HTTP_PORTS.items():
            base = f"http://{clients.HOST}:{port}/" + ("files/" if side == OURS else "")
            ready = clients.probe(base + LARGE[0], 5)
            pids[side] = stack.enter_context(running("http", side, folder, ready))
            urls[side] = base
        for number in range(rounds):
            for work, (name, size), count, times in (
                (one, LARGE, 1, SOME),
                (many, MEDIUM, AT_ONCE, 1),
            ):
                gets = {side: clients.curl(urls[side] + name, count, size) for side in urls}
                _round(work, number, pids, gets, dict.fromkeys(gets, times), count, size)
            say(f"http round {number + 1}")
    return [one, many]


def _round(
    work: Workload,
    number: int,
    pids: Mapping[str, int],
    gets: Mapping[str, clients.Fetch],
    times: Mapping[str, int],
    count: int,
    size: int,
) -> None:
    """Each side fetches so many times, in alternating turns; the middle of them is its figure."""
    samples: dict[str, list[Sample]] = {side: [] for side in gets}
    for side in figures.lap(times, number):
        sample = _throughput(pids[side], count, size, gets[side])
        samples[side].append(replace(sample, cpu=0.0) if side == FORKING else sample)
    for side, some in samples.items():
        work.add(side, figures.middle(some))


def _throughput(pid: int, count: int, size: int, fetch: Callable[[], object]) -> Sample:
    """MB a second of ``count`` files of ``size`` bytes, and CPU seconds a file."""
    before, begun = cpu(pid), time.monotonic()
    fetch()
    seconds = time.monotonic() - begun
    return Sample(count * size / seconds / 1e6, (cpu(pid) - before) / count)


def _timed(pid: int, count: int, measure: Callable[[], float], scale: float) -> Sample:
    before = cpu(pid)
    value = measure()
    return Sample(scale * value, (cpu(pid) - before) / count)


# The whole


def measure(sections: Sequence[str], rounds: int) -> int:
    """Inside the namespaces: measure, tell, write; the exit code."""
    folder = BUILD / "net"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    for name, size in (LOADER, SMALL, MEDIUM, LARGE):
        with (folder / "files" / name).open("wb") as file:
            for _ in range(size // 100_000):
                file.write(os.urandom(100_000))
    ip("link", "set", "lo", "up")
    # in.tftpd asks getaddrinfo with AI_ADDRCONFIG, for which 127.0.0.1 alone is no address.
    ip("address", "add", "10.78.0.1/32", "dev", "lo")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    workloads: list[Workload] = []
    try:
        for section in sections:
            kind = {"dhcp": dhcp, "tftp": tftp, "http": http}[section]
            workloads += kind(folder, rounds, say)
    finally:
        shutil.rmtree(folder / "files")
    lines = figures.rows(workloads)
    print(figures.table(lines))
    (BUILD / "net.json").write_text(
        json.dumps(
            {
                "machine": _machine(),
                "rounds": rounds,
                "rows": [{**asdict(line), "held": line.held} for line in lines],
                "samples": [asdict(work) for work in workloads],
            },
            indent=1,
        )
        + "\n"
    )
    if set(sections) == set(SECTIONS):
        PAGE.write_text(figures.page(lines, _machine(), rounds))
    return 0 if all(line.held for line in lines) else 1


def _machine() -> str:
    """The machine in one line."""
    model = "a processor that does not say its name"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    release = platform.release().split("-")[0]
    return f"{os.cpu_count()} × {model}, Linux {release}, Python {platform.python_version()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(SECTIONS), help="some of dhcp,tftp,http")
    arguments = parser.parse_args()
    sections = arguments.only.split(",")
    ending.unwinds()
    if arguments.rounds < 1 or not set(sections) <= set(SECTIONS):
        parser.error("at least one round, of dhcp, tftp or http")
    if MARK in os.environ:
        try:
            return measure(sections, arguments.rounds)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"bench-net: {error}", file=sys.stderr)
            return 2
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian has servers, not where users look
    missing = [name for name in (*NEEDED, *NEEDED_TOO) if shutil.which(name) is None]
    if missing:
        print(f"bench-net: {', '.join(missing)} missing: run `make setup-test`", file=sys.stderr)
        return 2
    return _inside()


def _inside() -> int:
    """Run ourselves again in new namespaces; whatever is left there ends with us."""
    wrapper = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        wrapper += ["--user", "--map-root-user"]
    words = [sys.executable, "-m", "tests.bench.bench_net", *sys.argv[1:]]
    return namespace.run(words, mark=MARK, wrapper=[*wrapper, "--"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

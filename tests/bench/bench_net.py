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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
#: So often in a round, in turn with the others, for so many seconds: each client asks once, and
#: ``AT_ONCE`` of them have a lease.
CALM_PARTS, CALM_SECONDS = 2, 2
#: The longest climb from one rate to another, in tries.
TRIES = 20
CLIENTS = 1000
AT_ONCE = 300
FIRST = 0x000C01020300  #: a MAC that ends with 0, for perfdhcp counts on from it without a carry
LOADER, SMALL, LARGE = (
    ("loader.bin", 30_000_000),
    ("small.bin", 200_000),
    ("image.bin", 300_000_000),
)
MEDIUM = ("medium.bin", 10_000_000)


# DHCP


class Wire:
    """A veth pair between a server's namespace and that of its clients, which perfdhcp plays."""

    def __init__(self, server: int, client: int) -> None:
        """The processes that hold the two namespaces."""
        self.enter, self._enter = (
            ["nsenter", f"--net=/proc/{holder}/ns/net"] for holder in (server, client)
        )
        self._sockets = Path(f"/proc/{server}/net/udp")
        near = ("link", "add", LINK, "netns", str(server), "type", "veth")
        ip(*near, "peer", "name", "veth1", "netns", str(client))
        host = f"{CLIENT}/{ADDRESS.network.prefixlen}"
        for enter, link, address in (
            (self.enter, LINK, str(ADDRESS)),
            (self._enter, "veth1", host),
        ):
            clients.run([*enter, "ip", "address", "add", address, "dev", link])
            clients.run([*enter, "ip", "link", "set", link, "up"])

    def listening(self) -> bool:
        """Whether the server has opened its port."""
        return any(":0043 " in line for line in self._sockets.read_text().splitlines())

    def _run(self, *words: str) -> str:
        firmware = ("-o", "60," + b"PXEClient:Arch:00007:UNDI:003016".hex(), "-o", "93,0007")
        command = ["perfdhcp", "-4", "-l", str(CLIENT), *firmware, *words, str(ADDRESS.ip)]
        # It ends with 3 when exchanges were lost, which is a figure and no failure.
        done = subprocess.run([*self._enter, *command], capture_output=True, text=True, timeout=60)
        if done.returncode not in (0, 3):
            raise RuntimeError(f"perfdhcp: {(done.stderr + done.stdout)[-300:].strip()}")
        return done.stdout

    def at(self, rate: float, seconds: int = 1, first: int = 0) -> figures.Exchanges:
        """So many exchanges a second begin, for so long, of clients from number ``first`` on."""
        base = ("-b", f"mac={(FIRST + first).to_bytes(6, 'big').hex(':')}")
        words = ("-r", f"{rate:.0f}", "-R", str(CLIENTS), "-p", str(seconds), "-W", "500000")
        return figures.exchanges(self._run(*base, *words, "-x", "t"))

    def avalanche(self) -> float:
        """Seconds until ``AT_ONCE`` clients that begin at once have their leases."""
        return figures.avalanche(self._run("--scenario", "avalanche", "-R", str(AT_ONCE)))


@contextmanager
def _namespace() -> Iterator[int]:
    """A process that holds a network namespace of its own."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        for _ in range(100):  # until it has left ours
            if os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"):
                break
            time.sleep(0.02)
        yield holder.pid
    finally:
        holder.terminate()
        holder.wait()


def dhcp(folder: Path, rounds: int, say: Callable[[str], None]) -> list[Workload]:
    """Each server on a wire of its own, one is asked at a time; a round begins without leases."""
    bars = {"dnsmasq": 1.0}
    most = Workload("dhcp", "full exchanges", "per s", bars)
    calm = Workload("dhcp", f"p99 at {CALM} exchanges a second", "ms", bars, faster=False)
    storm = Workload("dhcp", f"{AT_ONCE} clients at once: the last lease", "ms", bars, faster=False)
    best: dict[str, float] = {}
    with ExitStack() as stack:
        wires = {
            side: Wire(stack.enter_context(_namespace()), stack.enter_context(_namespace()))
            for side in ("dnsmasq", "Kea", OURS)
        }
        for number in range(rounds):
            with ExitStack() as servers:
                pids: dict[str, int] = {}
                for side, wire in figures.turns(wires.items(), number):
                    shutil.rmtree(folder / f"dhcp-{side}", ignore_errors=True)
                    begun = running("dhcp", side, folder, wire.listening, wire.enter)
                    pids[side] = servers.enter_context(begun)
                    storm.add(side, _timed(pids[side], AT_ONCE, wire.avalanche, 1000))
                for side, sample in _calm(wires, pids, number).items():
                    calm.add(side, sample)
                for side, pid in pids.items():
                    best[side], sample = _climb(pid, wires[side], best.get(side, 300.0))
                    most.add(side, sample)
                    worst = calm.samples[side][-1].value
                    say(
                        f"dhcp round {number + 1} {side}: {sample.value:.0f} a second,"
                        f" p99 {worst:.2f} ms"
                    )
    return [most, calm, storm]


def _calm(wires: Mapping[str, Wire], pids: Mapping[str, int], number: int) -> dict[str, Sample]:
    """Each side's p99 over all that it was asked, a little at a time and in turn: a p99 is made
    by few exchanges, and a disk or a neighbour that is slow for a second has to meet all alike."""
    seen: dict[str, list[figures.Exchanges]] = {side: [] for side in pids}
    spent = dict.fromkeys(pids, 0.0)
    for part in range(CALM_PARTS):
        for side, pid in figures.turns(pids.items(), number + part):
            before = cpu(pid)
            seen[side].append(wires[side].at(CALM, CALM_SECONDS, 512 * part))
            spent[side] += cpu(pid) - before
    samples = {}
    for side, parts in seen.items():
        whole = figures.pooled(parts)
        worst = figures.percentile(whole.durations, 0.99)
        samples[side] = Sample(1000 * worst, spent[side] / max(1, whole.completed))
    return samples


def _climb(pid: int, client: Wire, start: float) -> tuple[float, Sample]:
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

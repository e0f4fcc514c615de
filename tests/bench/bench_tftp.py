"""The same file by TFTP from dnsmasq and from us, in turn, on loopback.

    bench_tftp.py                      five rounds of a 30 MB file
    bench_tftp.py --rounds 9 --size 100

For each client the median throughput of both sides, the median of the rounds' ratios, and the
server's CPU time as a ratio. Each is a process of its own; the file is fetched once from both
before anything is timed. dnsmasq serves port 69 only, so that must be free: run it as root, best
in a network namespace. Exit 0 when the bars below hold.
"""

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from netboot.tftp.server import TftpServer

NAME = "loader.bin"


def curl(port: int, *options: str) -> list[str]:
    url = f"tftp://127.0.0.1:{port}/{NAME}"
    return ["curl", "-sS", *options, "-o", "/dev/null", url]


def atftp(port: int, *options: str) -> list[str]:
    pairs = [part for option in options for part in ("--option", option)]
    return ["atftp", *pairs, "-g", "-r", NAME, "-l", "/dev/null", "127.0.0.1", str(port)]


def hpa(port: int) -> list[str]:
    return ["tftp", "-m", "octet", "127.0.0.1", str(port), "-c", "get", NAME, "/dev/null"]


#: Client, its command, its options, and how many times dnsmasq's throughput ours must have. In
#: lock-step both wait for the client most of the time, so there the two are close to each other.
ROWS = (
    ("curl, its default", curl, (), 1.0),
    ("tftp-hpa, its default", hpa, (), 1.0),
    ("curl, blksize 1468", curl, ("--tftp-blksize", "1468"), 1.0),
    ("atftp, blksize 1468, windowsize 16", atftp, ("blksize 1468", "windowsize 16"), 3.0),
)


def serve(folder: Path, port: int) -> None:
    """Our side: a process that does nothing but TFTP, until it is ended."""

    async def main() -> None:
        await TftpServer("127.0.0.1", [folder], lambda event: None, port=port).start()
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(side: str, folder: Path) -> Iterator[tuple[int, int]]:
    """One server; its port and its process id."""
    port = free_port()
    if side == "netboot":
        command = [sys.executable, __file__, "--serve", str(folder), "--port", str(port)]
    else:
        # dnsmasq serves TFTP at port 69 only, so it gets a network address of its own there.
        port = 69
        command = [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0"),
            *("--enable-tftp", f"--tftp-root={folder}", "--listen-address=127.0.0.1"),
            *("--bind-interfaces", "--user=root", "--pid-file", "--log-facility=/dev/null"),
        ]
    process = subprocess.Popen(command)
    try:
        for _ in range(100):
            if subprocess.run(curl(port), capture_output=True, timeout=60).returncode == 0:
                break
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, size: int, rounds: int) -> bool:
    """Print the table; whether every bar holds."""
    held = True
    with running("dnsmasq", folder) as theirs, running("netboot", folder) as ours:
        print(f"{'':36}{'dnsmasq':>10}{'netboot':>10}{'ratio':>8}{'CPU':>8}{'bar':>6}")
        for title, client, options, bar in ROWS:
            seconds: dict[int, list[float]] = {theirs[0]: [], ours[0]: []}
            spent = {theirs[0]: 0.0, ours[0]: 0.0}
            for _ in range(rounds):
                for port, pid in (theirs, ours):
                    before, begun = cpu(pid), time.monotonic()
                    subprocess.run(client(port, *options), check=True, capture_output=True)
                    seconds[port].append(time.monotonic() - begun)
                    spent[port] += cpu(pid) - before
            rates = [size / statistics.median(seconds[port]) / 1e6 for port in seconds]
            pairs = zip(seconds[theirs[0]], seconds[ours[0]], strict=True)
            ratio = statistics.median(their / our for their, our in pairs)
            work = spent[ours[0]] / max(spent[theirs[0]], 0.01)
            held &= ratio >= bar
            print(
                f"{title:36}{rates[0]:7.0f} MB/s{rates[1]:5.0f} MB/s{ratio:8.2f}{work:8.2f}{bar:6}"
            )
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=30, help="MB")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.port)
        return 0
    size = arguments.size * 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="netboot-bench-"))
    try:
        folder.chmod(0o755)
        (folder / NAME).write_bytes(os.urandom(size))
        return 0 if measure(folder, size, arguments.rounds) else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())

"""Who fetches in `make bench-net`: curl, tftp-hpa and atftp, and 300 clients in one process.

Each is a function that fetches once and raises ``RuntimeError`` when what came is not whole.

Why 300 clients of TFTP are not one curl with 300 transfers: such a curl takes 97 % of a core,
whoever serves it. For each block it does one poll, one recv, one send and three sigactions, with
dnsmasq, with us and with a minimal server in C: some 5 us in all, where the servers take 3 to 5. So
it measures itself: the minimal server came out at 1.00 of dnsmasq, and at 1.5 with clients that
take less than a server does. Two curls with 150 each tell no more: on two cores they and the
server push each other aside, and in every other fetch dnsmasq lost a request, which curl repeats
after six seconds. ``tftp_load.c`` takes 3 us, knows nothing of whom it asks, and leaves the server
to be the limit. The curl is measured beside it and has no bar.
"""

import subprocess
from collections.abc import Callable, Sequence

from tests.bench.programs import compiled

Fetch = Callable[[], object]

HOST = "127.0.0.1"


def run(words: Sequence[str], limit: float = 120) -> str:
    """A client's output; RuntimeError with its last words when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:6])} …: {(done.stderr + done.stdout)[-300:].strip()}")
    return done.stdout


def probe(url: str, limit: int) -> Callable[[], bool]:
    """Whether ``url`` is served, whole within ``limit`` seconds."""
    words = ["curl", "-sf", "-m", str(limit), "-o", "/dev/null", url]
    return lambda: subprocess.run(words, timeout=30).returncode == 0


def curl(url: str, count: int, size: int, *options: str) -> Fetch:
    """One curl that fetches ``url`` ``count`` times at once, whole each time."""
    targets = [word for _ in range(count) for word in ("-o", "/dev/null", url)]
    words = ["curl", "-sS", "-Z", "--parallel-immediate", "--parallel-max", "300", *options]

    def fetch() -> None:
        sizes = run([*words, "-w", "%{size_download}\\n", *targets]).split()
        if sizes != [str(size)] * count:
            raise RuntimeError(f"{url}: of {count} downloads {sizes.count(str(size))} are whole")

    return fetch


def tftp_hpa(port: int, name: str) -> Fetch:
    """tftp-hpa's client, which knows no options but its own default."""
    words = ["tftp", "-m", "octet", HOST, str(port), "-c", "get", name, "/dev/null"]
    return lambda: run(words)


def atftp(port: int, name: str, blksize: int, window: int) -> Fetch:
    """atftp, which knows windows."""
    options = [*("--option", f"blksize {blksize}"), *("--option", f"windowsize {window}")]
    words = ["atftp", *options, "-g", "-r", name, "-l", "/dev/null", HOST, str(port)]
    return lambda: run(words)


def tftp_load(port: int, name: str, size: int, count: int, blksize: int) -> Fetch:
    """``count`` clients at once in one process that takes less than a server."""
    words = [str(compiled("tftp_load")), str(port), name, str(size), str(count), str(blksize)]
    return lambda: run(words)

"""A command that is told to end leaves no process and no folder behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.bench.bench_data import BUILD, MEMORY

CLONE = Path(__file__).parents[1]
#: Seconds until a command has come far, and until it must be gone.
PATIENCE = 40.0
MARK = "NETBOOT_TEST_ENDING"

LOOP = """
import asyncio, os, signal
from tests import ending

async def work():
    try:
        print("here", flush=True)
        await asyncio.sleep(60)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # another one while it unwinds
        await asyncio.sleep(0.01)
        print("away", flush=True)

ending.run(work())
"""
PLAIN = """
import os, signal, time
from tests import ending

ending.unwinds()
try:
    print("here", flush=True)
    time.sleep(60)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("away", flush=True)
"""
AFTER = """
import asyncio, time
from tests import ending

ending.run(asyncio.sleep(0))
try:
    print("here", flush=True)
    time.sleep(60)
finally:
    print("away", flush=True)
"""


@contextmanager
def background(words: Sequence[str], **more: str) -> Iterator["subprocess.Popen[str]"]:
    """A command as a script starts it with ``&``: it ignores SIGINT, if it does not care."""
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=CLONE,
        env={**os.environ, MARK: str(os.getpid()), **more},
    )
    try:
        yield process
    finally:
        for pid in alive():  # all of this test's own, also what it found to be left
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def until(true: Callable[[], object], what: str) -> None:
    """Ask until it is so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def alive() -> dict[int, str]:
    """The processes that a command of this test has started, and itself: pid → name."""
    found = {}
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdecimal() and f"{MARK}={os.getpid()}\0" in (
                place / "environ"
            ).read_text(errors="replace"):
                found[int(place.name)] = (place / "comm").read_text().strip()
        except OSError:
            continue  # it has just ended
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", [LOOP, PLAIN, AFTER], ids=["loop", "plain", "after a loop"])
def test_it_unwinds_once_and_to_the_end(program: str, number: signal.Signals) -> None:
    with background([sys.executable, "-c", program], PYTHONPATH=str(CLONE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE)
    assert (said, process.returncode) == ("away\n", 128 + number)


def test_what_a_loop_returns_or_raises_comes_through() -> None:
    program = (
        "import asyncio\nfrom tests import ending\n"
        "assert ending.run(asyncio.sleep(0, 7)) == 7\n"
        "async def fails(): raise asyncio.CancelledError\n"
        "try: ending.run(fails())\n"
        "except asyncio.CancelledError: print('so it was')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, cwd=CLONE
    )
    assert (done.stdout, done.stderr) == ("so it was\n", "")


@pytest.mark.interop
@pytest.mark.timeout(150)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("words", "busy"),
    [
        (["tests.bench.bench_data", "--rounds", "50", "--size", "16", "--only", "1 x 1"], "load"),
        (["tests.conformance.conformance", "--only", "Read[0-9]"], "iscsi-test-cu"),
        (["tests.crash.crashtest", "--images", "1000000"], "qemu-img"),
    ],
    ids=["bench", "conformance", "crashtest"],
)
def test_nothing_is_left(
    words: Sequence[str],
    busy: str,
    number: signal.Signals,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Ended in the middle of its work, with servers, clients and children of its own."""
    assert shutil.which("tgtd") and shutil.which("iscsi-test-cu") and shutil.which("qemu-img")
    folder = tmp_path_factory.mktemp("end")  # a short name: a socket's path is
    with background([sys.executable, "-m", *words], TMPDIR=str(folder)) as process:
        until(lambda: busy in alive().values() or process.poll() is not None, f"no {busy} came")
        assert process.poll() is None
        whose = set(alive())
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + number, said
    until(lambda: not alive(), "some are left")
    assert "Traceback" not in said
    left = [path for pid in whose for place in (BUILD, MEMORY) for path in place.glob(f"*-{pid}-*")]
    assert left + list(folder.iterdir()) == []

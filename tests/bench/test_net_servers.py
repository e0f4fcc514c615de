"""What `make bench-net` reads of a server's processes, which come and go meanwhile."""

import os
import subprocess
import sys

from tests.bench.net_servers import cpu

BUSY = "import os, subprocess, sys\nsum(range(3_000_000))\n"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {BUSY + "print(1, flush=True); input()"!r}])
child.wait()
"""


def test_a_process_that_has_just_ended_costs_nothing_more() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert cpu(ended.pid) == 0.0


def test_threads_and_children_count() -> None:
    assert cpu(os.getpid()) > 0.0
    words = [sys.executable, "-c", PARENT]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        parent.stdout.readline()  # the child has worked
        whole, (child,) = cpu(parent.pid), _children(parent.pid)
        assert whole > cpu(child) > 0.0
        parent.stdin.close()


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]

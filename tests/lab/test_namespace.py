"""A network of our own, really made (the tests run as root, or where users may)."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netboot.errors import LabError
from netboot.lab import namespace

ROOT = os.geteuid() == 0


def inside(program: str, *, root: bool = ROOT) -> subprocess.CompletedProcess[str]:
    command = namespace.unshare([sys.executable, "-c", program], root=root)
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


BUILD = """
from netboot.lab import namespace
namespace.build("192.168.77.1/24", ["tap0", "tap1"])
"""


def test_the_network_has_a_bridge_and_the_taps_and_nothing_else() -> None:
    show = "import subprocess; subprocess.run(['ip', '-br', 'address'])"
    done = inside(BUILD + show)
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines()}
    assert names - {"tunl0@NONE", "sit0@NONE", "ip6tnl0@NONE", "erspan0@NONE"} >= {
        "lo",
        "br0",
        "tap0",
        "tap1",
    }
    assert "192.168.77.1/24" in done.stdout
    assert not any(name.startswith(("eth", "en")) for name in names)


def test_a_network_without_root() -> None:
    """As the user that CI gives: inside a user namespace of its own."""
    done = inside(BUILD + "import os; print(os.geteuid())", root=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"


def test_a_failing_ip_command_is_told_in_its_own_words() -> None:
    done = inside(
        "from netboot.lab import namespace\n"
        "from netboot.errors import LabError\n"
        "try: namespace.ip('link', 'set', 'nosuch', 'up')\n"
        "except LabError as error: print(error)"
    )
    assert "`ip link set nosuch up` failed" in done.stdout
    assert "nosuch" in done.stdout.split("failed: ")[1]


def test_all_of_the_lab_ends_with_its_first_process(tmp_path: Path) -> None:
    """Ended by SIGKILL, the way that leaves nobody a chance to clean up."""
    program = (
        "import subprocess, sys, time\n"
        "subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "print(__import__('os').readlink('/proc/self'), flush=True)\n"
        "time.sleep(300)"
    )
    command = namespace.unshare([sys.executable, "-c", program], root=ROOT)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = int(process.stdout.readline())
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        assert children
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        for _ in range(100):
            if not any(Path(f"/proc/{pid}").exists() for pid in [first, *children]):
                break
            subprocess.run(["sleep", "0.05"], check=True)
        assert not any(Path(f"/proc/{pid}").exists() for pid in [first, *children])


def test_reentering_gives_back_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(namespace.MARK, raising=False)
    assert not namespace.inside()
    assert namespace.reenter(["--no-such-option"]) == 2


def test_where_namespaces_are_refused_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    namespace.check()
    refuse = ["sh", "-c", "echo 'unshare failed: Operation not permitted' >&2; exit 1"]
    monkeypatch.setattr(namespace, "unshare", lambda argv, root: refuse)
    with pytest.raises(LabError, match=r"Operation not permitted; .+"):
        namespace.check()


CHILD = """
import os, signal, subprocess, sys, time
def end(number, frame):
    print("told", flush=True)
    time.sleep(0.2)
    sys.exit(9)
time.sleep(0.3)  # as long as it has no handler, no signal would reach it
signal.signal(signal.SIGTERM, end)
print(os.environ["MINE"], flush=True)
time.sleep(300)
"""
PARENT = """
import signal, sys
from netboot.lab import namespace
def end(number, frame): sys.exit(143)
signal.signal(signal.SIGTERM, end)
namespace.run([sys.executable, "-c", sys.argv[1]], mark="MINE")
"""


def below(pid: int) -> list[str]:
    """The command lines of a process's grandchildren."""

    def children(pid: int) -> list[int]:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    try:
        found = [each for child in children(pid) for each in children(child)]
        return [Path(f"/proc/{each}/cmdline").read_text() for each in found]
    except OSError:
        return []


@pytest.mark.parametrize("early", [True, False], ids=["before it listens", "later"])
def test_who_is_ended_ends_the_first_process_of_the_namespaces_in_order(early: bool) -> None:
    words = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = "" if early else process.stdout.readline()
        for _ in range(600 if early else 0):  # until the child is there
            if any("MINE" in words for words in below(process.pid)):
                break
            subprocess.run(["sleep", "0.01"], check=True)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert first + said == "1\ntold\n" or (early and said == "told\n")
    assert process.returncode == 143


def test_a_run_gives_what_was_written_and_ends_when_its_time_is_up() -> None:
    done = namespace.run([sys.executable, "-c", "print(7)"], stdout=subprocess.PIPE, timeout=30)
    assert (done.returncode, done.stdout) == (0, "7\n")
    with pytest.raises(subprocess.TimeoutExpired):
        namespace.run([sys.executable, "-c", CHILD], mark="MINE", timeout=1)

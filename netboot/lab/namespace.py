"""A network of our own: namespaces, a bridge and taps.

The lab runs inside new network and PID namespaces, so nothing on the machine's real network
changes, and every process of the lab ends when its first one does, however that ends. Without
root it also takes a user namespace, where it is root over its own network only.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from netboot.errors import LabError

MARK = "NETBOOT_LAB_NAMESPACE"
BRIDGE = "br0"
#: Seconds in which a child that was told to end cleans up.
PATIENCE = 60.0


def inside() -> bool:
    """Whether this process already runs in a lab's namespaces."""
    return MARK in os.environ


def unshare(argv: Sequence[str], *, root: bool) -> list[str]:
    """The command that runs ``argv`` as the first process of new namespaces."""
    wrapper = ["unshare", "--net", "--pid", "--fork", "--kill-child"]
    if not root:
        wrapper += ["--user", "--map-root-user"]
    return [*wrapper, "--", *argv]


def reenter(arguments: Sequence[str]) -> int:
    """Run ``netboot ARGUMENTS`` inside new namespaces; its exit code.

    Ctrl-C reaches the child by the terminal; we only wait, so that it can clean up and say
    what it has to say (``run``).
    """
    if shutil.which("unshare") is None:
        raise LabError("the lab needs `unshare`: apt-get install util-linux")
    child = [sys.executable, "-m", "netboot", *arguments]
    return run(child).returncode


def run(
    argv: Sequence[str],
    *,
    mark: str = MARK,
    wrapper: Sequence[str] = (),
    stdout: int | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` in new namespaces, ``mark`` in its environment; what it wrote, if piped.

    A KeyboardInterrupt is only waited out: the terminal has told the child, too. Whatever else
    ends us (SystemExit of a SIGTERM, TimeoutExpired) ends the child before, by SIGTERM, so that
    it cleans up: ``unshare`` itself ignores that one, and SIGKILL would leave files behind.
    """
    command = wrapper or unshare((), root=os.geteuid() == 0)
    process = subprocess.Popen(
        [*command, *argv],
        env={**os.environ, mark: "1"},
        stdout=stdout,
        cwd=cwd,
        text=True,
    )
    while True:
        try:
            said, _ = process.communicate(timeout=timeout)
        except KeyboardInterrupt:
            continue
        except BaseException:
            _end(process)
            raise
        return subprocess.CompletedProcess(command, process.returncode, said)


def _end(process: "subprocess.Popen[str]") -> None:
    """Have the first process of the namespaces end in order, within ``PATIENCE``."""
    until = time.monotonic() + PATIENCE
    told = False
    while process.poll() is None and time.monotonic() < until:
        told = told or _tell(process.pid)
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
    process.wait()


def _tell(parent: int) -> bool:
    """SIGTERM to the child of ``parent``; False while there is none, or it is not ready to hear.

    The first process of a PID namespace never gets a signal that it has no handler for.
    """
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for child in map(int, children):
            status = Path(f"/proc/{child}/status").read_text()
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            if caught >> signal.SIGTERM - 1 & 1:
                os.kill(child, signal.SIGTERM)
                return True
    except (OSError, IndexError):
        pass  # it has just ended
    return False


def check() -> None:
    """LabError with the way out where this system does not let us have namespaces."""
    root = os.geteuid() == 0
    tried = subprocess.run(unshare(["true"], root=root), capture_output=True, text=True)
    if tried.returncode == 0:
        return
    reason = tried.stderr.strip().splitlines()[-1:] or ["no reason was given"]
    hint = (
        "this container may lack CAP_SYS_ADMIN"
        if root
        else "run as root, or allow unprivileged user namespaces "
        "(sysctl kernel.unprivileged_userns_clone=1)"
    )
    raise LabError(f"a network namespace could not be made: {reason[0]}; {hint}")


def ip(*arguments: str) -> None:
    """One ``ip`` command; LabError with its own words when it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")


def build(address: str, taps: Sequence[str]) -> None:
    """Bring up loopback, the bridge with ``address`` (with prefix) and a tap a machine."""
    if shutil.which("ip") is None:
        raise LabError("the lab needs `ip`: apt-get install iproute2")
    ip("link", "set", "lo", "up")
    # No learning delay and no duplicate address detection: both would eat the first packets.
    ip("link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0")
    detection = Path(f"/proc/sys/net/ipv6/conf/{BRIDGE}/accept_dad")
    if detection.exists():
        detection.write_text("0")
    ip("address", "add", address, "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    for tap in taps:
        ip("tuntap", "add", tap, "mode", "tap")
        ip("link", "set", tap, "master", BRIDGE, "up")

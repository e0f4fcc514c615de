"""One overlay, one owner: while a disk process serves it, nobody else opens it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from netboot.disks.wire import Kind

pytestmark = pytest.mark.interop


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def io(url: str, *commands: str) -> str:
    arguments = [part for command in commands for part in ("-c", command)]
    done = run("qemu-io", "-f", "raw", *arguments, url)
    return done.stdout + done.stderr


@pytest.fixture
def served(iscsi: Any) -> Any:
    """A target whose disk was written to, and is open still."""
    words = io(iscsi.url(), "write -P 1 0 1M", "flush")
    assert "wrote 1048576/1048576" in words
    return iscsi


@pytest.mark.parametrize("verb", ["info", "check", "commit", "map"])
def test_qemu_img_is_refused_by_its_own_lock(served: Any, verb: str) -> None:
    done = run("qemu-img", verb, str(served.overlay))
    assert done.returncode != 0
    assert "lock" in done.stderr and str(served.overlay) in done.stderr
    served.stop()
    if verb != "commit":  # that one would change the golden image
        assert run("qemu-img", verb, str(served.overlay)).returncode == 0


def test_qemu_cannot_open_it_to_write(served: Any) -> None:
    done = run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 4k", str(served.overlay))
    assert "lock" in done.stderr
    assert "verification failed" not in io(served.url(), "read -P 1 0 1M")


def test_another_process_of_ours_is_refused(served: Any) -> None:
    program = (
        "from netboot.model import DiskSpec\n"
        "from netboot.storage.attach import attach\n"
        f"attach({served.admission.luns[0].disk!r})\n"
    )
    done = run(sys.executable, "-c", program)
    assert done.returncode == 1
    assert f"InUse: {served.overlay}: in use by another program" in done.stderr
    served.stop()
    assert run(sys.executable, "-c", program).returncode == 0


def test_another_disk_process_refuses_the_login_and_the_first_goes_on(
    served: Any, iscsi_with: Callable[..., Any]
) -> None:
    second = iscsi_with(sys.executable)
    second.admission = replace(second.admission, luns=served.admission.luns)
    words = io(second.url(), "read 0 4k")
    assert "Failed to connect" in words or "failed" in words.lower(), words
    (trouble,) = {event.detail for event in second.events if event.kind is Kind.ERROR}
    assert trouble == f"{served.overlay}: in use by another program"
    assert "verification failed" not in io(served.url(), "read -P 1 0 1M", "write -P 2 1M 4k")

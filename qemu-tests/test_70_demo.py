"""The demonstration itself, as a newcomer runs it."""

import subprocess
import sys

import pytest


@pytest.mark.outside
def test_the_demonstration_ends_well() -> None:
    command = [sys.executable, "-m", "netboot", "lab", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, other in (("bios1", "uefi1"), ("uefi1", "bios1")):
        assert f"{name}: is up again, found /root/{name} and none of {other}'s" in done.stdout
    assert "ready" in done.stdout
    assert "golden debian version" in done.stdout

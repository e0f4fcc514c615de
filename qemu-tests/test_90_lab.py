"""``netboot lab up``, ``status`` and ``down``: a lab that stays while nobody watches."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from netboot.model import Version

pytestmark = pytest.mark.outside
BOOT = 240


def lab(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netboot", "lab", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def status(folder: Path) -> dict[str, Any]:
    done = lab("status", "--dir", folder, "--json")
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["up"] is (done.returncode == 0)
    return answer


def test_a_lab_comes_up_stays_and_goes(version: Version, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    assert status(folder) == {"up": False}
    done = lab("up", "--image", version.image, "--dir", folder)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        again = lab("up", "--image", version.image, "--dir", folder)
        assert again.returncode == 2
        assert "already up" in again.stderr
        limit = time.monotonic() + BOOT
        while (machine := status(folder)["machines"][0])["phase"] != "ready":
            assert machine["on"], Path(machine["serial"]).read_text(errors="replace")[-2000:]
            assert time.monotonic() < limit, machine
            time.sleep(1)
        pid = int(status(folder)["pid"])
        assert b"NETBOOT-READY machine1" in Path(machine["serial"]).read_bytes()
    finally:
        gone = lab("down", "--dir", folder)
    assert gone.stdout == "the lab is down\n"
    assert not Path(f"/proc/{pid}").exists()
    assert status(folder) == {"up": False}
    (overlay,) = (folder / "state" / "overlays").glob("*.qcow2")
    checked = subprocess.run(["qemu-img", "check", overlay], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (folder / "capture.pcap").stat().st_size > 0

"""``netboot boot``, the command for CI: what its exit code says, with and without root."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from netboot.lab.run import lend
from netboot.model import Version

pytestmark = pytest.mark.outside
BOOT = [sys.executable, "-m", "netboot", "boot"]


def run(*words: str | Path, user: bool = False) -> subprocess.CompletedProcess[str]:
    command = [*BOOT, *map(str, words)]
    if user and os.geteuid() == 0:
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
        command = [*nobody, "env", "HOME=/nonexistent", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_the_text_came_without_root_and_the_overlay_is_kept(
    version: Version, tmp_path: Path
) -> None:
    folder = Path("/var/tmp") / f"netboot-test-{os.getpid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        lend(version, folder / "state")
        for path in (folder / "state", *(folder / "state").iterdir()):
            os.chown(path, 65534, 65534)
        words = ["debian", "--expect", "NETBOOT-READY", "--timeout", "240", "--json"]
        done = run(
            *words, "--state", folder / "state", "--keep-overlay", folder / "kept", user=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answer = json.loads(done.stdout)
        assert answer["ok"] is True
        (kept,) = answer["overlays"]
        check = subprocess.run(["qemu-img", "check", "-q", kept], capture_output=True, text=True)
        assert check.returncode == 0, check.stdout + check.stderr
    finally:
        shutil.rmtree(folder)


def test_the_text_did_not_come(version: Version) -> None:
    done = run("debian", "--expect", "no machine says this", "--timeout", "5")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "last phase: " in done.stderr
    (folder,) = [word for word in done.stderr.split() if word.startswith("/tmp/netboot-boot-")]
    names = {path.name for path in Path(folder).iterdir()}
    assert {"machine1.serial.log", "service.log", "capture.pcap"} <= names
    shutil.rmtree(folder)


def test_the_lab_could_not_start(tmp_path: Path) -> None:
    done = run("nosuch", "--state", tmp_path)
    assert done.returncode == 2
    assert "netboot image build nosuch" in done.stderr

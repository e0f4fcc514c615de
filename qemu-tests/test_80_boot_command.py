"""``netboot boot``, the command for CI: what its exit code says, with and without root."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from netboot.lab.run import lend
from netboot.model import Version

pytestmark = pytest.mark.outside
BOOT = [sys.executable, "-m", "netboot", "boot"]
CHECKOUT = Path(__file__).resolve().parents[1]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


def as_nobody(command: list[str], place: Path) -> list[str]:
    """``command`` without root, also where root's checkout or Python lies in a folder that others
    may not enter, as /root is: a mount namespace has them at the same paths, below open folders.

    ``place`` is a folder of anybody's, for the time in between.
    """
    command = [*NOBODY, "env", "HOME=/nonexistent", *command]
    needed = [CHECKOUT, Path(sys.base_prefix).resolve()]
    shut = [[up for up in path.parents if not up.stat().st_mode & 0o001] for path in needed]
    if not any(shut):
        return command
    lines, again = ["set -e"], []
    for number, (path, closed) in enumerate(zip(needed, shut, strict=True)):
        if closed:
            here, there = shlex.quote(str(place / str(number))), shlex.quote(str(path))
            lines += [f"mkdir -p {here}", f"mount --bind {there} {here}"]
            again += [f"mkdir -p {there}", f"mount --bind {here} {there}"]
    for folder in sorted({str(closed[-1]) for closed in shut if closed}):
        lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(folder)}"]
    lines += [*again, f"cd {shlex.quote(str(CHECKOUT))}", 'exec "$@"']
    return ["unshare", "--mount", "sh", "-c", "\n".join(lines), "sh", *command]


def run(*words: str | Path, user: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``netboot boot`` and these words; not as root where there is a folder for ``user``."""
    command = [*BOOT, *map(str, words)]
    if user and os.geteuid() == 0:
        command = as_nobody(command, user / "checkout")
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
            *words, "--state", folder / "state", "--keep-overlay", folder / "kept", user=folder
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
    prefix = f"{tempfile.gettempdir()}/netboot-boot-"
    (folder,) = [word for word in done.stderr.split() if word.startswith(prefix)]
    names = {path.name for path in Path(folder).iterdir()}
    assert {"machine1.serial.log", "service.log", "capture.pcap"} <= names
    shutil.rmtree(folder)


def test_the_lab_could_not_start(tmp_path: Path) -> None:
    done = run("nosuch", "--state", tmp_path)
    assert done.returncode == 2
    assert "netboot image build nosuch" in done.stderr

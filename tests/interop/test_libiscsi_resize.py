"""A disk grows under its sessions, as foreign initiators and qemu-img see it."""

import subprocess
from typing import Any

import pytest

from netboot.errors import NetbootError

pytestmark = pytest.mark.interop

BEFORE, AFTER = 32 << 20, 100 << 30
MAC = "52:54:00:12:34:56"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def io(url: str, *commands: str) -> str:
    arguments = [part for command in commands for part in ("-c", command)]
    done = run("qemu-io", "-f", "raw", *arguments, url)
    return done.stdout + done.stderr


def capacity(url: str) -> str:
    return run("iscsi-readcapacity16", url).stdout


@pytest.fixture
def served(iscsi: Any) -> Any:
    """A target whose disk was written to, and is open still."""
    words = io(iscsi.url(), "write -P 1 0 1M", "flush", "write -P 2 1M 64k")
    assert "wrote 1048576/1048576" in words
    return iscsi


def grow(target: Any, size: int) -> bool:
    return bool(target.call(target.disks.resize(MAC, str(target.overlay), size)))


def test_read_capacity_shows_it_and_what_is_new_is_zeros(served: Any) -> None:
    assert f"Total size:{BEFORE}" in capacity(served.url()).replace(": ", ":")
    assert grow(served, AFTER)
    assert f"Total size:{AFTER}" in capacity(served.url()).replace(": ", ":")
    words = io(
        *(served.url(), "length", "read -P 1 0 1M", "read -P 2 1M 64k", "read -P 0 32M 1M"),
        *("read -P 0 102399M 1M", "write -P 3 102399M 64k", "read -P 3 102399M 64k"),
    )
    assert "100 GiB" in words and "failed" not in words, words


def test_the_lock_follows_and_the_file_is_whole(served: Any) -> None:
    assert grow(served, AFTER)
    for verb in ("info", "check", "map"):
        done = run("qemu-img", verb, str(served.overlay))
        assert done.returncode and "lock" in done.stderr
    served.stop()
    checked = run("qemu-img", "check", str(served.overlay))
    assert checked.returncode == 0 and "No errors" in checked.stdout, checked
    assert (
        '"virtual-size": 107374182400'
        in run(*("qemu-img", "info", "--output=json", str(served.overlay))).stdout
    )
    assert (
        "verification failed"
        not in run(
            *("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 2 1M 64k", "-c", "read -P 0 99G 1M"),
            str(served.overlay),
        ).stdout
    )


def test_what_cannot_be_is_refused_and_the_disk_goes_on(served: Any) -> None:
    for size, words in ((BEFORE - 512, "never becomes smaller"), (1 << 50, "at most 16 TiB")):
        with pytest.raises(NetbootError, match=words):
            grow(served, size)
    assert not served.call(served.disks.resize(MAC, "/nobody.qcow2", AFTER))
    assert "verification failed" not in io(served.url(), "read -P 1 0 1M", "read -P 2 1M 64k")

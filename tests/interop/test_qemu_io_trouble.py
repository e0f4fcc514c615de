"""A full disk, a bad platter, a failed sync: who is told what, and who goes on undisturbed.

qemu-io is the initiator, over iSCSI to a disk process of its own; it says what the sense data
were. The full disk is a real one: a small tmpfs that only the disk process sees.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netboot.disks.wire import Kind
from netboot.model import OverlayMode, Version
from netboot.service.ledger import Ledger
from netboot.state.store import Store

pytestmark = pytest.mark.interop

MAC = "52:54:00:12:34:56"
OTHER = "52:54:00:12:34:57"
MIB = 1 << 20
SIZE = 32 * MIB
# Sense key, additional sense code and qualifier, as libiscsi prints them.
NO_SPACE = (0x7, 0x2707)  # DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT
BAD_WRITE = (0x3, 0x0C00)  # MEDIUM ERROR, WRITE ERROR
BAD_READ = (0x3, 0x1100)  # MEDIUM ERROR, UNRECOVERED READ ERROR
OUT_OF_SERVICE = (0x4, 0x4400)  # HARDWARE ERROR, INTERNAL TARGET FAILURE


def io(url: str, *commands: str) -> str:
    """All that qemu-io says; whether it went well is in there."""
    arguments = [part for command in commands for part in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-t", "writeback", "-f", "raw", *arguments, url],
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.stdout + done.stderr


def works(url: str, *commands: str) -> None:
    words = io(url, *commands)
    assert "fail" not in words and "SENSE" not in words and "rror" not in words, words


def fails(words: str, sense: tuple[int, int]) -> None:
    """The first sense data that came were these; where there were others, the disk had failed."""
    found = re.findall(r"SENSE KEY:.*\((\d+)\) ASCQ:.*\((0x[0-9a-f]+)\)", words)
    first, *others = [(int(key), int(code, 16)) for key, code in found] or [(0, 0)]
    assert first == sense, words
    assert {*others} <= {sense, OUT_OF_SERVICE}, words


def check(overlay: Path) -> None:
    done = subprocess.run(
        ["qemu-img", "check", str(overlay)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0 and "No errors were found" in done.stdout, done


def troubles(target: Any) -> list[str]:
    return [event.detail for event in target.events if event.kind is Kind.ERROR]


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def full(tmp_path: Path, iscsi_with: Callable[..., Any]) -> Any:
    """A target whose client has 4 MiB of room for a disk of 32."""
    small = tmp_path / "small"
    small.mkdir()
    python = script(
        tmp_path / "python",
        "exec unshare --user --map-root-user --mount sh -c "
        '\'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"\' '
        f"'{small}' '{sys.executable}' \"$@\"",
    )
    return iscsi_with(python, small / "client.qcow2")


def taken_out(target: Any) -> Path:
    """The overlay's files as they are on the tmpfs now, at the same place outside of it."""
    inside = Path(f"/proc/{target.disks.pid}/root{target.overlay.parent}")
    for name in ("client.qcow2", "client.data"):
        (target.overlay.parent / name).write_bytes((inside / name).read_bytes())
    return target.overlay


def test_a_full_disk(full: Any) -> None:
    other = full.let_in(OTHER)
    url = full.url()
    works(url, "write -P 1 0 1M", "flush")
    fails(io(url, "write -P 2 8M 6M"), NO_SPACE)
    # Whoever has room goes on, the victim too with what it has room for.
    works(other, "write -P 3 0 8M", "flush", "read -P 3 0 8M")
    works(url, "read -P 1 0 1M", "write -P 4 0 64k", "read -P 4 0 64k")
    assert any("No space left on device" in text for text in troubles(full))
    assert all(event.mac == MAC for event in full.events if event.kind is Kind.ERROR)
    # It is as it was where nothing could be written, and GOOD was said of nothing else.
    golden = full.golden.read_bytes()
    copy = full.state / "now.raw"
    done = subprocess.run(
        ["qemu-img", "convert", "-O", "raw", url, str(copy)], capture_output=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    now = copy.read_bytes()
    assert now[:MIB] == b"\4" * 65536 + b"\1" * (MIB - 65536)
    assert now[MIB : 8 * MIB] == golden[MIB : 8 * MIB]
    for at in range(8 * MIB, 14 * MIB, 4096):
        assert now[at : at + 4096] in (b"\2" * 4096, golden[at : at + 4096])
    assert now[14 * MIB :] == golden[14 * MIB :]
    check(taken_out(full))


def test_a_full_disk_has_room_again_after_an_unmap(full: Any) -> None:
    url = full.url()
    words = io(url, "write -P 2 0 6M")
    fails(words, NO_SPACE)
    works(url, "discard 0 6M", "flush", "read -P 0 0 6M", "write -P 5 8M 1M", "flush")
    works(url, "read -P 5 8M 1M")
    check(taken_out(full))


@pytest.fixture
def faulty(tmp_path: Path, iscsi_with: Callable[..., Any]) -> Any:
    """A target with ``faulty_disk_process`` for its disk process."""
    program = Path(__file__).with_name("faulty_disk_process.py")
    # Called as: python -m netboot.disk_process …
    text = f"shift 2; exec '{sys.executable}' '{program}' \"$@\""
    return iscsi_with(script(tmp_path / "python", text))


def test_a_bad_platter(faulty: Any) -> None:
    other = faulty.let_in(OTHER)
    url = faulty.url()
    works(url, "write -P 1 8M 1M", "flush")
    (faulty.state / "medium").touch()
    fails(io(url, "write -P 2 8M 64k"), BAD_WRITE)
    fails(io(url, "write -z 8M 64k", "write -P 2 8M 4k"), BAD_WRITE)
    fails(io(url, "read 10M 4k"), BAD_READ)
    works(other, "write -P 3 8M 1M", "flush", "read -P 3 8M 1M")
    works(url, "write -P 4 0 1M", "flush", "read -P 4 0 1M")
    assert len(troubles(faulty)) >= 3 and "failed as told" in troubles(faulty)[0]
    assert faulty.call(faulty.disks.refresh())[MAC].errors >= 3
    assert faulty.call(faulty.disks.refresh())[OTHER].errors == 0
    (faulty.state / "medium").unlink()
    works(url, "read 10M 4k", "write -P 5 8M 1M", "flush", "read -P 5 8M 1M")
    faulty.stop()
    check(faulty.overlay)


def test_no_room_for_one_range(faulty: Any) -> None:
    url = faulty.url()
    (faulty.state / "space").touch()
    fails(io(url, "write -P 2 9M 64k"), NO_SPACE)
    works(url, "write -P 2 0 64k", "flush")
    faulty.stop()
    check(faulty.overlay)


@pytest.mark.parametrize("how", ["flush", "write -f -P 7 2M 4k"])
def test_after_a_failed_sync_nothing_is_good_any_more(faulty: Any, how: str) -> None:
    other = faulty.let_in(OTHER)
    url = faulty.url()
    works(url, "write -P 1 0 1M", "flush")
    (faulty.state / "sync").touch()
    fails(io(url, "write -P 2 1M 1M", how), BAD_WRITE)
    (faulty.state / "sync").unlink()  # that it would go well now counts for nothing
    for command in ("read 0 4k", "write -P 3 0 4k", "write -z 0 4k"):
        fails(io(url, command), OUT_OF_SERVICE)
    works(other, "write -P 3 0 1M", "flush", "read -P 3 0 1M")
    assert any("the disk is out of service" in text for text in troubles(faulty))
    faulty.stop()
    check(faulty.overlay)
    disk = str(faulty.overlay)
    done = subprocess.run(
        ["qemu-io", "-r", "-f", "qcow2", "-c", "read -P 1 0 1M", disk],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert "read 1048576/1048576" in done.stdout and "failed" not in done.stdout


def test_the_operator_finds_it_in_the_list(faulty: Any, tmp_path: Path) -> None:
    """The event of the disk process, through the ledger, in the words of the command line."""
    store = Store(f"sqlite:///{tmp_path}/netboot.sqlite")
    store.add_version(Version("debian", 1, str(faulty.golden), SIZE, "sha256:golden", 1.0))
    book = Ledger(store, tmp_path)
    mine = book.overlay_of(MAC, "debian", OverlayMode.PERSISTENT)
    Path(mine.path).symlink_to(faulty.overlay)
    (faulty.state / "sync").touch()
    io(faulty.url(), "write -P 2 1M 1M", "flush")
    for event in faulty.events:
        if event.kind is Kind.ERROR:
            book.trouble(event.mac, event.detail, event.at)
    store.close()
    done = subprocess.run(
        [sys.executable, "-m", "netboot", "overlay", "list", "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert "sync failed (Input/output error); the disk is out of service" in done.stdout, done

"""QEMU's tools on iscsi:// URLs: read, write, compare, discard, with digests and without."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.interop

NAME = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
SIZE = 32 << 20


def run(*command: str, expect: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def io(url: str, *commands: str) -> str:
    arguments = [part for command in commands for part in ("-c", command)]
    return run("qemu-io", "-f", "raw", *arguments, url)


def test_info(iscsi: Any) -> None:
    info = json.loads(run("qemu-img", "info", "--output=json", iscsi.url()))
    assert (info["format"], info["virtual-size"]) == ("raw", SIZE)


def test_what_is_read_is_the_golden_image(iscsi: Any) -> None:
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", iscsi.url(), str(iscsi.golden))
    kinds = [event.kind for event in iscsi.events]
    assert kinds[:2] == ["login", "reading"]


def test_a_whole_disk_written_and_read_back(iscsi: Any, tmp_path: Path) -> None:
    source, back = tmp_path / "source.raw", tmp_path / "back.raw"
    source.write_bytes(random.Random(6).randbytes(SIZE // 2) + bytes(SIZE // 2))
    golden = iscsi.golden.read_bytes()
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(source), iscsi.url())
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", iscsi.url(), str(back))
    assert back.read_bytes() == source.read_bytes()
    assert iscsi.golden.read_bytes() == golden
    iscsi.stop()
    run("qemu-img", "check", str(iscsi.overlay))
    run("qemu-img", "compare", str(iscsi.overlay), str(source))


@pytest.mark.parametrize("offset", [0, 512, 4096, 65536 - 512, (16 << 20) + 1536])
@pytest.mark.parametrize("length", [512, 1536, 4096, 65536, 300_032, 3 << 20])
def test_any_range(iscsi: Any, offset: int, length: int) -> None:
    """Immediate data, unsolicited data, one R2T and several."""
    around = offset + length
    io(
        iscsi.url(),
        f"write -P 0x5a {offset} {length}",
        f"read -P 0x5a {offset} {length}",
        "flush",
    )
    expected = bytearray(iscsi.golden.read_bytes())
    expected[offset:around] = b"\x5a" * length
    copy = iscsi.state / "expected.raw"
    copy.write_bytes(expected)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", iscsi.url(), str(copy))


def test_zeroes_and_discards(iscsi: Any) -> None:
    words = io(
        iscsi.url(),
        "write -z 1M 2M",
        "read -P 0 1M 2M",
        "discard 8M 1M",
        "read -P 0 8M 1M",
        "write -P 7 8M 64k",
        "read -P 7 8M 64k",
        "read -P 0 8256k 64k",
        "write -f -P 9 0 4k",
        "read -P 9 0 4k",
        "flush",
    )
    assert "verification failed" not in words
    iscsi.stop()
    run("qemu-img", "check", str(iscsi.overlay))


def test_many_requests_at_once(iscsi: Any) -> None:
    commands = [f"aio_write -q -P {n % 250 + 1} {n * 40}k 36k" for n in range(100)]
    reads = [f"aio_read -q -P {n % 250 + 1} {n * 40}k 36k" for n in range(100)]
    words = io(iscsi.url(), *commands, "aio_flush", *reads, "aio_flush")
    assert "verification failed" not in words


@pytest.mark.parametrize("digest", ["crc32c", "none", "crc32c-none", "none-crc32c"])
def test_header_digests(iscsi: Any, digest: str) -> None:
    disk = {
        "driver": "raw",
        "file": {
            "driver": "iscsi",
            "transport": "tcp",
            "portal": f"127.0.0.1:{iscsi.port}",
            "target": NAME,
            "lun": 0,
            "header-digest": digest,
        },
    }
    name = f"json:{json.dumps(disk)}"
    words = run(
        *("qemu-io", "-c", "write -P 3 1M 600k", "-c", "read -P 3 1M 600k", "-c", "flush", name)
    )
    assert "verification failed" not in words


def test_the_disk_outlives_the_disk_process(iscsi: Any) -> None:
    """Killed under a running initiator: QEMU comes back by itself and reads what it wrote."""
    pid = iscsi.disks.pid
    process = subprocess.Popen(
        ["qemu-io", "-f", "raw", iscsi.url()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin and process.stdout
    try:
        process.stdin.write("write -P 0x42 1M 1M\n")
        process.stdin.flush()
        words = ""
        while "ops" not in words:
            line = process.stdout.readline()
            assert line, words
            words += line
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while iscsi.disks.pid in (pid, None):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        words, _ = process.communicate("read -P 0x42 1M 1M\nquit\n", timeout=40)
    finally:
        process.kill()
        process.communicate()
    assert "read 1048576/1048576" in words and "verification failed" not in words, words

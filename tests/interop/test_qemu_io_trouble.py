"""A full disk, a bad platter, a failed sync: who is told what, and who goes on undisturbed.

qemu-io is the initiator, over iSCSI to a disk process of its own; it says what the sense data
were. The full disk is a real one: a small tmpfs that only the disk process sees.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
from prometheus_client.parser import text_string_to_metric_families

from netboot.disks.wire import Kind
from netboot.errors import NetbootError

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
    """All that qemu-io says; whether it went well is in there. ``url`` may be QEMU's options."""
    arguments = [part for command in commands for part in ("-c", command)]
    how = ["--image-opts"] if url.startswith("driver=") else ["-f", "raw"]
    done = subprocess.run(
        ["qemu-io", "-t", "writeback", *how, *arguments, url],
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


def on_tmpfs(path: Path, folder: Path, size: str) -> str:
    """A Python that sees ``folder`` as a small tmpfs of its own."""
    return script(
        path,
        "exec unshare --user --map-root-user --mount sh -c "
        f'\'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"\' '
        f"'{folder}' '{sys.executable}' \"$@\"",
    )


def with_faults(path: Path) -> str:
    """A Python that runs ``faulty_disk_process`` whatever module it is told to run."""
    program = Path(__file__).with_name("faulty_disk_process.py")
    # Called as: python -m netboot.disk_process …
    return script(path, f"shift 2; exec '{sys.executable}' '{program}' \"$@\"")


@pytest.fixture
def full(tmp_path: Path, iscsi_with: Callable[..., Any]) -> Any:
    """A target whose client has 4 MiB of room for a disk of 32."""
    small = tmp_path / "small"
    small.mkdir()
    return iscsi_with(on_tmpfs(tmp_path / "python", small, "4m"), small / "client.qcow2")


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


def test_a_full_disk_does_not_grow_and_goes_on(full: Any) -> None:
    url = full.url()
    works(url, "write -P 1 0 1M", "flush")
    fails(io(url, "write -P 2 8M 6M"), NO_SPACE)

    def grow() -> None:
        assert full.call(full.disks.resize(MAC, str(full.overlay), 5 << 30))

    with pytest.raises(NetbootError, match="No space left on device"):
        grow()
    works(url, "read -P 1 0 1M", "write -P 4 0 64k", "read -P 4 0 64k", "discard 8M 6M", "flush")
    assert "32 MiB" in io(url, "length")
    grow()
    works(url, "read -P 4 0 64k", "read -P 0 4G 1M", "write -P 5 4G 64k", "flush")
    assert "5 GiB" in io(url, "length")
    inside = Path(f"/proc/{full.disks.pid}/root{full.overlay.parent}")
    assert not list(inside.glob("*.new"))


@pytest.fixture
def faulty(tmp_path: Path, iscsi_with: Callable[..., Any]) -> Any:
    """A target with ``faulty_disk_process`` for its disk process."""
    return iscsi_with(with_faults(tmp_path / "python"))


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


# What the operator sees: the whole service, asked as he asks it.

IQN = "iqn.2026-11.lab.netboot"
SETTINGS = """
[site]
interface = "lo"
address = "127.0.0.1/8"
state = "{state}"
[dhcp]
mode = "off"
[dns]
enabled = false
[tftp]
port = {tftp}
[http]
port = {http}
[iscsi]
port = {iscsi}
[[profile]]
name = "work"
image = "debian"
[[client]]
mac = "52:54:00:12:34:56"
name = "ws1"
profile = "work"
[[client]]
mac = "52:54:00:12:34:57"
name = "ws2"
profile = "work"
"""
#: The service with another program in place of the disk process's Python.
SERVE = """
import functools, sys
from netboot import app, cli
app.Supervisor = functools.partial(app.Supervisor, python=sys.argv.pop(1))
sys.exit(cli.main())
"""


class Operated:
    """``netboot serve`` on loopback, with two machines; ``python`` runs its disk process."""

    def __init__(self, folder: Path, python: str) -> None:
        self.state = folder / "state"
        self.log = folder / "service.log"
        golden = folder / "golden.raw"
        golden.write_bytes(bytes(range(256)) * (SIZE // 256))
        self.netboot("image", "add", golden, "--name", "debian")
        (self.state / "overlays").mkdir()
        with ExitStack() as held:
            kinds = {"tftp": socket.SOCK_DGRAM, "http": socket.SOCK_STREAM}
            kinds["iscsi"] = socket.SOCK_STREAM
            doors = {name: held.enter_context(socket.socket(type=kinds[name])) for name in kinds}
            for door in doors.values():
                door.bind(("127.0.0.1", 0))
            self.ports = {name: door.getsockname()[1] for name, door in doors.items()}
        config = folder / "netboot.toml"
        config.write_text(SETTINGS.format(state=self.state, **self.ports))
        command = [sys.executable, "-c", SERVE, python, "serve", "--config", str(config)]
        victim = {"VICTIM": f"{MAC.replace(':', '-')}.debian"}
        with self.log.open("wb") as words:
            self.process = subprocess.Popen(
                command, stdout=words, stderr=words, env={**os.environ, **victim}
            )
        self.until(lambda: "ready:" in self.words())

    def words(self) -> str:
        return self.log.read_text()

    def until(self, done: Callable[[], bool]) -> None:
        """The test's own time limit is the end of patience."""
        while not done():
            assert self.process.poll() is None, self.words()
            time.sleep(0.05)

    def netboot(self, *words: object) -> str:
        """What one of our commands says."""
        done = subprocess.run(
            [sys.executable, "-m", "netboot", *map(str, words), "--state", str(self.state)],
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done
        return done.stdout

    def disk(self, mac: str) -> str:
        """A machine's disk, for qemu-io as that machine."""
        name = mac.replace(":", "-")
        return (
            f"driver=iscsi,transport=tcp,portal=127.0.0.1:{self.ports['iscsi']},"
            f"target={IQN}:{name},lun=0,initiator-name={IQN}:client.{name}"
        )

    def get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.ports['http']}{path}"
        with build_opener(ProxyHandler({})).open(url, timeout=20) as answer:
            return str(answer.read().decode())

    def figure(self, name: str, mac: str) -> float:
        """One value of a machine's, of ``/metrics``; -1 where there is none."""
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == f"netboot_{name}" and sample.labels.get("mac") == mac:
                    return float(sample.value)
        return -1

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(40) == 0, self.words()


@pytest.mark.parametrize(
    ("trouble", "sense", "told"),
    [
        ("full", NO_SPACE, "No space left on device"),
        ("medium", BAD_WRITE, "failed as told"),
        ("sync", BAD_WRITE, "sync failed (Input/output error); the disk is out of service"),
    ],
)
def test_the_operator_sees_it(
    trouble: str, sense: tuple[int, int], told: str, tmp_path: Path
) -> None:
    """In the log, in the metrics, in the API, in ``overlay list``, until the overlay is reset;
    and the other machine has none of it."""
    if trouble == "full":
        python = on_tmpfs(tmp_path / "python", tmp_path / "state" / "overlays", "6m")
    else:
        python = with_faults(tmp_path / "python")
    operated = Operated(tmp_path, python)
    try:
        mine, other = operated.disk(MAC), operated.disk(OTHER)
        works(mine, "write -P 1 0 64k", "flush")
        works(other, "write -P 1 0 64k", "flush")
        assert operated.figure("overlay_trouble", MAC) == 0
        if trouble != "full":
            (operated.state / trouble).touch()
        fails(io(mine, "write -P 2 8M 7M", "flush"), sense)

        operated.until(lambda: operated.figure("overlay_trouble", MAC) == 1)
        operated.until(lambda: operated.figure("disk_errors_total", MAC) >= 1)
        assert operated.figure("overlay_trouble_time_seconds", MAC) > 1.6e9
        assert operated.figure("overlay_trouble", OTHER) == 0
        assert operated.figure("overlay_trouble_time_seconds", OTHER) == -1
        works(other, "write -P 3 0 64k", "flush", "read -P 3 0 64k")
        assert operated.figure("disk_errors_total", OTHER) == 0

        (line, *_) = [x for x in operated.words().splitlines() if f"ws1 ({MAC}): its disk" in x]
        assert " ERROR " in line and told in line
        mine_in_list, other_in_list = operated.netboot("overlay", "list").splitlines()[-2:]
        assert MAC in mine_in_list and told in mine_in_list
        assert OTHER in other_in_list and told not in other_in_list
        overlays = json.loads(operated.get("/api/v1/overlays"))["overlays"]
        assert {each["mac"]: told in each["trouble"] for each in overlays} == {
            MAC: True,
            OTHER: False,
        }
        if trouble != "full":
            (operated.state / trouble).unlink()
            operated.netboot("overlay", "reset", MAC, "--force")
            works(mine, "write -P 1 0 64k", "flush", "read -P 1 0 64k")
            assert operated.figure("overlay_trouble", MAC) == 0
            assert told not in operated.netboot("overlay", "list")
    finally:
        operated.close()

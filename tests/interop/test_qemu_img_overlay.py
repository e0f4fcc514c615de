"""QEMU's own tools on overlays that we wrote, and we on overlays that they wrote to."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ImageError
from netboot.model import DiskSpec
from netboot.storage import qcow2
from netboot.storage.attach import attach
from netboot.storage.qcow2 import CLUSTER, SUB

pytestmark = pytest.mark.interop

SIZE = 5 * CLUSTER + 5 * 512
CONTENT = random.Random(11).randbytes(SIZE)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.golden = folder / "golden.raw"
        self.golden.write_bytes(CONTENT)
        self.path = folder / "client.qcow2"
        self.spec = DiskSpec(str(self.golden), SIZE, "sha256:1", str(self.path))
        self.model = bytearray(CONTENT)
        self.open: list[Any] = []

    def attach(self) -> Any:
        disk = attach(self.spec)
        self.open.append(disk)
        return disk

    def work(self, disk: Any, seed: int, steps: int = 60) -> None:
        """Verbs in any order; ``model`` is what the disk reads as afterwards."""
        dice = random.Random(seed)
        for _ in range(steps):
            offset = dice.randrange(SIZE // 512) * 512
            length = min(dice.choice([512, 4096, 20480, CLUSTER, 2 * CLUSTER]), SIZE - offset)
            data = dice.randbytes(length) if dice.random() < 0.6 else bytes(length)
            if any(data):
                disk.write(offset, data)
            else:
                dice.choice([disk.zero, disk.unmap])(offset, length)
            self.model[offset : offset + length] = data
            if dice.random() < 0.2:
                disk.flush()

    def expected(self) -> Path:
        path = self.folder / "expected.raw"
        path.write_bytes(self.model)
        return path


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for disk in made.open:
        disk.close()


def qemu_img(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["qemu-img", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=check,
        timeout=30,
        cwd="/",
        env=dict(os.environ, LC_ALL="C"),
    )


def qemu_io(
    path: Path, *commands: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    arguments = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", *options, "-f", "qcow2", *arguments, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def check_is_clean(path: Path) -> None:
    report = json.loads(qemu_img("check", "--output=json", path).stdout)
    assert report["check-errors"] == 0
    assert not report.get("leaks")
    assert not report.get("corruptions")


@pytest.mark.parametrize("seed", range(4))
def test_check_compare_and_convert(bench, seed):
    disk = bench.attach()
    bench.work(disk, seed)
    disk.close()
    check_is_clean(bench.path)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", bench.path, bench.expected())
    copy = bench.folder / "copy.raw"
    qemu_img("convert", "-O", "raw", bench.path, copy)
    assert copy.read_bytes() == bench.model


def test_a_new_overlay_is_clean_and_is_its_golden_image(bench):
    bench.attach().close()
    check_is_clean(bench.path)
    qemu_img("compare", bench.path, bench.golden)


@pytest.mark.parametrize("size", [512, 4096, CLUSTER, (1 << 30) + 512, 40 << 30])
def test_check_for_every_kind_of_size(tmp_path, size):
    golden = tmp_path / "g.raw"
    with golden.open("wb") as file:
        file.truncate(size)
    path = tmp_path / "c.qcow2"
    disk = attach(DiskSpec(str(golden), size, "sha256:1", str(path)))
    disk.write(0, b"a" * 512)
    disk.write(size - 512, b"z" * 512)
    disk.close()
    check_is_clean(path)
    done = qemu_io(path, f"read -P 0x7a {size - 512} 512")
    assert "512/512 bytes" in done.stdout


def test_info_names_what_belongs_together(bench):
    bench.attach().close()
    info = json.loads(qemu_img("info", "--output=json", bench.path).stdout)
    assert info["virtual-size"] == SIZE
    assert info["cluster-size"] == CLUSTER
    assert info["backing-filename"] == str(bench.golden)
    assert info["backing-filename-format"] == "raw"
    specific = info["format-specific"]["data"]
    assert specific["data-file"] == str(bench.folder / "client.data")
    assert specific["extended-l2"] is True
    assert specific["corrupt"] is False


def test_map_sees_each_sub_cluster(bench):
    disk = bench.attach()
    disk.write(CLUSTER + 2 * SUB, b"w" * 3 * SUB)
    disk.zero(CLUSTER + 8 * SUB, 2 * SUB)
    disk.close()
    found = [
        (run["start"], run["length"], run["depth"], run["data"], run["zero"], run.get("offset"))
        for run in json.loads(qemu_img("map", "--output=json", bench.path).stdout)
        if run["depth"] == 0
    ]
    assert found == [
        (CLUSTER + 2 * SUB, 3 * SUB, 0, True, False, CLUSTER + 2 * SUB),
        (CLUSTER + 8 * SUB, 2 * SUB, 0, False, True, CLUSTER + 8 * SUB),
    ]


def test_qemu_reads_what_we_wrote(bench):
    disk = bench.attach()
    disk.write(SUB + 512, b"\x11" * 1024)
    disk.write(2 * CLUSTER, b"\x22" * CLUSTER)
    disk.unmap(2 * CLUSTER + SUB, SUB)
    disk.close()
    qemu_io(
        bench.path,
        f"read -P 0x11 {SUB + 512} 1024",
        f"read -P 0x22 {2 * CLUSTER} {SUB}",
        f"read -P 0 {2 * CLUSTER + SUB} {SUB}",
        f"read -P 0x22 {2 * CLUSTER + 2 * SUB} {CLUSTER - 2 * SUB}",
    )


def test_we_read_what_qemu_wrote(bench):
    disk = bench.attach()
    bench.work(disk, 1, 20)
    disk.close()
    qemu_io(
        bench.path,
        f"write -P 0x33 {CLUSTER - 512} 1024",
        f"write -z {3 * SUB} {2 * SUB}",
        f"discard {3 * CLUSTER} {CLUSTER}",
        f"write -P 0x44 {SIZE - 512} 512",
    )
    bench.model[CLUSTER - 512 : CLUSTER + 512] = b"\x33" * 1024
    bench.model[3 * SUB : 5 * SUB] = bytes(2 * SUB)
    bench.model[3 * CLUSTER : 4 * CLUSTER] = bytes(CLUSTER)
    bench.model[SIZE - 512 :] = b"\x44" * 512
    check_is_clean(bench.path)
    disk = bench.attach()
    assert b"".join(disk.read(0, SIZE)) == bench.model
    bench.work(disk, 2)
    disk.close()
    check_is_clean(bench.path)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", bench.path, bench.expected())


def test_turns_of_qemu_and_us(bench):
    for seed in range(3):
        disk = bench.attach()
        bench.work(disk, seed, 25)
        disk.close()
        offset = seed * CLUSTER + 3 * 512
        qemu_io(bench.path, f"write -P {seed + 1} {offset} 70144")
        bench.model[offset : offset + 70144] = bytes([seed + 1]) * 70144
        check_is_clean(bench.path)
    assert b"".join(bench.attach().read(0, SIZE)) == bench.model


def test_commit_into_a_copy_of_the_golden_image(bench):
    disk = bench.attach()
    bench.work(disk, 5)
    disk.close()
    qemu_img("commit", "-f", "qcow2", bench.path)
    assert bench.golden.read_bytes() == bench.model
    check_is_clean(bench.path)
    # Now the golden file is another one, and we say so.
    with pytest.raises(ImageError, match="changed since it was added"):
        bench.attach()


def test_rebase_keeps_what_it_reads_as(bench):
    disk = bench.attach()
    bench.work(disk, 6)
    disk.close()
    newer = bench.folder / "newer.raw"
    newer.write_bytes(random.Random(12).randbytes(SIZE))
    qemu_img("rebase", "-f", "qcow2", "-F", "raw", "-b", newer, bench.path)
    check_is_clean(bench.path)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", bench.path, bench.expected())
    found = qcow2.decode(bench.path.read_bytes()[: qcow2.HEADER_AREA])
    assert found.golden == str(newer)
    assert found.digest == "sha256:1"  # QEMU keeps our extension as it is
    assert not found.live  # and clears our bit


def test_another_programs_writes_make_an_unflushed_map_void(bench):
    disk = bench.attach()
    disk.write(0, b"f" * SUB)
    disk.flush()
    disk.write(SUB, b"u" * SUB)
    disk._files.close()  # killed
    disk._release()
    assert (bench.folder / "client.live").exists()
    qemu_io(bench.path, f"write -P 0x55 {CLUSTER} {SUB}")
    bench.model[:SUB] = b"f" * SUB
    bench.model[CLUSTER : CLUSTER + SUB] = b"\x55" * SUB
    assert b"".join(bench.attach().read(0, SIZE)) == bench.model


def test_the_file_is_clean_at_any_moment(bench):
    disk = bench.attach()
    for seed in range(4):
        bench.work(disk, seed, 15)
        # As it is now, with whatever was flushed: looked at without the lock.
        snapshot = bench.folder / f"snapshot{seed}.qcow2"
        snapshot.write_bytes(bench.path.read_bytes())
        check_is_clean(snapshot)


def test_the_file_is_clean_after_a_kill(bench):
    program = (
        "import os, random\n"
        "from netboot.model import DiskSpec\n"
        "from netboot.storage.attach import attach\n"
        f"disk = attach(DiskSpec({str(bench.golden)!r}, {SIZE}, 'sha256:1', {str(bench.path)!r}))\n"
        "dice = random.Random(8)\n"
        "disk.write(0, b'a' * 8192)\n"
        "disk.flush()\n"
        "disk.write(4096, b'b' * 4096)\n"
        "disk.write(131072, b'c' * 4096)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert done.returncode == -9
    check_is_clean(bench.path)
    # To read only: opening it to write would make the unflushed map void, and rightly so.
    qemu_io(bench.path, "read -P 0x61 0 4096", "read -P 0x62 4096 4096", options=("-r",))
    copy = bench.folder / "copy.raw"
    qemu_img("convert", "-O", "raw", bench.path, copy)
    assert copy.read_bytes() == b"a" * 4096 + b"b" * 4096 + CONTENT[8192:]
    disk = bench.attach()  # to us, nothing of what was written is lost
    assert b"".join(disk.read(131072, 4096)) == b"c" * 4096


@pytest.mark.parametrize(
    "arguments",
    [
        ("info",),
        ("check",),
        ("convert", "-O", "raw"),
        ("commit",),
        ("rebase", "-u", "-b", ""),
        ("resize",),
    ],
)
def test_a_live_overlay_is_refused_to_qemu(bench, arguments):
    bench.attach()
    command, *options = arguments
    more = {"convert": [bench.folder / "x.raw"], "resize": ["+1M"]}.get(command, [])
    done = qemu_img(command, *options, bench.path, *more, check=False)
    assert done.returncode != 0
    assert "lock" in done.stderr


def test_a_live_overlay_can_be_looked_at_on_purpose(bench):
    bench.attach()
    assert "virtual size" in qemu_img("info", "-U", bench.path).stdout


def test_what_qemu_writes_to_is_refused_to_us(bench):
    bench.attach().close()
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(bench.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("write -P 1 0 512\n")
        process.stdin.flush()
        while "ops" not in (line := process.stdout.readline()):
            assert line
        with pytest.raises(ImageError, match="in use by another program"):
            bench.attach()
        process.stdin.write("quit\n")
    bench.attach()


def test_a_golden_image_in_use_is_refused_to_qemu_for_writing(bench):
    bench.attach()
    done = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "write 0 512", str(bench.golden)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert 'Failed to get "write" lock' in done.stderr
    assert bench.golden.read_bytes() == CONTENT
    # Reading it, and booting another overlay over it, is free.
    qemu_img("convert", "-f", "raw", "-O", "raw", bench.golden, bench.folder / "copy.raw")

"""A disk that grows: while it is used, when it is killed, when there is no room, for good."""

import contextlib
import errno
import os
import random
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ImageError
from netboot.storage import locks, qcow2
from netboot.storage.disk import DiskError, Extent, Fault
from tests.storage.conftest import SIZE, Bench, content, kill

LARGE = 2 * qcow2.L2_SPAN + 7 * 512  # three L2 tables, and no whole number of anything


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


def check(bench: Bench) -> None:
    done = subprocess.run(
        ["qemu-img", "check", "-q", str(bench.path)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_is_new_reads_as_zeros_and_can_be_written(bench: Bench) -> None:
    disk = bench.attach()
    disk.write(SIZE - 512, b"e" * 512)  # in the sub-cluster that the old end is in
    disk.resize(LARGE)
    assert disk.size == LARGE
    expected = bench.content[:-512] + b"e" * 512
    assert content(disk, 0, SIZE) == expected
    assert content(disk, SIZE - 512, 1 << 20) == b"e" * 512 + bytes((1 << 20) - 512)
    assert content(disk, LARGE - 4096, 4096) == bytes(4096)
    assert disk.resident(SIZE, 1 << 20) and disk.resident(LARGE - 512, 512)
    disk.write(SIZE, b"n" * 512)
    disk.write(LARGE - 1024, b"l" * 1024)
    disk.flush()
    bench.disks.pop().close()
    again = bench.attach()
    assert again.size == LARGE
    assert content(again, 0, SIZE + 1024) == expected + b"n" * 512 + bytes(512)
    assert content(again, LARGE - 2048, 2048) == bytes(1024) + b"l" * 1024


def test_qemu_sees_the_same(bench: Bench) -> None:
    disk = bench.attach()
    disk.write(4096, b"w" * 65536)
    disk.unmap(131072, 131072)
    disk.flush()
    disk.resize(64 << 20)
    disk.write(SIZE + 512, b"n" * 1024)
    whole = content(disk)
    bench.disks.pop().close()
    check(bench)
    flat = bench.folder / "flat.raw"
    convert = ["qemu-img", "convert", "-O", "raw", str(bench.path), str(flat)]
    subprocess.run(convert, check=True, timeout=60)
    assert flat.read_bytes() == whole


def test_again_and_again(bench: Bench) -> None:
    dice = random.Random(3)
    disk, model = bench.attach(), bytearray(bench.content)
    for _ in range(12):
        larger = len(model) + dice.randrange(1, 600) * 512
        disk.resize(larger)
        model += bytes(larger - len(model))
        offset = dice.randrange(larger // 512 - 8) * 512
        data = dice.randbytes(4096)
        disk.write(offset, data)
        model[offset : offset + 4096] = data
        if dice.random() < 0.5:
            disk.flush()
        if dice.random() < 0.3:
            bench.disks.pop().close()
            disk = bench.attach()
        assert content(disk) == model
    check_closed = bench.disks.pop()
    check_closed.close()
    check(bench)


def test_the_same_size_changes_nothing_and_fewer_bytes_are_refused(bench: Bench) -> None:
    disk = bench.attach()
    before = os.stat(bench.path).st_ino
    disk.resize(SIZE)
    with pytest.raises(ImageError, match="never becomes smaller"):
        disk.resize(SIZE - 512)
    for wrong in (SIZE + 1, qcow2.MAX_SIZE + 512):
        with pytest.raises(ImageError, match="multiple of 512 and at most 16 TiB"):
            disk.resize(wrong)
    assert os.stat(bench.path).st_ino == before and content(disk) == bench.content


def test_a_disk_that_takes_no_writes_does_not_grow(bench: Bench) -> None:
    with pytest.raises(ImageError, match="never written"):
        bench.attach(overlay=None).resize(LARGE)
    with pytest.raises(DiskError) as caught:
        bench.attach(read_only=True).resize(LARGE)
    assert caught.value.fault is Fault.READ_ONLY


def test_extents_of_what_is_new(bench: Bench) -> None:
    disk = bench.attach()
    disk.resize(4 << 20)
    disk.unmap(2 << 20, 1 << 20)
    first = Extent(0, 2 << 20, True)
    assert list(disk.extents(0, 4 << 20)) == [
        first,
        Extent(2 << 20, 1 << 20, False),
        Extent(3 << 20, 1 << 20, True),
    ]


# Fresh ones


def test_a_fresh_overlay_is_as_large_as_is_asked_for(bench: Bench) -> None:
    disk = bench.attach(room=LARGE)
    assert disk.size == LARGE
    assert content(disk, 0, SIZE + 512) == bench.content + bytes(512)
    disk.close()
    assert bench.attach().size == LARGE  # it keeps its size, whatever is asked for later
    bench.disks.pop().close()
    assert bench.attach(room=2 * LARGE).size == LARGE


def test_never_smaller_than_the_golden_image(bench: Bench) -> None:
    assert bench.attach(room=SIZE - 512).size == SIZE
    assert content(bench.disks[-1]) == bench.content


def test_an_ephemeral_one_takes_a_new_size_with_its_next_boot(bench: Bench) -> None:
    assert bench.attach(ephemeral=True, room=LARGE).size == LARGE
    bench.disks.pop().close()
    assert bench.attach(ephemeral=True, generation=1, room=2 * LARGE).size == 2 * LARGE
    bench.disks.pop().close()
    assert bench.attach(ephemeral=True, generation=2).size == SIZE


def test_a_golden_image_that_grew_wins(bench: Bench) -> None:
    bench.attach(room=SIZE).close()
    bench.golden.write_bytes(bench.content * 2)
    os.unlink(f"{bench.golden}.id")
    spec = {"size": 2 * SIZE, "digest": "sha256:new"}
    with pytest.raises(ImageError, match="was begun over"):
        bench.attach(**spec)
    assert bench.attach(**spec, generation=1, room=SIZE).size == 2 * SIZE
    assert content(bench.disks[-1]) == bench.content * 2


# Locks


def test_the_lock_follows(bench: Bench) -> None:
    disk = bench.attach()
    before = os.stat(bench.path).st_ino
    disk.resize(LARGE)
    assert os.stat(bench.path).st_ino != before
    with pytest.raises(ImageError, match="in use by another program"):
        bench.attach()
    fd = os.open(bench.path, os.O_RDWR)
    assert not locks.own(fd)
    os.close(fd)
    for verb in ("info", "check"):
        done = subprocess.run(
            ["qemu-img", verb, str(bench.path)], capture_output=True, text=True, timeout=30
        )
        assert done.returncode and "lock" in done.stderr
    bench.disks.pop().close()
    assert bench.attach().size == LARGE


def test_nobody_gets_in_at_any_step(bench: Bench, monkeypatch: Any) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 512)
    real = {name: getattr(os, name) for name in ("rename", "fsync")}
    looked = []

    def look() -> None:
        looked.append(None)
        with monkeypatch.context() as calm:
            for name, call in real.items():
                calm.setattr(os, name, call)
            with pytest.raises(ImageError, match="in use"):
                bench.attach()

    def looking(name: str) -> Any:
        def call(*arguments: Any) -> None:
            look()
            real[name](*arguments)
            look()

        return call

    for name in real:
        monkeypatch.setattr(os, name, looking(name))
    disk.resize(LARGE)
    assert len(looked) == 8  # data, tables, name, folder


def test_no_descriptor_is_left(bench: Bench) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 512)
    before = len(os.listdir("/proc/self/fd"))
    for size in (LARGE, 2 * LARGE):
        disk.resize(size)
    assert len(os.listdir("/proc/self/fd")) == before
    assert sorted(p.name for p in bench.folder.glob("client*")) == [
        "client.data",
        "client.live",
        "client.qcow2",
    ]


# Trouble


def failing(monkeypatch: Any, name: str, number: int, at: int) -> None:
    """The ``at``-th call of an os function fails."""
    real, calls = getattr(os, name), []

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == at:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(
    ("name", "number", "at"),
    [
        ("ftruncate", errno.EFBIG, 1),
        ("ftruncate", errno.ENOSPC, 3),
        ("open", errno.ENOSPC, 1),
        ("pwrite", errno.ENOSPC, 1),
        ("pwrite", errno.ENOSPC, 4),
        ("pwrite", errno.EIO, 5),
        ("pwrite", errno.ENOSPC, 6),
        ("fsync", errno.EIO, 2),
        ("rename", errno.EIO, 1),
    ],
)
def test_what_fails_leaves_the_disk_as_it_was(
    bench: Bench, monkeypatch: Any, name: str, number: int, at: int
) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 4096)
    disk.flush()
    disk.write(65536, b"u" * 4096)
    expected = content(disk)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        failing(patch, name, number, at)
        with pytest.raises(ImageError, match=os.strerror(number)):
            disk.resize(LARGE)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not os.path.exists(f"{bench.path}.new")
    assert disk.size == SIZE and content(disk) == expected
    disk.write(4096, b"x" * 4096)
    disk.flush()
    expected = content(disk)
    kill(bench.disks.pop())
    again = bench.attach()
    assert again.size == SIZE and content(again) == expected
    again.resize(LARGE)
    assert content(again, 0, SIZE) == expected


@pytest.mark.parametrize("at", [1, 3], ids=["data", "folder"])
def test_a_failed_sync_takes_the_disk_out_of_service(
    bench: Bench, monkeypatch: Any, at: int
) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 4096)
    disk.flush()
    with monkeypatch.context() as patch:
        failing(patch, "fsync", errno.EIO, at)
        with pytest.raises(DiskError) as caught:
            disk.resize(LARGE)
    assert caught.value.fault is Fault.MEDIUM
    for verb in (lambda: disk.read(0, 512), disk.flush, lambda: disk.write(0, b"x" * 512)):
        with pytest.raises(DiskError) as caught:
            verb()
        assert caught.value.fault is Fault.FAILED
    bench.disks.pop().close()
    again = bench.attach()
    assert again.size in (SIZE, LARGE)
    assert content(again, 0, SIZE) == b"w" * 4096 + bench.content[4096:]


@pytest.mark.parametrize("step", range(16))
def test_killed_at_each_step_nothing_is_lost(bench: Bench, monkeypatch: Any, step: int) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 4096)
    disk.flush()
    disk.write(65536, b"u" * 4096)  # of which only the .live file tells
    disk.unmap(131072, 131072)
    disk.intend(8192, b"i" * 1024)  # and an atomic write that has not begun
    expected = bytearray(content(disk))
    expected[8192:9216] = b"i" * 1024
    calls: list[str] = []

    def dying(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if len(calls) == step:
                raise KeyboardInterrupt
            calls.append(name)
            return real(*arguments, **options)

        patch.setattr(os, name, call)

    with monkeypatch.context() as patch:
        for name in ("ftruncate", "fsync", "pwrite", "rename", "unlink"):
            dying(name)
        with contextlib.suppress(KeyboardInterrupt):
            disk.resize(LARGE)
    kill(bench.disks.pop())
    again = bench.attach()
    assert again.size == (LARGE if "rename" in calls else SIZE)
    assert content(again, 0, SIZE) == expected
    assert "rename" in calls or step < 14
    bench.disks.pop().close()
    check(bench)


def test_a_backup_that_was_put_back_is_not_mixed_with_what_was_not_flushed(bench: Bench) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 4096)
    bench.disks.pop().close()
    saved = bench.path.read_bytes(), bench.data.read_bytes()
    disk = bench.attach()
    disk.write(65536, b"u" * 4096)
    disk.resize(LARGE)
    kill(bench.disks.pop())
    for path, kept in zip((bench.path, bench.data), saved, strict=True):
        fresh = path.with_suffix(".backup")
        fresh.write_bytes(kept)
        fresh.rename(path)
    again = bench.attach()
    assert again.size == SIZE
    assert content(again) == b"w" * 4096 + bench.content[4096:]


def test_an_overlay_of_an_older_release_has_no_number_of_its_own(bench: Bench) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 4096)
    bench.disks.pop().close()
    header = qcow2.decode(bench.path.read_bytes()[: qcow2.HEADER_AREA])
    raw = bytearray(bench.path.read_bytes())
    old = qcow2.encode(replace(header, born=0))
    raw[: qcow2.HEADER_AREA] = old.ljust(qcow2.HEADER_AREA, b"\0")
    bench.path.write_bytes(raw)
    inode = os.stat(bench.path).st_ino
    disk = bench.attach()
    disk.intend(512, b"i" * 512)
    disk.resize(LARGE)
    kill(bench.disks.pop())
    assert qcow2.decode(bench.path.read_bytes()[: qcow2.HEADER_AREA]).born == inode
    assert content(bench.attach(), 0, 4096) == b"w" * 512 + b"i" * 512 + b"w" * 3072


def test_everybody_goes_on_while_it_grows(bench: Bench) -> None:
    disk, model = bench.attach(), bytearray(bench.content)
    dice, done = random.Random(1), threading.Event()
    problems: list[BaseException] = []

    def worker() -> None:
        try:
            while not done.is_set():
                disk.flush()
                assert len(content(disk, 0, SIZE)) == SIZE
        except BaseException as problem:
            problems.append(problem)

    def grower() -> None:
        try:
            for step in range(1, 30):
                disk.resize(SIZE + step * (200 << 20))
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=worker), threading.Thread(target=grower)]
    for thread in threads:
        thread.start()
    while threads[1].is_alive():
        offset = dice.randrange(SIZE // 512 - 8) * 512
        data = dice.randbytes(4096)
        disk.write(offset, data)
        model[offset : offset + 4096] = data
    done.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert content(disk, 0, SIZE) == model
    kill(bench.disks.pop())
    again = bench.attach()
    assert again.size == SIZE + 29 * (200 << 20)
    assert content(again, 0, SIZE) == model

"""Attempts to lose data that was promised: each was a way to do so, or might have been one."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ImageError
from netboot.storage import live
from netboot.storage.disk import DiskError, Fault
from netboot.storage.parts import discard
from tests.storage.conftest import SIZE, Bench, content, kill

AT = 8192 + 512
ATOMIC, LATER = b"A" * 6144, b"L" * 6144


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def power(bench: Bench, monkeypatch: Any) -> Callable[[], Any]:
    """Cuts the power when all that was written had just arrived, and opens the disk again."""

    def cut() -> Any:
        kill(bench.disks.pop())
        monkeypatch.setattr(live, "boot_id", lambda: b"the-next-run".ljust(36, b"."))
        return bench.attach()

    return cut


def failing(name: str, number: int, when: Callable[..., bool]) -> Any:
    """An os function that fails where it is told to."""
    real = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    return call


def is_file(suffix: str) -> Callable[..., bool]:
    return lambda fd, *_: suffix in os.readlink(f"/proc/self/fd/{fd}")


def entries_only(fd: int, _: Any, offset: int) -> bool:
    return is_file(".qcow2")(fd) and offset >= 4 << 17


# Atomic writes, and others that come to the same blocks before they are over


def begin(disk: Any) -> None:
    disk.intend(AT, ATOMIC)
    disk.write(AT, ATOMIC)


def test_a_later_write_survives_a_kill(bench: Bench) -> None:
    disk = bench.attach()
    begin(disk)
    disk.write(AT + 512, LATER[:1024])  # answered, not flushed
    kill(bench.disks.pop())
    again = bench.attach()
    assert content(again, AT, 2048) == b"A" * 512 + b"L" * 1024 + b"A" * 512
    again.flush()
    assert not os.path.getsize(bench.path.with_suffix(".intent"))


def test_a_later_write_that_was_flushed_survives_a_power_cut(bench: Bench, power: Any) -> None:
    disk = bench.attach()
    begin(disk)
    disk.write(AT, LATER)
    disk.flush()  # somebody else's: the atomic write itself has not been settled
    assert content(power(), AT, len(LATER)) == LATER


def test_a_power_cut_before_the_flush_leaves_all_of_it(bench: Bench, power: Any) -> None:
    disk = bench.attach()
    begin(disk)
    kill(bench.disks.pop())
    with open(bench.data, "r+b") as file:  # of which only a part has arrived
        os.pwrite(file.fileno(), b"?" * 2048, AT + 1024)
    bench.attach()  # the same run of the kernel: as a killed process left it
    assert content(bench.disks[-1], AT + 1024, 2048) == b"?" * 2048
    disk = bench.disks[-1]
    disk.write(0, b"w" * 512)
    begin(disk)
    with open(bench.data, "r+b") as file:
        os.pwrite(file.fileno(), b"?" * 2048, AT + 1024)
    assert content(power(), AT, len(ATOMIC)) == ATOMIC


def test_one_whose_flush_finds_no_room_is_not_done_again_later(
    bench: Bench, power: Any, monkeypatch: Any
) -> None:
    disk = bench.attach()
    begin(disk)
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", failing("pwrite", errno.ENOSPC, entries_only))
        with pytest.raises(DiskError) as caught:
            disk.flush()
        assert caught.value.fault is Fault.SPACE
    disk.settle()  # must not take it back: it may reach the disk in parts still
    assert os.path.getsize(bench.path.with_suffix(".intent"))
    disk.write(AT, LATER)
    disk.flush()
    assert content(power(), AT, len(LATER)) == LATER


def test_the_next_one_waits_until_that_is_safe(bench: Bench, power: Any, monkeypatch: Any) -> None:
    disk = bench.attach()
    begin(disk)
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", failing("pwrite", errno.ENOSPC, entries_only))
        for verb in (disk.flush, lambda: disk.intend(0, LATER)):
            with pytest.raises(DiskError) as caught:
                verb()
            assert caught.value.fault is Fault.SPACE
    disk.intend(0, LATER)
    again = power()
    assert content(again, AT, len(ATOMIC)) == ATOMIC and content(again, 0, 6144) == LATER


@pytest.mark.parametrize("suffix", [".data", ".live"])
def test_one_that_finds_no_room_half_way_changes_nothing(
    bench: Bench, monkeypatch: Any, suffix: str
) -> None:
    disk = bench.attach()
    disk.write(8192, b"o" * 4096)  # its first part goes over what is there
    expected = content(disk)
    written = []

    def no_room(fd: int, data: Any, offset: int) -> bool:
        if not is_file(suffix)(fd):
            return False
        written.append(offset)
        if suffix == ".data" and len(written) == 1:
            real(fd, data[:1024], offset)  # a part arrives
        return len(written) == 1

    real = os.pwrite
    disk.intend(AT, ATOMIC)
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", failing("pwrite", errno.ENOSPC, no_room))
        with pytest.raises(DiskError):
            disk.write(AT, ATOMIC)
    disk.settle()
    assert content(disk) == expected
    disk.flush()
    kill(bench.disks.pop())
    assert content(bench.attach()) == expected


def test_one_that_could_not_be_put_down_never_comes_back(
    bench: Bench, power: Any, monkeypatch: Any
) -> None:
    disk = bench.attach()
    failed = []
    with monkeypatch.context() as trouble:
        once = lambda fd: is_file(".intent")(fd) and not failed and not failed.append(1)  # noqa: E731
        trouble.setattr(os, "fsync", failing("fsync", errno.EIO, once))
        with pytest.raises(DiskError):
            disk.intend(AT, ATOMIC)
    disk.write(AT, LATER)
    disk.flush()
    assert content(power(), AT, len(LATER)) == LATER


def test_one_that_cannot_be_taken_back_takes_the_disk_out_of_service(
    bench: Bench, monkeypatch: Any
) -> None:
    disk = bench.attach()
    begin(disk)
    with monkeypatch.context() as trouble:
        trouble.setattr(os, "fsync", failing("fsync", errno.EIO, is_file(".intent")))
        with pytest.raises(DiskError, match="out of service"):
            disk.flush()
    with pytest.raises(DiskError) as caught:
        disk.write(AT, LATER)
    assert caught.value.fault is Fault.FAILED


def test_a_kill_between_emptying_an_intent_and_its_sync(bench: Bench, monkeypatch: Any) -> None:
    """To everybody who looks it is empty; a power cut could bring it back."""
    disk = bench.attach()
    begin(disk)
    disk.flush()
    kill(bench.disks.pop())
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    bench.attach()
    assert str(bench.path.with_suffix(".intent")) in synced


def test_a_reset_leaves_no_intent_for_the_next_disk(bench: Bench, power: Any) -> None:
    bench.attach().intend(AT, ATOMIC)
    saved = bench.path.with_suffix(".saved")
    shutil.copy(bench.path.with_suffix(".intent"), saved)
    kill(bench.disks.pop())
    discard(str(bench.path))
    saved.rename(bench.path.with_suffix(".intent"))  # the folder was not synced in time
    bench.attach()
    assert content(power()) == bench.content


# Full and failing file systems


def test_a_full_file_system_in_the_middle_of_the_entries(
    bench: Bench, power: Any, monkeypatch: Any
) -> None:
    disk = bench.attach()
    disk.write(0, b"a" * 4096)
    disk.flush()
    disk.write(0, b"b" * 4096)
    disk.write(2 * 131072, b"c" * 4096)
    seen = []

    def second(fd: int, data: Any, offset: int) -> bool:
        if entries_only(fd, data, offset):
            seen.append(offset)
        return entries_only(fd, data, offset) and len(seen) > 1

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", failing("pwrite", errno.ENOSPC, second))
        disk.write(131072, b"d" * 4096)
        disk.write(3 * 131072, b"e" * 512)
        for _ in range(3):
            seen.clear()
            disk.write(0, b"b" * 4096)
            try:
                disk.flush()
            except DiskError as problem:
                assert problem.fault is Fault.SPACE
    expected = content(disk)
    disk.flush()
    assert content(power()) == expected


def test_failed_sync_then_close_then_open(bench: Bench, power: Any, monkeypatch: Any) -> None:
    disk = bench.attach()
    disk.write(0, b"a" * 4096)
    disk.flush()
    disk.write(0, b"b" * 4096)
    disk.write(65536, b"c" * 4096)
    with monkeypatch.context() as trouble:
        trouble.setattr(os, "fdatasync", failing("fdatasync", errno.EIO, is_file(".data")))
        with pytest.raises(DiskError):
            disk.flush()
    for verb in (disk.flush, lambda: disk.read(0, 512), lambda: disk.resize(2 * SIZE)):
        with pytest.raises(DiskError) as caught:
            verb()
        assert caught.value.fault is Fault.FAILED
    bench.disks.pop().close()
    again = bench.attach()
    assert content(again, 0, 4096) in (b"a" * 4096, b"b" * 4096)
    assert content(again, 65536, 4096) == bench.content[65536 : 65536 + 4096]
    again.write(65536, b"d" * 4096)
    again.flush()
    assert content(power(), 65536, 4096) == b"d" * 4096


# What is beside the overlay, or below it


@pytest.mark.parametrize("length", [0, 1, 8, 44, 55, 63, 64, 100, 4096, 4097, 5000])
def test_a_torn_live_file_is_void_or_true(bench: Bench, length: int) -> None:
    """It is in the page cache, which a kill cannot tear; but who knows who has copied it."""
    disk = bench.attach()
    disk.write(0, b"a" * 4096)
    disk.flush()
    disk.write(65536, b"b" * 4096)
    kill(bench.disks.pop())
    raw = bench.live.read_bytes()
    bench.live.write_bytes(raw[:length])
    again = bench.attach()
    assert content(again, 0, 4096) == b"a" * 4096
    assert content(again, 65536, 4096) in (b"b" * 4096, bench.content[65536 : 65536 + 4096])


def test_a_golden_image_that_is_replaced_below_a_disk_that_lingers(bench: Bench) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 4096)
    other = bench.golden.with_suffix(".other")
    other.write_bytes(bytes(SIZE))
    other.rename(bench.golden)
    expected = b"w" * 4096 + bench.content[4096:]
    assert content(disk) == expected  # the one it was opened over
    bench.disks.pop().close()
    with pytest.raises(ImageError, match="changed since it was added"):
        bench.attach()
    bench.golden.write_bytes(bench.content)
    os.unlink(f"{bench.golden}.id")
    assert content(bench.attach()) == expected


def test_a_header_that_is_mended_keeps_whose_file_it_is(bench: Bench) -> None:
    """Root mends or resizes what another user's service opens next."""
    bench.attach().close()
    os.chmod(bench.path, 0o640)
    if os.geteuid() == 0:
        os.chown(bench.path, 12345, 23456)
    before = os.stat(bench.path)
    disk = bench.attach()
    disk.resize(2 * SIZE)
    after = os.stat(bench.path)
    assert after.st_ino != before.st_ino
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        *(before.st_uid, before.st_gid, before.st_mode),
    )


def test_killed_between_the_rename_and_the_sync_of_the_folder(
    bench: Bench, power: Any, monkeypatch: Any
) -> None:
    """The old header may come back until somebody syncs; nothing flushed may hang on the new."""
    disk = bench.attach()
    disk.write(0, b"a" * 4096)
    disk.flush()
    before = bench.path.read_bytes()

    def dies(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as trouble:
        trouble.setattr("netboot.storage.files.sync_folder", dies)
        with pytest.raises(KeyboardInterrupt):
            disk.resize(2 * SIZE)
    kill(bench.disks.pop())
    disk = bench.attach()
    assert disk.size == 2 * SIZE
    disk.write(0, b"b" * 4096)  # over its own: no entry changes, so no folder need be synced
    disk.flush()
    kill(bench.disks[-1])
    bench.path.write_bytes(before)
    assert content(bench.attach(), 0, 4096) == b"b" * 4096
    kill(bench.disks.pop())
    bench.disks.pop()
    disk = bench.attach()
    synced = []
    with monkeypatch.context() as listening:
        fsync = os.fsync
        listening.setattr(os, "fsync", lambda fd: (synced.append(fd), fsync(fd)))
        disk.write(65536, b"c" * 4096)  # a new entry
        disk.flush()
    assert synced  # the folder, before the entry

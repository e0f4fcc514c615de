"""The file that outlives a killed process: when it counts, and when it must not."""

import errno
import os
import shutil
import struct

import pytest

from netboot.errors import ImageError
from netboot.storage import live
from netboot.storage.qcow2 import CLUSTER, SUB


def whole(disk):
    return b"".join(disk.read(0, disk.size))


def another_boot(bench):
    """Make the file one of an earlier run of the kernel."""
    with bench.live.open("r+b") as file:
        file.seek(8)
        file.write(b"00000000-0000-0000-0000-000000000000")


def test_the_boot_id_is_a_uuid_in_text():
    assert len(live.boot_id()) == 36
    assert live.boot_id() == live.boot_id()


def test_the_file_begins_with_whose_it_is(tmp_path):
    path = str(tmp_path / "x.live")
    os.close(live.begin(path, 77))
    header = (tmp_path / "x.live").read_bytes()
    assert header == b"NBLIVE1\n" + live.boot_id() + bytes(4) + struct.pack(">QQ", 77, 0)


def test_a_file_that_cannot_be_begun_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(fd, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            live.begin(str(tmp_path / "x.live"), 77)
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path) == []


def test_cells_lie_behind_the_header():
    assert live.offset_of(0) == 4096
    assert live.offset_of(70000) == 74096


def test_resume_finds_what_was_begun(tmp_path):
    path = str(tmp_path / "x.live")
    fd = live.begin(path, 77)
    os.pwrite(fd, b"\1\1\2\3", live.offset_of(5))
    os.pwrite(fd, b"\3", live.offset_of(1 << 20))
    os.close(fd)
    fd = live.resume(path, 77, must_match=True)
    assert fd is not None
    found = bytearray((1 << 20) + 1)
    for first, cells in live.recover(fd, path, len(found)):
        found[first : first + len(cells)] = cells
    os.close(fd)
    expected = bytearray((1 << 20) + 1)
    expected[5:9], expected[1 << 20] = b"\1\1\2\3", 3
    assert found == expected


@pytest.mark.parametrize(
    ("first", "cells"),
    [(0, b"\4"), (7, b"\1\7\1"), (95, b"\1\1"), (500, b"\1")],
    ids=["no such kind", "one among good ones", "one too many", "far behind the disk"],
)
def test_what_no_process_of_ours_writes_is_refused(tmp_path, first, cells):
    path = str(tmp_path / "x.live")
    fd = live.begin(path, 77)
    os.pwrite(fd, cells, live.offset_of(first))
    with pytest.raises(ImageError, match=r"x\.live: is damaged, .* remove this file"):
        list(live.recover(fd, path, 96))
    os.close(fd)


def test_nothing_to_resume(tmp_path):
    assert live.resume(str(tmp_path / "x.live"), 77, must_match=True) is None


@pytest.mark.parametrize("content", [b"", b"NBLIVE1\n", bytes(5000)])
def test_rubbish_is_removed_or_refused(tmp_path, content):
    path = tmp_path / "x.live"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="boot the machine anew"):
        live.resume(str(path), 77, must_match=True)
    assert path.exists()
    assert live.resume(str(path), 77, must_match=False) is None
    assert not path.exists()


def test_the_file_of_another_overlay_is_removed(tmp_path):
    path = str(tmp_path / "x.live")
    os.close(live.begin(path, 78))
    assert live.resume(path, 77, must_match=False) is None


def test_it_goes_with_either_file_while_one_takes_the_others_place(tmp_path):
    path = str(tmp_path / "x.live")
    fd = live.begin(path, 77)
    live.name(fd, 77, 88)
    os.close(fd)
    for inode in (77, 88):  # killed before the rename, or after it
        copy = str(tmp_path / f"{inode}.live")
        shutil.copy(path, copy)
        fd = live.resume(copy, inode, must_match=True)
        assert fd is not None
        os.close(fd)
    assert live.resume(str(tmp_path / "88.live"), 77, must_match=False) is None
    assert live.resume(path, 99, must_match=False) is None


def test_written_yields_the_parts_of_a_sparse_file(tmp_path):
    path = tmp_path / "sparse"
    with path.open("w+b") as file:
        file.truncate(1 << 30)
        os.pwrite(file.fileno(), b"a", 5 << 20)
        os.pwrite(file.fileno(), b"b" * (3 << 20), 100 << 20)
        parts = list(live.written(file.fileno(), 0, 1 << 30, str(path)))
        assert sum(len(data) for _, data in parts) == 4096 + (3 << 20)
        assert parts[0] == (5 << 20, b"a" + bytes(4095))
        assert [offset for offset, _ in parts[1:]] == [100 << 20, 101 << 20, 102 << 20]
        assert list(live.written(file.fileno(), 200 << 20, 1 << 30, str(path))) == []
        assert list(live.written(file.fileno(), 0, 4 << 20, str(path))) == []


def test_there_is_no_file_until_something_changes(bench):
    disk = bench.attach()
    assert not bench.live.exists()
    disk.write(0, bytes(512))
    assert bench.live.exists()
    disk.close()
    assert not bench.live.exists()


def test_after_a_power_cut_it_means_nothing(bench, kill_disk):
    disk = bench.attach()
    disk.write(0, b"a" * SUB)
    disk.flush()
    disk.write(SUB, b"b" * SUB)
    kill_disk(disk)
    another_boot(bench)
    disk = bench.attach()
    assert whole(disk) == b"a" * SUB + bench.content[SUB:]


def test_an_ephemeral_disk_is_refused_after_a_power_cut(bench, kill_disk):
    disk = bench.attach(ephemeral=True, generation=3)
    disk.write(0, b"a" * SUB)
    disk.flush()
    kill_disk(disk)
    another_boot(bench)
    with pytest.raises(ImageError, match="boot the machine anew"):
        bench.attach(ephemeral=True, generation=3)
    # Which it does: a new boot is a new generation.
    assert whole(bench.attach(ephemeral=True, generation=4)) == bench.content


def test_an_ephemeral_disk_goes_on_after_a_kill(bench, kill_disk):
    disk = bench.attach(ephemeral=True, generation=3)
    disk.write(0, b"a" * SUB)
    disk.unmap(CLUSTER, CLUSTER)
    kill_disk(disk)
    disk = bench.attach(ephemeral=True, generation=3)
    expected = bytearray(b"a" * SUB + bench.content[SUB:])
    expected[CLUSTER : 2 * CLUSTER] = bytes(CLUSTER)
    assert whole(disk) == expected


def test_an_ephemeral_disk_that_was_closed_outlives_a_power_cut(bench):
    disk = bench.attach(ephemeral=True, generation=3)
    disk.write(0, b"a" * SUB)
    disk.close()
    assert not bench.live.exists()
    disk = bench.attach(ephemeral=True, generation=3)
    assert whole(disk) == b"a" * SUB + bench.content[SUB:]

"""Power cuts: whatever reached the platter of what was not synced, what was flushed is there.

A simulated platter (``tests/crash/platter.py``) hears of each pwrite, fdatasync and punch. What was
written since a file's last sync may be there or not, each sector of 512 bytes for itself, in any
of the versions it had. Before every call the power may fail: the platter's files are then opened
elsewhere, and each sector of the disk must be the one last flushed, or a later one that was
written.
"""

import os
import random
import shutil
import subprocess

import pytest

from netboot.storage import durable as durable_module
from netboot.storage import qcow2
from netboot.storage.attach import attach
from tests.crash.platter import SECTOR, File


class Platter:
    """The platter below one disk; cuts the power now and then, and looks what that left."""

    def __init__(self, bench, monkeypatch, dice):
        self.bench, self.dice = bench, dice
        self.disk = bench.attach()
        self.data = File(bench.data.read_bytes())
        self.meta = File(bench.path.read_bytes())
        self.files = {self.disk._files.data: self.data, self.disk._files.meta: self.meta}
        #: what each sector of the disk may be after a power cut; the last is what it is now
        content = bench.content
        self.allowed = [[content[at : at + 512]] for at in range(0, bench.size, 512)]
        self.cuts = 0
        self.checked = 0
        pwrite, fdatasync, punch = os.pwrite, os.fdatasync, durable_module.punch

        def on_write(fd, data, offset):
            if fd in self.files:
                self.maybe_cut()
                self.files[fd].write(offset, bytes(data))
            return pwrite(fd, data, offset)

        def on_sync(fd):
            if fd in self.files:
                self.maybe_cut()
                self.files[fd].sync()
            fdatasync(fd)

        def on_punch(fd, offset, length):
            self.maybe_cut()
            self.data.write(offset, bytes(length))
            punch(fd, offset, length)

        self.patch = monkeypatch
        monkeypatch.setattr(os, "pwrite", on_write)
        monkeypatch.setattr(os, "fdatasync", on_sync)
        monkeypatch.setattr(durable_module, "punch", on_punch)

    def begin_change(self, offset: int, data: bytes) -> None:
        for at in range(0, len(data), SECTOR):
            self.allowed[(offset + at) // SECTOR].append(data[at : at + SECTOR])

    def flushed(self, marks: list[int]) -> None:
        """What was there when the flush began is the oldest that may come back."""
        for versions, mark in zip(self.allowed, marks, strict=True):
            del versions[: mark - 1]

    def maybe_cut(self) -> None:
        if self.dice.random() < 0.3:
            self.cut()

    def cut(self) -> None:
        self.cuts += 1
        folder = self.bench.folder / f"cut{self.cuts}"
        folder.mkdir()
        (folder / "client.qcow2").write_bytes(self.meta.after_power_cut(self.dice))
        (folder / "client.data").write_bytes(self.data.after_power_cut(self.dice))
        files, self.files = self.files, {}  # what follows is on another machine
        if self.cuts % 8 == 0:
            self.checked += 1
            check = ["qemu-img", "check", "-q", str(folder / "client.qcow2")]
            subprocess.run(check, check=True, timeout=20)
        again = attach(self.bench.spec(overlay=str(folder / "client.qcow2")))
        content = b"".join(again.read(0, again.size))
        again.close()
        self.files = files
        shutil.rmtree(folder)
        for sector, versions in enumerate(self.allowed):
            found = content[sector * SECTOR : sector * SECTOR + SECTOR]
            assert found in versions, f"sector {sector} after power cut {self.cuts}"


def run(platter, dice, steps):
    disk, size = platter.disk, platter.bench.size
    for _ in range(steps):
        offset = dice.randrange(size // 512) * 512
        length = min(
            dice.choice([512, 1024, 4096, 12288, 65536, 140000 // 512 * 512]), size - offset
        )
        choice = dice.random()
        if choice < 0.5:
            data = dice.randbytes(length)
            platter.begin_change(offset, data)
            disk.write(offset, data)
        elif choice < 0.75:
            platter.begin_change(offset, bytes(length))
            (disk.unmap if choice < 0.65 else disk.zero)(offset, length)
        else:
            marks = [len(versions) for versions in platter.allowed]
            disk.flush()
            platter.flushed(marks)
    marks = [len(versions) for versions in platter.allowed]
    disk.flush()
    platter.flushed(marks)
    platter.cut()
    now = b"".join(versions[-1] for versions in platter.allowed)
    assert b"".join(disk.read(0, size)) == now


@pytest.mark.parametrize("seed", range(8))
def test_power_cuts(bench, monkeypatch, seed):
    dice = random.Random(seed)
    platter = Platter(bench, monkeypatch, dice)
    run(platter, dice, 150)
    assert platter.cuts >= 40


def test_power_cuts_while_writes_overtake_flushes(bench, monkeypatch):
    dice = random.Random(99)
    platter = Platter(bench, monkeypatch, dice)
    disk = platter.disk
    sync = os.fdatasync

    def write_and_sync(fd):
        if fd in platter.files and dice.random() < 0.7:
            offset = dice.randrange(disk.size // 512 - 32) * 512
            data = dice.randbytes(dice.choice([512, 4096, 16384]))
            platter.begin_change(offset, data)
            disk.write(offset, data)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", write_and_sync)
    run(platter, dice, 150)
    assert platter.cuts >= 40


def test_an_overlay_that_publishes_before_the_sync_would_be_caught(bench, monkeypatch):
    # The test itself is tested: entries before data is the mistake it is there for.
    dice = random.Random(1)
    platter = Platter(bench, monkeypatch, dice)
    monkeypatch.setattr(type(platter.disk), "_sync", lambda self, fd: None)

    with pytest.raises(AssertionError, match="after power cut"):
        run(platter, dice, 200)


def flush_in_the_middle(platter, monkeypatch, dice):
    """A flush runs, as in a worker, just when a write has put its data down and not yet said so."""
    disk = platter.disk
    pwrite = os.pwrite
    busy = []

    def write_and_flush(fd, data, offset):
        written = pwrite(fd, data, offset)
        if fd == disk._files.data and fd in platter.files and not busy and dice.random() < 0.5:
            busy.append(True)
            # What is being written now may be there, or not: it is no part of this flush.
            marks = [max(1, len(versions) - 1) for versions in platter.allowed]
            disk.flush()
            platter.flushed(marks)
            busy.pop()
        return written

    monkeypatch.setattr(os, "pwrite", write_and_flush)


def test_power_cuts_while_flushes_overtake_writes(bench, monkeypatch):
    dice = random.Random(4)
    platter = Platter(bench, monkeypatch, dice)
    flush_in_the_middle(platter, monkeypatch, dice)
    run(platter, dice, 150)
    assert platter.cuts >= 40


def test_a_punch_that_hits_a_write_on_its_way_would_be_caught(bench, monkeypatch):
    dice = random.Random(4)
    platter = Platter(bench, monkeypatch, dice)
    flush_in_the_middle(platter, monkeypatch, dice)
    monkeypatch.setattr(type(platter.disk), "_claim", lambda self, first, last: None)
    with pytest.raises(AssertionError):
        run(platter, dice, 3000)


def test_creation_is_durable_before_it_has_its_name(bench, monkeypatch):
    calls = []
    fdatasync, link = os.fdatasync, os.link
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append("sync"), fdatasync(fd))[1])
    monkeypatch.setattr(os, "link", lambda a, b: (calls.append("name"), link(a, b))[1])
    bench.attach()
    assert calls == ["sync", "name"]
    area = bench.path.read_bytes()[: qcow2.HEADER_AREA]
    assert qcow2.decode(area).live

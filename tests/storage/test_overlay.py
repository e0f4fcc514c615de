"""The copy-on-write disk against a bytearray, through closing, killing and opening again."""

import errno
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from netboot.model import DiskSpec
from netboot.storage import durable as durable_module
from netboot.storage import qcow2, residency
from netboot.storage.attach import attach
from netboot.storage.disk import DiskError, Extent, Fault
from netboot.storage.overlay import zeros
from netboot.storage.qcow2 import CLUSTER, SUB, SUBS

SECTORS = 3 * 256 + 5
SIZE = SECTORS * 512
CONTENT = random.Random(3).randbytes(SIZE)


def whole(disk):
    return b"".join(disk.read(0, disk.size))


class Machine(RuleBasedStateMachine):
    """Any order of verbs, closes and kills: every byte is the last one written."""

    ranges = st.tuples(
        st.integers(0, SECTORS - 1), st.one_of(st.integers(1, 20), st.sampled_from([64, 256, 600]))
    ).map(lambda pair: (pair[0] * 512, min(pair[1], SECTORS - pair[0]) * 512))

    @initialize(ephemeral=st.booleans())
    def begin(self, ephemeral):
        self.folder = tempfile.TemporaryDirectory()
        golden = Path(self.folder.name, "golden.raw")
        golden.write_bytes(CONTENT)
        path = str(Path(self.folder.name, "client.qcow2"))
        self.spec = DiskSpec(str(golden), SIZE, "sha256:1", path, ephemeral=ephemeral)
        self.disk = attach(self.spec)
        self.model = bytearray(CONTENT)
        self.counter = 0

    @rule(where=ranges)
    def write(self, where):
        offset, length = where
        self.counter += 1
        data = random.Random(self.counter).randbytes(length)
        self.disk.write(offset, memoryview(data))
        self.model[offset : offset + length] = data

    @rule(where=ranges)
    def zero(self, where):
        offset, length = where
        self.disk.zero(offset, length)
        self.model[offset : offset + length] = bytes(length)
        assert all(extent.allocated for extent in self.disk.extents(offset, length))

    @rule(where=ranges)
    def unmap(self, where):
        offset, length = where
        self.disk.unmap(offset, length)
        self.model[offset : offset + length] = bytes(length)

    @rule(where=ranges)
    def read(self, where):
        offset, length = where
        resident = self.disk.resident(offset, length)
        assert isinstance(resident, bool)
        at_once = self.disk.at_once(offset, length)
        assert at_once in (None, self.model[offset : offset + length])
        assert b"".join(self.disk.read(offset, length)) == self.model[offset : offset + length]

    @rule(where=ranges)
    def extents(self, where):
        offset, length = where
        at = offset
        for extent in self.disk.extents(offset, length):
            assert extent.offset == at
            assert extent.length > 0
            at += extent.length
            if not extent.allocated:
                assert not any(self.model[extent.offset : at])
        assert at == offset + length

    @rule()
    def flush(self):
        self.disk.flush()

    @rule()
    def reopen(self):
        self.disk.close()
        assert not Path(self.folder.name, "client.live").exists()
        self.disk = attach(self.spec)

    @rule()
    def kill(self):
        self.disk._files.close()
        self.disk._release()
        self.disk = attach(self.spec)

    @invariant()
    def same(self):
        if hasattr(self, "disk"):
            assert whole(self.disk) == self.model

    def teardown(self):
        if hasattr(self, "disk"):
            self.disk.close()
            self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def entry(bench, cluster):
    """The 16 bytes of a cluster on disk, as two numbers."""
    with bench.path.open("rb") as file:
        file.seek(qcow2.L2 + 16 * cluster)
        raw = file.read(16)
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")


def test_a_new_disk_is_its_golden_image(bench):
    disk = bench.attach()
    assert whole(disk) == bench.content
    assert disk.size == bench.size
    assert not disk.read_only
    assert disk.extents(0, disk.size) == [Extent(0, disk.size, True)]


def test_a_golden_range_is_a_slice_of_the_mapping(bench):
    disk = bench.attach()
    assert disk.resident(8192, 65536)
    (part,) = disk.read(8192, 65536)
    assert isinstance(part, memoryview)


def test_data_lies_at_its_own_offset(bench):
    disk = bench.attach()
    disk.write(CLUSTER + 8 * SUB, b"w" * 2 * SUB)
    with bench.data.open("rb") as file:
        file.seek(CLUSTER + 8 * SUB)
        assert file.read(2 * SUB) == b"w" * 2 * SUB
    assert bench.data.stat().st_size == bench.size


def test_a_partial_first_write_takes_the_rest_from_the_golden_image(bench):
    disk = bench.attach()
    disk.write(SUB + 1024, b"w" * 512)
    expected = bytearray(bench.content[SUB : 2 * SUB])
    expected[1024:1536] = b"w" * 512
    with bench.data.open("rb") as file:
        file.seek(SUB)
        assert file.read(SUB) == expected


def test_a_partial_write_into_zeros_takes_zeros(bench):
    disk = bench.attach()
    disk.write(0, b"x" * SUB)
    disk.zero(0, SUB)
    disk.write(512, b"w" * 512)
    assert b"".join(disk.read(0, SUB)) == bytes(512) + b"w" * 512 + bytes(SUB - 1024)


def test_the_last_sub_cluster_may_be_a_part_of_one(bench):
    disk = bench.attach()
    disk.write(bench.size - 512, b"e" * 512)
    disk.unmap(bench.size - 512, 512)
    disk.zero(bench.size - 1024, 1024)
    assert whole(disk) == bench.content[: bench.size - 1024] + bytes(1024)
    assert bench.data.stat().st_size == bench.size


def test_only_flush_writes_entries(bench):
    disk = bench.attach()
    disk.write(CLUSTER + SUB, b"w" * SUB)
    disk.zero(CLUSTER + 3 * SUB, SUB)
    assert entry(bench, 1) == (0, 0)
    disk.flush()
    assert entry(bench, 1) == (1 << 63 | CLUSTER, 1 << 1 | 1 << 35)


def test_nothing_but_entries_changes_afterwards(bench):
    disk = bench.attach()
    before = bytearray(bench.path.read_bytes())
    disk.write(0, b"w" * 2 * CLUSTER)
    disk.flush()
    after = bytearray(bench.path.read_bytes())
    before[qcow2.L2 : qcow2.L2 + 32] = after[qcow2.L2 : qcow2.L2 + 32]
    assert before == after


def test_an_overlay_at_rest_takes_four_blocks(bench):
    bench.attach().close()
    assert bench.path.stat().st_blocks * 512 <= 4 * 4096
    assert bench.data.stat().st_blocks == 0
    assert not bench.live.exists()


def test_overwriting_needs_no_new_entry(bench):
    disk = bench.attach()
    disk.write(0, b"a" * SUB)
    disk.flush()
    stamp = bench.path.stat().st_mtime_ns
    disk.write(0, b"b" * SUB)
    disk.flush()
    assert bench.path.stat().st_mtime_ns == stamp
    assert b"".join(disk.read(0, SUB)) == b"b" * SUB


def order_of_calls(monkeypatch, disk):
    """What reaches the disk, by name, in order."""
    names = {disk._files.data: "data", disk._files.meta: "tables"}
    calls = []
    pwrite, fdatasync, punch = os.pwrite, os.fdatasync, durable_module.punch

    def record_write(fd, data, offset):
        calls.append(f"write {names.get(fd, 'live')}")
        return pwrite(fd, data, offset)

    def record_sync(fd):
        calls.append(f"sync {names[fd]}")
        return fdatasync(fd)

    def record_punch(fd, offset, length):
        calls.append(f"punch {offset} {length}")
        punch(fd, offset, length)

    monkeypatch.setattr(os, "pwrite", record_write)
    monkeypatch.setattr(os, "fdatasync", record_sync)
    monkeypatch.setattr(durable_module, "punch", record_punch)
    return calls


def test_the_order_of_a_flush(bench, monkeypatch):
    disk = bench.attach()
    disk.write(SUB, b"w" * SUB)
    disk.flush()
    calls = order_of_calls(monkeypatch, disk)
    disk.write(0, b"w" * SUB)
    assert calls == ["write data", "write live"]
    disk.unmap(SUB, SUB)
    assert calls[2:] == ["write live"]
    disk.flush()
    assert calls[3:] == ["sync data", "write tables", "sync tables", f"punch {SUB} {SUB}"]
    disk.flush()
    assert len(calls) == 7


def test_the_first_flush_makes_the_names_durable_before_an_entry_counts_on_them(bench, monkeypatch):
    disk = bench.attach()
    calls = order_of_calls(monkeypatch, disk)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync folder"), fsync(fd))[1])
    disk.write(0, b"w" * SUB)
    calls.clear()
    disk.flush()
    assert calls == ["sync data", "sync folder", "write tables", "sync tables"]


def test_a_folder_that_cannot_be_synced_takes_the_disk_out_of_service(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)

    def broken(fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(DiskError, match="out of service") as caught:
            disk.flush()
    assert caught.value.fault == Fault.MEDIUM
    with pytest.raises(DiskError) as caught:
        disk.flush()
    assert caught.value.fault == Fault.FAILED


def test_on_a_full_disk_what_is_unmapped_makes_room_for_its_own_entries(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"w" * 2 * SUB)
    disk.flush()
    disk.unmap(SUB, SUB)
    calls = order_of_calls(monkeypatch, disk)
    pwrite = os.pwrite

    def full(fd, data, offset):
        if fd == disk._files.meta and not any(call.startswith("punch") for call in calls):
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    disk.flush()
    again = f"punch {SUB} {SUB}"
    assert calls == ["sync data", again, "write tables", "sync tables", again]
    assert entry(bench, 0)[1] == 1 << 33 | 1


def test_entries_that_find_no_room_are_written_by_a_later_flush(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    with monkeypatch.context() as patch:
        pwrite = os.pwrite

        def full(fd, data, offset):
            if fd == disk._files.meta:
                raise OSError(errno.ENOSPC, "No space left on device")
            return pwrite(fd, data, offset)

        patch.setattr(os, "pwrite", full)
        for _ in range(2):
            with pytest.raises(DiskError, match="No space left") as caught:
                disk.flush()
            assert caught.value.fault == Fault.SPACE
        disk.write(SUB, b"v" * SUB)  # it is no failed disk
    assert entry(bench, 0) == (0, 0)
    disk.flush()
    assert entry(bench, 0)[1] == 3
    disk.close()
    assert whole(bench.attach())[: 2 * SUB] == b"w" * SUB + b"v" * SUB


def test_what_a_killed_process_overwrote_is_synced_by_the_next_ones_first_flush(
    bench, monkeypatch, kill_disk
):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    disk.close()
    disk = bench.attach()
    disk.write(0, b"v" * SUB)  # no entry changes, so no .live file tells of it
    kill_disk(disk)
    assert not bench.live.exists()
    disk = bench.attach()
    calls = order_of_calls(monkeypatch, disk)
    disk.flush()
    assert calls == ["sync data"]
    disk.flush()
    assert calls == ["sync data"]


def test_neighbouring_entries_are_one_write(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"w" * bench.size)
    calls = order_of_calls(monkeypatch, disk)
    disk.flush()
    assert calls.count("write tables") == 1


def test_a_hole_is_given_back_after_the_flush(bench):
    disk = bench.attach()
    disk.write(0, b"w" * CLUSTER)
    disk.flush()
    used = bench.data.stat().st_blocks
    disk.unmap(0, CLUSTER // 2)
    assert bench.data.stat().st_blocks == used
    disk.flush()
    assert bench.data.stat().st_blocks * 512 == used * 512 - CLUSTER // 2
    assert disk.extents(0, CLUSTER) == [
        Extent(0, CLUSTER // 2, False),
        Extent(CLUSTER // 2, CLUSTER // 2, True),
    ]


def test_a_large_hole_is_given_back_in_steps(bench, monkeypatch):
    big = bench.folder / "big.raw"
    with big.open("wb") as file:
        file.truncate(40 << 20)
    disk = bench.attach(golden=str(big), size=40 << 20, overlay=str(bench.folder / "big.qcow2"))
    disk.write(0, b"w" * (40 << 20))
    disk.unmap(SUB, (40 << 20) - SUB)
    calls = order_of_calls(monkeypatch, disk)
    disk.flush()
    step = 16 << 20
    assert [call for call in calls if "punch" in call] == [
        f"punch {SUB} {step}",
        f"punch {SUB + step} {step}",
        f"punch {SUB + 2 * step} {(8 << 20) - SUB}",
    ]
    # By holes, not by blocks: on a disk that is full of pieces the file's map takes one as well.
    with Path(bench.folder, "big.data").open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == SUB
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(file.fileno(), SUB, os.SEEK_DATA)


def test_zeros_keep_their_space(bench):
    disk = bench.attach()
    disk.write(0, b"w" * CLUSTER)
    disk.zero(0, CLUSTER)
    disk.flush()
    assert bench.data.stat().st_blocks * 512 >= CLUSTER
    assert disk.extents(0, CLUSTER) == [Extent(0, CLUSTER, True)]
    assert not any(b"".join(disk.read(0, CLUSTER)))


def test_a_write_that_overtakes_the_punch_is_kept(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"a" * 4 * SUB)
    disk.flush()
    disk.unmap(0, 4 * SUB)
    sync = os.fdatasync

    def sync_and_write(fd):
        sync(fd)
        if fd == disk._files.meta:
            disk.write(SUB, b"b" * SUB)

    monkeypatch.setattr(os, "fdatasync", sync_and_write)
    disk.flush()
    assert b"".join(disk.read(0, 4 * SUB)) == bytes(SUB) + b"b" * SUB + bytes(2 * SUB)
    assert bench.data.stat().st_blocks * 512 == SUB


def test_a_write_during_the_sync_is_in_the_next_flush(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"a" * SUB)
    sync = os.fdatasync
    late = [(SUB, b"b" * SUB), (CLUSTER, b"c" * SUB)]

    def write_and_sync(fd):
        if fd == disk._files.data:
            while late:
                disk.write(*late.pop())
        sync(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", write_and_sync)
        disk.flush()
    assert entry(bench, 0)[1] == 1  # the late ones may not be synced: not published
    assert entry(bench, 1) == (0, 0)
    disk.flush()
    assert entry(bench, 0)[1] == 3
    assert entry(bench, 1)[1] == 1


def test_an_overwrite_during_the_sync_is_synced_by_the_next_flush(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"a" * SUB)
    disk.flush()
    calls = order_of_calls(monkeypatch, disk)
    record_sync = os.fdatasync

    def write_and_sync(fd):
        record_sync(fd)
        disk.write(0, b"c" * SUB)

    disk.write(0, b"b" * SUB)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", write_and_sync)
        disk.flush()
    assert calls.count("sync data") == 1
    disk.flush()
    assert calls.count("sync data") == 2


def test_flushing_in_a_worker_while_the_owner_writes(bench):
    disk = bench.attach()
    model = bytearray(bench.content)
    stop = threading.Event()
    problems = []

    def flusher():
        try:
            while not stop.is_set():
                disk.flush()
        except BaseException as problem:
            problems.append(problem)

    workers = [threading.Thread(target=flusher) for _ in range(2)]
    for worker in workers:
        worker.start()
    dice = random.Random(5)
    for _ in range(1500):
        offset = dice.randrange(SECTORS - 24) * 512
        length = dice.randrange(1, 24) * 512
        choice = dice.random()
        if choice < 0.6:
            data = dice.randbytes(length)
            disk.write(offset, data)
        else:
            data = bytes(length)
            (disk.unmap if choice < 0.85 else disk.zero)(offset, length)
        model[offset : offset + length] = data
        assert b"".join(disk.read(offset, length)) == data
    stop.set()
    for worker in workers:
        worker.join()
    assert not problems
    assert whole(disk) == model
    disk.close()
    assert whole(bench.attach()) == model


def broken_sync(patch, fd_of_choice):
    sync = os.fdatasync

    def broken(fd):
        if fd == fd_of_choice:
            raise OSError(errno.EIO, "Input/output error")
        sync(fd)

    patch.setattr(os, "fdatasync", broken)


@pytest.mark.parametrize("which", ["data", "meta"])
def test_after_a_failed_sync_the_disk_stays_failed(bench, monkeypatch, which):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    with monkeypatch.context() as patch:
        broken_sync(patch, getattr(disk._files, which))
        with pytest.raises(DiskError, match="sync failed") as caught:
            disk.flush()
        assert caught.value.fault is Fault.MEDIUM
    for verb in (
        lambda: disk.flush(),
        lambda: disk.read(512, 512),
        lambda: disk.write(512, bytes(512)),
        lambda: disk.zero(512, 512),
        lambda: disk.unmap(512, 512),
        lambda: disk.extents(512, 512),
    ):
        with pytest.raises(DiskError) as caught:
            verb()
        assert caught.value.fault is Fault.FAILED
    disk.close()
    disk.close()


def test_what_a_failed_sync_left_unsure_is_not_taken_up_again(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"a" * SUB)
    disk.flush()
    disk.write(SUB, b"b" * SUB)
    with monkeypatch.context() as patch:
        broken_sync(patch, disk._files.data)
        with pytest.raises(DiskError):
            disk.flush()
    disk.close()
    assert whole(bench.attach()) == b"a" * SUB + bench.content[SUB:]


def test_no_space_for_data_leaves_the_disk_as_it_was(bench, monkeypatch):
    disk = bench.attach()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DiskError) as caught:
            disk.write(0, b"w" * SUB)
    assert caught.value.fault is Fault.SPACE
    assert whole(disk) == bench.content
    disk.write(0, b"w" * SUB)
    disk.flush()
    assert whole(disk) == b"w" * SUB + bench.content[SUB:]


def test_no_space_for_the_live_file_leaves_the_disk_as_it_was(bench, monkeypatch):
    disk = bench.attach()
    begin = os.open

    def full(path, *arguments, **named):
        if str(path).endswith(".live"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return begin(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(DiskError) as caught:
            disk.write(0, b"w" * SUB)
    assert caught.value.fault is Fault.SPACE
    assert whole(disk) == bench.content


def test_no_space_for_an_entry_is_made_good_later(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    disk.flush()
    disk.write(SUB, b"x" * SUB)
    disk.unmap(0, SUB)
    pwrite = os.pwrite

    def full(fd, data, offset):
        if fd == disk._files.meta:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DiskError) as caught:
            disk.flush()
        assert caught.value.fault is Fault.SPACE
        assert entry(bench, 0)[1] == 1
    disk.flush()
    assert entry(bench, 0)[1] == 1 << 32 | 2
    assert bench.data.stat().st_blocks * 512 == SUB


def test_an_ephemeral_flush_syncs_nothing(bench, monkeypatch):
    disk = bench.attach(ephemeral=True, generation=1)
    calls = order_of_calls(monkeypatch, disk)
    disk.write(0, b"w" * 2 * SUB)  # the .live file begins with a header
    disk.flush()
    disk.unmap(0, SUB)
    assert calls == ["write data"] + 3 * ["write live"] + [f"punch 0 {SUB}"]
    disk.close()
    assert calls[5:] == ["sync data", "write tables", "sync tables"]


def test_a_read_only_overlay(bench):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    disk.close()
    disk = bench.attach(read_only=True)
    assert disk.read_only
    for change in (disk.write, disk.zero, disk.unmap):
        with pytest.raises(DiskError) as caught:
            change(0, bytes(512) if change == disk.write else 512)
        assert caught.value.fault is Fault.READ_ONLY
    disk.flush()
    assert whole(disk) == b"w" * SUB + bench.content[SUB:]


def test_a_closed_disk_answers_nothing(bench):
    disk = bench.attach()
    disk.close()
    with pytest.raises(DiskError, match="closed"):
        disk.read(0, 512)
    with pytest.raises(DiskError, match="closed"):
        disk.write(0, bytes(512))


def test_closing_flushes(bench):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    disk.close()
    assert entry(bench, 0) == (1 << 63, 1)


def test_a_close_that_cannot_flush_keeps_what_it_knows(bench, monkeypatch):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    pwrite = os.pwrite

    def full(fd, data, offset):
        if fd == disk._files.meta:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DiskError):
            disk.close()
    assert whole(bench.attach()) == b"w" * SUB + bench.content[SUB:]


def test_a_killed_process_loses_no_completed_write(bench):
    program = (
        "import os, sys\n"
        "from netboot.model import DiskSpec\n"
        "from netboot.storage.attach import attach\n"
        f"disk = attach(DiskSpec({str(bench.golden)!r}, {bench.size}, 'sha256:1', "
        f"{str(bench.path)!r}))\n"
        "disk.write(0, b'a' * 4096)\n"
        "disk.flush()\n"
        "disk.write(4096, b'b' * 512)\n"
        "disk.unmap(131072, 131072)\n"
        "disk.zero(0, 4096)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert done.returncode == -9
    assert entry(bench, 0)[1] == 1  # on disk: what was flushed
    disk = bench.attach(digest="sha256:1")
    expected = bytes(4096) + b"b" * 512 + bench.content[4608:131072] + bytes(131072)
    assert whole(disk) == expected + bench.content[262144:]
    disk.flush()
    assert entry(bench, 0)[1] == 1 << 32 | 2
    disk.close()
    assert not bench.live.exists()


def test_a_hole_that_a_killed_process_owed_is_punched_later(bench, kill_disk):
    disk = bench.attach()
    disk.write(0, b"a" * CLUSTER)
    disk.flush()
    disk.unmap(0, CLUSTER)
    kill_disk(disk)
    bench.attach().close()
    assert bench.data.stat().st_blocks == 0


def test_many_scattered_writes_keep_memory_small(bench):
    big = bench.folder / "big.raw"
    with big.open("wb") as file:
        file.truncate(8 << 30)
    disk = bench.attach(golden=str(big), size=8 << 30, overlay=str(bench.folder / "big.qcow2"))
    for at in range(0, 8 << 30, 64 << 20):
        disk.write(at, b"w" * 512)
    address = residency.address_of(disk._cells)
    _, _, here = Path("/proc/self/smaps").read_text().partition(f"{address:08x}-")
    lines = dict(line.split(":", 1) for line in here.splitlines()[1:20])
    assert int(lines["Size"].split()[0]) == (8 << 30) // SUB >> 10
    assert int(lines["Rss"].split()[0]) <= 128 * 4


def test_zeros_come_in_pieces_of_one_buffer():
    assert zeros(0) == []
    assert [len(part) for part in zeros((1 << 20) + 512)] == [1 << 20, 512]
    assert not any(b"".join(zeros(4096)))


def test_a_long_range_of_alternating_cells_is_read_at_once(bench):
    disk = bench.attach()
    model = bytearray(bench.content)
    for at in range(0, 3 * CLUSTER, 2 * SUB):
        disk.write(at, b"w" * SUB)
        model[at : at + SUB] = b"w" * SUB
    assert len(disk.read(0, 3 * CLUSTER)) == 3 * SUBS
    assert whole(disk) == model


def test_at_once_is_one_piece_from_wherever_it_is(bench):
    disk = bench.attach()
    disk.write(2 * SUB, b"w" * 2 * SUB)
    disk.zero(4 * SUB, SUB)
    assert disk.at_once(0, SUB) == bench.content[:SUB]
    assert disk.at_once(0, 2 * SUB) == bench.content[: 2 * SUB]
    assert disk.at_once(2 * SUB, SUB) == b"w" * SUB
    assert disk.at_once(2 * SUB + 512, SUB) == b"w" * SUB
    assert disk.at_once(4 * SUB, 1024) == bytes(1024)
    assert disk.at_once(SUB, 2 * SUB) is None  # of two kinds
    disk.flush()
    with bench.data.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert disk.at_once(2 * SUB, 2 * SUB) is None


def test_at_once_follows_a_disk_that_grew_and_one_that_broke(bench, monkeypatch):
    disk = bench.attach()
    disk.resize(SIZE + CLUSTER)
    assert disk.at_once(0, SUB) == bench.content[:SUB]
    assert disk.at_once(SIZE + CLUSTER - SUB, 512) is None  # zeros: not by this way
    disk.write(0, b"w" * SUB)

    def fails(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable_module.os, "fdatasync", fails)
    with pytest.raises(DiskError):
        disk.flush()
    assert disk.at_once(SUB, SUB) is None


def test_resident_asks_each_part_of_a_range(bench):
    disk = bench.attach()
    disk.write(2 * SUB, b"w" * SUB)
    disk.zero(3 * SUB, SUB)
    disk.flush()
    assert disk.resident(0, 8 * SUB)
    with bench.data.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not disk.resident(0, 8 * SUB)
    assert not disk.resident(2 * SUB, SUB)
    assert disk.resident(3 * SUB, SUB)
    assert disk.resident(0, 2 * SUB)
    with bench.golden.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    disk.read(2 * SUB, SUB)
    assert disk.resident(2 * SUB, 2 * SUB)
    assert not disk.resident(0, 4 * SUB)

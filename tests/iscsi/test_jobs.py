"""Long commands in steps: what reaches the disk, who goes first, and how they end."""

from collections.abc import Callable
from typing import Any

import pytest

from netboot.iscsi import jobs
from netboot.iscsi.volume import Done, Shared, Tally
from netboot.scsi.action import Action, Atomic, Check, Copy, Reply, Sanitize

MIB = 1 << 20


class Bytes:
    """A disk in memory that remembers its verbs."""

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(b"x" * size)
        self.verbs: list[str] = []
        self.broken = False

    def read(self, offset: int, length: int) -> list[bytes]:
        if self.broken:
            raise OSError("cannot read")
        return [bytes(self.bytes[offset : offset + length])]

    def write(self, offset: int, data: Any) -> None:
        if self.broken:
            raise OSError("cannot write")
        self.verbs.append("write")
        self.bytes[offset : offset + len(data)] = data

    def unmap(self, offset: int, length: int) -> None:
        self.verbs.append("unmap")
        self.bytes[offset : offset + length] = bytes(length)

    def intend(self, offset: int, data: Any) -> None:
        if self.broken:
            raise OSError("cannot intend")
        self.verbs.append("intend")

    def settle(self) -> None:
        self.verbs.append("settle")

    def flush(self) -> None:
        self.verbs.append("flush")


class Stage:
    """A volume whose worker runs when it is told to."""

    def __init__(self, size: int = 3 * MIB + 512) -> None:
        self.disk = Bytes(size)
        self.size = size
        self.queue: list[tuple[Callable[[], object], Done]] = []
        self.faults: list[str] = []
        self.volume: Shared[Any] = Shared(
            *("a disk", 512, Tally("m"), lambda do, done: self.queue.append((do, done))),
            *(self.disk.flush, self.faults.append),
        )
        self.answers: list[Action] = []

    def step(self) -> bool:
        """Let the worker do one thing."""
        if not self.queue:
            return False
        do, done = self.queue.pop(0)
        try:
            result, error = do(), None
        except OSError as problem:
            result, error = None, problem
        done(result, error)
        return True

    def drain(self) -> None:
        for _ in range(1000):
            if not self.step():
                return
        raise AssertionError("the job has no end")

    def begin(self, action: jobs.Long, unwanted: Callable[[], bool] = lambda: False) -> None:
        disks = {0: self.disk}
        jobs.begin(action, self.volume, self.disk, disks, self.answers.append, unwanted)


def sanitize(size: int, *patterns: bytes) -> Sanitize:
    return Sanitize(size, patterns, False, lambda done: Reply(b"done" if done else b"failed"))


def copy(*segments: tuple[int, int, int, int, int]) -> Copy:
    return Copy(segments, lambda done, failed: Reply(bytes((done, failed))))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_every_pass_covers_the_disk_and_is_flushed(stage: Stage) -> None:
    stage.begin(sanitize(stage.size, b"\xaa" * 512, b"\x55" * 512))
    stage.drain()
    assert stage.disk.bytes == b"\x55" * stage.size
    assert stage.disk.verbs == (["write"] * 4 + ["flush"]) * 2
    assert stage.answers == [Reply(b"done")]


def test_a_pattern_is_aligned_to_the_disk_and_not_to_a_step() -> None:
    stage = Stage(2 * MIB)
    pattern = bytes(range(256)) * 2
    stage.begin(sanitize(stage.size, pattern))
    stage.drain()
    assert stage.disk.bytes == pattern * (stage.size // 512)


def test_an_erase_unmaps(stage: Stage) -> None:
    stage.begin(sanitize(stage.size))
    stage.drain()
    assert stage.disk.bytes == bytes(stage.size)
    assert stage.disk.verbs == ["unmap", "flush"]


def test_a_large_overwrite_is_flushed_on_its_way() -> None:
    stage = Stage(33 * MIB)
    stage.begin(sanitize(stage.size, bytes(512)))
    stage.drain()
    run = ["write"] * 16 + ["flush"]
    assert stage.disk.verbs == [*run, *run, "write", "flush"]


def test_others_go_first_after_each_step(stage: Stage) -> None:
    stage.begin(sanitize(stage.size, bytes(512)))
    assert (stage.disk.verbs, len(stage.queue), stage.answers) == (["write"], 1, [])
    stage.step()
    assert (stage.disk.verbs, len(stage.queue)) == (["write"] * 2, 1)


def test_a_sanitize_goes_on_though_nobody_waits(stage: Stage) -> None:
    stage.begin(sanitize(stage.size, bytes(512)), unwanted=lambda: True)
    stage.drain()
    assert stage.answers == [Reply(b"done")]


def test_a_disk_that_closes_ends_it(stage: Stage) -> None:
    idle: list[bool] = []
    stage.begin(sanitize(stage.size, bytes(512)))
    stage.volume.on_idle = lambda: idle.append(True)
    stage.drain()
    assert (stage.answers, idle, stage.faults) == ([Reply(b"failed")], [True], [])


def test_a_fault_of_the_disk(stage: Stage) -> None:
    stage.disk.broken = True
    stage.begin(sanitize(stage.size, bytes(512)))
    stage.drain()
    assert stage.answers == [Reply(b"failed")]
    assert (stage.faults, stage.volume.tally.errors) == (["cannot write"], 1)


def test_segments_are_copied_in_order(stage: Stage) -> None:
    stage.disk.bytes[:1024] = b"a" * 512 + b"b" * 512
    stage.begin(copy((0, 0, 0, 2048, 1024), (0, 2048, 0, 4096, 512)))
    stage.drain()
    assert stage.answers == [Reply(b"\2\0")]
    assert stage.disk.bytes[2048:3072] == b"a" * 512 + b"b" * 512
    assert stage.disk.bytes[4096:4608] == b"a" * 512


def test_a_long_segment_is_copied_in_steps() -> None:
    stage = Stage(6 * MIB)
    stage.disk.bytes[: 3 * MIB] = bytes(range(256)) * (3 * MIB // 256)
    stage.begin(copy((0, 0, 0, 3 * MIB, 5 * MIB // 2)))
    stage.drain()
    assert stage.disk.verbs == ["write"] * 3
    assert stage.disk.bytes[3 * MIB : 11 * MIB // 2] == stage.disk.bytes[: 5 * MIB // 2]


def test_a_copy_between_two_disks(stage: Stage) -> None:
    second = Bytes(MIB)
    second.bytes[:512] = b"2" * 512
    disks = {0: stage.disk, 3: second}
    action = copy((3, 0, 0, 512, 512))
    jobs.begin(action, stage.volume, stage.disk, disks, stage.answers.append, lambda: False)
    stage.drain()
    assert stage.disk.bytes[512:1024] == b"2" * 512


def test_an_aborted_copy_ends(stage: Stage) -> None:
    wanted = [True]
    stage.begin(copy(*[(0, 0, 0, MIB, 512)] * 3), lambda: not wanted)
    stage.step()
    wanted.clear()
    stage.drain()
    assert stage.disk.verbs == ["write"]
    assert stage.answers == [Reply(b"\1\1")]


def test_a_copy_that_cannot_read(stage: Stage) -> None:
    stage.disk.broken = True
    stage.begin(copy((0, 0, 0, MIB, 512)))
    stage.drain()
    assert stage.answers == [Reply(b"\0\1")]
    assert stage.faults == ["cannot read"]


def test_the_answer_may_be_a_refusal(stage: Stage) -> None:
    refusal = Check(None)  # type: ignore[arg-type]
    stage.begin(Copy(((0, 0, 0, 0, 512),), lambda done, failed: refusal))
    stage.drain()
    assert stage.answers == [refusal]


WHOLE = ["intend", "write", "flush", "settle"]


def test_an_atomic_write_is_meant_then_done_then_let_go(stage: Stage) -> None:
    stage.begin(Atomic(512, b"n" * 1024), unwanted=lambda: True)
    stage.drain()
    assert stage.disk.verbs == WHOLE
    assert stage.disk.bytes[:2048] == b"x" * 512 + b"n" * 1024 + b"x" * 512
    assert stage.answers == [Reply()]


def test_atomic_writes_take_turns(stage: Stage) -> None:
    for letter in (b"1", b"2", b"3"):
        stage.begin(Atomic(0, letter * 512))
    stage.drain()
    assert stage.disk.verbs == WHOLE * 3
    assert stage.disk.bytes[:512] == b"3" * 512
    assert stage.answers == [Reply()] * 3 and not stage.volume.atomic


def test_an_atomic_write_that_fails_lets_go_and_the_next_begins(stage: Stage) -> None:
    stage.begin(Atomic(0, b"1" * 512))
    stage.step()  # meant
    stage.disk.verbs.clear()
    stage.begin(Atomic(0, b"2" * 512))
    stage.drain()
    assert len(stage.answers) == 2

    def fail(offset: int, data: Any) -> None:
        raise OSError("no room")

    stage.disk.verbs.clear()
    stage.disk.write = fail  # type: ignore[method-assign]
    stage.begin(Atomic(0, b"3" * 512))
    stage.drain()
    assert stage.disk.verbs == ["intend", "settle"]
    (answer,) = stage.answers[2:]
    assert isinstance(answer, Check) and answer.sense.key == 4
    assert stage.faults == ["no room"] and not stage.volume.atomic


def test_what_cannot_be_meant_is_not_written(stage: Stage) -> None:
    stage.disk.broken = True
    stage.begin(Atomic(0, b"1" * 512))
    stage.drain()
    assert stage.disk.verbs == [] and isinstance(stage.answers[0], Check)

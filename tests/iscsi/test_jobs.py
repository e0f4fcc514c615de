"""Long commands in steps: what reaches the disk, who goes first, and how they end."""

from collections.abc import Callable
from typing import Any

import pytest

from netboot.iscsi import jobs
from netboot.iscsi.volume import Done, Shared, Tally
from netboot.scsi.action import (
    Action,
    Amend,
    Atomic,
    Check,
    Copy,
    Keep,
    Reply,
    Sanitize,
)
from netboot.scsi.sense import Code, Key, Sense

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
        errand = jobs.Errand(self.volume, self.disk, disks, self.answers.append, unwanted)
        errand.go(action)


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
    # Neither done nor failed: it goes on when the disk is open again.
    assert (stage.answers, idle, stage.faults) == ([], [True], [])


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
    jobs.Errand(stage.volume, stage.disk, disks, stage.answers.append).go(action)
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


# What is remembered


def keeps(stage: Stage, name: bytes) -> Amend:
    """An Amend that keeps ``name`` and answers with it, or with a ? when it could not."""
    return Amend(lambda: Keep(name, lambda done: Reply(name if done else name + b"?")))


def test_what_is_remembered_is_answered_when_it_is_safe(stage: Stage) -> None:
    remembered: list[bytes] = []
    stage.volume.remember = remembered.append
    stage.begin(keeps(stage, b"one"))
    assert (stage.answers, remembered) == ([], [])
    stage.drain()
    assert (stage.answers, remembered) == ([Reply(b"one")], [b"one"])


def test_changes_take_turns_each_upon_the_one_before(stage: Stage) -> None:
    """Two workers may overtake one another; a change made upon the old state would be lost."""
    kept: list[int] = []
    total = 0

    def add(number: int) -> Action:
        nonlocal total
        seen = total

        def then(done: bool) -> Action:
            nonlocal total
            total = seen + number
            return Reply(bytes((total,)))

        return Keep(bytes((seen + number,)), then)

    stage.volume.remember = lambda text: kept.append(text[0])
    for number in (1, 2, 4):
        stage.begin(Amend(lambda number=number: add(number)))  # type: ignore[misc]
    assert len(stage.queue) == 1
    stage.drain()
    assert (kept, total) == ([1, 3, 7], 7)
    assert stage.answers == [Reply(b"\1"), Reply(b"\3"), Reply(b"\7")]


def test_what_cannot_be_remembered_is_told_and_the_next_has_its_turn(stage: Stage) -> None:
    stage.begin(keeps(stage, b"one"))  # the volume's own ``remember`` can do nothing
    stage.begin(keeps(stage, b"two"))
    stage.drain()
    assert stage.answers == [Reply(b"one?"), Reply(b"two?")]
    assert len(stage.faults) == 2


def test_a_change_that_keeps_nothing_is_answered_at_once(stage: Stage) -> None:
    stage.begin(Amend(lambda: Reply(b"conflict")))
    assert stage.answers == [Reply(b"conflict")] and not stage.queue


def test_a_mistake_in_a_change_is_an_error_and_no_silence(stage: Stage) -> None:
    def mistake() -> Action:
        raise ValueError("a mistake of ours")

    stage.begin(Amend(mistake))
    stage.begin(Amend(lambda: Reply(b"the next")))
    assert stage.answers == [
        Check(Sense(Key.HARDWARE_ERROR, Code.INTERNAL_TARGET_FAILURE)),
        Reply(b"the next"),
    ]
    assert stage.faults == ["a mistake of ours"]


def test_a_disk_that_closes_answers_no_change(stage: Stage) -> None:
    remembered: list[bytes] = []
    stage.volume.remember = remembered.append
    stage.begin(keeps(stage, b"one"))
    stage.begin(keeps(stage, b"two"))
    stage.volume.on_idle = lambda: None
    stage.drain()
    assert (stage.answers, remembered) == ([], [b"one"])


# Sanitizing among the others


def test_a_sanitize_waits_for_the_atomic_writes_before_it(stage: Stage) -> None:
    begun: list[bool] = []
    stage.begin(Atomic(0, b"a" * 512))
    errand = jobs.Errand(
        *(stage.volume, stage.disk, {}, stage.answers.append, lambda: False),
        lambda action: begun.append(stage.answers == [Reply()]),
    )
    errand.go(sanitize(stage.size, b"z" * 512))
    assert not begun
    stage.drain()
    assert begun == [True]
    assert stage.answers == [Reply(), Reply(b"done")]
    assert stage.disk.bytes.count(b"a") == 0


def test_progress_goes_from_the_first_byte_to_the_last_of_all_passes(stage: Stage) -> None:
    seen: list[tuple[int, int]] = []
    action = sanitize(stage.size, b"a" * 512, b"b" * 512)
    action.progress = lambda done, of: seen.append((done, of))
    stage.begin(action)
    stage.drain()
    assert seen == sorted(seen) and len(seen) == 8
    assert seen[0] == (MIB, 2 * stage.size) and seen[-1] == (2 * stage.size, 2 * stage.size)


def test_what_follows_a_sanitize_is_done_too(stage: Stage) -> None:
    remembered: list[bytes] = []
    stage.volume.remember = remembered.append
    action = Sanitize(stage.size, (), True, lambda done: keeps(stage, b"ready"))
    stage.begin(action)
    stage.drain()
    assert (remembered, stage.answers) == ([b"ready"], [Reply(b"ready")])


@pytest.mark.parametrize("shut", [0, 3])
def test_a_copy_ends_at_a_unit_that_is_being_sanitized(stage: Stage, shut: int) -> None:
    second = Bytes(MIB)
    disks = {0: stage.disk, 3: second}
    errand = jobs.Errand(
        *(stage.volume, stage.disk, disks, stage.answers.append, lambda: False),
        closed=lambda lun: lun == shut,
    )
    errand.go(copy((0, 0, 3, 0, 512)))
    stage.drain()
    assert stage.answers == [Reply(bytes((0, True)))]
    assert not any(verb.startswith("write") for verb in second.verbs)


def test_the_log_tells_of_a_disk_that_is_sanitized(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stage.begin(sanitize(stage.size))
    stage.drain()
    stage.disk.broken = True
    stage.begin(sanitize(stage.size, b"z" * 512))
    stage.drain()
    told = [record.getMessage() for record in caplog.records if "saniti" in record.getMessage()]
    assert [words.split(": ", 1)[1][:24] for words in told] == [
        "is being sanitized: noth",
        "sanitizing it is done",
        "is being sanitized: noth",
        "sanitizing it has failed",
    ]

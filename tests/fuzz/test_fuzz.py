"""Every fuzz target for a moment, the same inputs each time; and all that ever found something."""

import random
from pathlib import Path

import pytest

from tests.fuzz.frames import LONGEST, MOST_FRAMES, ROOM, join, mutate, split
from tests.fuzz.judge import Judge
from tests.fuzz.run import REGRESSIONS, walk
from tests.fuzz.targets import TARGETS

KEPT = sorted(REGRESSIONS.glob("*/*.bin"))


@pytest.mark.parametrize("name", TARGETS)
def test_a_moment_of_each_target(name: str) -> None:
    target = TARGETS[name]
    judge = Judge(target.run)
    walk(target, judge, seed=1, inputs=target.quick)
    found = [f"{finding.kind}: {finding.detail}" for finding in judge.findings.values()]
    assert not found, "\n".join(found)
    assert judge.inputs >= target.quick


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_once_found_something(path: Path) -> None:
    judge = Judge(TARGETS[path.parent.name].run)
    judge.weigh(path.read_bytes())
    found = [f"{finding.kind}: {finding.detail}" for finding in judge.findings.values()]
    assert not found, "\n".join(found)


def test_frames_there_and_back() -> None:
    frames = [b"", b"abc", bytes(3000)]
    assert split(join(frames)) == frames
    assert split(b"\0\5ab") == [b"ab"]
    assert split(b"\0") == []
    assert len(split(b"\0\0" * 100)) == MOST_FRAMES


def test_mutations_are_bounded_and_repeat_themselves() -> None:
    target = TARGETS["dhcp"]

    def some() -> list[bytes]:
        rng = random.Random(3)
        return [mutate(target.seeds[0], rng, target.seeds, target.tweak) for _ in range(200)]

    made = some()
    assert made == some()
    assert len(set(made)) > 150
    assert all(len(frame) <= LONGEST for data in made for frame in split(data))
    large = join([bytes(LONGEST - 1)] * 3)
    assert len(mutate(large, random.Random(3), target.seeds, target.tweak)) <= ROOM


def test_the_judge_sees_what_must_not_happen() -> None:
    now, highest = 0.0, 1

    def run(data: bytes) -> None:
        nonlocal now, highest
        now += 0.2 if data.startswith(b"stall") else 0.001
        highest += len(bytes(200 << 20)) if data == b"peak" else 0
        if data == b"raise":
            raise ValueError("x")
        if data == b"at last":
            now += 0.2 * (judge.inputs == 6)

    judge = Judge(run, lambda: now, lambda: highest)
    for data in (b"fine", b"raise", b"raise", b"stall", b"stall again", b"at last", b"peak"):
        judge.weigh(data)
    assert [kind for kind, _ in judge.findings] == ["exception", "stall", "peak"]
    assert judge.inputs == 7
    assert judge.slowest > 0.2

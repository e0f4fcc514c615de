"""Group commit, workers, and faults at a shared disk."""

from collections.abc import Callable

import pytest

from netboot.iscsi.volume import Done, Shared, Tally
from netboot.model import Counters


class Rig:
    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], object], Done]] = []
        self.syncs = 0
        self.error: OSError | None = None
        self.faults: list[str] = []
        self.tally = Tally("52:54:00:12:34:56")
        self.shared: Shared[str] = Shared(
            name="client LUN 0",
            block=512,
            tally=self.tally,
            submit=lambda do, done: self.jobs.append((do, done)),
            sync=self.sync,
            on_error=self.faults.append,
        )

    def sync(self) -> None:
        self.syncs += 1
        if self.error is not None:
            raise self.error

    def work(self) -> None:
        do, done = self.jobs.pop(0)
        try:
            done(do(), None)
        except OSError as error:
            done(None, error)


def test_flushes_asked_for_while_one_runs_share_the_next() -> None:
    rig, done = Rig(), list[str]()
    rig.shared.flush(lambda error: done.append("first"))
    rig.shared.flush(lambda error: done.append("second"))
    rig.shared.flush(lambda error: done.append("third"))
    assert len(rig.jobs) == 1  # never two at once
    rig.work()
    assert (done, rig.syncs, len(rig.jobs)) == (["first"], 1, 1)
    rig.work()
    assert (done, rig.syncs, rig.jobs) == (["first", "second", "third"], 2, [])


def test_a_flush_asked_for_by_the_answer_to_one_is_a_new_one() -> None:
    rig, done = Rig(), list[str]()
    rig.shared.flush(lambda error: rig.shared.flush(lambda error: done.append("again")))
    rig.work()
    rig.work()
    assert (done, rig.syncs, rig.jobs) == (["again"], 2, [])


def test_all_that_share_a_failed_flush_learn_of_it() -> None:
    rig, errors = Rig(), list[Exception | None]()
    rig.error = OSError("no")
    rig.shared.flush(lambda error: None)
    rig.shared.flush(errors.append)
    rig.shared.flush(errors.append)
    rig.work()
    rig.work()
    assert errors == [rig.error, rig.error]


def test_idle_is_said_once_when_the_last_worker_is_done() -> None:
    rig, said = Rig(), list[str]()
    rig.shared.work(lambda: 1, lambda result, error: None)
    rig.shared.work(lambda: 2, lambda result, error: None)
    rig.shared.on_idle = lambda: said.append("idle")
    assert rig.shared.jobs == 2
    rig.work()
    assert said == []
    rig.work()
    assert said == ["idle"] and rig.shared.jobs == 0


def test_a_worker_gives_its_result() -> None:
    rig, got = Rig(), list[object]()
    rig.shared.work(lambda: 42, lambda result, error: got.append((result, error)))
    rig.work()
    assert got == [(42, None)]


def test_faults_are_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.shared.failed(OSError("input/output error"))
    assert rig.faults == ["input/output error"] and rig.tally.errors == 1
    assert caplog.text == ""  # the report is told, by the name of the machine


def test_counters_as_a_value() -> None:
    tally = Tally("52:54:00:12:34:56", 1, 2, 3, 4, 5, 6, 7)
    assert tally.counters() == Counters(
        "52:54:00:12:34:56",
        sessions=1,
        reads=2,
        read_bytes=3,
        writes=4,
        write_bytes=5,
        flushes=6,
        errors=7,
    )

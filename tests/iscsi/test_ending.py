"""How tasks end: each once, with its status; and what had waited for it runs, in order."""

from typing import Any

from netboot.scsi.sense import Code, Key, Sense
from netboot.storage.disk import DiskError, Fault

ORDERED = 0xC2  #: F, R and the attribute of a command that is to run alone


def sense(pdu: Any) -> tuple[int, int]:
    assert (pdu.opcode, pdu.byte3) == (0x21, 2)
    return pdu.data[4] & 0x0F, int.from_bytes(pdu.data[14:16], "big")


def waiting(bench: Any, session: Any) -> Any:
    """A task that waits for a cold block."""
    bench.disk.cold = True
    assert not session.say(session.initiator.read(0, 1))
    (task,) = session.engine.session.tasks.values()
    return task


def test_a_status_ends_the_task(bench: Any) -> None:
    session = bench.session()
    task = waiting(bench, session)
    assert task in bench.volume.tasks.running
    session.edge.status(task, bench.volume, 0)
    (pdu,) = session.later()
    assert (pdu.opcode, pdu.byte3, pdu.itt) == (0x21, 0, task.itt)
    assert not bench.volume.tasks.running and not session.engine.session.tasks


def test_a_check_brings_its_sense_in_the_units_format(bench: Any) -> None:
    session = bench.session()
    missing = Sense(Key.NOT_READY, Code.MEDIUM_NOT_PRESENT)
    session.edge.check(waiting(bench, session), bench.volume, missing)
    (fixed,) = session.later()
    assert fixed.data[2] == 0x70
    bench.unit.turn({"descriptor_sense": True})
    session.edge.check(waiting(bench, session), bench.volume, missing)
    (descriptor,) = session.later()
    assert descriptor.data[2:6] == b"\x72\x02\x3a\x00"


def test_a_fault_is_reported_and_told(bench: Any) -> None:
    session = bench.session()
    full = DiskError(Fault.SPACE, "no room")
    session.edge.fail(waiting(bench, session), bench.volume, full, writing=True)
    assert sense(session.later()[0]) == (7, 0x2707)
    unknown = ValueError("a mistake of ours")
    session.edge.fail(waiting(bench, session), bench.volume, unknown, writing=False)
    assert sense(session.later()[0]) == (4, 0x4400)
    assert bench.errors == ["no room", "a mistake of ours"] and bench.tally.errors == 2


def test_to_wait_twice_is_to_wait_once(bench: Any) -> None:
    session = bench.session()
    task = waiting(bench, session)
    session.edge.wait(task, bench.volume)
    assert list(bench.volume.tasks.running) == [task]
    bench.workers.work()
    assert [pdu.itt for pdu in session.later()] == [task.itt]


def test_what_waited_runs_in_its_order(bench: Any) -> None:
    one, two = bench.session(), bench.session(isid=b"\x40\0\0\0\0\x02")
    first = waiting(bench, one)
    bench.disk.cold = False
    alone = one.initiator.read(1, 1, flags=ORDERED)
    assert not one.say(alone)
    assert not two.say(two.initiator.read(2, 1))
    bench.workers.work()
    assert [pdu.itt for pdu in one.later()] == [first.itt, first.itt + 1]
    assert len(two.later()) == 1


def test_a_thousand_that_waited_are_no_depth(bench: Any) -> None:
    """More than Python's calls may nest, over many sessions."""
    sessions = [bench.session(isid=b"\x40\0\0\0\0" + bytes([number])) for number in range(20)]
    waiting(bench, sessions[0])
    bench.disk.cold = False
    for session in sessions:
        for _ in range(60):
            assert not session.say(session.initiator.read(1, 1, flags=ORDERED))
    bench.workers.work()
    assert sum(len(session.later()) for session in sessions) == 1 + 20 * 60


def test_an_aborted_task_that_waited_does_not_run(bench: Any) -> None:
    session = bench.session()
    waiting(bench, session)
    bench.disk.cold = False
    session.say(session.initiator.read(1, 1, flags=ORDERED))
    *_, behind = session.engine.session.tasks.values()
    session.edge.abort(behind)
    bench.workers.work()
    assert len(session.later()) == 1

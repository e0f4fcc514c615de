"""Task management: whose tasks end, and who is told."""

from typing import Any

import pytest

from netboot.iscsi.requests import Management
from netboot.iscsi.wire import Function, FunctionAnswer


def cold_read(session: Any, itt: int) -> None:
    assert session.say(session.initiator.read(0, 1, itt=itt)) == []


def ask(session: Any, function: int, lun: int = 0, referenced: int = 0) -> int:
    (answer,) = session.say(
        session.initiator.request(0x02, 0x80 | function, lun=lun, word20=referenced, immediate=True)
    )
    assert answer.opcode == 0x22
    return int(answer.byte2)


def attention(session: Any) -> int:
    """The next unit attention's code; 0 when there is none."""
    (pdu,) = session.say(session.initiator.command(bytes(6)))
    return int.from_bytes(pdu.data[14:16], "big") if pdu.byte3 else 0


@pytest.fixture
def two(bench: Any) -> tuple[Any, Any]:
    """Two sessions, each with a task that waits for a cold block."""
    one, other = bench.session(), bench.session(isid=b"other!")
    bench.disk.cold = True
    cold_read(one, 0x91)
    cold_read(other, 0x92)
    return one, other


def pending(session: Any) -> list[int]:
    return list(session.engine.session.tasks)


def test_abort_task(two: tuple[Any, Any]) -> None:
    one, other = two
    cold_read(one, 0x93)
    assert ask(one, Function.ABORT_TASK, referenced=0x93) == FunctionAnswer.COMPLETE
    assert (pending(one), pending(other)) == ([0x91], [0x92])


@pytest.mark.parametrize(("referenced", "lun"), [(0x92, 0), (0x91, 5 << 48), (0x99, 0)])
def test_abort_task_of_nobody(two: tuple[Any, Any], referenced: int, lun: int) -> None:
    """Another session's task, another unit's, none: each is "no such task"."""
    one, other = two
    answer = ask(one, Function.ABORT_TASK, lun=lun, referenced=referenced)
    assert answer == FunctionAnswer.NO_TASK
    assert (pending(one), pending(other)) == ([0x91], [0x92])


def test_abort_task_set_is_mine_only(two: tuple[Any, Any]) -> None:
    one, other = two
    assert ask(one, Function.ABORT_TASK_SET) == FunctionAnswer.COMPLETE
    assert (pending(one), pending(other)) == ([], [0x92])
    assert attention(other) == 0


def test_clear_task_set_is_everybodys_and_they_are_told(two: tuple[Any, Any]) -> None:
    one, other = two
    assert ask(one, Function.CLEAR_TASK_SET) == FunctionAnswer.COMPLETE
    assert pending(one) == pending(other) == []
    assert attention(one) == 0
    assert attention(other) == 0x2F00


def test_lun_reset(two: tuple[Any, Any], bench: Any) -> None:
    one, other = two
    assert ask(one, Function.LUN_RESET) == FunctionAnswer.COMPLETE
    assert pending(one) == pending(other) == []
    assert attention(one) == attention(other) == 0x2903
    bench.workers.work()
    assert one.later() == other.later() == []


@pytest.mark.parametrize(
    ("function", "code"), [(Function.WARM_RESET, 0x2902), (Function.COLD_RESET, 0x2900)]
)
def test_target_resets(two: tuple[Any, Any], function: int, code: int) -> None:
    one, other = two
    assert ask(one, function) == FunctionAnswer.COMPLETE
    assert pending(one) == pending(other) == []
    assert attention(other) == code


@pytest.mark.parametrize(
    "function", [Function.ABORT_TASK_SET, Function.CLEAR_TASK_SET, Function.LUN_RESET]
)
def test_a_unit_that_does_not_exist(two: tuple[Any, Any], function: int) -> None:
    one, other = two
    assert ask(one, function, lun=5 << 48) == FunctionAnswer.NO_LUN
    assert (pending(one), pending(other)) == ([0x91], [0x92])


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (Function.REASSIGN, FunctionAnswer.NO_REASSIGN),
        (Function.CLEAR_ACA, FunctionAnswer.NOT_SUPPORTED),
        (0, FunctionAnswer.NOT_SUPPORTED),
        (9, FunctionAnswer.NOT_SUPPORTED),
        (127, FunctionAnswer.NOT_SUPPORTED),
    ],
)
def test_what_we_do_not_do(two: tuple[Any, Any], function: int, answer: int) -> None:
    one, other = two
    assert ask(one, function) == answer
    assert (pending(one), pending(other)) == ([0x91], [0x92])


def test_tasks_that_wait_for_their_turn_are_aborted_too(bench: Any) -> None:
    one = bench.session()
    bench.disk.cold = True
    one.say(one.initiator.read(0, 1, itt=0x91, flags=0xC2))
    one.say(one.initiator.read(0, 1, itt=0x92))
    assert one.edge.managed(Management(Function.ABORT_TASK, 0, 5, 0x92)) == 0
    assert pending(one) == [0x91]
    assert one.edge.managed(Management(Function.ABORT_TASK_SET, 0, 5, 0)) == 0
    assert bench.volume.tasks.all() == [] and bench.volume.tasks.clear


def test_the_window_opens_again_for_aborted_tasks(two: tuple[Any, Any]) -> None:
    one, _ = two
    window = one.engine.session.max_cmd_sn
    ask(one, Function.ABORT_TASK_SET)
    assert one.engine.session.max_cmd_sn == window + 1


@pytest.mark.parametrize(
    "function",
    [
        *(Function.ABORT_TASK_SET, Function.CLEAR_TASK_SET, Function.LUN_RESET),
        *(Function.WARM_RESET, Function.COLD_RESET),
    ],
)
def test_tasks_whose_status_waits_for_data_end_too(bench: Any, function: int) -> None:
    """They are over at the unit, and known to their session only."""
    one = bench.session("InitialR2T=No")
    assert one.say(one.initiator.write(1 << 30, 8, itt=0x91, flags=0x21)) == []
    assert pending(one) == [0x91] and bench.volume.tasks.all() == []
    assert ask(one, function) == FunctionAnswer.COMPLETE
    assert pending(one) == []
    assert one.say(one.initiator.data_out(0x91, 0xFFFFFFFF, 0, 0, bytes(4096))) == []


def test_a_task_that_never_came(two: tuple[Any, Any]) -> None:
    one, _ = two
    request = Management(Function.ABORT_TASK, 0, 5, 0x99, forestalled=True)
    assert one.edge.managed(request) == FunctionAnswer.COMPLETE
    assert pending(one) == [0x91]


def test_attentions_go_to_the_sessions_they_concern(bench: Any) -> None:
    """A third session that had no task is not told of CLEAR TASK SET, and of a reset is."""
    one, other, third = (bench.session(isid=bytes(5) + bytes((n,))) for n in (1, 2, 3))
    bench.disk.cold = True
    cold_read(one, 0x91)
    cold_read(other, 0x92)
    assert ask(one, Function.CLEAR_TASK_SET) == FunctionAnswer.COMPLETE
    assert [attention(each) for each in (one, other, third)] == [0, 0x2F00, 0]
    assert ask(third, Function.LUN_RESET) == FunctionAnswer.COMPLETE
    assert [attention(each) for each in (one, other, third)] == [0x2903] * 3
    assert [attention(each) for each in (one, other, third)] == [0] * 3

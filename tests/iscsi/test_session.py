"""The command window and what a pending task holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.iscsi.session import READ, WINDOW, WRITE, Session, Task, Transfer
from netboot.iscsi.target import Identity
from netboot.iscsi.wire import NO_TAG, Function


def session(cmd_sn: int = 1) -> Session:
    made = Session(Identity("iqn.a", b"123456", "iqn.t"))
    made.open_window(cmd_sn)
    return made


def task(itt: int = 1, flags: int = WRITE, edtl: int = 4096) -> Task:
    return Task(itt, 0, flags, edtl, bytes(16), b"", False)


@pytest.mark.parametrize("cmd_sn", [0, 1, 0xFFFFFFF0, 0xFFFFFFFF])
def test_the_window_opens_at_the_login(cmd_sn: int) -> None:
    opened = session(cmd_sn)
    assert opened.exp_cmd_sn == cmd_sn
    assert opened.max_cmd_sn == (cmd_sn + WINDOW - 1) & 0xFFFFFFFF


@given(st.integers(0, 0xFFFFFFFF), st.integers(-300, 300))
def test_next_early_or_ignored(start: int, step: int) -> None:
    expected = session(start).expected(start + step & 0xFFFFFFFF)
    if step == 0:
        assert expected is True
    elif 0 < step < WINDOW:
        assert expected is None
    else:
        assert expected is False


def test_the_window_counts_tasks_that_are_under_way() -> None:
    opened = session(0xFFFFFFF0)
    for _ in range(WINDOW):
        assert opened.expected(opened.exp_cmd_sn) is True
        opened.arrived()
    assert opened.expected(opened.exp_cmd_sn) is False  # closed
    opened.answered()
    assert opened.expected(opened.exp_cmd_sn) is True
    assert opened.max_cmd_sn == opened.exp_cmd_sn


def test_tags_never_are_the_reserved_one() -> None:
    opened = session()
    opened._tag = NO_TAG - 2
    assert [opened.next_tag() for _ in range(3)] == [NO_TAG - 1, 0, 1]


def test_what_a_command_says_of_itself() -> None:
    write = task(flags=0x80 | WRITE | 2)
    assert (write.order, write.write_length, write.read_length) == (2, 4096, 0)
    read = task(flags=0x80 | READ | 1)
    assert (read.order, read.write_length, read.read_length) == (1, 0, 4096)
    neither = task(flags=0x80)
    assert (neither.write_length, neither.read_length) == (0, 0)


def test_a_task_keeps_a_copy_of_what_lies_in_the_receive_buffer() -> None:
    buffer = bytearray(b"data")
    kept = Task(1, 0, WRITE, 4, bytes(16), memoryview(buffer), False)
    kept.keep()
    buffer[:] = b"else"
    assert kept.data == b"data"
    kept.keep()
    assert kept.data == b"data"


def test_dropping_a_task_gives_its_budget_back() -> None:
    opened, pending = session(), task()
    pending.transfer = Transfer(False, bytearray(), wanted=4096, length=4096, tag=5)
    opened.tasks[pending.itt] = pending
    opened.solicited = 4096
    assert opened.drop(pending)
    assert (opened.solicited, opened.tasks, pending.transfer.tag) == (0, {}, NO_TAG)
    assert not opened.drop(pending)
    assert opened.solicited == 0


def test_dropping_a_thirsty_task() -> None:
    opened, pending = session(), task()
    pending.transfer = Transfer(False, bytearray(), wanted=4096)
    opened.tasks[pending.itt] = pending
    opened.thirsty.append(pending)
    assert opened.drop(pending)
    assert not opened.thirsty


def test_another_task_of_the_same_tag_is_not_dropped() -> None:
    opened = session()
    pending, other = task(itt=3), task(itt=3)
    opened.tasks[3] = pending
    assert not opened.drop(other)
    assert opened.tasks == {3: pending}


def test_what_is_here() -> None:
    assert Transfer(False, bytearray(b"abc"), start=10).here == 13


def test_a_command_that_was_not_taken_gives_its_number_back() -> None:
    rejected = session(0)
    rejected.arrived()
    rejected.not_taken()
    assert (rejected.exp_cmd_sn, rejected.max_cmd_sn) == (0, WINDOW - 1)
    rejected.arrived()
    rejected.answered()
    rejected.not_taken(answered=True)
    assert (rejected.exp_cmd_sn, rejected.max_cmd_sn) == (0, WINDOW - 1)
    rejected.exp_cmd_sn = rejected.max_cmd_sn = 0
    rejected.not_taken(answered=True)
    assert (rejected.exp_cmd_sn, rejected.max_cmd_sn) == (0xFFFFFFFF, 0xFFFFFFFF)


@given(st.integers(0, 0xFFFFFFFF), st.integers(-300, 300), st.integers(-3, 300))
def test_a_command_is_aborted_before_it_comes(start: int, step: int, ahead: int) -> None:
    """Section 11.6.1: in the window, and before the request that aborts it; else it is no task."""
    opened = session(start)
    meant, own = (start + step) & 0xFFFFFFFF, (start + ahead) & 0xFFFFFFFF
    forestalled = opened.forestall(meant, own)
    assert forestalled == (0 <= step < WINDOW and step < ahead)
    assert opened.early == ({meant: b""} if forestalled else {})


def test_what_came_early_and_is_aborted_is_forgotten() -> None:
    opened = session(1)
    opened.early[2] = b"a PDU"
    assert opened.forestall(2, 3)
    assert opened.early == {2: b""}


def test_what_is_under_way() -> None:
    assert not Transfer(False, bytearray()).expected
    assert Transfer(True, bytearray()).expected
    answering = Transfer(False, bytearray(b"data"), tag=5)
    assert answering.expected
    answering.refuse()
    assert answering.broken and answering.burst == b"" and answering.expected


@pytest.mark.parametrize(
    ("function", "ended"),
    [
        (Function.ABORT_TASK_SET, {2}),
        (Function.CLEAR_TASK_SET, {2}),
        (Function.LUN_RESET, {2}),
        (Function.WARM_RESET, {2, 3}),
        (Function.COLD_RESET, {2, 3}),
        (Function.CLEAR_ACA, set()),
        (Function.REASSIGN, set()),
    ],
)
def test_what_a_gap_keeps_waiting_ends_with_the_others(function: int, ended: set[int]) -> None:
    """Commands to the unit that were sent before; not other requests, nor what came later."""
    opened = session(1)
    mine, other = (lun.to_bytes(8, "big") for lun in (5 << 48, 6 << 48))
    early = {
        2: b"\x01" + bytes(7) + mine,
        3: b"\x01" + bytes(7) + other,
        4: bytes(8) + mine,  # a ping
        6: b"\x01" + bytes(7) + mine,
    }
    opened.early = dict(early)
    opened.forget(function, 5 << 48, 5)
    assert {number for number, pdu in opened.early.items() if not pdu} == ended
    assert all(pdu in (b"", early[number]) for number, pdu in opened.early.items())

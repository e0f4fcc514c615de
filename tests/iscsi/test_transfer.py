"""Immediate, unsolicited and solicited data, in every mixture and with every mistake."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.iscsi import transfer
from netboot.iscsi.answers import Answers
from netboot.iscsi.keys import Parameters
from netboot.iscsi.session import WRITE, Session, Task
from netboot.iscsi.target import Identity
from netboot.iscsi.transfer import Broken, Filled, Transfers
from netboot.iscsi.wire import DATA_OUT, NO_TAG

DATA = bytes(number * 11 & 0xFF for number in range(1 << 16))


class Rig:
    """Transfers of one session, and the R2Ts it has sent."""

    def __init__(self, **parameters: Any) -> None:
        defaults = {"first_burst": 2048, "max_burst": 4096, "initial_r2t": False}
        self.session = Session(
            Identity("iqn.a", b"123456", "iqn.t"), Parameters(**{**defaults, **parameters})
        )
        self.session.open_window(1)
        self.answers = Answers(self.session)
        self.transfers = Transfers(self.answers)

    def command(
        self, edtl: int, data: bytes = b"", *, final: bool = True, itt: int = 5
    ) -> tuple[Task, Broken | None]:
        flags = WRITE | (0x80 if final else 0)
        task = Task(itt, 0, flags, edtl, bytes(16), memoryview(data) if data else b"", False)
        return task, self.transfers.begin(self.session, task)

    def solicit(self, task: Task, length: int) -> bytes | None:
        data = self.transfers.solicit(self.session, task, length)
        return None if data is None else bytes(data)

    def data(
        self,
        tag: int,
        data_sn: int,
        offset: int,
        length: int,
        *,
        final: bool = True,
        itt: int = 5,
    ) -> Filled | Broken | None:
        pdu = DATA_OUT.pack(5, 0x80 if final else 0, length, 0, itt, tag, 0, data_sn, offset)
        view = memoryview(DATA)[offset : offset + length]
        return self.transfers.data_out(self.session, memoryview(pdu), view)

    def r2ts(self) -> list[tuple[int, int, int, int]]:
        """Tag, R2TSN, offset and length of those sent since the last time."""
        return [
            tuple(int.from_bytes(pdu[at : at + 4], "big") for at in (20, 36, 40, 44))
            for pdu in map(bytes, self.answers.take())
        ]  # type: ignore[misc]


def test_all_immediate() -> None:
    rig = Rig()
    task, broken = rig.command(1024, DATA[:1024])
    assert broken is None
    assert rig.solicit(task, 1024) == DATA[:1024]
    assert rig.session.tasks == {} and rig.r2ts() == []


def test_immediate_data_is_not_copied() -> None:
    rig = Rig()
    task, _ = rig.command(1024, DATA[:1024])
    assert type(rig.transfers.solicit(rig.session, task, 1024)) is memoryview


def test_ipxe_one_r2t_and_pdus_of_512() -> None:
    rig = Rig(initial_r2t=True, immediate_data=False)
    task, _ = rig.command(2048)
    assert rig.solicit(task, 2048) is None
    ((tag, number, offset, length),) = rig.r2ts()
    assert (number, offset, length) == (0, 0, 2048)
    for at in range(3):
        assert rig.data(tag, at, at * 512, 512, final=False) is None
    event = rig.data(tag, 3, 1536, 512)
    assert isinstance(event, Filled)
    assert (event.task, event.offset, bytes(event.data), event.last) == (task, 0, DATA[:2048], True)
    assert rig.session.solicited == 0


def test_a_burst_in_one_pdu_is_not_copied() -> None:
    rig = Rig()
    task, _ = rig.command(4096)
    rig.solicit(task, 4096)
    ((tag, *_),) = rig.r2ts()
    event = rig.data(tag, 0, 0, 4096)
    assert isinstance(event, Filled) and type(event.data) is memoryview
    event.keep()
    assert event.data == DATA[:4096] and type(event.data) is bytes


def test_several_bursts_each_handed_on() -> None:
    rig = Rig()
    task, _ = rig.command(10240)
    rig.solicit(task, 10240)
    got = []
    for number, (offset, length) in enumerate([(0, 4096), (4096, 4096), (8192, 2048)]):
        ((tag, r2t_sn, at, ask),) = rig.r2ts()
        assert (r2t_sn, at, ask) == (number, offset, length)
        event = rig.data(tag, 0, offset, length)
        assert isinstance(event, Filled)
        got.append((event.offset, len(event.data), event.last))
    assert got == [(0, 4096, False), (4096, 4096, False), (8192, 2048, True)]


def test_immediate_then_unsolicited_then_solicited() -> None:
    rig = Rig()
    task, broken = rig.command(6144, DATA[:1024], final=False)
    assert broken is None and rig.session.tasks == {5: task}
    assert rig.data(NO_TAG, 0, 1024, 512, final=False) is None  # before anybody asked
    assert rig.solicit(task, 6144) is None
    assert rig.data(NO_TAG, 1, 1536, 512) is None
    ((tag, _, offset, length),) = rig.r2ts()
    assert (offset, length) == (2048, 2048)  # to the next multiple of 4096
    first = rig.data(tag, 0, 2048, 2048)
    assert isinstance(first, Filled)
    assert (first.offset, bytes(first.data), first.last) == (0, DATA[:4096], False)
    ((tag, _, offset, length),) = rig.r2ts()
    assert (offset, length) == (4096, 2048)
    last = rig.data(tag, 0, 4096, 2048)
    assert isinstance(last, Filled) and last.last and bytes(last.data) == DATA[4096:6144]


def test_unsolicited_data_that_came_before_it_was_asked_for() -> None:
    rig = Rig()
    task, _ = rig.command(1024, final=False)
    assert rig.data(NO_TAG, 0, 0, 1024) is None
    assert rig.solicit(task, 1024) == DATA[:1024]


def test_the_unsolicited_burst_ends_where_it_must_without_a_final_bit() -> None:
    rig = Rig()
    task, _ = rig.command(4096, DATA[:1024], final=False)
    rig.solicit(task, 4096)
    assert rig.data(NO_TAG, 0, 1024, 1024, final=False) is None
    assert len(rig.r2ts()) == 1


def test_a_full_first_burst_with_the_command_is_followed_by_r2t() -> None:
    rig = Rig()
    task, _ = rig.command(4096, DATA[:2048], final=False)
    assert rig.solicit(task, 4096) is None
    assert [row[2:] for row in rig.r2ts()] == [(2048, 2048)]


def test_f_without_unsolicited_data_where_initial_r2t_is_on() -> None:
    rig = Rig(initial_r2t=True)
    task, _ = rig.command(4096, DATA[:512], final=False)
    assert rig.solicit(task, 4096) is None
    assert [row[2:] for row in rig.r2ts()] == [(512, 3584)]


@pytest.mark.parametrize(("edtl", "length"), [(1024, 4096), (0, 512)])
def test_an_initiator_with_less_than_its_cdb_says(edtl: int, length: int) -> None:
    rig = Rig()
    task, _ = rig.command(edtl, DATA[:edtl])
    assert rig.solicit(task, length) == DATA[:edtl]


def test_an_initiator_with_more_than_its_cdb_says() -> None:
    rig = Rig()
    task, _ = rig.command(4096, DATA[:1024])
    assert rig.solicit(task, 512) == DATA[:512]
    other, _ = rig.command(4096, itt=6)
    assert rig.solicit(other, 512) is None
    assert [row[2:] for row in rig.r2ts()] == [(0, 512)]


@pytest.mark.parametrize(
    ("parameters", "edtl", "data", "asc"),
    [
        ({"immediate_data": False}, 1024, 512, transfer.UNEXPECTED),
        ({"first_burst": 512}, 1024, 1024, transfer.UNEXPECTED),
        ({}, 512, 1024, transfer.INCORRECT),
    ],
)
def test_immediate_data_that_breaks_a_rule(
    parameters: dict[str, Any], edtl: int, data: int, asc: int
) -> None:
    rig = Rig(**parameters)
    task, broken = rig.command(edtl, DATA[:data])
    assert broken == Broken(task, asc)
    assert rig.solicit(task, edtl) is None and rig.r2ts() == []


@pytest.mark.parametrize(
    ("wrong", "asc"),
    [
        ({"tag": 99}, transfer.UNEXPECTED),
        ({"tag": NO_TAG}, transfer.UNEXPECTED),
        ({"data_sn": 1}, transfer.OUT_OF_SEQUENCE),
        ({"offset": 512}, transfer.INCORRECT),
        ({"length": 4608}, transfer.INCORRECT),
        ({"length": 512, "final": True}, transfer.INCORRECT),
    ],
)
def test_solicited_data_that_breaks_a_rule(wrong: dict[str, Any], asc: int) -> None:
    rig = Rig()
    task, _ = rig.command(4096)
    rig.solicit(task, 4096)
    ((tag, *_),) = rig.r2ts()
    fields = {"tag": tag, "data_sn": 0, "offset": 0, "length": 4096, "final": True, **wrong}
    assert rig.data(**fields) == Broken(task, asc)
    assert rig.data(tag, 0, 0, 4096) is None  # what still comes is ignored
    assert rig.transfers.ignored == 1


def test_unsolicited_data_beyond_the_first_burst() -> None:
    rig = Rig()
    task, _ = rig.command(4096, final=False)
    rig.solicit(task, 4096)
    assert rig.data(NO_TAG, 0, 0, 2560) == Broken(task, transfer.INCORRECT)


def test_data_for_nobody_is_ignored() -> None:
    rig = Rig()
    assert rig.data(1, 0, 0, 512) is None
    assert rig.transfers.ignored == 1


def test_a_session_asks_for_so_much_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "SOLICITED_LIMIT", 8192)
    rig = Rig()
    tasks = [rig.command(4096, itt=itt)[0] for itt in range(4)]
    for task in tasks:
        assert rig.solicit(task, 4096) is None
    first, second = rig.r2ts()
    assert list(rig.session.thirsty) == tasks[2:]
    assert isinstance(rig.data(first[0], 0, 0, 4096, itt=0), Filled)
    (third,) = rig.r2ts()
    rig.session.drop(tasks[1])  # aborted: its R2T will not be answered
    rig.transfers.quench(rig.session)
    (fourth,) = rig.r2ts()
    assert {second[0], third[0], fourth[0]} == {2, 3, 4}
    assert rig.session.solicited == 8192 and not rig.session.thirsty


@given(
    st.integers(1, 128),
    st.integers(512, 9000),
    st.integers(512, 9000),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 3000), min_size=1, max_size=8),
)
def test_every_mixture_brings_all_data_once_and_in_order(
    blocks: int,
    first_burst: int,
    max_burst: int,
    initial_r2t: bool,
    immediate: bool,
    sizes: list[int],
) -> None:
    length = blocks * 512
    rig = Rig(
        first_burst=first_burst,
        max_burst=max_burst,
        initial_r2t=initial_r2t,
        immediate_data=immediate,
    )
    at = min(length, first_burst, sizes[0]) if immediate else 0
    unasked = length if length < first_burst else first_burst
    follows = not initial_r2t and at < unasked
    task, broken = rig.command(length, DATA[:at], final=not follows)
    assert broken is None
    whole = rig.solicit(task, length)
    got, turn = bytearray(whole or b""), 0
    data_sn, tag, end = 0, NO_TAG, unasked if follows else at
    while whole is None:
        if at == end:
            ((tag, _, at, ask),) = rig.r2ts()
            assert 0 < ask <= max_burst
            end, data_sn = at + ask, 0
        turn += 1
        size = min(sizes[turn % len(sizes)], end - at)
        event = rig.data(tag, data_sn, at, size, final=at + size == end)
        at, data_sn = at + size, data_sn + 1
        if event is not None:
            assert isinstance(event, Filled) and event.offset == len(got)
            assert event.offset % 512 == 0 and len(event.data) % 512 == 0
            got += event.data
            if event.last:
                break
    assert bytes(got) == DATA[:length]
    assert rig.session.solicited == 0 and not rig.session.thirsty


def statuses(rig: Rig) -> list[int]:
    """The status of each SCSI Response sent since the last time."""
    return [pdu[3] for pdu in map(bytes, rig.answers.take()) if pdu[0] == 0x21]


def test_a_status_waits_for_the_last_data_out_of_an_r2t() -> None:
    """Section 11.4.2, whatever the status is for."""
    rig = Rig()
    task, _ = rig.command(4096)
    rig.solicit(task, 4096)
    ((tag, *_),) = rig.r2ts()
    rig.answers.complete(task, 2)
    assert statuses(rig) == [] and rig.session.tasks == {5: task}
    assert rig.data(tag, 0, 0, 512, final=False) is None
    assert statuses(rig) == []
    assert rig.data(tag, 1, 512, 3584) is None
    assert statuses(rig) == [2]
    assert rig.session.tasks == {} and rig.session.solicited == 0


def test_a_status_waits_for_unsolicited_data() -> None:
    rig = Rig()
    task, _ = rig.command(2048, final=False)
    rig.answers.complete(task, 0, b"", 0)
    assert rig.data(NO_TAG, 0, 0, 512, final=False) is None
    assert rig.data(NO_TAG, 7, 9, 1, final=True) is None  # whatever it is: it is the last
    assert statuses(rig) == [0] and rig.session.tasks == {}


def test_immediate_data_that_breaks_a_rule_with_more_to_come() -> None:
    rig = Rig(immediate_data=False)
    task, broken = rig.command(4096, DATA[:512], final=False)
    assert broken == Broken(task, transfer.UNEXPECTED)
    rig.answers.complete(task, 2)
    assert statuses(rig) == []
    assert rig.data(NO_TAG, 0, 512, 1536) is None
    assert statuses(rig) == [2]


def test_the_budget_of_what_is_not_taken_goes_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "SOLICITED_LIMIT", 4096)
    rig = Rig()
    first, second = (rig.command(4096, itt=itt)[0] for itt in (5, 6))
    for task in (first, second):
        rig.solicit(task, 4096)
    ((tag, *_),) = rig.r2ts()
    assert isinstance(rig.data(tag, 1, 0, 512, final=False), Broken)
    rig.answers.complete(first, 2)
    assert rig.answers.take() == [] and list(rig.session.thirsty) == [second]
    assert rig.data(tag, 2, 512, 512) is None
    status, r2t = map(bytes, rig.answers.take())
    assert (status[0], r2t[0]) == (0x21, 0x31)


def test_a_task_that_is_dropped_while_its_status_waits() -> None:
    rig = Rig()
    task, _ = rig.command(2048, final=False)
    rig.answers.complete(task, 2)
    rig.answers.finish(task)
    assert rig.data(NO_TAG, 0, 0, 2048) is None
    assert statuses(rig) == [] and rig.transfers.ignored == 1


@pytest.mark.parametrize("length", [512, 1536])
def test_an_unsolicited_burst_that_is_too_short(length: int) -> None:
    rig = Rig()
    task, _ = rig.command(4096, final=False)
    rig.solicit(task, 4096)
    assert rig.data(NO_TAG, 0, 0, length) == Broken(task, transfer.INCORRECT)


def test_the_final_bit_in_a_pdu_of_its_own() -> None:
    rig = Rig()
    task, _ = rig.command(8192)
    rig.solicit(task, 8192)
    ((first, *_),) = rig.r2ts()
    assert isinstance(rig.data(first, 0, 0, 4096, final=False), Filled)
    ((second, *_),) = rig.r2ts()
    assert rig.data(first, 1, 4096, 0) is None
    assert rig.transfers.ignored == 1
    event = rig.data(second, 0, 4096, 4096)
    assert isinstance(event, Filled) and event.last

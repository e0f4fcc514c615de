"""The stream: whole, byte by byte, out of order, with digests, and as garbage."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.checksum import digest
from netboot.iscsi.engine import EARLY_LIMIT, Connection
from netboot.iscsi.entering import Arrived
from netboot.iscsi.requests import Logout, Management
from netboot.iscsi.session import Task
from netboot.iscsi.wire import NO_TAG, Reason
from netboot.model import Admission, Knock, Portal

NAME, TARGET = "iqn.a:b", "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
WELCOME = Admission(0, "52:54:00:12:34:56", TARGET)
LOGIN = (f"InitiatorName={NAME}", f"TargetName={TARGET}", "SessionType=Normal")
DISCOVERY = (f"InitiatorName={NAME}", "SessionType=Discovery")


def connection() -> Connection:
    return Connection("10.0.0.9", (Portal("10.0.0.1", 3260),), lambda n: bytes(n))


def feed(engine: Connection, data: bytes) -> list[Any]:
    return engine.receive(memoryview(bytearray(data)))


def sent(engine: Connection) -> bytes:
    return b"".join(map(bytes, engine.data_to_send()))


def enter(initiator: Any, *pairs: str, names: tuple[str, ...] = LOGIN) -> Connection:
    engine = connection()
    (knock,) = feed(engine, initiator.login(0x87, *names, *pairs))
    assert isinstance(knock, Knock)
    (arrived,) = engine.admit(WELCOME)
    assert isinstance(arrived, Arrived)
    assert engine.establish(7) == []
    engine.data_to_send()
    return engine


# The stream.


def conversation(initiator: Any) -> bytes:
    return b"".join(
        (
            initiator.command(bytes(6)),
            initiator.write(0, 1, b"w" * 512),
            initiator.request(0x00, word20=NO_TAG, data=b"ping!"),
            initiator.read(8, 8),
            initiator.request(0x04, word20=NO_TAG, data=b"SendTargets=\0"),
            initiator.request(0x06),
        )
    )


def describe(events: list[Any]) -> list[Any]:
    return [
        (event.itt, bytes(event.cdb), bytes(event.data)) if isinstance(event, Task) else event
        for event in events
    ]


@pytest.mark.parametrize("step", [1, 2, 3, 47, 48, 49, 100, 513, 1000])
def test_in_pieces_as_whole(initiator: Any, step: int) -> None:
    whole, pieces = enter(initiator), enter(initiator)
    initiator.cmd_sn, initiator.itt = 1, 0
    stream = conversation(initiator)
    expected = describe(feed(whole, stream))
    got: list[Any] = []
    for at in range(0, len(stream), step):
        got += describe(feed(pieces, stream[at : at + step]))
    assert got == expected and len(got) == 4
    assert sent(pieces) == sent(whole)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
@settings(max_examples=50)
def test_in_any_pieces_as_whole(sizes: list[int]) -> None:
    from_whole, from_pieces = [], []
    for collect, cut in ((from_whole, False), (from_pieces, True)):
        engine = connection()
        builder = Build()
        feed(engine, builder.login())
        engine.admit(WELCOME)
        engine.establish(1)
        stream = builder.reads(12)
        at = turn = 0
        while at < len(stream):
            size = sizes[turn % len(sizes)] if cut else len(stream)
            collect += describe(feed(engine, stream[at : at + size]))
            at, turn = at + size, turn + 1
    assert from_whole == from_pieces and len(from_whole) == 12


class Build:
    """The few PDUs that property tests need; fixtures do not reach there."""

    def login(self) -> bytes:
        text = "".join(pair + "\0" for pair in LOGIN).encode()
        head = struct.pack(
            ">BBHI6sHIHHII16x", 0x43, 0x87, 0, len(text), b"123456", 0, 1, 0, 0, 1, 0
        )
        return head + text + bytes(-len(text) % 4)

    def reads(self, count: int) -> bytes:
        return b"".join(
            struct.pack(
                ">BBHIQIIII16s",
                *(0x01, 0xC1, 0, 100 * (n % 3), 0, n, 512, 1 + n, 0, bytes([0x28, n]).ljust(16)),
            )
            + bytes(100 * (n % 3))
            for n in range(count)
        )


def test_views_into_the_buffer_are_only_lent(initiator: Any) -> None:
    engine = enter(initiator)
    buffer = bytearray(initiator.write(0, 1, b"w" * 512))
    (task,) = engine.receive(memoryview(buffer))
    engine.defer(task)
    buffer[:] = bytes(len(buffer))
    assert task.data == b"w" * 512


def test_a_segment_longer_than_declared_ends_the_connection(initiator: Any) -> None:
    engine = enter(initiator)
    assert feed(engine, struct.pack(">BBHI40x", 0x05, 0x80, 0, 262145)) == []
    assert "262144 are allowed" in engine.ended


def test_additional_headers_bring_a_long_cdb(initiator: Any) -> None:
    """Section 11.2.2.3: an extended CDB is 16 bytes in the header and the rest behind it."""
    engine = enter(initiator)
    ahs = struct.pack(">HBB", 1 + 16, 1, 0) + bytes(range(16)) + b"\0\0\0\0"
    (task,) = feed(engine, initiator.command(b"\x7f" + bytes(15), ahs=ahs[:20]))
    assert task.cdb == b"\x7f" + bytes(15) + bytes(range(16))
    (task,) = feed(engine, initiator.command(bytes(16), ahs=b"\0\5\2\0\0\0\1\0"))
    assert task.cdb == bytes(16)  # of another type: the length of bidirectional reads


def test_additional_headers_that_are_none(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    assert feed(engine, initiator.command(bytes(16), ahs=b"\xff\xff\x01\0")) == []
    (reject,) = pdus(sent(engine))
    assert (reject.byte2, reject.exp_cmd_sn) == (Reason.INVALID_FIELD, 1)


def test_a_rejected_text_request_has_not_had_its_number(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    feed(engine, initiator.request(0x04, word20=NO_TAG, data=b"A=1\0A=1\0"))
    (reject,) = pdus(sent(engine))
    assert (reject.byte2, reject.exp_cmd_sn, reject.max_cmd_sn) == (Reason.PROTOCOL, 1, 128)


# Order.


def test_commands_in_order_move_the_window(initiator: Any) -> None:
    engine = enter(initiator)
    feed(engine, initiator.read(0, 1) + initiator.read(1, 1))
    assert engine.session.exp_cmd_sn == 3


@pytest.mark.parametrize("cmd_sn", [0, 0xFFFFFFFF, 129, 0x80000000])
def test_commands_outside_the_window_are_ignored_and_the_session_lives(
    initiator: Any, cmd_sn: int
) -> None:
    engine = enter(initiator)
    assert feed(engine, initiator.read(0, 1, cmd_sn=cmd_sn)) == []
    assert engine.ignored == 1 and not engine.ended and sent(engine) == b""
    assert len(feed(engine, initiator.read(0, 1))) == 1


def test_a_closed_window_takes_nothing_more(initiator: Any) -> None:
    engine = enter(initiator)
    tasks = feed(engine, b"".join(initiator.read(0, 1) for _ in range(200)))
    assert len(tasks) == 128 and engine.ignored == 72
    engine.complete_read(tasks[0], (bytes(512),), 512)
    assert len(feed(engine, initiator.read(0, 1, cmd_sn=129))) == 1


def test_early_commands_wait_for_the_missing_one(initiator: Any) -> None:
    engine = enter(initiator)
    first, second = initiator.read(1, 1), initiator.request(0x00, word20=NO_TAG)
    third = initiator.read(3, 1)
    assert feed(engine, third + second) == []
    assert sent(engine) == b""
    assert [task.cdb[5] for task in feed(engine, first)] == [1, 3]
    assert sent(engine)[0] == 0x20
    assert engine.session.exp_cmd_sn == 4


def test_too_much_behind_a_gap_ends_the_connection(initiator: Any) -> None:
    engine = enter(initiator, "ImmediateData=Yes")
    size = 200_000
    for _ in range(EARLY_LIMIT // size + 1):
        feed(engine, initiator.write(0, 1, bytes(size), cmd_sn=initiator.cmd_sn + 1))
        initiator.cmd_sn += 1
    assert "missing command" in engine.ended


def test_an_immediate_command_needs_no_place(initiator: Any) -> None:
    engine = enter(initiator)
    (task,) = feed(engine, initiator.command(bytes(6), immediate=True))
    assert task.immediate and engine.session.exp_cmd_sn == 1


def test_immediate_commands_cannot_fill_the_house(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    for _ in range(256):
        for task in feed(engine, initiator.command(bytes(6), immediate=True)):
            engine.defer(task)
    assert feed(engine, initiator.command(bytes(6), immediate=True)) == []
    (reject,) = pdus(sent(engine))
    assert (reject.opcode, reject.byte2) == (0x3F, Reason.IMMEDIATE)


def test_a_tag_that_is_in_use(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    (task,) = feed(engine, initiator.read(0, 1, itt=9))
    engine.defer(task)
    assert feed(engine, initiator.read(0, 1, itt=9)) == []
    (reject,) = pdus(sent(engine))
    assert (reject.opcode, reject.byte2) == (0x3F, Reason.IN_PROGRESS)
    assert engine.session.tasks == {9: task}
    # Section 7.3: the number of a rejected command was not received; it comes once more.
    assert reject.exp_cmd_sn == 2
    assert (engine.session.exp_cmd_sn, engine.session.max_cmd_sn) == (2, 128)
    (again,) = feed(engine, initiator.read(0, 1, itt=10, cmd_sn=2))
    assert again.itt == 10 and engine.session.exp_cmd_sn == 3


@pytest.mark.parametrize("immediate", [False, True])
def test_a_tag_twice_in_one_breath(initiator: Any, pdus: Any, immediate: bool) -> None:
    """Nobody has answered the first yet, so that the second cannot be its successor."""
    engine = enter(initiator)
    again = initiator.read(1, 1, itt=9, cmd_sn=2, immediate=immediate)
    first, other = initiator.read(0, 1, itt=9, cmd_sn=1), initiator.read(2, 1, itt=8, cmd_sn=2)
    (one, two) = feed(engine, first + again + other)
    assert [one.itt, two.itt] == [9, 8]
    (reject,) = pdus(sent(engine))
    assert (reject.opcode, reject.byte2) == (0x3F, Reason.IN_PROGRESS)
    engine.complete_read(one, (bytes(512),), 512)
    (next_one,) = feed(engine, initiator.read(0, 1, itt=9, cmd_sn=3))
    assert next_one.itt == 9


def test_the_reserved_tag_is_no_task(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    assert feed(engine, initiator.read(0, 1, itt=NO_TAG)) == []
    assert pdus(sent(engine))[0].byte2 == Reason.PROTOCOL


# Everything that is not a command.


def test_nop_out_is_answered_with_its_data(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    assert feed(engine, initiator.request(0x00, itt=3, word20=NO_TAG, data=b"ping!", lun=5)) == []
    (answer,) = pdus(sent(engine))
    assert (answer.opcode, answer.flags, answer.itt, answer.word20) == (0x20, 0x80, 3, NO_TAG)
    assert (answer.data, answer.stat_sn, answer.exp_cmd_sn) == (b"ping!", 2, 2)
    assert answer.max_cmd_sn == 129


def test_a_nop_out_without_a_tag_is_not_answered(initiator: Any) -> None:
    engine = enter(initiator)
    feed(engine, initiator.request(0x00, itt=NO_TAG, word20=7, immediate=True))
    assert sent(engine) == b"" and not engine.ended


def test_a_ping_is_answered_although_tasks_are_pending(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    engine.defer(feed(engine, initiator.read(0, 1))[0])
    feed(engine, initiator.request(0x00, word20=NO_TAG))
    assert pdus(sent(engine))[0].opcode == 0x20


def test_a_ping_longer_than_the_initiator_takes(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator, "MaxRecvDataSegmentLength=512")
    feed(engine, initiator.request(0x00, word20=NO_TAG, data=bytes(1000)))
    assert len(pdus(sent(engine))[0].data) == 512


def test_text(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator, names=DISCOVERY)
    feed(engine, initiator.request(0x04, word20=NO_TAG, data=b"SendTargets=All\0"))
    (answer,) = pdus(sent(engine))
    assert (answer.opcode, answer.flags, answer.word20) == (0x24, 0x80, NO_TAG)
    assert answer.data == f"TargetName={TARGET}\0TargetAddress=10.0.0.1:3260,1\0".encode()


def test_bad_text_is_rejected_and_the_session_lives(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    pdu = initiator.request(0x04, word20=NO_TAG, data=b"rubbish\0")
    feed(engine, pdu)
    (reject,) = pdus(sent(engine))
    assert (reject.opcode, reject.byte2, reject.data) == (0x3F, Reason.PROTOCOL, pdu[:48])
    assert not engine.ended


def test_a_declaration_counts_from_its_answer_on(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator, "MaxRecvDataSegmentLength=65536")
    data = b"MaxRecvDataSegmentLength=512\0"
    feed(engine, initiator.request(0x04, word20=NO_TAG, data=data))
    (task,) = feed(engine, initiator.read(0, 2))
    engine.complete_read(task, (bytes(1024),), 1024)
    assert [len(pdu.data) for pdu in pdus(sent(engine))][1:] == [512, 512]


def test_a_discovery_session_has_no_commands(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator, names=DISCOVERY)
    assert feed(engine, initiator.command(bytes(6))) == []
    assert pdus(sent(engine))[0].opcode == 0x3F
    feed(engine, initiator.request(0x04, word20=NO_TAG, cmd_sn=1, data=b"SendTargets=All\0"))
    assert pdus(sent(engine))[0].opcode == 0x24


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (0x03, Reason.PROTOCOL),
        (0x10, Reason.PROTOCOL),
        (0x07, Reason.NOT_SUPPORTED),
        (0x1C, Reason.NOT_SUPPORTED),
        (0x20, Reason.NOT_SUPPORTED),
        (0x3F, Reason.NOT_SUPPORTED),
    ],
)
def test_what_does_not_belong_here_is_rejected(
    initiator: Any, pdus: Any, op: int, reason: Reason
) -> None:
    engine = enter(initiator)
    pdu = initiator.request(op, cmd_sn=1)
    assert feed(engine, pdu) == []
    (reject,) = pdus(sent(engine))
    assert (reject.opcode, reject.byte2, reject.data) == (0x3F, reason, pdu[:48])
    assert not engine.ended


def test_task_management_and_its_answer(initiator: Any, pdus: Any) -> None:
    engine = enter(initiator)
    (request,) = feed(
        engine, initiator.request(0x02, 0x81, itt=4, lun=5 << 48, word20=0x99, immediate=True)
    )
    assert request == Management(1, 5 << 48, 4, 0x99)
    engine.managed(request, 1)
    (answer,) = pdus(sent(engine))
    assert (answer.opcode, answer.byte2, answer.itt, answer.word20) == (0x22, 1, 4, 0)


@pytest.mark.parametrize(
    ("reason", "cid", "response", "ends"),
    [(0, 0, 0, True), (1, 0, 0, True), (1, 9, 1, False), (2, 0, 2, False)],
)
def test_logout(
    initiator: Any, pdus: Any, reason: int, cid: int, response: int, ends: bool
) -> None:
    engine = enter(initiator)
    (logout,) = feed(engine, initiator.request(0x06, 0x80 | reason, itt=4, word20=cid << 16))
    assert logout == Logout(reason, 4, cid)
    engine.logged_out(logout)
    (answer,) = pdus(sent(engine))
    assert (answer.opcode, answer.byte2, answer.itt) == (0x26, response, 4)
    assert bool(engine.ended) is ends


def test_an_aborted_task_leaves_its_place(initiator: Any) -> None:
    engine = enter(initiator)
    (task,) = feed(engine, initiator.read(0, 1))
    engine.defer(task)
    engine.drop(task)
    assert task.aborted and engine.session.tasks == {}
    assert engine.session.max_cmd_sn == 129 and sent(engine) == b""


# Digests.


def sealed(pdu: bytes, *, header: bool = True, data: bool = True) -> bytes:
    out = pdu[:48]
    if header:
        out += digest([pdu[:48]])
    out += pdu[48:]
    if data and len(pdu) > 48:
        out += digest([pdu[48:]])
    return out


BOTH = ("HeaderDigest=CRC32C", "DataDigest=CRC32C")


@pytest.mark.parametrize("step", [1, 50, 10000])
def test_with_both_digests(initiator: Any, step: int) -> None:
    engine = enter(initiator, *BOTH)
    stream = sealed(initiator.write(0, 1, b"w" * 510)) + sealed(initiator.read(0, 1))
    events = []
    for at in range(0, len(stream), step):
        events += describe(feed(engine, stream[at : at + step]))
    assert [row[2] for row in events] == [b"w" * 510, b""]
    assert not engine.ended


def test_answers_are_sealed_too(initiator: Any) -> None:
    engine = enter(initiator, *BOTH)
    feed(engine, sealed(initiator.request(0x00, word20=NO_TAG, data=b"ping!")))
    stream = sent(engine)
    assert stream[48:52] == digest([stream[:48]])
    assert stream[52:60] == b"ping!\0\0\0" and stream[60:] == digest([stream[52:60]])


@pytest.mark.parametrize("at", [0, 20, 48, 51, 52, 300, 564, 567])
def test_one_wrong_bit_ends_the_connection(initiator: Any, at: int) -> None:
    """All that error recovery level 0 can do about a digest that does not match."""
    engine = enter(initiator, *BOTH)
    stream = bytearray(sealed(initiator.write(0, 1, b"w" * 512)))
    assert len(stream) == 568
    stream[at] ^= 1
    assert feed(engine, bytes(stream)) == []
    assert "digest is wrong" in engine.ended
    answer = sent(engine)  # a wrong header names no task, wrong data is rejected (section 7.8)
    assert answer == b"" if at < 52 else (answer[0], answer[2]) == (0x3F, Reason.DATA_DIGEST)


def test_only_the_data_digest(initiator: Any) -> None:
    engine = enter(initiator, "DataDigest=CRC32C")
    pdu = sealed(initiator.write(0, 1, b"w" * 512), header=False)
    assert len(feed(engine, pdu + sealed(initiator.read(0, 1), header=False))) == 2


# Garbage.


@given(st.binary(max_size=400), st.integers(1, 100))
def test_garbage_instead_of_a_login(data: bytes, step: int) -> None:
    engine = connection()
    for at in range(0, len(data), step):
        for event in feed(engine, data[at : at + step]):
            assert isinstance(event, Knock)
    engine.data_to_send()


HEAD = st.builds(
    lambda op, flags, data, rest: struct.pack(">BBHI", op, flags, 0, data) + rest,
    st.sampled_from([0, 1, 2, 4, 5, 6, 0x10, 0x40, 0x41, 0x42, 0x44, 0x46]) | st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 64) | st.integers(0, 0xFFFFFFFF),
    st.binary(min_size=40, max_size=40),
)
ORDERED_HEAD = st.builds(
    lambda op, flags, data, itt, word: struct.pack(
        ">BBHIQIIII16x", op, flags, 0, data, 0, itt, word, 1, 0
    ),
    st.sampled_from([0x40, 0x41, 0x42, 0x44, 0x46, 0x05]),
    st.integers(0, 255),
    st.integers(0, 64),
    st.sampled_from([1, 2, 3, NO_TAG]),
    st.sampled_from([0, 1, 512, NO_TAG]),
)


@given(
    st.lists(st.tuples(HEAD | ORDERED_HEAD, st.binary(max_size=80)), max_size=10),
    st.booleans(),
    st.integers(1, 200),
)
def test_garbage_in_full_feature_phase(
    pieces: list[tuple[bytes, bytes]], digests: bool, step: int
) -> None:
    """Nothing raises; every event can be acted on; what is sent is whole."""
    engine = connection()
    builder = Build()
    feed(engine, builder.login())
    (arrived,) = engine.admit(WELCOME)
    arrived.session.parameters.header_digest = digests
    engine.establish(1)
    stream = b"".join(head + data for head, data in pieces)
    for at in range(0, len(stream), step):
        for event in feed(engine, stream[at : at + step]):
            match event:
                case Task():
                    if event.itt % 2 and engine.solicit(event, event.edtl) is None:
                        engine.defer(event)
                    else:
                        engine.complete(event, 0)
                case Management():
                    engine.managed(event, 0)
                case Logout():
                    engine.logged_out(event)
        engine.data_to_send()
    assert engine.session.solicited >= 0

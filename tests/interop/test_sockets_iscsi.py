"""A running disk process and plain sockets: the table of mistakes, and several sessions.

libiscsi's suite asks for little of this: one old and one far CmdSN, at TEST UNIT READY, and one
wrong DataSN.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.interop.conftest import NAME, IscsiTarget
from tests.iscsi import mistakes
from tests.iscsi.conftest import Initiator
from tests.iscsi.dialogue import Dialogue
from tests.iscsi.mistakes import DISCOVERY, DROP, FULL, LOGINS, NO_TAG, Row

pytestmark = pytest.mark.interop

ABORT_TASK, CLEAR_TASK_SET, LUN_RESET, WARM_RESET, COLD_RESET = 1, 4, 5, 6, 7


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IscsiTarget]:
    """One disk process for all of this."""
    made = IscsiTarget(tmp_path_factory.mktemp("sockets"))
    yield made
    made.stop()


def said(session: Dialogue, row: Row) -> list[object]:
    """What comes back for a row. Nothing is said before the last was answered: R2T come first."""
    came = []
    for pdu in row.build(session.initiator):
        session.send(pdu)
        came += session.answers()
        if None in came:
            break
    words = mistakes.words([pdu for pdu in came if pdu is not None])
    return [*words, DROP] if None in came else words


def test_every_mistake_in_full_feature_phase(target: IscsiTarget) -> None:
    """And the session lives, for the next in order is answered, where it is not to end."""
    found = {}
    for row in mistakes.rows(FULL):
        with Dialogue(target.port, NAME, *row.keys) as session:
            found[row.name] = said(session, row)
            if DROP not in found[row.name]:
                following = session.initiator.request(0, cmd_sn=session.expected, data=b"alive")
                assert session.ask(following).data == b"alive", row.name
    assert found == {row.name: row.expected for row in mistakes.rows(FULL)}


def test_every_mistake_in_a_discovery_session(target: IscsiTarget) -> None:
    found = {}
    for row in mistakes.rows(DISCOVERY):
        with Dialogue(target.port, NAME, kind="Discovery") as session:
            found[row.name] = said(session, row)
            request = session.initiator.request(
                4, word20=NO_TAG, cmd_sn=session.expected, data=b"SendTargets=All\0"
            )
            assert NAME.encode() in session.ask(request).data, row.name
    assert found == {row.name: row.expected for row in mistakes.rows(DISCOVERY)}


def test_every_mistake_in_a_login(target: IscsiTarget) -> None:
    found, before = {}, target.admission
    for row in mistakes.rows(LOGINS):
        target.admission = replace(before, status=row.admission.status, chap=row.admission.chap)
        with socket.create_connection(("127.0.0.1", target.port), 20) as sock:
            status = None
            for pdu in row.build(Initiator()):
                sock.sendall(pdu)
                answer = exactly(sock, 48)
                if not answer:
                    break
                exactly(sock, int.from_bytes(answer[5:8], "big") + 3 & ~3)
                status = int.from_bytes(answer[36:38], "big")
                if status:
                    break
            found[row.name] = status
            assert exactly(sock, 1) == b"", row.name
    target.admission = before
    assert found == {row.name: row.status for row in mistakes.rows(LOGINS)}


def exactly(sock: socket.socket, count: int) -> bytes:
    """``count`` bytes; none when the other end has hung up."""
    data = b""
    try:
        while len(data) < count and (more := sock.recv(count - len(data))):
            data += more
    except ConnectionError:
        pass
    return data


@pytest.mark.parametrize("step", [-1, -2, -129, 128, 129, 1 << 30])
def test_a_cmdsn_outside_the_window_is_ignored(target: IscsiTarget, step: int) -> None:
    """A WRITE with such a number writes nothing, is not answered, and the session goes on."""
    pattern = struct.pack(">q", step) * 64
    with Dialogue(target.port, NAME, "ImmediateData=Yes") as session:
        i = session.initiator
        before = session.ask(i.read(100, 1)).data
        assert session.answers() == []
        number = session.expected
        session.send(i.write(100, 1, pattern, cmd_sn=(number + step) & 0xFFFFFFFF))
        assert session.answers() == [] and session.expected == number
        assert session.ask(i.read(100, 1, cmd_sn=number)).data == before != pattern
        assert session.ask(i.write(100, 1, pattern, cmd_sn=number + 1)).byte3 == 0
        assert session.ask(i.read(100, 1, cmd_sn=number + 2)).data == pattern


def test_attentions_go_to_the_right_sessions(target: IscsiTarget) -> None:
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(Dialogue(target.port, NAME, isid=bytes((0, 2, 0x3D, 0, 0, n))))
            for n in range(3)
        ]
        one, other, third = sessions
        for session in (one, other):
            assert session.ask(session.initiator.write(0, 8, itt=0x77)).opcode == 0x31
        # Only who lost a task to somebody else is told.
        assert one.manage(CLEAR_TASK_SET) == 0
        assert [session.attention() for session in sessions] == [0, 0x2F00, 0]
        assert one.manage(ABORT_TASK, 0x77) == 1, "it is gone"
        for function, code in ((LUN_RESET, 0x2903), (WARM_RESET, 0x2902)):
            assert third.manage(function) == 0
            assert [session.attention() for session in sessions] == [code] * 3
            assert [session.attention() for session in sessions] == [0] * 3


def test_a_reset_ends_tasks_of_all_sessions_and_none_is_answered(target: IscsiTarget) -> None:
    with Dialogue(target.port, NAME) as one, Dialogue(target.port, NAME, isid=b"other!") as other:
        r2t = one.ask(one.initiator.write(0, 8, itt=0x77))
        assert other.manage(LUN_RESET) == 0
        one.send(one.initiator.data_out(0x77, r2t.word20, 0, 0, bytes(4096)))
        assert one.answers() == []
        assert one.attention() == 0x2903


def test_a_cold_reset_ends_all_sessions(target: IscsiTarget) -> None:
    """Section 11.5.1: and the next login finds the unit as after power on."""
    with Dialogue(target.port, NAME) as one, Dialogue(target.port, NAME, isid=b"other!") as other:
        assert one.manage(COLD_RESET) == 0
        assert one.read() is None and other.read() is None
    with Dialogue(target.port, NAME) as again:
        assert again.attention() == 0


def test_two_sessions_with_the_same_task_tags(target: IscsiTarget) -> None:
    """Tags are a session's: the other's abort does not find the task."""
    keys = ("ImmediateData=No",)
    with (
        Dialogue(target.port, NAME, *keys) as one,
        Dialogue(target.port, NAME, *keys, isid=b"other!") as other,
    ):
        r2t = one.ask(one.initiator.write(8, 1, itt=0x77))
        assert other.manage(ABORT_TASK, 0x77) == 1
        status = one.ask(one.initiator.data_out(0x77, r2t.word20, 0, 0, bytes(range(256)) * 2))
        assert (status.opcode, status.byte3) == (0x21, 0)
        assert other.ask(other.initiator.read(8, 1)).data == bytes(range(256)) * 2


def test_targets_are_told_in_a_normal_session_too(target: IscsiTarget) -> None:
    with Dialogue(target.port, NAME) as session:
        for value, told in (("", True), (NAME, True), ("iqn.a:b", False)):
            text = f"SendTargets={value}\0".encode()
            answer = session.ask(session.initiator.request(4, word20=NO_TAG, data=text))
            assert (answer.opcode, answer.data.startswith(b"TargetName=")) == (0x24, told)
        assert session.attention() == 0

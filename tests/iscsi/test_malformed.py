"""Every row of ``mistakes``, said to an engine.

Where the session must live it is asked for a NOP afterwards, with the number that it says it
expects: so a row also holds what became of CmdSN. ``tests/interop/test_sockets_iscsi.py`` says
the same to a disk process.
"""

from typing import Any

import pytest

from netboot.iscsi.engine import Connection
from netboot.iscsi.entering import Arrived
from netboot.model import Knock, Portal
from tests.iscsi import mistakes
from tests.iscsi.mistakes import DISCOVERY, DROP, FULL, LOGINS, SILENCE, Login, Row, words


def named(groups: tuple[mistakes.Group, ...]) -> Any:
    """A test for each row of some groups."""
    every = mistakes.rows(groups)
    return pytest.mark.parametrize("row", every, ids=[row.name for row in every])


@named(FULL)
def test_in_full_feature_phase(bench: Any, row: Row) -> None:
    session = bench.session(*row.keys)
    held(session, row)
    assert any(bench.disk.data) == row.writes


@named(DISCOVERY)
def test_in_a_discovery_session(bench: Any, row: Row) -> None:
    session = bench.session(*row.keys, kind="Discovery")
    held(session, row)
    text = session.initiator.request(
        4, word20=mistakes.NO_TAG, data=b"SendTargets=All\0", cmd_sn=number(session)
    )
    (targets,) = session.say(text)
    assert targets.opcode == 0x24 and targets.data.startswith(b"TargetName=")


def held(session: Any, row: Row) -> None:
    """Say what a row says; what comes back is what it expects, and the session lives or not."""
    answers = []
    for pdu in row.build(session.initiator):
        answers += session.say(pdu)
    if session.engine.ended:
        assert [*words(answers), DROP] == row.expected
        assert session.say(session.initiator.request(0)) == []
        return
    assert words(answers) == row.expected
    assert all(pdu.exp_cmd_sn <= number(session) for pdu in answers)
    if session.engine.session.discovery:
        return
    alive = session.initiator.request(0, itt=0xA11E, cmd_sn=number(session), data=b"alive")
    (pong,) = session.say(alive)
    assert (pong.opcode, pong.data) == (0x20, b"alive")


def number(session: Any) -> int:
    """The CmdSN that a session expects."""
    return int(session.engine.session.exp_cmd_sn)


@named(LOGINS)
def test_in_a_login(initiator: Any, pdus: Any, row: Login) -> None:
    engine = Connection("10.0.0.9", (Portal("10.0.0.1", 3260),), lambda n: bytes(range(1, n + 1)))
    for pdu in row.build(initiator):
        events = engine.receive(memoryview(bytearray(pdu)))
        while events:
            event = events.pop(0)
            assert not isinstance(event, Arrived), "let in"
            assert isinstance(event, Knock)
            events += engine.admit(row.admission)
    assert engine.ended
    answers = pdus(b"".join(bytes(part) for part in engine.data_to_send()))
    if row.status is SILENCE:
        assert answers == []
        return
    *before, last = answers
    assert all(pdu.opcode == 0x23 and not pdu.word36 for pdu in before)
    assert (last.opcode, last.word36 >> 16, last.data) == (0x23, row.status, b"")
    assert engine.receive(memoryview(initiator.request(0))) == []
    assert engine.data_to_send() == []


def test_the_rows_are_many_and_differ() -> None:
    groups = FULL + DISCOVERY + LOGINS
    names = [row.name for row in mistakes.rows(groups)]
    assert len(names) == len(set(names)) >= 160
    sections = [each.section for each in groups]
    assert len(sections) == len(set(sections))

"""From the first login request to the full-feature phase, PDU by PDU."""

import struct
from typing import Any

import pytest

from netboot.iscsi.entering import Arrived
from netboot.iscsi.session import Task
from netboot.iscsi.wire import NO_TAG
from netboot.model import Admission, Knock
from tests.iscsi.test_engine import LOGIN, NAME, WELCOME, connection, feed, sent


def test_the_first_answer_echoes_what_edk2_compares(initiator: Any, pdus: Any) -> None:
    """ExpCmdSN is the CmdSN of the request, ISID and ITT are its own."""
    engine = connection()
    initiator.cmd_sn = 0x1234
    feed(engine, initiator.login(0x87, *LOGIN, itt=0x55))
    assert sent(engine) == b""  # nothing before somebody has said who this is
    (arrived,) = engine.admit(WELCOME)
    assert sent(engine) == b""  # nor before the old session of the same name is gone
    assert (arrived.session.identity.initiator, arrived.admission) == (NAME, WELCOME)
    engine.establish(0x0102)
    (answer,) = pdus(sent(engine))
    assert (answer.opcode, answer.flags, answer.itt) == (0x23, 0x87, 0x55)
    assert answer.raw[8:16] == b"\x40\x00\x27\x23\x12\x34\x01\x02"
    assert (answer.stat_sn, answer.exp_cmd_sn, answer.max_cmd_sn) == (1, 0x1234, 0x1234 + 127)
    assert answer.raw[36:38] == b"\0\0"
    assert answer.data == b"TargetPortalGroupTag=1\0"
    assert engine.full and not engine.ended


def test_a_login_of_two_requests(initiator: Any, pdus: Any) -> None:
    engine = connection()
    feed(engine, initiator.login(0x81, *LOGIN, "AuthMethod=None"))
    assert engine.admit(WELCOME) == []
    (first,) = pdus(sent(engine))
    assert (first.flags, first.stat_sn, first.raw[14:16]) == (0x81, 1, b"\0\0")
    (arrived,) = feed(engine, initiator.login(0x87, "InitialR2T=Yes"))
    assert isinstance(arrived, Arrived) and arrived.session.parameters.initial_r2t
    engine.establish(9)
    (second,) = pdus(sent(engine))
    assert (second.flags, second.stat_sn, second.raw[14:16]) == (0x87, 2, b"\0\x09")


def test_a_refused_knock_ends_the_connection(initiator: Any, pdus: Any) -> None:
    engine = connection()
    feed(engine, initiator.login(0x87, *LOGIN))
    assert engine.admit(Admission(0x0301, detail="later")) == []
    (answer,) = pdus(sent(engine))
    assert (answer.raw[36:38], answer.flags, answer.data) == (b"\x03\x01", 0, b"")
    assert "later" in engine.ended
    assert feed(engine, initiator.login(0x87, *LOGIN)) == []


def test_a_target_that_cannot_be_opened(initiator: Any, pdus: Any) -> None:
    engine = connection()
    feed(engine, initiator.login(0x87, *LOGIN))
    engine.admit(WELCOME)
    engine.refuse(0x0301, "the image is missing")
    (answer,) = pdus(sent(engine))
    assert answer.raw[36:38] == b"\x03\x01" and engine.ended


def test_what_comes_while_the_answer_is_awaited_is_kept(initiator: Any, pdus: Any) -> None:
    engine = connection()
    (knock,) = feed(engine, initiator.login(0x87, *LOGIN) + initiator.command(bytes(6)))
    assert isinstance(knock, Knock)
    assert feed(engine, initiator.request(0x00, word20=NO_TAG)[:20]) == []
    (arrived,) = engine.admit(WELCOME)
    assert isinstance(arrived, Arrived)
    (task,) = engine.establish(1)
    assert isinstance(task, Task)
    assert len(pdus(sent(engine))) == 1


@pytest.mark.parametrize("op", [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x1C, 0x3F])
def test_nothing_but_a_login_before_the_login(initiator: Any, op: int) -> None:
    engine = connection()
    assert feed(engine, initiator.request(op)) == []
    assert "before the login" in engine.ended and sent(engine) == b""


def test_nothing_but_a_login_during_the_login(initiator: Any, pdus: Any) -> None:
    """Section 6.3: once it has begun, the login is refused and the connection ends."""
    engine = connection()
    feed(engine, initiator.login(0x00, *LOGIN))
    engine.admit(WELCOME)
    sent(engine)
    assert feed(engine, initiator.command(bytes(6))) == []
    (answer,) = pdus(sent(engine))
    assert (answer.opcode, answer.word36 >> 16) == (0x23, 0x020B)
    assert "during the login" in engine.ended


def test_a_long_login_segment_is_not_taken() -> None:
    engine = connection()
    feed(engine, struct.pack(">BBHI40x", 0x43, 0x87, 0, 8193))
    assert "8192 are allowed" in engine.ended

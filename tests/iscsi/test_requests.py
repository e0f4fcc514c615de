"""NOP, Text, Logout and task management, by section 11 of RFC 7143; the frame is the engine's."""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from netboot.iscsi.answers import Answers
from netboot.iscsi.requests import Logout, Management, Requests
from netboot.iscsi.session import Session
from netboot.iscsi.target import Identity

PORTALS = ("192.168.77.1:3260,1", "[fd00::1]:3260,2")
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
NOP, TMF, TEXT, LOGOUT = 0x00, 0x02, 0x04, 0x06
SESSION, CONNECTION, RECOVERY = 0x80, 0x81, 0x82


class Desk:
    """Requests without a parser: the CmdSN has been counted when they arrive."""

    def __init__(self, pdus: Callable[[bytes], list[Any]], initiator: Any) -> None:
        self.session = Session(Identity("iqn.a", b"123456", TARGET))
        self.session.open_window(100)
        self.answers = Answers(self.session)
        self.requests = Requests(self.session, self.answers, PORTALS)
        self.make = initiator.request
        self._pdus = pdus

    def ask(self, op: int, flags: int = 0x80, **more: Any) -> Management | Logout | None:
        data = more.get("data", b"")
        pdu = memoryview(self.make(op, flags, **more))
        if not more.get("immediate"):
            self.session.arrived()
            self.session.answered()
        return self.requests.receive(op, pdu, memoryview(data), (TARGET,))

    def said(self) -> list[Any]:
        return self._pdus(b"".join(map(bytes, self.answers.take())))


@pytest.fixture
def desk(pdus: Any, initiator: Any) -> Desk:
    return Desk(pdus, initiator)


def test_a_ping_is_echoed_up_to_what_the_initiator_takes(desk: Desk) -> None:
    desk.answers.chunk = 512
    assert desk.ask(NOP, itt=7, lun=1 << 48, word20=0xFFFFFFFF, data=b"p" * 1000) is None
    (pong,) = desk.said()
    assert (pong.opcode, pong.flags, pong.itt, pong.word20) == (0x20, 0x80, 7, 0xFFFFFFFF)
    assert pong.data == b"p" * 512 and pong.raw[8:16] == struct.pack(">Q", 1 << 48)


def test_a_ping_without_a_tag_wants_no_answer(desk: Desk) -> None:
    assert desk.ask(NOP, itt=0xFFFFFFFF, immediate=True) is None
    assert desk.said() == []


def test_task_management_is_for_others_to_do(desk: Desk) -> None:
    asked = desk.ask(TMF, 0x81, lun=5 << 48, itt=9, word20=4711)
    assert asked == Management(1, 5 << 48, 9, 4711)
    assert desk.said() == []
    desk.requests.managed(asked, 255)
    (answer,) = desk.said()
    assert (answer.opcode, answer.flags, answer.byte2, answer.itt) == (0x22, 0x80, 255, 9)


@pytest.mark.parametrize(
    ("flags", "cid", "response"),
    [
        (SESSION, 0, 0),
        (SESSION, 99, 0),  # section 11.14.3: the CID is not valid with this reason
        (CONNECTION, 3, 0),
        (CONNECTION, 4, 1),
        (RECOVERY, 3, 2),
        (RECOVERY, 4, 2),
    ],
)
def test_a_logout_and_its_answer(desk: Desk, flags: int, cid: int, response: int) -> None:
    asked = desk.ask(LOGOUT, flags, itt=8, word20=cid << 16)
    assert asked == Logout(flags & 0x7F, 8, cid)
    assert desk.requests.logged_out(asked, 3) is (response == 0)
    (answer,) = desk.said()
    assert (answer.opcode, answer.byte2, answer.itt) == (0x26, response, 8)
    # Time2Wait and Time2Retain: nothing is kept, and nobody need wait.
    assert answer.word40 == 0


@pytest.mark.parametrize("reason", [3, 4, 64, 127])
@pytest.mark.parametrize("immediate", [True, False])
def test_a_reserved_reason_is_an_invalid_field(desk: Desk, reason: int, immediate: bool) -> None:
    """Section 11.14.1: all other values are reserved; 11.17.1: 09h is an invalid PDU field."""
    assert desk.ask(LOGOUT, 0x80 | reason, immediate=immediate) is None
    (reject,) = desk.said()
    assert (reject.opcode, reject.byte2, reject.itt) == (0x3F, 0x09, 0xFFFFFFFF)
    assert reject.data[0] & 0x3F == 0x06 and len(reject.data) == 48
    # Section 7.3: its CmdSN is still to come.
    assert (reject.exp_cmd_sn, reject.max_cmd_sn) == (100, 227)


@pytest.mark.parametrize("flags", [CONNECTION, RECOVERY])
def test_a_discovery_session_ends_as_a_whole(desk: Desk, flags: int) -> None:
    """Section 4.3: it takes SendTargets and "close the session", all else is rejected."""
    desk.session.discovery = True
    assert desk.ask(LOGOUT, flags) is None
    (reject,) = desk.said()
    assert (reject.opcode, reject.byte2) == (0x3F, 0x04)
    assert desk.ask(LOGOUT, SESSION) is not None


def test_send_targets_names_every_portal_with_its_tag(desk: Desk) -> None:
    assert desk.ask(TEXT, word20=0xFFFFFFFF, data=b"SendTargets=\0") is None
    (answer,) = desk.said()
    expected = f"TargetName={TARGET}\0" + "".join(f"TargetAddress={x}\0" for x in PORTALS)
    assert answer.data == expected.encode() and answer.flags == 0x80


def test_text_that_is_no_text_is_rejected_and_its_number_is_still_to_come(desk: Desk) -> None:
    assert desk.ask(TEXT, word20=0xFFFFFFFF, data=b"rubbish\0") is None
    (reject,) = desk.said()
    assert (reject.opcode, reject.byte2, reject.exp_cmd_sn) == (0x3F, 0x04, 100)


def test_a_late_declaration_takes_effect(desk: Desk) -> None:
    desk.ask(TEXT, word20=0xFFFFFFFF, data=b"MaxRecvDataSegmentLength=1024\0")
    assert desk.answers.chunk == 1024
    assert desk.said()[0].data == b"MaxRecvDataSegmentLength=262144\0"


def test_who_is_asked_to_leave(desk: Desk) -> None:
    """Byte by byte by the drawing of section 11.9: event 1, the time in Parameter3."""
    desk.requests.ask_to_leave(3)
    (message,) = desk.said()
    assert message.raw == (
        bytes((0x32, 0x80, 0, 0, 0, 0, 0, 0))
        + bytes(8)
        + b"\xff\xff\xff\xff"
        + bytes(4)
        + struct.pack(">III", 1, 100, 227)
        + bytes((1, 0, 0, 0, 0, 0, 0, 3))
        + bytes(4)
    )
    assert desk.answers.stat_sn == 2  # section 11.9: it takes a StatSN as any answer does

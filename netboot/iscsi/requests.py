"""Requests beside SCSI commands: NOP, Text, Logout, task management (RFC 7143 sections 11.5-11.19).

What the protocol answers by itself is answered here, at once, so that a ping never waits
behind a disk; the rest becomes an event. The parser (``engine``) has checked the frame and the
CmdSN. Must never send what nobody asked for but by ``ask_to_leave``, which only the sessions of
operating systems may get.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netboot.iscsi import wire
from netboot.iscsi.answers import Answers
from netboot.iscsi.session import Session
from netboot.iscsi.text import Texts
from netboot.iscsi.wire import NO_TAG, LogoutAnswer, LogoutReason, Op, Reason


@dataclass(slots=True)
class Management:
    """A task management request (section 11.5): answer with ``managed``."""

    function: int
    lun: int  #: the field of 8 bytes
    itt: int
    referenced: int  #: Initiator Task Tag of the task meant
    #: ABORT TASK came before the task did, which now never begins (section 11.6.1).
    forestalled: bool = False


@dataclass(slots=True)
class Logout:
    """The initiator takes its leave: call ``logged_out``, send, close."""

    reason: int
    itt: int
    cid: int


class Requests:
    """One connection's requests; ``portals`` is what SendTargets tells of ours."""

    def __init__(self, session: Session, answers: Answers, portals: Sequence[str]) -> None:
        self._session = session
        self._answers = answers
        self._texts = Texts(portals)

    def receive(
        self, op: int, pdu: memoryview, data: memoryview, targets: Iterable[str]
    ) -> Management | Logout | None:
        """Handle one request whose CmdSN was in its turn; ``targets`` it may know of."""
        _, flags, _, lun, itt, word, _, _, _ = wire.REQUEST.unpack_from(pdu)
        if itt in self._session.tasks:
            self._reject(pdu, Reason.IN_PROGRESS)
        elif self._session.discovery and op not in (Op.TEXT, Op.LOGOUT):
            self._reject(pdu, Reason.PROTOCOL)  # section 4.3: it may ask for targets, and leave
        elif op == Op.NOP_OUT:
            self._ping(pdu, data)
        elif op == Op.TASK_MANAGEMENT:
            return Management(flags & 0x7F, lun, itt, word)
        elif op == Op.LOGOUT:
            return self._logout(pdu, Logout(flags & 0x7F, itt, word >> 16))
        else:
            self._text(pdu, bytes(data), targets)
        return None

    def managed(self, request: Management, response: int) -> None:
        """Answer a task management request."""
        op = Op.TASK_MANAGEMENT_RESPONSE
        self._answers.answer(op, 0x80, response, 0, request.itt, 0)

    def logged_out(self, request: Logout, cid: int) -> bool:
        """Answer a Logout Request that came on connection ``cid``; whether that ends it."""
        response = LogoutAnswer.CLOSED
        if request.reason == LogoutReason.RECOVERY:
            response = LogoutAnswer.NO_RECOVERY
        elif request.reason == LogoutReason.CONNECTION and request.cid != cid:
            response = LogoutAnswer.NO_CONNECTION
        self._answers.answer(Op.LOGOUT_RESPONSE, 0x80, response, 0, request.itt, 0)
        return response is LogoutAnswer.CLOSED

    def ask_to_leave(self, seconds: int) -> None:
        """Async Message, event 1: log out within ``seconds`` (section 11.9.1)."""
        answers, session = self._answers, self._session
        head = wire.ASYNC.pack(
            *(Op.ASYNC, 0x80, 0, 0, NO_TAG, answers.next_stat_sn(), session.exp_cmd_sn),
            *(session.max_cmd_sn, wire.REQUEST_LOGOUT, 0, 0, 0, seconds),
        )
        answers.emit(head)

    def _ping(self, pdu: memoryview, data: memoryview) -> None:
        _, _, _, lun, itt, _, _, _, _ = wire.REQUEST.unpack_from(pdu)
        if itt != NO_TAG:
            echo = bytes(data[: self._answers.chunk])
            self._answers.answer(Op.NOP_IN, 0x80, 0, lun, itt, NO_TAG, echo)
        elif not pdu[0] & wire.IMMEDIATE:  # section 11.18: without a tag it takes no CmdSN
            self._reject(pdu, Reason.PROTOCOL)

    def _logout(self, pdu: memoryview, request: Logout) -> Logout | None:
        if request.reason > LogoutReason.RECOVERY:  # section 11.14.1: all others are reserved
            self._reject(pdu, Reason.INVALID_FIELD)
        elif self._session.discovery and request.reason != LogoutReason.SESSION:
            self._reject(pdu, Reason.PROTOCOL)  # section 4.3: a discovery session ends as a whole
        else:
            return request
        return None

    def _text(self, pdu: memoryview, data: bytes, targets: Iterable[str]) -> None:
        _, flags, _, lun, itt, tag, _, _, _ = wire.REQUEST.unpack_from(pdu)
        answers = self._answers
        piece = self._texts.receive(self._session, targets, flags, tag, data, answers.chunk)
        if isinstance(piece, Reason):
            self._reject(pdu, piece)
            return
        answers.agree()
        answers.answer(Op.TEXT_RESPONSE, piece.flags, 0, lun, itt, piece.tag, piece.data)

    def _reject(self, pdu: memoryview, reason: Reason) -> None:
        if not pdu[0] & wire.IMMEDIATE:
            self._session.not_taken(answered=True)
        self._answers.reject(reason, bytes(pdu[: wire.BHS]))

"""How a connection gets from its first login request to the full-feature phase (RFC 7143 11.12).

The PDUs around ``login``'s words: heads unpacked and packed, the command window opened, the
parameters that were agreed put in force. While somebody has to be asked, nothing is parsed.
Must never send anything after a refusal.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from netboot.iscsi import keys, wire
from netboot.iscsi.answers import Answers
from netboot.iscsi.login import Answer, Login, Request, Stage
from netboot.iscsi.session import Session
from netboot.iscsi.target import Identity
from netboot.iscsi.wire import LoginStatus, Op
from netboot.model import Admission, Knock


@dataclass(slots=True)
class Arrived:
    """The login is complete but for the last answer: call ``establish`` or ``refuse``."""

    session: Session
    admission: Admission


class Entering(ABC):
    """The login half of a ``Connection``."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.session = Session(Identity("", b"", ""))
        self.answers = Answers(self.session)
        self.full = False  #: in full-feature phase
        self.held = False  #: nothing is parsed before a Knock or an Arrived was answered
        self.ended = ""  #: why this connection must be closed, after what is to be sent
        self._cid = 0
        self._login_head: tuple[int, bytes] = (0, b"")  #: ITT and ISID of the open request
        self._last: Answer | None = None  #: the answer that waits for ``_welcome``

    def _login(self, pdu: memoryview, data: memoryview) -> None:
        _, flags, _, low, _, isid, tsih, itt, cid, cmd_sn, _ = wire.LOGIN.unpack_from(pdu)
        if self.login.stage is Stage.START:
            self._cid = cid
            self.session.open_window(cmd_sn)
        self._login_head = itt, isid
        outcome = self.login.receive(Request(flags, low, isid, tsih, cid, bytes(data)))
        if isinstance(outcome, Knock):
            self.held = True
            self._happened(outcome)
        else:
            self._login_answer(outcome)

    def _login_answer(self, answer: Answer) -> None:
        login = self.login
        if login.stage is not Stage.FULL:
            self._send_login(answer)
            return
        assert login.identity is not None and login.admission is not None
        session = self.session
        session.identity = login.identity
        session.discovery = login.discovery
        keys.apply(session.parameters, login.agreed)
        self.held = True
        self._last = answer
        self._happened(Arrived(session, login.admission))

    def _welcome(self, tsih: int) -> None:
        """The last answer of a login, and with it the full-feature phase."""
        assert self._last is not None
        self.session.tsih = tsih
        self._send_login(self._last)
        self._last = None
        self.full = True
        self.answers.agree()

    def refuse(self, status: int, reason: str) -> None:
        """Turn away the session that ``Arrived`` announced."""
        self.login.stage = Stage.FAILED
        self._send_login(Answer(status=status, reason=reason))

    def _send_login(self, answer: Answer) -> None:
        session, answers = self.session, self.answers
        itt, isid = self._login_head
        data = wire.write_text(answer.pairs)
        success = answer.status == LoginStatus.SUCCESS
        head = wire.LOGIN_RESPONSE.pack(
            *(Op.LOGIN_RESPONSE, answer.flags, 0, 0, len(data), isid, session.tsih, itt),
            *(answers.stat_sn, session.exp_cmd_sn, session.max_cmd_sn, answer.status),
        )
        answers.next_stat_sn()
        answers.emit(head, (data,), len(data))
        if not success:
            self._end(f"login refused with {answer.status:#06x}: {answer.reason}")

    @abstractmethod
    def _happened(self, event: Knock | Arrived) -> None:
        """Somebody must answer this before anything else is parsed."""

    def _end(self, reason: str) -> None:
        self.ended = self.ended or reason

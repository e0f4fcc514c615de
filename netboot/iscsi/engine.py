"""One connection: bytes in, events out; answers in, buffers out (RFC 7143).

``receive`` parses every PDU of a received chunk and returns what somebody must act on; what
the protocol answers by itself (NOP, text, window, digests, R2T) is answered here. Answers are
collected until ``data_to_send`` takes them for one gathered send. Must never raise for
anything an initiator sends: a mistake ends the connection (``ended`` says why), which is all
that error recovery level 0 knows. Must never ping or notify on its own account: iPXE and EDK2
drop the session over a PDU they did not ask for.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from netboot.checksum import digest
from netboot.errors import WireError
from netboot.iscsi import keys, wire
from netboot.iscsi.entering import Arrived, Entering
from netboot.iscsi.login import Login, Stage
from netboot.iscsi.requests import Logout, Management, Requests
from netboot.iscsi.session import FEW_TASKS, READ, WRITE, Buffer, Task
from netboot.iscsi.transfer import Broken, Filled, Transfers
from netboot.iscsi.wire import BHS, FINAL, NO_TAG, Function, LoginStatus, Op, Reason
from netboot.model import Admission, Knock, Portal
from netboot.scsi.action import Status

#: PDUs that came before a missing one are kept up to this many bytes.
EARLY_LIMIT: Final = 1 << 20
#: Bytes that may come before a login was answered, when there is nothing to be said.
HELD_LIMIT: Final = 1 << 14
#: By byte 1 of a SCSI Command: not bidirectional, for no command of ours is; and F is set where
#: no data goes to us (section 11.3.1).
_USUAL: Final = tuple(
    flags & (READ | WRITE) != READ | WRITE and flags & (FINAL | WRITE) != 0 for flags in range(256)
)
_SEQUENCED: Final = frozenset({Op.NOP_OUT, Op.SCSI_COMMAND, Op.TASK_MANAGEMENT, Op.TEXT, Op.LOGOUT})


Event: TypeAlias = Task | Filled | Broken | Knock | Arrived | Management | Logout


class Connection(Entering):
    """The protocol's state for one TCP connection.

    ``address`` is the peer's, ``portals`` are all of ours, which SendTargets tells of;
    ``entropy`` gives random bytes for CHAP, ``group`` is the portal group it came in by.
    """

    def __init__(
        self,
        address: str,
        portals: Sequence[Portal],
        entropy: Callable[[int], bytes],
        group: int = 1,
    ) -> None:
        super().__init__(Login(address, entropy, group))
        self.ignored = 0  #: requests dropped in silence
        self.transfers = Transfers(self.answers)
        self.complete_read = self.answers.complete_read
        self.data_to_send = self.answers.take
        self.requests = Requests(self.session, self.answers, tuple(map(str, portals)))
        self.managed = self.requests.managed
        self.tail = bytearray()  #: the beginning of a PDU; while held, all that came
        self._events: list[Event] = []
        self._tags: set[int] = set()  #: of the tasks among them, which nobody has begun yet

    # Bytes in.

    @property
    def _fast(self) -> bool:
        return self.full and self.answers.plain and not self.session.discovery

    @property
    def missing(self) -> int:
        """Bytes that a PDU which has begun still lacks, as far as can be told; 0: none has."""
        tail = self.tail
        if not tail or self.held:
            return 0
        if len(tail) < BHS:
            return BHS - len(tail)
        answers = self.answers
        word = int.from_bytes(tail[4:8], "big")
        return wire.pdu_size(word, answers.header_digest, answers.data_digest) - len(tail)

    def receive(self, view: memoryview, tags: set[int] | None = None) -> list[Event]:
        """Parse ``view``; what happened, in order. Views in events die with the next call.

        ``tags`` are those of commands that came in the same breath before; these are added.
        """
        events = self._events = []
        if self.ended:
            return events
        self._tags = set() if tags is None else tags
        try:
            if self.held:
                self.tail += view
            else:
                at = self._finish_tail(view) if self.tail else 0
                if at < len(view):
                    at = self._parse(view, at)
                    self.tail += view[at:]
            if self.held and len(self.tail) > HELD_LIMIT:
                raise WireError("too much came before the answer to a login")
        except WireError as error:
            self._end(str(error))
        return events

    def _resume(self) -> list[Event]:
        """Go on with what came while the parser was held."""
        self.held = False
        came, self.tail = self.tail, bytearray()
        return self.receive(memoryview(came))

    def _finish_tail(self, view: memoryview) -> int:
        """Complete and handle the PDU that began earlier; the offset in ``view`` behind it."""
        tail = self.tail
        at = max(0, min(BHS - len(tail), len(view)))
        tail += view[:at]
        if len(tail) < BHS:
            return at
        size = self._size(int.from_bytes(tail[4:8], "big"))
        more = view[at : at + size - len(tail)]
        tail += more
        if len(tail) == size:
            self.tail = bytearray()
            self._parse(memoryview(tail), 0)
        return at + len(more)

    def _size(self, word: int) -> int:
        """Bytes of a PDU; WireError when it is larger than we said we take."""
        limit = keys.OUR_SEGMENT if self.full else wire.DEFAULT_SEGMENT
        if word & 0xFFFFFF > limit:
            raise WireError(f"a data segment of {word & 0xFFFFFF} bytes, {limit} are allowed")
        answers = self.answers
        return wire.pdu_size(word, answers.header_digest, answers.data_digest)

    def _parse(self, view: memoryview, at: int) -> int:
        """Handle the whole PDUs from ``at`` on; the offset of the first that is not whole."""
        end = len(view)
        unpack = wire.REQUEST.unpack_from
        session = self.session
        pending, tags = session.tasks, self._tags
        fast = self._fast
        append = self._events.append
        while end - at >= BHS and not self.held and not self.ended:
            op, flags, word, lun, itt, edtl, cmd_sn, _, cdb = unpack(view, at)
            # The data path: a SCSI command, the next in order, without additional headers. It
            # is answered in the order of arrival and never waits here, so the window is open.
            if (
                op == 1
                and fast
                and cmd_sn == session.exp_cmd_sn
                and word <= keys.OUR_SEGMENT
                and itt not in pending
                and itt not in tags
                and itt != NO_TAG
                and _USUAL[flags]
                and (session.max_cmd_sn - cmd_sn) & 0xFFFFFFFF < 0x80000000
            ):
                start = at + BHS
                behind = start + (word + 3 & ~3)
                if behind > end:
                    break
                session.exp_cmd_sn = (cmd_sn + 1) & 0xFFFFFFFF
                data: Buffer = view[start : start + word] if word else b""
                task = Task(itt, lun, flags, edtl, cdb, data, False)
                append(task)
                tags.add(itt)
                if flags & WRITE:
                    self._begin(task)
                at = behind
                if session.early:
                    self._replay()
                continue
            size = self._size(word)
            if end - at < size:
                break
            self._one(view[at : at + size])
            at += size
            fast = self._fast
        return at

    def _one(self, pdu: memoryview) -> None:
        """Check the digests of one whole PDU and hand it on by its opcode."""
        ahs, length = wire.lengths(int.from_bytes(pdu[4:8], "big"))
        at = BHS + ahs
        if self.answers.header_digest:
            if digest([pdu[:at]]) != pdu[at : at + 4]:
                raise WireError("a header digest is wrong")
            at += 4
        data = pdu[at : at + length]
        if self.answers.data_digest and length:
            padded = at + (length + 3 & ~3)
            if digest([pdu[at:padded]]) != pdu[padded : padded + 4]:
                self.answers.reject(Reason.DATA_DIGEST, bytes(pdu[:BHS]))
                raise WireError("a data digest is wrong")
        op = pdu[0] & 0x3F
        if not self.full:
            if op == Op.LOGIN:
                self._login(pdu, data)
            elif self.login.stage is Stage.START:  # section 6.3: in silence before the first
                raise WireError(f"opcode {op:#04x} before the login")
            else:
                self.refuse(LoginStatus.INVALID_REQUEST, f"opcode {op:#04x} during the login")
        elif op == Op.DATA_OUT:
            event = self.transfers.data_out(self.session, pdu, data)
            if event is not None:
                self._events.append(event)
        elif op in _SEQUENCED:
            self._sequenced(op, pdu, data)
        else:
            known = op in (Op.LOGIN, Op.SNACK)
            reason = Reason.PROTOCOL if known else Reason.NOT_SUPPORTED
            self.answers.reject(reason, bytes(pdu[:BHS]))

    def _sequenced(self, op: int, pdu: memoryview, data: memoryview) -> None:
        """A request with a CmdSN: in order, early (kept), or outside the window (ignored)."""
        session = self.session
        immediate = bool(pdu[0] & wire.IMMEDIATE)
        if not immediate:
            cmd_sn = int.from_bytes(pdu[24:28], "big")
            expected = session.expected(cmd_sn)
            if expected is None:
                session.early.setdefault(cmd_sn, bytes(pdu))
                if sum(map(len, session.early.values())) > EARLY_LIMIT:
                    raise WireError("too much came before a missing command")
                return
            if not expected:
                self.ignored += 1
                return
            session.arrived()
        if op == Op.SCSI_COMMAND:
            self._command(pdu, data, immediate)
        else:
            if not immediate:
                session.answered()
            event = self.requests.receive(op, pdu, data, self._targets())
            if isinstance(event, Management):
                self._forestall(event, pdu)
            if event is not None:
                self._events.append(event)
        if session.early:
            self._replay()

    def _forestall(self, request: Management, pdu: memoryview) -> None:
        """Task management reaches commands that have not come, or are behind a gap."""
        session, tag = self.session, request.referenced
        _, own, _, referenced = wire.TASK_MANAGEMENT.unpack_from(pdu)
        if request.function != Function.ABORT_TASK:
            session.forget(request.function, request.lun, own)
        elif tag not in session.tasks and tag not in self._tags:
            request.forestalled = session.forestall(referenced, own)

    def _replay(self) -> None:
        """A gap is closed: handle what came behind it."""
        session = self.session
        while (early := session.early.pop(session.exp_cmd_sn, None)) == b"":
            session.arrived()
            session.answered()
        if early is not None:
            self._one(memoryview(early))

    def _command(self, pdu: memoryview, data: memoryview, immediate: bool) -> None:
        """A SCSI Command that is not on the data path's short way."""
        session = self.session
        _, flags, _, lun, itt, edtl, _, _, cdb = wire.REQUEST.unpack_from(pdu)
        more = wire.extended_cdb(pdu) if pdu[4] else b""
        # The window bounds all commands but immediate ones.
        crowded = len(session.tasks) >= 2 * session.window
        reason = None
        if crowded:
            reason = Reason.IMMEDIATE
        elif more is None:
            reason = Reason.INVALID_FIELD
        elif itt in session.tasks or itt in self._tags:
            reason = Reason.IN_PROGRESS
        elif session.discovery or itt == NO_TAG or not flags & (FINAL | WRITE):
            reason = Reason.PROTOCOL
        elif not _USUAL[flags]:
            reason = Reason.NOT_SUPPORTED
        if reason is not None:
            if not immediate:
                session.not_taken()
            self.answers.reject(reason, bytes(pdu[:BHS]))
            return
        cdb += more or b""
        task = Task(itt, lun, flags, edtl, cdb, data if len(data) else b"", immediate)
        self._events.append(task)
        self._tags.add(itt)
        if flags & WRITE:
            self._begin(task)

    def _begin(self, task: Task) -> None:
        broken = self.transfers.begin(self.session, task)
        if broken is not None:
            self._events.append(broken)
        elif len(self.session.tasks) <= FEW_TASKS:
            return
        elif (task.transfer is not None or len(task.data)) and self.session.laden():
            self._events.pop()  # nobody hears of it
            self.answers.complete(task, Status.TASK_SET_FULL)

    def _targets(self) -> Iterable[str]:
        admission = self.login.admission
        return (admission.target,) if admission is not None and admission.target else ()

    # The login, as far as others answer.

    def admit(self, admission: Admission) -> list[Event]:
        """The answer to a Knock; returns what follows."""
        self._events = []
        self._login_answer(self.login.admit(admission))
        return self._events if self._last is not None else self._resume()

    def establish(self, tsih: int) -> list[Event]:
        """Welcome the session that ``Arrived`` announced; returns what follows."""
        self._welcome(tsih)
        return self._resume()

    # Tasks.

    def complete(self, task: Task, status: int, sense: bytes = b"", taken: int = 0) -> None:
        """End a task without data; see ``Answers.complete``. Data goes by ``complete_read``."""
        self.answers.complete(task, status, sense, taken)
        if self.session.thirsty:
            self.transfers.quench(self.session)

    def solicit(self, task: Task, length: int) -> Buffer | None:
        """A task's write data: see ``Transfers.solicit``."""
        return self.transfers.solicit(self.session, task, length)

    def defer(self, task: Task) -> None:
        """The task is not answered at once: keep what it came with, and let it be aborted."""
        task.keep()
        self.session.tasks[task.itt] = task

    def drop(self, task: Task) -> None:
        """The task was aborted: it is never answered, and its place in the window is free."""
        task.aborted = True
        self.answers.finish(task)
        self.transfers.quench(self.session)

    def logged_out(self, request: Logout) -> None:
        """Answer a Logout Request; the connection ends unless it was about another one."""
        if self.requests.logged_out(request, self._cid):
            self._end("logout")

    def _happened(self, event: Knock | Arrived) -> None:
        self._events.append(event)

    def _end(self, reason: str) -> None:
        super()._end(reason)
        self.tail.clear()

"""Write data on its way to us: immediate, unsolicited and solicited (RFC 7143 section 11.7).

A task's data is asked for with R2T in bursts of at most MaxBurstLength; each whole burst
becomes a ``Filled`` event. All data comes in order (DataPDUInOrder, DataSequenceInOrder = Yes)
and numbered, and what does not is not written: the task gets the sense that section 11.4.7.2
names for it (``Broken``), after the last Data-Out that is under way. Must never ask for more at
a time than the session's budget.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from netboot.iscsi import wire
from netboot.iscsi.answers import Answers
from netboot.iscsi.session import SOLICITED_LIMIT, Buffer, Session, Task, Transfer
from netboot.iscsi.wire import FINAL, NO_TAG

#: Additional sense codes of ABORTED COMMAND (section 11.4.7.2).
UNEXPECTED: Final = 0x0C0C  #: unexpected unsolicited data
INCORRECT: Final = 0x0C0D  #: incorrect amount of data
OUT_OF_SEQUENCE: Final = 0x4705  #: a Data-Out is missing: as a digest error


@dataclass(slots=True)
class Filled:
    """A burst of a task's data is here. ``data`` may be a view into the receive buffer."""

    task: Task
    offset: int
    data: Buffer
    last: bool

    def keep(self) -> None:
        """Make ``data`` last longer than the receive buffer."""
        if type(self.data) is memoryview:
            self.data = bytes(self.data)


@dataclass(slots=True)
class Broken:
    """The initiator broke a rule of data transfer: end the task with this sense."""

    task: Task
    asc: int


Event: TypeAlias = Filled | Broken


class Transfers:
    """The write data of one session's tasks."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.ignored = 0  #: Data-Out for tasks that are no more

    def begin(self, session: Session, task: Task) -> Broken | None:
        """A command with data has arrived: note what comes unasked."""
        parameters = session.parameters
        length = len(task.data)
        follows = not task.flags & FINAL and not parameters.initial_r2t
        if follows and length < min(parameters.first_burst, task.edtl):
            task.transfer = Transfer(True, bytearray(task.data))
            session.tasks[task.itt] = task
        if length and (length > parameters.first_burst or not parameters.immediate_data):
            return self._break(session, task, UNEXPECTED)
        if length > task.edtl:
            return self._break(session, task, INCORRECT)
        if task.transfer is not None:
            task.data = b""
        return None

    def solicit(self, session: Session, task: Task, length: int) -> Buffer | None:
        """The first ``length`` bytes of a task's data, or all there is if it has less.

        Returns them when they are here; otherwise asks for what is missing, and ``Filled``
        events bring everything, the last of them marked so.
        """
        wanted = min(length, task.write_length)
        transfer = task.transfer
        if transfer is None:
            if len(task.data) >= wanted:
                return task.data[:wanted]
            transfer = task.transfer = Transfer(False, bytearray(task.data))
            task.data = b""
            session.tasks[task.itt] = task
        transfer.wanted = wanted
        if transfer.unsolicited or transfer.broken:
            return None
        if transfer.here >= wanted:
            return transfer.burst[:wanted]
        self._ask(session, task, transfer)
        return None

    def data_out(self, session: Session, pdu: memoryview, data: memoryview) -> Event | None:
        """One Data-Out PDU; returns what it brings about."""
        _, flags, _, _, itt, tag, _, data_sn, offset = wire.DATA_OUT.unpack_from(pdu)
        task = session.tasks.get(itt)
        transfer = task.transfer if task is not None else None
        if task is None or transfer is None:
            self.ignored += 1
            return None
        final = bool(flags & FINAL)
        if transfer.broken:
            self.ignored += 1
            if final:
                self._settle(session, task, transfer)
            return None
        if tag != transfer.tag or not transfer.expected:
            if not data:  # the F that ends a burst which was whole without it
                self.ignored += 1
                return None
            return self._break(session, task, UNEXPECTED, final)
        if data_sn != transfer.data_sn:
            return self._break(session, task, OUT_OF_SEQUENCE, final)
        if transfer.unsolicited:
            limit = min(session.parameters.first_burst, task.edtl)
        else:
            limit = transfer.start + transfer.length
        end = offset + len(data)
        # A burst that ends before its end is an incorrect amount too, also the unsolicited one:
        # who sends any of it sends FirstBurstLength of it, or all there is (section 11.4.7.2).
        if offset != transfer.here or end > limit or (final and end < limit):
            return self._break(session, task, INCORRECT, final)
        transfer.data_sn += 1
        if transfer.unsolicited:
            transfer.burst += data
            if end == limit:
                transfer.unsolicited = False
                if transfer.wanted >= 0:
                    return self._next(session, task, transfer, transfer.burst)
            return None
        if end < limit:
            transfer.burst += data
            return None
        if not transfer.burst:  # one PDU is the burst: nothing is copied
            return self._next(session, task, transfer, data)
        transfer.burst += data
        return self._next(session, task, transfer, transfer.burst)

    def quench(self, session: Session) -> None:
        """Ask for the data of tasks that waited for the budget, as far as it goes."""
        while session.thirsty:
            task = session.thirsty[0]
            transfer = task.transfer
            assert transfer is not None
            if not self._fits(session, transfer):
                return
            session.thirsty.popleft()
            self._ask(session, task, transfer)

    def _next(
        self, session: Session, task: Task, transfer: Transfer, data: Buffer
    ) -> Filled | None:
        """Everything asked for is here: hand it on, and ask for the next burst."""
        self._arrived(session, transfer)
        offset = transfer.start
        end = offset + len(data)
        if end >= transfer.wanted:
            transfer.burst = bytearray()
            self.quench(session)
            return Filled(task, offset, data[: transfer.wanted - offset], True)
        if transfer.start == 0 and transfer.length == 0:
            # Only the unsolicited part is here: it goes on as the beginning of a burst.
            self._ask(session, task, transfer)
            return None
        transfer.start, transfer.burst = end, bytearray()
        self._ask(session, task, transfer)
        return Filled(task, offset, data, False)

    def _fits(self, session: Session, transfer: Transfer) -> bool:
        burst = session.parameters.max_burst + len(transfer.burst)
        return not session.solicited or session.solicited + burst <= SOLICITED_LIMIT

    def _ask(self, session: Session, task: Task, transfer: Transfer) -> None:
        """Send an R2T for the next burst, or wait for the budget."""
        if not self._fits(session, transfer):
            session.thirsty.append(task)
            return
        here = transfer.here
        # Bursts end at multiples of 4096, or else of 512, so that disks get whole blocks.
        end = here + session.parameters.max_burst
        end = min(end & ~4095 if end & ~4095 > here else end & ~511, transfer.wanted)
        ask = end - here
        transfer.length = here + ask - transfer.start
        transfer.tag = session.next_tag()
        transfer.data_sn = 0
        session.solicited += transfer.length
        self._answers.r2t(task, transfer.tag, transfer.r2t_sn, here, ask)
        transfer.r2t_sn += 1

    def _arrived(self, session: Session, transfer: Transfer) -> None:
        """No data is under way any more."""
        transfer.unsolicited = False
        if transfer.tag != NO_TAG:
            session.solicited -= transfer.length
            transfer.tag = NO_TAG

    def _settle(self, session: Session, task: Task, transfer: Transfer) -> None:
        """The last of the data that is not taken has come: the status may go."""
        self._arrived(session, transfer)
        if transfer.held is not None:
            self._answers.complete(task, *transfer.held)
        self.quench(session)

    def _break(self, session: Session, task: Task, asc: int, final: bool = False) -> Broken:
        """End a task over a mistake; ``final``: it was made in the last PDU of the burst."""
        transfer = task.transfer
        if transfer is None:
            transfer = task.transfer = Transfer(False, bytearray())
        transfer.refuse()
        if final:
            self._arrived(session, transfer)
        session.tasks[task.itt] = task
        return Broken(task, asc)

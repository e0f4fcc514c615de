"""What we send: PDUs packed, numbered, digested, and collected for one gathered send.

One of these for each connection; it owns StatSN. Every PDU carries the session's ExpCmdSN and
MaxCmdSN, and those without status the next StatSN: iPXE takes its numbers from the last PDU
of whatever kind. Data is passed on as the buffers it came in, never copied. Must never keep a
view of the receive buffer beyond the call.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from netboot.checksum import digest
from netboot.iscsi import wire
from netboot.iscsi.session import READ, WRITE, Buffer, Session, Task
from netboot.iscsi.wire import NO_TAG, Op

#: Our first StatSN: initiators take whatever the first login response says.
FIRST_STAT_SN: Final = 1
_OVERFLOW: Final = 0x04
_UNDERFLOW: Final = 0x02
_HAS_STATUS: Final = 0x01
_MASK: Final = 0xFFFFFFFF
_pack_data_in = wire.DATA_IN.pack
_pack_response = wire.SCSI_RESPONSE.pack


class Answers:
    """The outgoing half of a connection."""

    __slots__ = (
        *("burst", "chunk", "data_digest", "header_digest"),
        *("out", "plain", "session", "stat_sn"),
    )

    def __init__(self, session: Session) -> None:
        self.session = session
        self.out: list[Buffer] = []
        self.stat_sn = FIRST_STAT_SN
        self.header_digest = False
        self.data_digest = False
        self.plain = True  #: no digest of either kind
        self.chunk = wire.DEFAULT_SEGMENT  #: the most data in one PDU
        self.burst = 1 << 18

    def agree(self) -> None:
        """Take over what the login, or a later text request, has agreed."""
        parameters = self.session.parameters
        self.header_digest = parameters.header_digest
        self.data_digest = parameters.data_digest
        self.plain = not (self.header_digest or self.data_digest)
        self.burst = parameters.max_burst
        # Whole words, so that only a last PDU ever needs padding.
        self.chunk = min(parameters.send_segment, parameters.max_burst) & ~3

    def take(self) -> list[Buffer]:
        """Everything to be sent now, in order."""
        out, self.out = self.out, []
        return out

    def emit(self, head: bytes, parts: Sequence[Buffer] = (), length: int = 0) -> None:
        """Queue one PDU with its padding and digests."""
        out = self.out
        out.append(head)
        if self.header_digest:
            out.append(digest([head]))
        if length:
            out.extend(parts)
            pad = wire.padding(length)
            if pad:
                out.append(pad)
            if self.data_digest:
                out.append(digest([*parts, pad]))

    def answer(
        self, op: int, flags: int, code: int, lun: int, itt: int, tag: int, data: bytes = b""
    ) -> None:
        """A PDU of the common form of ``wire.ANSWER``; it takes a StatSN."""
        session = self.session
        head = wire.ANSWER.pack(
            *(op, flags, code, len(data), lun, itt, tag),
            *(self.next_stat_sn(), session.exp_cmd_sn, session.max_cmd_sn),
        )
        self.emit(head, (data,), len(data))

    def reject(self, reason: int, header: bytes) -> None:
        """Say that the PDU with this header was not taken (section 11.17)."""
        self.answer(Op.REJECT, 0x80, reason, 0, NO_TAG, 0, header)

    def next_stat_sn(self) -> int:
        """Take a StatSN."""
        number = self.stat_sn
        self.stat_sn = (number + 1) & _MASK
        return number

    def r2t(self, task: Task, tag: int, number: int, offset: int, length: int) -> None:
        """Ask for ``length`` bytes of a task's data (section 11.8)."""
        session = self.session
        head = wire.R2T.pack(
            *(Op.R2T, 0x80, task.lun, task.itt, tag, self.stat_sn),
            *(session.exp_cmd_sn, session.max_cmd_sn, number, offset, length),
        )
        self.emit(head)

    # The end of a task.

    def finish(self, task: Task) -> None:
        """The task is answered: its place in the window is free."""
        session = self.session
        if not task.immediate:
            session.max_cmd_sn = (session.max_cmd_sn + 1) & _MASK
        if session.tasks:
            session.drop(task)

    def complete_read(self, task: Task, parts: Sequence[Buffer], length: int) -> None:
        """GOOD, with ``length`` bytes of data in ``parts``; status in the last Data-In."""
        session = self.session
        if (
            length == task.edtl
            and task.flags & 0x60 == READ
            and 0 < length <= self.chunk
            and self.plain
            and not length & 3
        ):
            if not task.immediate:
                session.max_cmd_sn = (session.max_cmd_sn + 1) & _MASK
            if session.tasks:
                session.drop(task)
            number = self.stat_sn
            self.stat_sn = (number + 1) & _MASK
            out = self.out
            out.append(
                _pack_data_in(
                    *(0x25, 0x81, 0, length, 0, task.itt, NO_TAG, number),
                    *(session.exp_cmd_sn, session.max_cmd_sn, 0, 0, 0),
                )
            )
            out.extend(parts)
            return
        self._data_in(task, parts, length)

    def complete(self, task: Task, status: int, sense: bytes = b"", taken: int = 0) -> None:
        """A status without data; ``taken`` is what the command moves by its CDB, in bytes.

        It is held back while write data is under way: a status must not overtake the last
        Data-Out that the initiator has yet to send (section 11.4.2).
        """
        session = self.session
        transfer = task.transfer
        if transfer is not None and transfer.expected:
            transfer.refuse()
            transfer.held = status, sense, taken
            session.tasks[task.itt] = task
            return
        self.finish(task)
        room = task.edtl if task.flags & (READ | WRITE) else 0
        if taken and room and task.flags & READ:
            taken = 0  # what takes data was said to give some: nothing was moved
        flags, residual = 0x80, 0
        if taken > room:
            flags, residual = 0x80 | _OVERFLOW, taken - room
        elif taken < room:
            flags, residual = 0x80 | _UNDERFLOW, room - taken
        data = len(sense).to_bytes(2, "big") + sense if sense else b""
        sent = transfer.r2t_sn if transfer is not None else 0
        head = _pack_response(
            *(0x21, flags, 0, status, len(data), task.itt, self.next_stat_sn()),
            *(session.exp_cmd_sn, session.max_cmd_sn, sent, 0, residual),
        )
        self.emit(head, (data,), len(data))

    def _data_in(self, task: Task, parts: Sequence[Buffer], length: int) -> None:
        """Any number of Data-In PDUs, in bursts, with the residual in the last (11.4.5)."""
        room = task.read_length
        send = min(room, length)
        if not send:  # and nothing was moved either, if what gives data was said to take some
            self.complete(task, 0, taken=0 if task.flags & WRITE else length)
            return
        self.finish(task)
        session = self.session
        pieces = _split(parts, send, self.chunk, self.burst)
        offset = 0
        for number, (piece, size, ends_burst) in enumerate(pieces):
            last = offset + size == send
            flags = 0x80 if ends_burst or last else 0
            residual = 0
            stat_sn = self.stat_sn
            if last:
                flags |= _HAS_STATUS
                residual = abs(length - room)
                flags |= _OVERFLOW if length > room else _UNDERFLOW if length < room else 0
                self.next_stat_sn()
            head = _pack_data_in(
                *(0x25, flags, 0, size, 0, task.itt, NO_TAG, stat_sn),
                *(session.exp_cmd_sn, session.max_cmd_sn, number, offset, residual),
            )
            self.emit(head, piece, size)
            offset += size


def _split(
    parts: Sequence[Buffer], send: int, chunk: int, burst: int
) -> Iterator[tuple[list[Buffer], int, bool]]:
    """Cut ``parts`` into PDUs: the buffers, their bytes, whether a burst ends with them."""
    source = iter(parts)
    rest = memoryview(b"")
    done = in_burst = 0
    while done < send:
        size = min(chunk, send - done, burst - in_burst)
        piece: list[Buffer] = []
        missing = size
        while missing:
            if not rest:
                rest = memoryview(next(source))
            cut = rest[:missing]
            piece.append(cut)
            missing -= len(cut)
            rest = rest[len(cut) :]
        done += size
        in_burst += size
        ends = in_burst == burst
        yield piece, size, ends
        in_burst = 0 if ends else in_burst

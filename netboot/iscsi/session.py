"""A session: its command window, its tasks, and the data they wait for (RFC 7143 section 4).

Tasks and command numbers belong to the session, so that a second connection, or a task that
outlives its connection, can come without a rewrite; status numbers, digests and the stream
belong to the connection (``engine``). Must never hold more data than its budget, whatever
lengths an initiator names.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from netboot.iscsi import keys, wire
from netboot.iscsi.keys import Parameters
from netboot.iscsi.target import Identity

Buffer: TypeAlias = bytes | bytearray | memoryview

#: Commands an initiator may have under way (MaxCmdSN - ExpCmdSN + 1).
WINDOW: Final = 128
#: Bytes of solicited write data a session may have on its way at any time.
SOLICITED_LIMIT: Final = 8 << 20
#: Bytes of write data that came unasked and may wait for their tasks: beyond it a command with
#: such data ends with TASK SET FULL. So many tasks cannot hold more.
HELD_LIMIT: Final = 16 << 20
FEW_TASKS: Final = HELD_LIMIT // keys.OUR_FIRST_BURST
#: Bytes that commands may gather as a whole before they are done (parameters, data to compare).
GATHERED_LIMIT: Final = 32 << 20
#: Bytes that workers may be reading for a session before its next command has to wait.
READING_LIMIT: Final = 16 << 20

#: Opcode of the command that is processed before all that wait (SBC-3 section 5.22.1).
SANITIZE: Final = 0x48
READ: Final = 0x40
WRITE: Final = 0x20


class Task:
    """One SCSI command, from its arrival to its status.

    Deliberately bare: one is made for every command on the data path. ``data`` is what came
    with the command; it is a view into the receive buffer, so that who does not finish the
    task at once calls ``keep``.
    """

    __slots__ = ("aborted", "cdb", "data", "edtl", "flags", "immediate", "itt", "lun", "transfer")

    def __init__(
        self, itt: int, lun: int, flags: int, edtl: int, cdb: bytes, data: Buffer, immediate: bool
    ) -> None:
        self.itt = itt
        self.lun = lun  #: the field of 8 bytes
        self.flags = flags
        self.edtl = edtl  #: Expected Data Transfer Length
        self.cdb = cdb
        self.data = data
        self.immediate = immediate
        self.transfer: Transfer | None = None
        self.aborted = False

    @property
    def order(self) -> int:
        """The task attribute, a ``wire.Order``; that of SANITIZE is always HEAD OF QUEUE."""
        return self.flags & 7 if self.cdb[0] != SANITIZE else wire.Order.HEAD

    @property
    def write_length(self) -> int:
        """Bytes of data the initiator has for us."""
        return self.edtl if self.flags & WRITE else 0

    @property
    def read_length(self) -> int:
        """Bytes of data the initiator has room for."""
        return self.edtl if self.flags & READ and not self.flags & WRITE else 0

    def keep(self) -> None:
        """Make ``data`` last longer than the receive buffer."""
        if type(self.data) is memoryview:
            self.data = bytes(self.data)


@dataclass(slots=True)
class Transfer:
    """The write data of one task: what is here, what is on its way.

    Data comes in bursts: the unsolicited one (with the command and after it, up to
    FirstBurstLength), then one for each R2T. A burst that is whole is handed on, so that at
    most one burst of a task is in memory.
    """

    unsolicited: bool  #: unsolicited Data-Out is still to come
    burst: bytearray  #: what has come of this burst
    wanted: int = -1  #: bytes that the command takes; -1: nobody has said yet
    start: int = 0  #: offset of this burst
    length: int = 0  #: bytes that the R2T under way asked for
    tag: int = wire.NO_TAG  #: its Target Transfer Tag
    data_sn: int = 0  #: DataSN of the next Data-Out
    r2t_sn: int = 0
    broken: bool = False  #: no more data is taken; the status is on its way, or ``held``
    #: Status, sense and bytes taken, kept back until all data that is under way has come.
    held: tuple[int, bytes, int] | None = None

    @property
    def here(self) -> int:
        """Bytes that have come, from the beginning."""
        return self.start + len(self.burst)

    @property
    def expected(self) -> bool:
        """Whether data is under way: unsolicited, or the answer to an R2T."""
        return self.unsolicited or self.tag != wire.NO_TAG

    def refuse(self) -> None:
        """Take no more of the data that comes."""
        self.broken = True
        self.burst = bytearray()


@dataclass(slots=True)
class Session:
    """One session in its full-feature phase."""

    identity: Identity
    parameters: Parameters = field(default_factory=Parameters)
    discovery: bool = False
    tsih: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    #: Tasks that were not finished in the breath they came in, by Initiator Task Tag.
    tasks: dict[int, Task] = field(default_factory=dict)
    thirsty: deque[Task] = field(default_factory=deque)  #: tasks that wait for their R2T
    #: Whole PDUs behind a gap, by CmdSN; an empty one for a command that was aborted unseen.
    early: dict[int, bytes] = field(default_factory=dict)
    solicited: int = 0
    reading: int = 0  #: bytes that workers are reading, or have read, and nobody was sent yet
    gathered: dict[Task, int] = field(default_factory=dict)  #: bytes, of tasks some of which ended
    window: int = WINDOW
    _tag: int = 0

    def open_window(self, cmd_sn: int) -> None:
        """Begin with the CmdSN of the login."""
        self.exp_cmd_sn = cmd_sn
        self.max_cmd_sn = (cmd_sn + self.window - 1) & 0xFFFFFFFF

    def expected(self, cmd_sn: int) -> bool | None:
        """True: the next one. None: early, but inside the window. False: to be ignored."""
        if cmd_sn == self.exp_cmd_sn:
            return not wire.after(cmd_sn, self.max_cmd_sn)
        if wire.after(cmd_sn, self.exp_cmd_sn) and not wire.after(cmd_sn, self.max_cmd_sn):
            return None
        return False

    def arrived(self) -> None:
        """Count a command that is not immediate."""
        self.exp_cmd_sn = (self.exp_cmd_sn + 1) & 0xFFFFFFFF

    def answered(self) -> None:
        """Let another command come for one that was answered: so the window counts tasks."""
        self.max_cmd_sn = (self.max_cmd_sn + 1) & 0xFFFFFFFF

    def not_taken(self, *, answered: bool = False) -> None:
        """The command that just arrived is rejected: its number is still to come (section 7.3).

        ``answered``: its place in the window was given free already.
        """
        self.exp_cmd_sn = (self.exp_cmd_sn - 1) & 0xFFFFFFFF
        self.max_cmd_sn = (self.max_cmd_sn - answered) & 0xFFFFFFFF

    def forestall(self, cmd_sn: int, before: int) -> bool:
        """ABORT TASK for a command that is still to come: its number counts as received.

        So it does when it is in the window and before ``before``, the number of the request
        itself (section 11.6.1); whether it does. ``early`` keeps its place.
        """
        if self.expected(cmd_sn) is False or not wire.after(before, cmd_sn):
            return False
        self.early[cmd_sn] = b""
        return True

    def forget(self, function: int, lun: int, before: int) -> None:
        """Commands that a gap keeps waiting end with those that a request ends.

        They were sent before it (``before`` is its CmdSN), so that they must not run after it
        (section 4.2.3.2).
        """
        if function not in wire.ENDS_TASKS:
            return
        everywhere = function in (wire.Function.WARM_RESET, wire.Function.COLD_RESET)
        for cmd_sn, pdu in self.early.items():
            command = bool(pdu) and pdu[0] & 0x3F == wire.Op.SCSI_COMMAND
            meant = everywhere or pdu[8:16] == lun.to_bytes(8, "big")
            if command and meant and wire.after(before, cmd_sn):
                self.early[cmd_sn] = b""

    def laden(self) -> bool:
        """Whether pending tasks hold, or may get unasked, as much write data as there may be."""
        if len(self.tasks) <= FEW_TASKS:
            return False
        held, first = 0, self.parameters.first_burst
        for task in self.tasks.values():
            held += len(task.data)
            if (transfer := task.transfer) is not None:
                held += min(first, task.edtl) if transfer.unsolicited else len(transfer.burst)
        return held > HELD_LIMIT

    def may_gather(self, task: Task, length: int) -> bool:
        """Whether ``task`` may gather ``length`` bytes before it is done; one always may."""
        there = {old: size for old, size in self.gathered.items() if self.tasks.get(old.itt) is old}
        if there and sum(there.values()) + length > GATHERED_LIMIT:
            self.gathered = there
            return False
        self.gathered = {**there, task: length}
        return True

    def next_tag(self) -> int:
        """A Target Transfer Tag that no pending transfer uses (it wraps after 2^32 - 1)."""
        self._tag = (self._tag + 1) % wire.NO_TAG
        return self._tag

    def drop(self, task: Task) -> bool:
        """Forget a pending task and the data it waits for; whether it was pending."""
        if self.tasks.get(task.itt) is not task:
            return False
        del self.tasks[task.itt]
        transfer = task.transfer
        if transfer is not None and transfer.tag != wire.NO_TAG:
            self.solicited -= transfer.length
            transfer.tag = wire.NO_TAG
        elif transfer is not None and task in self.thirsty:
            self.thirsty.remove(task)
        return True

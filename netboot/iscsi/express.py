"""The express lane: plain READ(10) and WRITE(10), from the receive buffer to the answer at once.

Nearly everything that a running machine sends is this: a whole SCSI Command PDU, the next in
order, to a unit where nothing stands in the way, for blocks that are in memory. Such a command
is parsed, decoded, done and answered here in one loop, and no object is made for it. Whatever is
the least bit different is left where it is, for the engine, the gates of ``scsi`` and the edge:
the lane is their shortcut and no rule of its own, and a test holds both to the same answers. Must
never take a command out of order, nor wait for anything.

Where there was a compiler at the installation, ``lane.pyx`` stands in for this: the same in C's
terms. A change here is a change there.
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, Final, Protocol

from netboot.iscsi.engine import Connection
from netboot.iscsi.session import READING_LIMIT, Buffer
from netboot.iscsi.taskset import TaskSet
from netboot.iscsi.volume import Tally
from netboot.iscsi.wire import BHS, NO_TAG
from netboot.scsi.unit import View

#: SCSI Command (RFC 7143 section 11.3) with a CDB of 10 bytes: opcode to DataSegmentLength, LUN,
#: ITT, EDTL and CmdSN in one number, CDB bytes 0 and 1, LBA, and group, number of blocks and
#: CONTROL in one.
_unpack: Final = Struct(">QQIQ4xHII6x").unpack_from
#: SCSI Data-In with status (section 11.7): opcode to DataSegmentLength, ITT, TTT, StatSN,
#: ExpCmdSN, MaxCmdSN.
_pack_data_in: Final = Struct(">Q8xIIIII12x").pack
#: SCSI Response (section 11.4): opcode to DataSegmentLength, ITT, StatSN, ExpCmdSN, MaxCmdSN.
_pack_response: Final = Struct(">Q8xI4xIII12x").pack
#: The first eight bytes of a READ: F and R, untagged or simple, neither AHS nor data.
_READS: Final = frozenset({0x01C0 << 48, 0x01C1 << 48})
#: The first two of a WRITE: F and W, so that all its data is in the PDU.
_WRITES: Final = frozenset({0x01A0, 0x01A1})
#: CDB bytes 0 and 1: neither DPO nor FUA nor protection.
_READ_10: Final = 0x2800
_WRITE_10: Final = 0x2A00
_DATA_IN_GOOD: Final = 0x2581 << 48
_RESPONSE_GOOD: Final = 0x2180 << 48
#: Sequence numbers from here on take the long way, which knows that they begin again at 0.
_LATE: Final = 0xFFFF0000
#: Bytes of answers after which they are sent before more commands are looked at.
ENOUGH: Final = 512 << 10


class Plain(Protocol):
    """What the lane needs of a disk."""

    def at_once(self, offset: int, length: int) -> Buffer | None:
        """A range that is in memory."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data``."""


class Open(Protocol):
    """What the lane needs of a volume."""

    @property
    def disk(self) -> Plain:
        """Its disk."""

    @property
    def tasks(self) -> TaskSet[Any]:
        """Whether something waits or has to be waited for."""

    @property
    def tally(self) -> Tally:
        """Its counters."""


class Lane:
    """The express lane of one session without digests.

    ``views`` and ``volumes`` are by LUN field; ``first_read`` is told when something was read.
    """

    def __init__(
        self,
        engine: Connection,
        views: Mapping[int, View],
        volumes: Mapping[int, Open],
        first_read: Callable[[], None],
    ) -> None:
        self._first_read: Callable[[], None] | None = first_read
        self._engine = engine
        self._session = session = engine.session
        self._answers = engine.answers
        agreed = session.parameters
        self._unasked = agreed.first_burst if agreed.immediate_data else 0
        self._views = views
        self._volumes = volumes

    def run(self, data: memoryview, end: int, tags: set[int]) -> int:
        """Do what can be done from the beginning of ``data[:end]``; how many bytes that took.

        ``tags`` are those of the commands that came in the same breath: to use one of them again
        is a mistake, for the initiator cannot have seen its answer. They are added to, while
        there is more to come.
        """
        engine, session, answers = self._engine, self._session, self._answers
        exp, most, stat = session.exp_cmd_sn, session.max_cmd_sn, answers.stat_sn
        if (
            end < BHS
            or engine.tail
            or engine.held
            or engine.ended
            or session.early
            or session.reading > READING_LIMIT
            or not exp <= most < _LATE
            or stat >= _LATE
        ):
            return 0
        head, lun, itt, turn, code, lba, tail = _unpack(data, 0)
        view, volume = self._views.get(lun), self._volumes.get(lun)
        if view is None or volume is None or not view.clear or not volume.tasks.clear:
            return 0
        unit, disk, pending, out = view.unit, volume.disk, session.tasks, answers.out
        add, at_once, block = out.append, disk.at_once, unit.block_size
        here, this, at, size, written, reads, before, unasked = lun, -1, 0, 0, 0, 0, exp, -1
        while True:
            if tail != this:  # of a length that has not been looked at yet
                count = tail >> 8 & 0xFFFF
                if tail & 0xFF or not 0 < count <= unit.max_blocks:
                    break
                this, length, last = tail, count * block, unit.blocks - count
                due, fits = length << 32 | exp, length <= answers.chunk
            if (
                turn != due
                or here != lun
                or lba > last
                or itt in tags
                or itt == NO_TAG
                or (pending and itt in pending)
            ):
                break
            if code == _READ_10 and head in _READS and fits:
                found = at_once(lba * block, length)
                if found is None:
                    break
                exp += 1
                most += 1
                add(_pack_data_in(_DATA_IN_GOOD | length, itt, NO_TAG, stat, exp, most))
                add(found)
                size += length
                reads += 1
                at += BHS
            elif code == _WRITE_10 and head >> 48 in _WRITES and at + BHS + length <= end:
                if unasked < 0:
                    unasked = self._unasked if unit.write_cache and not unit.protected else 0
                if not head & 0xFFFFFFFFFFFF == length <= unasked:
                    break
                start = at + BHS
                try:
                    disk.write(lba * block, data[start : start + length])
                except Exception:
                    break  # done once more, and answered for, by those who know faults
                exp += 1
                most += 1
                add(_pack_response(_RESPONSE_GOOD, itt, stat, exp, most))
                written += length
                at = start + length
            else:
                break
            stat += 1
            due += 1
            if at == end:
                break
            tags.add(itt)
            if end - at < BHS or size > ENOUGH:
                break
            head, here, itt, turn, code, lba, tail = _unpack(data, at)
        if at:
            session.exp_cmd_sn, session.max_cmd_sn, answers.stat_sn = exp, most, stat
            tally = volume.tally
            if reads:
                tally.reads += reads
                tally.read_bytes += size
                if self._first_read is not None:
                    self._first_read()
                    self._first_read = None
            if written:
                tally.writes += exp - before - reads
                tally.write_bytes += written
        return at

"""The edge where SCSI meets a disk: one ``match`` over Actions, calling the disk's verbs.

An ``Edge`` is one session's side of it, a ``Volume`` one open disk with what all its sessions
share. Nearly everything is done at once, on the loop; a cold read and a flush go to a worker
thread and come back. Must never let the loop wait for a disk, never answer GOOD to a flush
that failed, and never answer a task that was aborted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from netboot.iscsi.engine import Connection
from netboot.iscsi.management import abort_all, manage
from netboot.iscsi.requests import Management
from netboot.iscsi.session import WRITE, Buffer, Task
from netboot.iscsi.transfer import Broken, Filled
from netboot.iscsi.volume import Shared
from netboot.iscsi.working import Working
from netboot.model import DiskSpec
from netboot.scsi import action as do
from netboot.scsi.action import Action, Status
from netboot.scsi.sense import Code, Key, Sense
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Nexus
from netboot.storage.disk import Disk, DiskError

try:
    from netboot.iscsi.lane import Lane
except ImportError:  # nobody built it here: the same rules as Python
    from netboot.iscsi.express import Lane
try:
    from netboot.iscsi.nearby import Nearby as Nearby
except ImportError:  # nor this: it is for speed alone
    Nearby = None  # type: ignore[assignment, misc]

#: Opens a disk; any exception says why it cannot be opened.
Attach: TypeAlias = Callable[[DiskSpec], Disk]

GOOD: Final = int(Status.GOOD)
#: Bytes that WRITE SAME repeats its pattern into at a time.
FILL_CHUNK: Final = 1 << 20
#: Workers busy with a disk at which blocks are not fetched for later any more.
PREFETCHES: Final = 4
#: While these run, a fault below is a fault of reading.
READING: Final = (do.Read, do.Verify, do.Prefetch, do.Extents, do.Compare, do.Merge)


def express_lane() -> str:
    """How the express lane runs here, in words."""
    if Lane.__module__ == "netboot.iscsi.lane":
        return "compiled"
    return "in Python: no C compiler was there at the installation"


@dataclass(slots=True, eq=False, kw_only=True)
class Volume(Shared["Edge"]):
    """An open disk and what its sessions share."""

    disk: Disk


@dataclass(slots=True)
class Filling:
    """A command whose write data is on its way."""

    volume: Volume
    action: do.Write | do.Collect
    data: bytearray = field(default_factory=bytearray)  #: what a Collect has so far


class Edge(Working):
    """One session's commands meeting the disks of its target.

    ``send`` sends what the engine has; it is called when something was answered later than in
    the breath it came in. ``first_read`` is told once.
    """

    def __init__(
        self,
        engine: Connection,
        units: LogicalUnits,
        nexus: Nexus,
        volumes: Mapping[int, Volume],
        send: Callable[[], None],
        first_read: Callable[[], None],
    ) -> None:
        super().__init__(engine, units, nexus, send)
        self.closed = False
        self._execute = units.execute
        self._volumes = volumes  #: by LUN field
        self._first_read: Callable[[], None] | None = first_read
        self._filling: dict[Task, Filling] = {}
        agreed = engine.session.parameters
        self.lane: Lane | None = None  #: digests are computed on the long way only
        if not (agreed.header_digest or agreed.data_digest):
            self.lane = Lane(engine, nexus.views, volumes, self._begin_reading)

    def nearby(self, *more: object) -> "Nearby | None":
        """What the session's next request will probably touch, with ``more``; None: not known."""
        if Nearby is None or self.lane is None or not self._volumes:
            return None
        lun, volume = next(iter(self._volumes.items()))
        engine, views, disk = self.engine, self.nexus.views, volume.disk
        session, answers, sight = engine.session, engine.answers, disk.sight
        unit = views[lun].unit if lun in views else None
        return Nearby(
            *(self.lane, engine, engine.tail, session, session.early, session.tasks),
            *(answers, answers.chunk, views, views.get(lun), self._volumes, volume, volume.tasks),
            *(volume.tally, disk, sight, sight and sight.cells, sight and sight.image),
            *((unit, unit.blocks, unit.max_blocks) if unit is not None else ()),
            *more,
        )

    # What the engine's events bring.

    def task(self, task: Task) -> None:
        """A SCSI command has arrived."""
        volume = self._volumes.get(task.lun)
        if volume is None:
            self._nowhere(task)
        elif (volume.tasks.clear and task.flags & 7 < 2) or volume.tasks.may_run(task, self):
            self.run(task, volume)
        else:
            self.engine.defer(task)

    def filled(self, event: Filled) -> None:
        """A burst of write data is here."""
        task = event.task
        filling = self._filling.get(task)
        if filling is None:
            return
        action, volume = filling.action, filling.volume
        if event.last:
            del self._filling[task]
        if isinstance(action, do.Collect):
            filling.data += event.data
            if event.last:
                taken = action.length
                self.perform(task, volume, action.then(bytes(filling.data)), taken)
            return
        try:
            self._write(volume, action.offset + event.offset, event.data)
        except DiskError as error:
            self._filling.pop(task, None)
            self.fail(task, volume, error, writing=True)
            return
        if event.last:
            # The cache may have been switched off while the data was on its way.
            unit = self._units.find(task.lun)
            fua = action.fua or (unit is not None and not unit.write_cache)
            self._written(task, volume, fua, action.length)

    def broken(self, event: Broken) -> None:
        """The initiator broke a rule of data transfer."""
        task = event.task
        self._filling.pop(task, None)
        self.check(task, None, Sense(Key.ABORTED_COMMAND, event.asc))
        volume = self._volumes.get(task.lun)
        if volume is not None:
            self.over(task, volume)  # it may not have run yet

    def managed(self, request: Management) -> int:
        """Task management (RFC 7143 section 11.5); returns the answer, which is not sent yet."""
        pending = self.engine.session.tasks
        return manage(request, self, pending, self._units, self._volumes)

    def abort(self, task: Task) -> None:
        """End a pending task without an answer."""
        self._filling.pop(task, None)
        self.engine.drop(task)
        volume = self._volumes.get(task.lun)
        if volume is not None:
            self.over(task, volume)

    def close(self) -> None:
        """The session is over: none of its tasks is answered any more."""
        if self.closed:
            return
        self.closed = True
        self.lane = None
        for task in list(self.engine.session.tasks.values()):
            self.abort(task)
        self._units.detach(self.nexus)

    # From command to status.

    def run(self, task: Task, volume: Volume) -> None:
        if task.transfer is not None and task.transfer.broken:
            return  # its status comes with the Broken event
        room = task.edtl if task.flags & WRITE else 0
        self.perform(task, volume, self._execute(self.nexus, task.lun, task.cdb, room), 0)

    def perform(self, task: Task, volume: Volume, action: Action, taken: int) -> None:
        """Do what a command wants; ``taken`` is what it took of the initiator's data."""
        disk = volume.disk
        try:
            match action:
                case do.Read():
                    self._read(task, volume, action.offset, action.length)
                case do.Write():
                    data = self.engine.solicit(task, action.length)
                    if data is None:
                        self._await(task, volume, action)
                    else:
                        self._write(volume, action.offset, data)
                        self._written(task, volume, action.fua, action.length)
                case do.Reply():
                    if action.data:
                        self.engine.complete_read(task, (action.data,), len(action.data))
                        self.finish(task, volume)
                    else:
                        self.status(task, volume, action.status, taken)
                case do.Check():
                    self.check(task, volume, action.sense)
                case do.Flush():
                    self._flush(task, volume, action.immediate)
                case do.Collect():
                    data = self._take(task, volume, action)
                    if data is not None:
                        self.perform(task, volume, action.then(bytes(data)), action.length)
                case do.Store():
                    self._write(volume, action.offset, action.data)
                    self._written(task, volume, action.fua, taken)
                case do.Unmap():
                    for offset, length in action.ranges:
                        disk.unmap(offset, length)
                    self._written(task, volume, action.fua, taken)
                case do.Zero():
                    (disk.unmap if action.unmap else disk.zero)(action.offset, action.length)
                    self._written(task, volume, action.fua, taken)
                case do.Fill():
                    self._fill(volume, action)
                    self._written(task, volume, action.fua, taken)
                case do.Compare() | do.Merge() | do.Verify():
                    self.look(task, volume, action, taken)
                case do.Prefetch():
                    known = disk.resident(action.offset, action.length)
                    if not known and volume.jobs < PREFETCHES:
                        volume.work(lambda: disk.read(action.offset, action.length), _ignored)
                    self.status(task, volume, Status.CONDITION_MET if known else GOOD, taken)
                case do.Extents():
                    rows = disk.extents(action.offset, action.length)[: action.limit]
                    found = [(row.offset, row.length, row.allocated) for row in rows]
                    self.perform(task, volume, action.then(found), taken)
                case do.Space():
                    self.measure(task, volume, action, taken)
                case do.Sanitize() | do.Copy() | do.Atomic() | do.Amend() | do.Keep():
                    self.begin(task, volume, action, taken)
                case do.Abort():
                    victims = action.nexuses
                    abort_all(volume, lambda edge: edge.nexus in victims, but=task)
                    self.status(task, volume, GOOD, taken)
        except DiskError as error:
            self.fail(task, volume, error, writing=not isinstance(action, READING))

    def _take(self, task: Task, volume: Volume, action: do.Collect) -> Buffer | None:
        """A command's parameter data when it is here; else ``filled`` will bring it."""
        if not self.engine.session.may_gather(task, action.length):
            self.status(task, volume, Status.TASK_SET_FULL)
            return None
        data = self.engine.solicit(task, action.length)
        if data is None:
            self._await(task, volume, action)
        return data

    def _await(self, task: Task, volume: Volume, action: do.Write | do.Collect) -> None:
        self.wait(task, volume)
        self._filling[task] = Filling(volume, action)

    def _read(self, task: Task, volume: Volume, offset: int, length: int) -> None:
        """The data path's READ: from memory at once, from the disk by a worker."""
        if self._first_read is not None:
            self._begin_reading()
        need = length
        if length > task.edtl:  # the initiator has less room than its CDB wants
            need = min(length, -(-task.read_length // 512) * 512)
        disk = volume.disk
        tally = volume.tally
        tally.reads += 1
        tally.read_bytes += need
        if disk.resident(offset, need):
            self.engine.complete_read(task, disk.read(offset, need), length)
            if volume.tasks.running:
                self.finish(task, volume)
            return

        def done(parts: Any, error: Exception | None) -> None:
            session.reading -= need
            if task.aborted:
                self._send()  # others may have waited for this to end
                return
            if error is not None:
                self.fail(task, volume, error, writing=False)
            else:
                self.engine.complete_read(task, parts, length)
                self.finish(task, volume)
            self._send()

        session = self.engine.session
        session.reading += need
        self.wait(task, volume)
        volume.work(lambda: disk.read(offset, need), done)

    def _begin_reading(self) -> None:
        """Tell of the first read; later ones are nothing new."""
        told, self._first_read = self._first_read, None
        if told is not None:
            told()

    def _write(self, volume: Volume, offset: int, data: Buffer) -> None:
        """Write the whole blocks of ``data``: an initiator may send less than its CDB says."""
        length = len(data)
        if length % volume.block:
            length -= length % volume.block
            data = memoryview(data)[:length]
        if length:
            volume.disk.write(offset, data)
            volume.tally.writes += 1
            volume.tally.write_bytes += length

    def _written(self, task: Task, volume: Volume, fua: bool, taken: int) -> None:
        """A change was made: answer, or with ``fua`` first bring it to stable storage."""
        if not fua:
            self.engine.complete(task, GOOD, b"", taken)
            if volume.tasks.running:
                self.finish(task, volume)
            return
        task.data = b""  # it is written: nobody needs it any more
        self.wait(task, volume)
        volume.flush(lambda error: self._flushed(task, volume, error, taken))

    def _flush(self, task: Task, volume: Volume, immediate: bool) -> None:
        volume.tally.flushes += 1
        if immediate:
            volume.flush(_ignored)
            self.status(task, volume, GOOD, 0)
            return
        self.wait(task, volume)
        volume.flush(lambda error: self._flushed(task, volume, error, 0))

    def _flushed(self, task: Task, volume: Volume, error: Exception | None, taken: int) -> None:
        if task.aborted:
            return
        if error is not None:
            self.fail(task, volume, error, writing=True)
        else:
            self.status(task, volume, GOOD, taken)
        self._send()

    def _fill(self, volume: Volume, action: do.Fill) -> None:
        pattern = action.pattern * max(1, FILL_CHUNK // len(action.pattern))
        end = action.offset + action.length
        for offset in range(action.offset, end, len(pattern)):
            self._write(volume, offset, memoryview(pattern)[: end - offset])

    def end(self, task: Task, sense: Sense) -> None:
        """End a pending task with CHECK CONDITION: what it still wanted does not happen."""
        self._filling.pop(task, None)
        self.check(task, None, sense)
        task.aborted = True
        volume = self._volumes.get(task.lun)
        if volume is not None:
            self.over(task, volume)
        self._send()

    def _nowhere(self, task: Task) -> None:
        """A command to a LUN that does not exist: nothing but an answer can come of it."""
        match self._execute(self.nexus, task.lun, task.cdb, task.write_length):
            case do.Reply() as reply:
                self.engine.complete_read(task, (reply.data,), len(reply.data))
            case do.Check() as check:
                self.check(task, None, check.sense)
            case _:
                self.check(task, None, Sense(Key.ILLEGAL_REQUEST, Code.LOGICAL_UNIT_NOT_SUPPORTED))


def _ignored(*_: object) -> None:
    """Nobody waits for this; a disk that failed says so at the next command."""

"""What of an overlay's changes is on stable storage, and in which order it gets there.

Three rules, which the crash tests hold:

1. Data first: ``flush`` takes the dirty clusters' entries as they are, syncs the data file, and
   only then writes those entries to the L2 tables and syncs them. An entry on disk therefore
   never speaks of data that is not there. A write that arrives meanwhile is in the next flush.
2. A hole is punched only when the entry that says "zeros" is durable, or cannot be for want of
   the room that the hole gives; and only while the cell is still HOLE: ``write`` turns HOLE into
   ZERO, under the same lock, before it touches data.
3. After a sync has failed nobody knows what is on disk: the disk answers nothing any more.

An ephemeral overlay syncs nothing at ``flush``: after a power cut its machine begins anew anyway.
"""

import mmap
import os
import threading
from collections.abc import Callable, Iterable

from netboot.storage import qcow2
from netboot.storage.cells import HOLE_RUNS
from netboot.storage.disk import Buffer, DiskError, Fault, Own, Sight
from netboot.storage.files import OverlayFiles
from netboot.storage.intent import Intent
from netboot.storage.parts import punch, sibling
from netboot.storage.qcow2 import SUB_BITS, SUBS
from netboot.storage.raw import fault_of, write_at

_PUNCH_STEP = (16 << 20) >> SUB_BITS  # cells


class Durable:
    """The durable side of an ``Overlay``, which changes ``_cells`` and tells what is dirty."""

    def __init__(
        self,
        files: OverlayFiles,
        *,
        ephemeral: bool,
        read_only: bool,
        release: Callable[[], None],
    ) -> None:
        self.size = files.size
        self._files = files
        self._data = files.data
        self._path = files.path
        self._ephemeral = ephemeral
        self._release = release
        self._broken: DiskError | None = None  #: why nothing is answered any more
        self.sight: Sight | None = None  #: nor is anything seen then
        self._barred = (  #: why nothing is changed: ``_broken``, or
            DiskError(Fault.READ_ONLY, f"{files.path}: read-only") if read_only else None
        )
        self._cells = mmap.mmap(
            -1, qcow2.clusters(self.size) * SUBS, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        # A huge page would take 2 MiB of memory for the first 4 KiB that a client writes.
        self._cells.madvise(mmap.MADV_NOHUGEPAGE)
        self._marks = threading.Lock()  #: guards the next two, and HOLE against a late punch
        self._dirty: set[int] = set()  #: clusters whose entry on disk is behind
        self._holes: list[tuple[int, int]] = []  #: cells to punch when their entries are durable
        self._flushing = threading.Lock()
        self._intent = Intent(sibling(files.path, ".intent"), files.header.born)
        #: Unsynced from the beginning: perhaps by a process that was killed, over its own data, of
        #: which no entry and no ``.live`` file tells.
        self._own = Own(files.data, self._intent)

    def flush(self) -> None:
        if self._broken:
            raise self._refusal(0)
        if not self._ephemeral:
            self._publish()

    def intend(self, offset: int, data: Buffer) -> None:
        if self._barred:
            raise self._refusal(offset)
        if self._ephemeral:
            return
        if self._intent.written:  # the one before could not be flushed: it is to be whole too
            self._publish()
        try:
            self._intent.put(offset, data)
        except DiskError:
            self._sync(self._intent.take_back)
            raise

    def settle(self) -> None:
        if not self._ephemeral and not self._broken and not self._intent.written:
            self._sync(self._intent.take_back)

    def _publish(self) -> None:
        with self._flushing:
            if self._broken:
                raise self._refusal(0)
            meant = self._intent.written
            with self._marks:
                dirty, self._dirty = self._dirty, set()
                holes, self._holes = self._holes, []
            unsynced, self._own.unsynced = self._own.unsynced, False
            if dirty or unsynced or holes:
                self._bring_out(dirty, holes)
            if meant:  # all of it is safe now, and what was written over it since
                self._sync(self._intent.take_back)

    def _bring_out(self, dirty: set[int], holes: list[tuple[int, int]]) -> None:
        try:
            writes = list(self._entries(sorted(dirty)))  # as they are before the sync
            self._sync(lambda: os.fdatasync(self._data))
            if writes:
                self._sync(self._files.sync_folder_once)
            self._write_entries(writes, holes)
        except DiskError:
            with self._marks:
                self._dirty |= dirty
                self._holes += holes
            raise
        if writes:
            self._sync(lambda: os.fdatasync(self._files.meta))
        self._punch(holes)

    def _entries(self, dirty: list[int]) -> Iterable[tuple[int, bytes]]:
        """The dirty clusters' L2 entries as (file offset, bytes), neighbours together."""
        at = 0
        while at < len(dirty):
            first = dirty[at]
            begin = at
            while at < len(dirty) and dirty[at] - first == at - begin:
                at += 1
            cells = self._cells[first * SUBS : (first + at - begin) * SUBS]
            yield qcow2.L2 + first * qcow2.ENTRY, qcow2.entries(first, cells)

    def _write_entries(
        self, writes: Iterable[tuple[int, bytes]], holes: Iterable[tuple[int, int]]
    ) -> None:
        """On a full disk what is unmapped may leave just the room that its entries need.

        So there it is given back before they are durable: whether an entry says DATA still or
        zeros already, a punched sub-cluster reads as what it was last told to be.
        """
        for offset, raw in writes:
            try:
                write_at(self._files.meta, offset, raw, self._path)
            except DiskError as problem:
                if problem.fault is not Fault.SPACE:
                    raise
                self._punch(holes)
                write_at(self._files.meta, offset, raw, self._path)

    def _sync(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except OSError as problem:
            text = f"{self._path}: sync failed ({problem.strerror}); the disk is out of service"
            self._broken = self._barred = DiskError(Fault.FAILED, text)
            self.sight = None
            self._files.forget_live()  # what it speaks of may be lost: better an older whole
            raise DiskError(fault_of(problem), text) from problem

    def _punch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Give back what is HOLE still; the owner may have to wait for one step of it."""
        for first, last in ranges:
            for at in range(first, last, _PUNCH_STEP):
                with self._marks:
                    for run in HOLE_RUNS.finditer(self._cells[at : min(at + _PUNCH_STEP, last)]):
                        begin, end = at + run.start() << SUB_BITS, at + run.end() << SUB_BITS
                        punch(self._data, begin, min(end, self.size) - begin)

    def _refusal(self, offset: int) -> DiskError:
        why = self._broken or self._barred
        assert why
        return DiskError(why.fault, str(why), offset)

    def close(self) -> None:
        """Publish everything, sync it (an ephemeral disk too), give back files and locks."""
        if self._files.closed:
            return
        try:
            if not self._broken:
                self._publish()
                self._files.forget_live()
                self.settle()
        finally:
            self._broken = self._broken or DiskError(Fault.FAILED, f"{self._path}: closed")
            self._barred = self._broken
            self.sight = None
            self._files.close()
            self._release()

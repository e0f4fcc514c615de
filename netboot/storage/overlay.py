"""The copy-on-write disk: one client's writes over one golden image.

Where a sub-cluster of 4 KiB is found is one byte of ``_cells`` (GOLDEN, DATA, ZERO, HOLE: see
``qcow2``), an anonymous mapping that takes memory only around what was written. What is durable
follows from three rules, which the crash tests hold:

1. Data first: ``flush`` takes the dirty clusters' entries as they are, syncs the data file, and
   only then writes those entries to the L2 tables and syncs them. An entry on disk therefore
   never speaks of data that is not there. A write that arrives meanwhile is in the next flush.
2. A hole is punched only when the entry that says "zeros" is durable, or cannot be for want of
   the room that the hole gives; and only while the cell is still HOLE: ``write`` turns HOLE into
   ZERO, under the same lock, before it touches data.
3. After a sync has failed nobody knows what is on disk: the disk answers nothing any more.

A killed process loses no completed write, flushed or not: the kernel still has the data, and
the cells are in the ``.live`` file (see ``live``). So a disk process can be replaced under a
running machine. A power cut loses what was not flushed, as any disk with a cache does.

An ephemeral overlay syncs nothing at ``flush``: after a power cut its machine begins anew anyway.

Concurrency (see ``disk``): one owner thread calls everything; ``read`` and ``flush`` may run in
workers beside it. Order makes that safe: ``write`` puts down data, then ``.live``, then cells,
then the dirty mark; ``flush`` takes the dirty marks away, then reads cells, then syncs.
"""

import mmap
import os
import threading
from collections.abc import Callable, Iterable, Sequence

from netboot.errors import ImageError
from netboot.storage import qcow2
from netboot.storage.cells import ALLOCATION_RUNS, CHANGED_RUNS, DATA_RUNS, HOLE_RUNS, runs
from netboot.storage.disk import Buffer, Disk, DiskError, Extent, Fault
from netboot.storage.files import OverlayFiles
from netboot.storage.intent import Intent
from netboot.storage.notes import Notes
from netboot.storage.padded import Padded, zeros
from netboot.storage.parts import punch, sibling, space
from netboot.storage.qcow2 import DATA, GOLDEN, HOLE, SUB, SUB_BITS, SUBS, ZERO
from netboot.storage.raw import fault_of, read_at, write_at

_MASK = SUB - 1
_CLUSTER_SHIFT = qcow2.CLUSTER_BITS - SUB_BITS
_GOLDEN, _DATA, _ZERO, _HOLE = (bytes([cell]) for cell in (GOLDEN, DATA, ZERO, HOLE))
_PUNCH_STEP = (16 << 20) >> SUB_BITS  # cells


class Overlay:
    """A Disk over ``golden``; made by ``attach``, which has opened and checked the files."""

    def __init__(
        self,
        golden: Disk,
        files: OverlayFiles,
        *,
        ephemeral: bool = False,
        read_only: bool = False,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.size = files.size
        self.read_only = read_only
        self._own_golden = golden
        self._golden = golden if golden.size == self.size else Padded(golden, self.size)
        self._files = files
        self._data = files.data
        self._path = files.path
        self._ephemeral = ephemeral
        self._release = release
        self._broken: DiskError | None = None  #: why nothing is answered any more
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
        #: Something was written to the data file since the last sync: perhaps by a process that
        #: was killed, over its own data, of which no entry and no ``.live`` file tells.
        self._unsynced = True
        self._flushing = threading.Lock()
        for first, cells in files.load():
            self._cells[first : first + len(cells)] = cells
        for first, cells in files.recover():
            self._overlay_cells(first, cells)
        self._intent = Intent(sibling(files.path, ".intent"), files.header.born)
        self.notes = Notes(sibling(files.path, ".scsi"), files.header.born, lasting=not ephemeral)
        if not read_only and not ephemeral:
            self._do_what_was_meant()

    def _do_what_was_meant(self) -> None:
        """Finish an atomic write that a power cut, or a kill, came into."""
        meant = self._intent.left()
        if meant is not None and meant[0] + len(meant[1]) <= self.size:
            self.write(*meant)
            self.flush()
        self._intent.take_back()

    def _overlay_cells(self, first: int, cells: bytes) -> None:
        """Take over what a killed process had written and not flushed."""
        for run in CHANGED_RUNS.finditer(cells):
            begin, end = first + run.start(), first + run.end()
            self._cells[begin:end] = run[0]
            self._dirty.update(range(begin >> _CLUSTER_SHIFT, (end - 1 >> _CLUSTER_SHIFT) + 1))
            self._unsynced = True
        self._holes += [(first + m.start(), first + m.end()) for m in HOLE_RUNS.finditer(cells)]

    # -- reading

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        if self._broken:
            raise self._refusal(offset)
        first = offset >> SUB_BITS
        last = offset + length + _MASK >> SUB_BITS
        cells = self._cells[first:last]
        if not cells.strip(_GOLDEN):
            return self._golden.read(offset, length)
        if not cells.strip(_DATA):
            return (read_at(self._data, offset, length, self._path),)
        parts: list[Buffer] = []
        for cell, begin, end in runs(cells, offset, length):
            if cell == GOLDEN:
                parts += self._golden.read(begin, end - begin)
            elif cell == DATA:
                parts.append(read_at(self._data, begin, end - begin, self._path))
            else:
                parts += zeros(end - begin)
        return parts

    def resident(self, offset: int, length: int) -> bool:
        cells = self._cells[offset >> SUB_BITS : offset + length + _MASK >> SUB_BITS]
        if not cells.strip(_GOLDEN):
            return self._golden.resident(offset, length)
        for cell, begin, end in runs(cells, offset, length):
            if cell == GOLDEN and not self._golden.resident(begin, end - begin):
                return False
            if cell == DATA and not self._files.data_cached(begin, end - begin):
                return False
        return True

    def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """Unmapped ranges are not allocated; what is still golden counts as allocated."""
        if self._broken:
            raise self._refusal(offset)
        cells = self._cells[offset >> SUB_BITS : offset + length + _MASK >> SUB_BITS]
        return [
            Extent(begin, end - begin, cell != HOLE)
            for cell, begin, end in runs(cells, offset, length, ALLOCATION_RUNS)
        ]

    def space(self) -> tuple[int, int]:
        try:
            return space(self._path)
        except OSError as problem:
            raise DiskError(fault_of(problem), f"{self._path}: {problem.strerror}") from problem

    # -- changing

    def write(self, offset: int, data: Buffer) -> None:
        if self._barred:
            raise self._refusal(offset)
        end = offset + len(data)
        first = offset >> SUB_BITS
        last = end + _MASK >> SUB_BITS
        cells = self._cells[first:last]
        if not cells.strip(_DATA):  # ours already: the entry stays what it is
            write_at(self._data, offset, data, self._path)
            self._unsynced = True
            return
        if HOLE in cells:
            self._claim(first, last)
        head = tail = b""
        if offset & _MASK and cells[0] != DATA:
            head = self._bytes(first << SUB_BITS, offset)
        # Past the disk's end there is nothing to keep, though the sub-cluster goes on.
        if end & _MASK and cells[-1] != DATA and end < self.size:
            tail = self._bytes(end, min(last << SUB_BITS, self.size))
        if head or tail:
            data = b"".join((head, data, tail))
            offset -= len(head)
        write_at(self._data, offset, data, self._path)
        self._unsynced = True
        self._mark(first, last, _DATA)

    def zero(self, offset: int, length: int) -> None:
        self._clear(offset, length, _ZERO)

    def unmap(self, offset: int, length: int) -> None:
        self._clear(offset, length, _HOLE)

    def _clear(self, offset: int, length: int, cell: bytes) -> None:
        """Whole sub-clusters by their cells; what is left at either end by writing zeros."""
        if self._barred:
            raise self._refusal(offset)
        end = offset + length
        first = offset + _MASK >> SUB_BITS
        last = (end + _MASK if end == self.size else end) >> SUB_BITS
        if first >= last:  # within one sub-cluster, or across one border
            self._write_zeros(offset, end, cell)
            return
        self._write_zeros(offset, first << SUB_BITS, cell)
        self._write_zeros(max(last << SUB_BITS, offset), end, cell)
        before = self._cells[first:last]
        if before == cell * len(before):
            return
        if HOLE in before:
            self._claim(first, last)
        self._mark(first, last, cell)
        if cell == _HOLE:
            self._give_back(first, before)

    def _give_back(self, first: int, before: bytes) -> None:
        """Punch what held data: at once if nothing is durable here, else after the next flush."""
        ranges = [(first + m.start(), first + m.end()) for m in DATA_RUNS.finditer(before)]
        if self._ephemeral:
            self._punch(ranges)
        else:
            with self._marks:
                self._holes += ranges

    def _write_zeros(self, offset: int, end: int, cell: bytes) -> None:
        """Zeros into parts of sub-clusters; those that are zeros at most become allocated."""
        while offset < end:
            until = min(end, (offset | _MASK) + 1)
            sub = offset >> SUB_BITS
            if self._cells[sub] in (GOLDEN, DATA):
                self.write(offset, bytes(until - offset))
            elif cell == _ZERO:
                self._claim(sub, sub + 1)
            offset = until

    def _bytes(self, offset: int, end: int) -> bytes:
        """What a range that is not ours yet holds, for the rest of a sub-cluster."""
        if self._cells[offset >> SUB_BITS] == GOLDEN:
            return b"".join(self._golden.read(offset, end - offset))
        return bytes(end - offset)

    def _claim(self, first: int, last: int) -> None:
        """Turn HOLE into ZERO, so that no punch on its way hits what is written next."""
        with self._marks:
            self._cells[first:last] = self._cells[first:last].replace(_HOLE, _ZERO)

    def _mark(self, first: int, last: int, cell: bytes) -> None:
        cells = cell * (last - first)
        self._files.keep(first, cells)
        self._cells[first:last] = cells
        with self._marks:
            self._dirty.update(range(first >> _CLUSTER_SHIFT, (last - 1 >> _CLUSTER_SHIFT) + 1))

    # -- durability

    def flush(self) -> None:
        if self._broken:
            raise self._refusal(0)
        if not self._ephemeral:
            self._publish()

    def intend(self, offset: int, data: Buffer) -> None:
        if self._barred:
            raise self._refusal(offset)
        if not self._ephemeral:
            self._intent.put(offset, data)

    def settle(self) -> None:
        if not self._ephemeral and not self._broken:
            self._intent.take_back()

    def _publish(self) -> None:
        with self._flushing:
            if self._broken:
                raise self._refusal(0)
            with self._marks:
                dirty, self._dirty = self._dirty, set()
                holes, self._holes = self._holes, []
            unsynced, self._unsynced = self._unsynced, False
            if not dirty and not unsynced and not holes:
                return
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

    def resize(self, size: int) -> None:
        if size < self.size:
            raise ImageError(
                f"{self._path}: has {self.size} bytes already, and a disk never becomes smaller: "
                "what lies at its end would be lost"
            )
        if self._barred:
            raise self._refusal(0)
        qcow2.check_size(size)
        with self._flushing:  # no entries go to the header that is about to be replaced
            if size > self.size:
                try:
                    self._cells.resize(qcow2.clusters(size) * SUBS)
                except OSError as problem:
                    raise ImageError(f"{self._path}: no memory for {size} bytes") from problem
                self._files.resize(size, self._sync)
                self._golden = Padded(self._own_golden, size)
                self.size = size

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
            self._files.close()
            self._release()

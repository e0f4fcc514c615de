"""The copy-on-write disk: one client's writes over one golden image.

Where a sub-cluster of 4 KiB is found is one byte of ``_cells`` (GOLDEN, DATA, ZERO, HOLE: see
``qcow2``), an anonymous mapping that takes memory only around what was written. How that gets
to stable storage is in ``durable``.

A killed process loses no completed write, flushed or not: the kernel still has the data, and
the cells are in the ``.live`` file (see ``live``). So a disk process can be replaced under a
running machine. A power cut loses what was not flushed, as any disk with a cache does.

Concurrency (see ``disk``): one owner thread calls everything; ``read`` and ``flush`` may run in
workers beside it. Order makes that safe: ``write`` puts down data, then ``.live``, then cells,
then the dirty mark; ``flush`` takes the dirty marks away, then reads cells, then syncs.
"""

from collections.abc import Callable, Sequence

from netboot.errors import ImageError
from netboot.storage import qcow2
from netboot.storage.cells import ALLOCATION_RUNS, CHANGED_RUNS, DATA_RUNS, HOLE_RUNS, runs
from netboot.storage.disk import Buffer, Disk, DiskError, Extent, Fault, Sight
from netboot.storage.durable import Durable
from netboot.storage.files import OverlayFiles
from netboot.storage.notes import Notes
from netboot.storage.padded import Padded, zeros
from netboot.storage.parts import sibling, space
from netboot.storage.qcow2 import DATA, GOLDEN, HOLE, SUB, SUB_BITS, SUBS, ZERO
from netboot.storage.raw import fault_of, read_at, write_at

_MASK = SUB - 1
_CLUSTER_SHIFT = qcow2.CLUSTER_BITS - SUB_BITS
_ZEROS = bytes(SUB)
_GOLDEN, _DATA, _ZERO, _HOLE = (bytes([cell]) for cell in (GOLDEN, DATA, ZERO, HOLE))


class Overlay(Durable):
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
        super().__init__(files, ephemeral=ephemeral, read_only=read_only, release=release)
        self.read_only = read_only
        self._own_golden = golden
        self._golden = golden if golden.size == self.size else Padded(golden, self.size)
        for first, cells in files.load():
            self._cells[first : first + len(cells)] = cells
        for first, cells in files.recover():
            self._overlay_cells(first, cells)
        self.notes = Notes(sibling(files.path, ".scsi"), files.header.born, lasting=not ephemeral)
        if golden.sight is not None:
            own = None if read_only else self._own
            self.sight = Sight(golden.sight.image, golden.sight.known, self._cells, own)
        if not read_only and not ephemeral:
            self._do_what_was_meant()

    def _do_what_was_meant(self) -> None:
        """Finish an atomic write that a power cut, or a kill, came into."""
        size = self._intent.size()
        if size is None:
            return
        meant = self._intent.left()
        if meant is not None and meant[0] + len(meant[1]) <= self.size:
            self._intent.meant = meant[0], len(meant[1])
            self.write(*meant)
        if not size:
            self._sync(self._intent.take_back)  # it may be empty only until power is cut
            return
        self._intent.written = True  # by us, or by who was killed
        try:
            self._publish()
        except DiskError as problem:
            if problem.fault is not Fault.SPACE:  # then a later flush takes it back
                raise

    def _overlay_cells(self, first: int, cells: bytes) -> None:
        """Take over what a killed process had written and not flushed."""
        for run in CHANGED_RUNS.finditer(cells):
            begin, end = first + run.start(), first + run.end()
            self._cells[begin:end] = run[0]
            self._dirty.update(range(begin >> _CLUSTER_SHIFT, (end - 1 >> _CLUSTER_SHIFT) + 1))
            self._own.unsynced = True
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

    def at_once(self, offset: int, length: int) -> Buffer | None:
        if self._broken:
            return None
        if length <= SUB and not offset & _MASK:  # a page of the guest's, as nearly always
            cell = self._cells[offset >> SUB_BITS]
            if cell == GOLDEN:
                return self._golden.at_once(offset, length)
            return self._files.data_at_once(offset, length) if cell == DATA else _ZEROS[:length]
        cells = self._cells[offset >> SUB_BITS : offset + length + _MASK >> SUB_BITS]
        if not cells.strip(_GOLDEN):
            return self._golden.at_once(offset, length)
        return None if cells.strip(_DATA) else self._files.data_at_once(offset, length)

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
        if self._intent.meant == (offset, len(data)):
            self._write_meant(offset, data)
            return
        end = offset + len(data)
        first = offset >> SUB_BITS
        last = end + _MASK >> SUB_BITS
        cells = self._cells[first:last]
        if cells == _DATA or not cells.strip(_DATA):  # ours already: the entry stays what it is
            write_at(self._data, offset, data, self._path)
            self._own.unsynced = True
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
        self._own.unsynced = True
        self._mark(first, last, _DATA)

    def _write_meant(self, offset: int, data: Buffer) -> None:
        """All of it, or none when it cannot be."""
        self._intent.meant, meant = None, self._intent.meant
        cells = self._cells[offset >> SUB_BITS : offset + len(data) + _MASK >> SUB_BITS]
        own = [(at, end) for cell, at, end in runs(cells, offset, len(data)) if cell == DATA]
        before = [(at, read_at(self._data, at, end - at, self._path)) for at, end in own]
        try:
            self.write(offset, data)
        except DiskError:
            for at, old in before:
                write_at(self._data, at, old, self._path)
            raise
        self._intent.meant = meant
        self._sync(self._intent.mark_written)

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

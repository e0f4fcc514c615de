"""Raw disk files: the golden image that nobody writes, and a plain disk that one may.

A golden image is mapped, and what is in memory goes out as slices of the mapping, without a
copy. A mapping has one danger: when the file shrinks, touching what is gone kills the process
(SIGBUS). Four things stand between us and that: library files are immutable (mode 0444), QEMU's
tools are kept from writing by a lock, the size is checked at opening, and a slice is handed out
only for a range that was found in memory just now, or a moment ago (``TRUST``, ``MOST``),
of a file that had its size then. Everything else is read with ``pread``, which in the same case
comes back short: that is ``Fault.MEDIUM``, for one command. (A slice that only the kernel touches,
in ``sendmsg``, would even then be EFAULT, not a signal. And a process that is killed is started
again, without an error for any machine.)
"""

import contextlib
import errno
import math
import mmap
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from netboot.errors import ImageError
from netboot.storage import locks, residency
from netboot.storage.disk import Buffer, DiskError, Extent, Fault, Sight

SECTOR = 512
#: Bytes of one pwrite. ext4 puts what one call writes into one folio, and each later write of 4 KiB
#: into that walks all its blocks: 3.9 us where 256 KiB were written at once, 1.7 us in pieces of
#: this size (1.1 in such of 4 KiB), for 6 us more of a write of 64 KiB (Linux 6.18).
PIECE = 16 << 10
#: To ask the kernel for each read costs more than the rest of the read. A region of 1 MiB that
#: was all in memory is taken to be there still for so many seconds, for twice as many each time it
#: was, and for ``MOST`` at most: only under want of memory could it go within them, and then one
#: read waits for the disk. (A question takes 5 us, and 34 while nobody has touched the pages. With
#: TRUST alone the questions about 1 GiB that is read at random took a twentieth of a processor.)
REGION_BITS = 20
TRUST = 0.1
MOST = 1.6
#: A boot, for whoever wants to know what it needs (``prefetch``): the regions asked for in so
#: many seconds after the first one, and no more than so many.
BOOT = 300.0
MOST_NEEDED = 512


def fault_of(problem: OSError) -> Fault:
    """The kind of fault that an error number of the file system means."""
    return Fault.SPACE if problem.errno in (errno.ENOSPC, errno.EDQUOT) else Fault.MEDIUM


def read_at(fd: int, offset: int, length: int, path: str) -> bytes:
    """Exactly ``length`` bytes; DiskError when the file has fewer, or cannot be read."""
    try:
        data = os.pread(fd, length, offset)
        while len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                text = f"{path}: ends before byte {offset + length}; it was longer when opened"
                raise DiskError(Fault.MEDIUM, text, offset)
            data += more
    except OSError as problem:
        raise DiskError(Fault.MEDIUM, f"{path}: {problem.strerror}", offset) from problem
    return data


def write_at(fd: int, offset: int, data: Buffer, path: str) -> None:
    """Write all of ``data``; DiskError says of what kind a failure was."""
    try:
        if len(data) <= PIECE:
            done = os.pwrite(fd, data, offset)
        else:
            done = 0
        while done < len(data):
            done += os.pwrite(fd, memoryview(data)[done : done + PIECE], offset + done)
    except OSError as problem:
        raise DiskError(fault_of(problem), f"{path}: {problem.strerror}", offset) from problem


class Golden:
    """A raw file, read-only, that may be shared by any number of overlays of one process."""

    read_only = True
    notes = None

    def __init__(self, path: str, size: int | None = None) -> None:
        """Open, lock and map; ImageError when it is missing, written to, or of another size."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise ImageError(f"{path}: {problem.strerror}") from problem
        try:
            self.stat = os.fstat(self._fd)
            self.size = self.stat.st_size
            if size is not None and size != self.size:
                raise ImageError(
                    f"{path}: has {self.size} bytes, not the {size} it was added with; "
                    "put the original file back, or add it as a new version"
                )
            if not self.size or self.size % SECTOR:
                raise ImageError(f"{path}: {self.size} bytes are no whole number of sectors")
            if not locks.hold(self._fd):
                raise ImageError(f"{path}: another program has it open for writing")
            self._map = mmap.mmap(self._fd, self.size, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self._fd)
            raise
        self._view = memoryview(self._map)
        self._address = residency.address_of(self._map)
        self._honest = residency.mincore_is_honest(self._fd)
        self._seen = (0, 0)  #: the range that was last found in memory
        #: Until when a region counts as in memory, or (below 0) as not; 0: nobody asked for it yet.
        self._known = array("d", bytes(8 * ((self.size - 1 >> REGION_BITS) + 1)))
        self._trust: dict[int, float] = {}  #: for how long a region was last taken to be there
        self._needed: list[int] = []  #: regions, as a boot first asked for them
        self._boot_ends = 0.0
        self._told = False
        self.sight: Sight | None = Sight(self._view, self._known)

    def space(self) -> None:
        """It takes none of its own."""

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        """A slice of the mapping right after ``resident`` said yes; a copy otherwise."""
        end = offset + length
        begin, until = self._seen
        if begin <= offset and end <= until:
            return (self._view[offset:end],)
        return (read_at(self._fd, offset, length, self.path),)

    def at_once(self, offset: int, length: int) -> Buffer | None:
        """A slice of the mapping; a region that was found in memory counts so for ``TRUST``."""
        now = monotonic()
        end = offset + length
        region = offset >> REGION_BITS
        if end - 1 >> REGION_BITS == region and self._known[region] > now:
            return self._view[offset:end]
        for region in range(offset >> REGION_BITS, (end - 1 >> REGION_BITS) + 1):
            until = self._known[region]
            if until <= now and (-until > now or not self._survey(region, now)):
                return None
        return self._view[offset:end]

    def _survey(self, region: int, now: float) -> bool:
        """Find out of a whole region, and keep it in mind."""
        if not self._known[region]:
            self._learn(region, now)
        begin = region << REGION_BITS
        size = min(1 << REGION_BITS, self.size - begin)
        found = self._honest and self.resident(begin, size)
        if found:
            trust = self._trust[region] = min(2 * self._trust.get(region, TRUST / 2), MOST)
            self._known[region] = now + trust
        else:
            self._trust.pop(region, None)
            self._known[region] = -(now + TRUST)
        return found

    def _learn(self, region: int, now: float) -> None:
        if not self._needed:
            self._boot_ends = now + BOOT
        if now < self._boot_ends and len(self._needed) < MOST_NEEDED:
            self._needed.append(region)

    def lesson(self, *, ending: bool = False) -> Sequence[int]:
        """The regions that the first boot needed, in order: once, when it is over, or nothing more
        will come. Else nothing."""
        if self._told or not self._needed or not (ending or monotonic() > self._boot_ends):
            return ()
        self._told = True
        return tuple(self._needed)

    def resident(self, offset: int, length: int) -> bool:
        if self._honest:
            # A large folio that truncation could not split stays in the cache past the end of
            # the file, so the size is asked too (seen on ext4, Linux 6.18).
            known = (
                residency.mapped(self._address, offset, length)
                and os.fstat(self._fd).st_size == self.size
            )
        else:
            known = residency.cached(self._fd, offset, length)
        self._seen = (offset, offset + length) if known else (0, 0)
        return known

    def write(self, offset: int, data: Buffer) -> None:
        raise DiskError(Fault.READ_ONLY, f"{self.path}: a golden image is never written", offset)

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, b"")

    def unmap(self, offset: int, length: int) -> None:
        self.write(offset, b"")

    def flush(self) -> None:
        """Nothing is ever unwritten."""

    def intend(self, offset: int, data: Buffer) -> None:
        self.write(offset, b"")

    def settle(self) -> None:
        """Nothing is ever meant."""

    def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """One allocated run: holes of the golden file are its own affair."""
        return (Extent(offset, length, True),)

    def resize(self, size: int) -> None:
        raise ImageError(f"{self.path}: a golden image is never written")

    def close(self) -> None:
        """Give back file and lock. Slices that are still on their way out stay valid."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        self._seen = (0, 0)
        self._honest = False  # the address is nobody's now
        self.sight = None
        self._known = array("d", [-math.inf]) * len(self._known)
        self._view.release()
        with contextlib.suppress(BufferError):  # a slice is out: the mapping ends with the last
            self._map.close()
        os.close(fd)


class Raw:
    """A raw file that is written in place: for tests, and for disks that have no golden image."""

    read_only = False
    notes = None
    sight = None

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as problem:
            raise ImageError(f"{path}: {problem.strerror}") from problem
        self.size = os.fstat(self._fd).st_size
        if self.size % SECTOR or not locks.own(self._fd):
            os.close(self._fd)
            raise ImageError(f"{path}: in use by another program, or no whole number of sectors")
        self._failed = False

    def space(self) -> None:
        """It takes none of its own."""

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        return (read_at(self._fd, offset, length, self.path),)

    def resident(self, offset: int, length: int) -> bool:
        return residency.cached(self._fd, offset, length)

    def at_once(self, offset: int, length: int) -> Buffer | None:
        return residency.read_cached(self._fd, offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        write_at(self._fd, offset, data, self.path)

    def zero(self, offset: int, length: int) -> None:
        for at in range(offset, offset + length, 1 << 20):
            self.write(at, bytes(min(1 << 20, offset + length - at)))

    def unmap(self, offset: int, length: int) -> None:
        self.zero(offset, length)

    def flush(self) -> None:
        if self._failed:
            raise DiskError(Fault.FAILED, f"{self.path}: an earlier flush failed")
        try:
            os.fdatasync(self._fd)
        except OSError as problem:
            self._failed = True
            raise DiskError(fault_of(problem), f"{self.path}: {problem.strerror}") from problem

    def intend(self, offset: int, data: Buffer) -> None:
        """Nothing promises here that a write is whole after a power cut."""

    def settle(self) -> None:
        """Nothing was put down."""

    def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return (Extent(offset, length, True),)

    def resize(self, size: int) -> None:
        if size < self.size or size % SECTOR:
            raise ImageError(f"{self.path}: cannot have {size} bytes instead of {self.size}")
        try:
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
        except OSError as problem:
            raise ImageError(f"{self.path}: {problem.strerror}") from problem
        self.size = size

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                if not self._failed:
                    os.fdatasync(fd)
            finally:
                os.close(fd)

"""A write that is whole or not at all, whenever the power is cut: meant first, then done.

What is to be written is put down in a file of its own beside the overlay and synced; then the
disk is written and flushed; then the file is emptied, and that is synced too. Whoever opens the
overlay and finds a whole intent does it again: it was never answered, and it is whole.

That is done from the write on until the first flush after it is over. Meanwhile others may
write to the same blocks, and be answered. A kill loses nothing of either, so what is written is
marked as written in this run of the kernel, and is not done over again; after a power cut only
what was flushed counts, and a flush that is over has emptied the file.

Must never be done over tables that it was not meant for, or that somebody else has changed
since.
"""

import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Final

from netboot.storage import live
from netboot.storage.disk import Buffer, DiskError
from netboot.storage.parts import sync_folder
from netboot.storage.raw import fault_of, write_at

MAGIC: Final = b"intent1\n"
#: Magic, ``born`` of the overlay (``qcow2.Meta``), offset, length, CRC-32 of that and the data.
_HEADER: Final = struct.Struct(">8sQQQI")
#: Behind the data: zeros, or the boot id of the kernel whose page cache has all of the write.
_MARK: Final = 36


def _checksum(born: int, offset: int, data: Buffer) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack(">QQQ", born, offset, len(data))))


class Intent:
    """The file ``path``, for the overlay ``born``. One intent at a time."""

    def __init__(self, path: str, born: int) -> None:
        self.path = path
        self.meant: tuple[int, int] | None = None  #: offset and length of what is to be written
        self.written = False  #: it is, and no flush since is over
        self._born = born
        self._known = False  #: whether the folder is sure to name the file after a power cut
        self._there = True  #: whether there may be anything to take back
        self._lock = threading.Lock()

    def put(self, offset: int, data: Buffer) -> None:
        """Return when the intent is on stable storage; DiskError when it cannot be."""
        head = _HEADER.pack(
            *(MAGIC, self._born, offset, len(data), _checksum(self._born, offset, data))
        )
        self._there = True
        try:
            self._replace(head + bytes(data) + bytes(_MARK))
            if not self._known:
                sync_folder(self.path)
                self._known = True
        except OSError as problem:
            raise DiskError(fault_of(problem), f"{self.path}: {problem.strerror}") from problem
        self.meant = offset, len(data)

    def mark_written(self) -> None:
        """What was meant is written as a whole, and outlives a kill; OSError. Waits for nothing."""
        assert self.meant is not None
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(fd, live.boot_id(), _HEADER.size + self.meant[1])
        finally:
            os.close(fd)
        self.meant, self.written = None, True

    def take_back(self) -> None:
        """Return when the intent is sure to be gone; harmless when there is none. OSError."""
        with self._lock:
            if self._there and Path(self.path).exists():
                self._replace(b"")
            self._there = self.written = False
            self.meant = None

    def size(self) -> int | None:
        """Bytes that are put down, as far as anybody sees who looks now; None: no file."""
        try:
            return os.stat(self.path).st_size  # noqa: PTH116  # each disk that opens asks
        except OSError:
            return None

    def left(self) -> tuple[int, bytes] | None:
        """(offset, data) of an intent that is to be done; None: there is none. DiskError."""
        try:
            raw = Path(self.path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise DiskError(fault_of(problem), f"{self.path}: {problem.strerror}") from problem
        if len(raw) < _HEADER.size:
            return None
        magic, born, offset, length, checksum = _HEADER.unpack_from(raw)
        data, mark = raw[_HEADER.size : _HEADER.size + length], raw[_HEADER.size + length :]
        if magic != MAGIC or born != self._born or length != len(data):
            return None
        if len(mark) not in (0, _MARK) or mark == live.boot_id():  # an older release has no mark
            return None
        return (offset, data) if checksum == _checksum(born, offset, data) else None

    def _replace(self, content: bytes) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, 0)
            if content:
                write_at(fd, 0, content, self.path)
            os.fsync(fd)
        finally:
            os.close(fd)

"""A write that is whole or not at all, whenever the power is cut: meant first, then done.

What is to be written is put down in a file of its own beside the overlay and synced; then the
disk is written and flushed; then the file is emptied, and that is synced too. Whoever opens the
overlay and finds a whole intent does it again: it was never answered, and it is whole. Must
never be done over tables that it was not meant for, or that somebody else has changed since.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import Final

from netboot.storage.disk import Buffer, DiskError
from netboot.storage.raw import fault_of, write_at

MAGIC: Final = b"intent1\n"
#: Magic, ``born`` of the overlay (``qcow2.Meta``), offset, length, CRC-32 of that and the data.
_HEADER: Final = struct.Struct(">8sQQQI")


def _checksum(born: int, offset: int, data: Buffer) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack(">QQQ", born, offset, len(data))))


class Intent:
    """The file ``path``, for the overlay ``born``. One intent at a time."""

    def __init__(self, path: str, born: int) -> None:
        self.path = path
        self._born = born
        self._known = False  #: whether the folder is sure to name the file after a power cut

    def put(self, offset: int, data: Buffer) -> None:
        """Return when the intent is on stable storage; DiskError when it cannot be."""
        head = _HEADER.pack(
            *(MAGIC, self._born, offset, len(data), _checksum(self._born, offset, data))
        )
        self._replace(head + bytes(data))
        if not self._known:
            self._sync_folder()
            self._known = True

    def take_back(self) -> None:
        """Return when the intent is sure to be gone; harmless when there is none."""
        if Path(self.path).exists():
            self._replace(b"")

    def left(self) -> tuple[int, bytes] | None:
        """(offset, data) of an intent that was put and not taken back; None: there is none."""
        try:
            raw = Path(self.path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise self._error(problem) from problem
        if len(raw) < _HEADER.size:
            return None
        magic, born, offset, length, checksum = _HEADER.unpack_from(raw)
        data = raw[_HEADER.size :]
        if magic != MAGIC or born != self._born or length != len(data):
            return None
        return (offset, data) if checksum == _checksum(born, offset, data) else None

    def _replace(self, content: bytes) -> None:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, 0)
                write_at(fd, 0, content, self.path)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as problem:
            raise self._error(problem) from problem

    def _sync_folder(self) -> None:
        try:
            fd = os.open(Path(self.path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as problem:
            raise self._error(problem) from problem

    def _error(self, problem: OSError) -> DiskError:
        return DiskError(fault_of(problem), f"{self.path}: {problem.strerror}")

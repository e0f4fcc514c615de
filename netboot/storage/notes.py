"""A small text beside an overlay, replaced as a whole: what its disk must remember but its bytes.

What it says is not storage's business. It is written beside the old one, synced, and renamed
over it, and the folder is synced: after a power cut there is the one or the other, and after
``put`` has returned, the new one. It names the overlay it is of, as a restored or a new one must
not take it for its own. A damaged text is told, never believed, and is replaced by the next.
"""

import contextlib
import os
import zlib
from pathlib import Path
from typing import Final

from netboot.storage.disk import DiskError, Fault
from netboot.storage.parts import sync_folder
from netboot.storage.raw import fault_of, write_at

#: More than anybody keeps; what is longer is no text of ours.
LIMIT: Final = 1 << 20
_MAGIC: Final = b"netboot notes 1"


class Notes:
    """The file ``path``, for the overlay that was ``born`` so. One ``put`` at a time."""

    def __init__(self, path: str, born: int, *, lasting: bool = True) -> None:
        self.path = path
        self.lasting = lasting
        self.born = born

    def put(self, text: bytes) -> None:
        """Return when ``text`` is on stable storage in place of the last one; DiskError.

        An empty one leaves no file. After an error there is the old one or the new.
        """
        new = self.path + ".new"
        try:
            if not text:
                Path(self.path).unlink(missing_ok=True)
                sync_folder(self.path)
                return
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_at(fd, 0, self._head(text) + text, new)
                os.fsync(fd)
            finally:
                os.close(fd)
            Path(new).rename(self.path)
            sync_folder(self.path)
        except OSError as problem:
            self._give_up(new)
            raise DiskError(fault_of(problem), f"{self.path}: {problem.strerror}") from problem
        except DiskError:
            self._give_up(new)
            raise

    def left(self) -> bytes:
        """The text that was put last; empty when there is none. DiskError says it is damaged."""
        try:
            with Path(self.path).open("rb") as file:
                raw = file.read(LIMIT + 1)
        except FileNotFoundError:
            return b""
        except OSError as problem:
            raise DiskError(fault_of(problem), f"{self.path}: {problem.strerror}") from problem
        head, _, text = raw.partition(b"\n")
        if len(raw) > LIMIT or head + b"\n" != self._head(text, self._owner(head)):
            raise DiskError(
                Fault.MEDIUM,
                f"{self.path}: is damaged, so the reservations it kept, and whether the disk was "
                "being sanitized, are lost; remove it when you have seen to that",
            )
        return text if self._owner(head) == self.born else b""

    def _head(self, text: bytes, born: int | None = None) -> bytes:
        owner = b"%x" % (self.born if born is None else born)
        return b"%s of %s, CRC-32 %08x\n" % (_MAGIC, owner, zlib.crc32(text, zlib.crc32(owner)))

    @staticmethod
    def _owner(head: bytes) -> int:
        with contextlib.suppress(ValueError, IndexError):
            return int(head.removeprefix(_MAGIC + b" of ").split(b",")[0], 16)
        return 0

    @staticmethod
    def _give_up(new: str) -> None:
        with contextlib.suppress(OSError):
            Path(new).unlink(missing_ok=True)

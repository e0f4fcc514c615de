"""The files of one overlay by their names: what belongs together, what it takes, how it goes.

    <client>.qcow2       header and tables (see ``qcow2``); whoever holds its lock owns them all
    <client>.data        the guest's bytes, each at its own offset
    <client>.live        only while attached, or after a kill (see ``live``)
    <client>.intent      an atomic write that is under way (see ``intent``)
    <client>.scsi        what the disk remembers but its bytes (see ``notes``)
    <client>.qcow2.new   only while one is made, as <client>.scsi.new

Without the first there is no overlay, whatever lies beside it.
"""

import contextlib
import ctypes
import logging
import os
from pathlib import Path
from typing import Final

from netboot.errors import ImageError
from netboot.storage import locks

log = logging.getLogger(__name__)

#: All that may lie beside ``<client>.qcow2`` and goes with it.
SIDES: Final = (".intent", ".live", ".scsi", ".scsi.new", ".data")

_FALLOCATE = ctypes.CDLL(None, use_errno=True).fallocate
_FALLOCATE.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # linux/falloc.h


class InUse(ImageError):
    """A disk, or another program, has the overlay open."""


def sibling(path: str, suffix: str) -> str:
    """The name of a file that goes with the overlay ``path``."""
    return path.removesuffix(".qcow2") + suffix


def usage(path: str) -> int:
    """Bytes that an overlay takes on its file system; 0 when there is none."""
    total = 0
    for name in (path, *(sibling(path, suffix) for suffix in SIDES)):
        with contextlib.suppress(OSError):
            total += Path(name).stat().st_blocks * 512
    return total


def space(path: str) -> tuple[int, int]:
    """Bytes that an overlay takes, and those that its file system has for more; OSError."""
    system = os.statvfs(Path(path).parent)
    return usage(path), system.f_bavail * system.f_frsize


def remove_sides(path: str, but: str = "") -> None:
    """Remove what lies beside an overlay, perhaps but one file; OSError."""
    for suffix in SIDES:
        if suffix != but:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(sibling(path, suffix))  # noqa: PTH108  # each disk that is made does it


def punch(fd: int, offset: int, length: int) -> None:
    """Give a range's space back to the file system, where that can be done."""
    if _FALLOCATE(fd, _PUNCH_HOLE_KEEP_SIZE, offset, length):
        log.debug("no hole punched at %d: %s", offset, os.strerror(ctypes.get_errno()))


def sync_folder(path: str) -> None:
    """Make the names of the files beside ``path``, and that they are gone, durable; OSError."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_at(path: str, fd: int) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(Path(path).stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def claim(path: str, *, over: bool) -> int:
    """An empty ``<path>.new``, open and locked: until it is gone nobody else makes ``path``.

    FileExistsError when somebody else makes it, or just has. ``over``: the caller owns what is
    at ``path``, so that a file of this name is what a killed process left.
    """
    new = path + ".new"
    if over:
        Path(new).unlink(missing_ok=True)
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Two names: its maker was killed between giving it the one and taking away the other.
        if not locks.own(fd) or not is_at(new, fd) or os.fstat(fd).st_nlink > 1:
            raise FileExistsError(path)
        os.ftruncate(fd, 0)  # what a killed process left
    except BaseException:
        os.close(fd)
        raise
    return fd


def discard(path: str) -> int:
    """Throw an overlay away; bytes given back. InUse when anybody has it open, else ImageError.

    Durable on return. A power cut meanwhile leaves the old one, whole, or none: first the name
    of the tables goes, for good, and nobody begins another before the rest is gone too.
    """
    for _ in range(3):  # somebody may rename a fresh one into place while we open the old
        with contextlib.ExitStack() as undo:
            try:
                if _hold(path, undo):
                    return _remove(path)
            except OSError as problem:
                raise ImageError(f"{path}: cannot be removed: {problem.strerror}") from problem
    raise InUse(f"{path}: is being replaced by another program")


def _hold(path: str, undo: contextlib.ExitStack) -> bool:
    """Keep everybody else from opening and from beginning an overlay; False: look again."""
    try:
        meta = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        meta = None
    if meta is not None:
        undo.callback(os.close, meta)
        if not locks.own(meta):
            raise InUse(f"{path}: in use; shut the machine down first")
        if not is_at(path, meta):
            return False
    try:
        undo.callback(os.close, claim(path, over=meta is not None))
    except FileNotFoundError:
        return True  # not even a folder
    except FileExistsError:
        return False
    return meta is not None or not Path(path).exists()


def _remove(path: str) -> int:
    freed = usage(path)
    if not Path(path).parent.exists():
        return freed
    Path(path).unlink(missing_ok=True)
    sync_folder(path)
    remove_sides(path)
    Path(path + ".new").unlink(missing_ok=True)
    sync_folder(path)
    return freed

"""The files of one overlay: make them, open them, check them, lock them.

    <client>.qcow2   header and tables (see ``qcow2``); whoever holds its lock owns all three
    <client>.data    the guest's bytes, each at its own offset
    <client>.live    only while attached, or after a kill (see ``live``)

A new overlay is complete before it has its name, so a power cut leaves the old one, the new one
or none. Nothing here may ever shorten a data file that an entry speaks of.
"""

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from netboot.errors import ImageError
from netboot.storage import live, locks, qcow2, residency
from netboot.storage.disk import DiskError
from netboot.storage.raw import fault_of, write_at

log = logging.getLogger(__name__)

_FALLOCATE = ctypes.CDLL(None, use_errno=True).fallocate
_FALLOCATE.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # linux/falloc.h


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


def sibling(path: str, suffix: str) -> str:
    """The name of a file that goes with the overlay ``path``."""
    return path.removesuffix(".qcow2") + suffix


@dataclass(slots=True)
class OverlayFiles:
    """The open, locked files of one overlay."""

    path: str
    size: int
    meta: int  #: descriptors
    data: int
    live: int | None = None  #: opened by the first change
    closed: bool = False
    _folder_synced: bool = field(default=False)

    def load(self) -> Iterator[tuple[int, bytes]]:
        """(first cell, cells) of all entries on disk."""
        end = qcow2.L2 + qcow2.clusters(self.size) * qcow2.ENTRY
        for offset, raw in live.written(self.meta, qcow2.L2, end, self.path):
            first = (offset - qcow2.L2) // qcow2.ENTRY
            try:
                yield first * qcow2.SUBS, qcow2.cells_of(first, raw)
            except ImageError as problem:
                raise ImageError(f"{self.path}: {problem}") from problem

    def recover(self) -> Iterable[tuple[int, bytes]]:
        """The same, of what was never flushed."""
        if self.live is None:
            return ()
        cells = qcow2.clusters(self.size) * qcow2.SUBS
        return live.recover(self.live, sibling(self.path, ".live"), cells)

    def keep(self, first: int, cells: bytes) -> None:
        """Make a change of cells outlive this process."""
        if self.live is None:
            try:
                self.live = live.begin(sibling(self.path, ".live"), os.fstat(self.meta).st_ino)
            except OSError as problem:
                raise DiskError(fault_of(problem), f"{self.path}: {problem.strerror}") from problem
        write_at(self.live, live.offset_of(first), cells, self.path)

    def forget_live(self) -> None:
        """From now on, what was not flushed is gone with this process."""
        with contextlib.suppress(FileNotFoundError):
            Path(sibling(self.path, ".live")).unlink()

    def data_cached(self, offset: int, length: int) -> bool:
        return residency.cached(self.data, offset, length)

    def sync_folder_once(self) -> None:
        """Make the files' names durable, before an entry speaks of what is in them; OSError."""
        if not self._folder_synced:
            sync_folder(self.path)
            self._folder_synced = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.live is not None:
                os.close(self.live)
            os.close(self.data)
            os.close(self.meta)


def open_overlay(path: str, wanted: qcow2.Meta, *, ephemeral: bool) -> OverlayFiles:
    """Open the overlay at ``path``, or begin it; ImageError says why that cannot be.

    ``wanted`` is what the header must say. An older generation (of an ephemeral overlay: any
    other) is thrown away and begun afresh; another golden version or size is refused.
    """
    for _ in range(3):  # somebody may rename a fresh overlay into place while we open the old
        with contextlib.ExitStack() as undo:
            meta = _open_or_create(path, wanted, ephemeral, undo)
            if meta is None:
                continue
            found = _checked(path, meta, wanted, ephemeral)
            old = meta
            if found is None:
                meta = _make(path, wanted, ephemeral, undo, over=True)
                found = wanted
            data = _open_data(path, meta, wanted.size, undo)
            live_path = sibling(path, ".live")
            if not found.live:  # another program wrote to the tables since
                Path(sibling(path, ".intent")).unlink(missing_ok=True)
                Path(live_path).unlink(missing_ok=True)
            if (found.golden, found.data, found.live) != (wanted.golden, wanted.data, True):
                _mend(path, meta, replace(found, golden=wanted.golden, data=wanted.data, live=True))
            left = live.resume(live_path, os.fstat(meta).st_ino, must_match=ephemeral)
            undo.pop_all()
            if old != meta:
                os.close(old)
            return OverlayFiles(path, wanted.size, meta, data, left)
    raise ImageError(f"{path}: is being replaced by another program")


def discard(path: str) -> None:
    """Delete an overlay; ImageError when a disk or another program has it open."""
    try:
        meta = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        meta = None
    try:
        if meta is not None and not locks.own(meta):
            raise ImageError(f"{path}: in use; shut the machine down first")
        # What was meant for the tables goes before them, so that nothing does it to others.
        Path(sibling(path, ".intent")).unlink(missing_ok=True)
        # The tables first: data without tables is rubbish, tables without data would be damage.
        for name in (path, sibling(path, ".live"), sibling(path, ".data"), path + ".new"):
            Path(name).unlink(missing_ok=True)
    finally:
        if meta is not None:
            os.close(meta)


def usage(path: str) -> int:
    """Bytes that an overlay takes on its file system; 0 when there is none."""
    total = 0
    for name in (path, *(sibling(path, suffix) for suffix in (".data", ".live", ".intent"))):
        with contextlib.suppress(OSError):
            total += Path(name).stat().st_blocks * 512
    return total


def _open_or_create(
    path: str, wanted: qcow2.Meta, ephemeral: bool, undo: contextlib.ExitStack
) -> int | None:
    """A locked descriptor of the qcow2 file; None when it was replaced under our hands."""
    try:
        meta = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        try:
            return _make(path, wanted, ephemeral, undo, over=False)
        except FileExistsError:
            return None
    except OSError as problem:
        raise ImageError(f"{path}: {problem.strerror}") from problem
    undo.callback(os.close, meta)
    if not locks.own(meta):
        raise ImageError(f"{path}: in use by another program")
    return meta if _is_at(path, meta) else None


def _is_at(path: str, fd: int) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(Path(path).stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _make(
    path: str, wanted: qcow2.Meta, ephemeral: bool, undo: contextlib.ExitStack, *, over: bool
) -> int:
    """Begin an overlay; ``over`` an older one, or FileExistsError when there is one."""
    tables = qcow2.tables(wanted)
    new = path + ".new"
    try:
        if over:  # we own the overlay, so nobody else is making it
            Path(new).unlink(missing_ok=True)
        meta = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, meta)
        if not locks.own(meta) or not _is_at(new, meta):
            raise FileExistsError(path)  # somebody else is making it, or just has
        os.ftruncate(meta, 0)  # what a killed process left
        os.ftruncate(meta, qcow2.file_size(wanted.size))
        for offset, content in tables:
            os.pwrite(meta, content, offset)
        if not ephemeral:
            os.fdatasync(meta)
        Path(sibling(path, ".live")).unlink(missing_ok=True)
        if over:
            Path(new).rename(path)
        else:
            os.link(new, path)
            Path(new).unlink()
        # No entry speaks of data yet, so whatever lies in the data file is nobody's.
        data = os.open(sibling(path, ".data"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(data, 0)
            os.ftruncate(data, wanted.size)
        finally:
            os.close(data)
    except FileExistsError as problem:
        if over:
            raise ImageError(f"{path}: in use by another program") from problem
        raise
    except OSError as problem:
        raise ImageError(f"{path}: cannot be created: {problem.strerror}") from problem
    return meta


def _checked(path: str, fd: int, wanted: qcow2.Meta, ephemeral: bool) -> qcow2.Meta | None:
    """What the header says; None when the overlay is to begin afresh."""
    try:
        found = qcow2.decode(os.pread(fd, qcow2.HEADER_AREA, 0))
        if os.pread(fd, len(qcow2.l1_table(found.size)), qcow2.L1) != qcow2.l1_table(found.size):
            raise ImageError("its L1 table is not where, or not what, netboot wrote")
    except ImageError as problem:
        if ephemeral:
            return None
        raise ImageError(f"{path}: {problem}") from problem
    if found.generation < wanted.generation:
        return None
    if ephemeral and found.generation != wanted.generation:
        return None
    if found.digest != wanted.digest:
        raise ImageError(
            f"{path}: was begun over {found.digest}, the golden version is {wanted.digest}; "
            "give the machine its former version, or reset its overlay"
        )
    if found.size != wanted.size:
        raise ImageError(f"{path}: has {found.size} bytes, its golden image {wanted.size}")
    return found


def _open_data(path: str, meta: int, size: int, undo: contextlib.ExitStack) -> int:
    """The open data file; ImageError when what an entry speaks of is not there.

    While there are no entries, whatever a power cut left of a new file will do.
    """
    name = sibling(path, ".data")
    try:
        try:
            data = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if _has_entries(path, meta, size):
                raise ImageError(f"{name}: is missing, but {path} needs it") from None
            data = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, data)
        have = os.fstat(data).st_size
        if have < size and _has_entries(path, meta, size):
            raise ImageError(f"{name}: was shortened to {have} of its {size} bytes; restore it")
        if have < size:
            os.ftruncate(data, size)
    except OSError as problem:
        raise ImageError(f"{name}: {problem.strerror}") from problem
    return data


def _has_entries(path: str, meta: int, size: int) -> bool:
    """Whether anything in the data file counts."""
    end = qcow2.L2 + qcow2.clusters(size) * qcow2.ENTRY
    return any(raw.strip(b"\0") for _, raw in live.written(meta, qcow2.L2, end, path))


def _mend(path: str, fd: int, meta: qcow2.Meta) -> None:
    """Write the header anew: files were moved, or QEMU cleared our bit."""
    area = qcow2.encode(meta)
    os.pwrite(fd, area + bytes(qcow2.HEADER_AREA - len(area)), 0)
    os.fdatasync(fd)
    log.info("%s: header brought up to date", path)

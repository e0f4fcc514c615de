"""The open files of one overlay: make them, open them, check them, lock them, let them grow.

What is begun, and with which header, is in ``making``. Nothing here may ever shorten a data
file that an entry speaks of.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from netboot.errors import ImageError
from netboot.storage import live, locks, qcow2, residency
from netboot.storage.disk import DiskError
from netboot.storage.making import copy, entries, make, mend, put_in_place
from netboot.storage.parts import InUse, is_at, sibling, sync_folder
from netboot.storage.raw import fault_of, write_at

log = logging.getLogger(__name__)

#: Does a sync; what failed is an OSError.
Sync: TypeAlias = Callable[[Callable[[], None]], None]


@dataclass(slots=True)
class OverlayFiles:
    """The open, locked files of one overlay."""

    path: str
    header: qcow2.Meta
    meta: int  #: descriptors
    data: int
    live: int | None = None  #: opened by the first change
    closed: bool = False
    _folder_synced: bool = field(default=False)
    _renaming: threading.Lock = field(default_factory=threading.Lock)  #: guards what ``live`` names

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self.header.size

    def load(self) -> Iterator[tuple[int, bytes]]:
        """(first cell, cells) of all entries on disk."""
        for offset, raw in entries(self.meta, self.size, self.path):
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
                with self._renaming:
                    self.live = live.begin(sibling(self.path, ".live"), os.fstat(self.meta).st_ino)
            except OSError as problem:
                raise DiskError(fault_of(problem), f"{self.path}: {problem.strerror}") from problem
        write_at(self.live, live.offset_of(first), cells, self.path)

    def forget_live(self) -> None:
        """From now on, what was not flushed is gone with this process."""
        with contextlib.suppress(FileNotFoundError):
            Path(sibling(self.path, ".live")).unlink()

    def data_at_once(self, offset: int, length: int) -> bytearray | None:
        return residency.read_cached(self.data, offset, length)

    def data_cached(self, offset: int, length: int) -> bool:
        return residency.cached(self.data, offset, length)

    def sync_folder_once(self) -> None:
        """Make the files' names durable, before an entry speaks of what is in them; OSError."""
        if not self._folder_synced:
            sync_folder(self.path)
            self._folder_synced = True

    def resize(self, size: int, sync: Sync) -> None:
        """Let the disk be larger from now on, also after a power cut; nobody writes entries.

        When it fails the disk is as it was (ImageError, or DiskError by ``write_at``), except
        by ``sync``: then nobody knows.
        """
        wanted = replace(self.header, size=size)
        try:
            os.ftruncate(self.data, size)
        except OSError as problem:
            raise ImageError(
                f"{self.path}: cannot have {size} bytes: {problem.strerror}"
            ) from problem
        sync(lambda: os.fsync(self.data))  # no header may ask for more than is there
        fresh = copy(self.path, self.meta, self.size, wanted)
        try:
            with self._renaming:
                put_in_place(self.path, self.meta, fresh, self.live)
                fresh, self.meta, self.header = self.meta, fresh, wanted
        finally:
            os.close(fresh)  # of the two, the one that has no name now
        sync(lambda: sync_folder(self.path))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.live is not None:
                os.close(self.live)
            os.close(self.data)
            os.close(self.meta)


def open_overlay(
    path: str, wanted: qcow2.Meta, *, ephemeral: bool, least: int | None = None
) -> OverlayFiles:
    """Open the overlay at ``path``, or begin it; ImageError says why that cannot be.

    ``wanted`` is what the header of a fresh one says. An older generation (of an ephemeral
    overlay: any other) is thrown away and begun afresh; another golden version is refused, and
    so is one of fewer bytes than the golden image has, which are ``least``.
    """
    least = wanted.size if least is None else least
    for _ in range(3):  # somebody may rename a fresh overlay into place while we open the old
        with contextlib.ExitStack() as undo:
            meta = _open_or_create(path, wanted, ephemeral, undo)
            if meta is None:
                continue
            metas = [meta]
            found = _checked(path, meta, wanted, ephemeral, least)
            if found is None:
                meta, found = make(path, wanted, ephemeral, undo, over=True)
                metas.append(meta)
            data = _open_data(path, meta, found.size, undo)
            live_path = sibling(path, ".live")
            if not found.live:  # another program wrote to the tables since
                Path(sibling(path, ".intent")).unlink(missing_ok=True)
                Path(live_path).unlink(missing_ok=True)
            if (found.golden, found.data, found.live) != (wanted.golden, wanted.data, True):
                found = replace(found, golden=wanted.golden, data=wanted.data, live=True)
                metas.append(mend(path, meta, found, undo))
            left = live.resume(live_path, os.fstat(metas[-1]).st_ino, must_match=ephemeral)
            undo.pop_all()
            for old in metas[:-1]:
                os.close(old)
            return OverlayFiles(path, found, metas[-1], data, left)
    raise ImageError(f"{path}: is being replaced by another program")


def size_of(path: str) -> int | None:
    """Bytes of an overlay's disk, open or not; None when there is none that we can read."""
    try:
        with Path(path).open("rb") as file:
            return qcow2.decode(file.read(qcow2.HEADER_AREA)).size
    except (OSError, ImageError):
        return None


def _open_or_create(
    path: str, wanted: qcow2.Meta, ephemeral: bool, undo: contextlib.ExitStack
) -> int | None:
    """A locked descriptor of the qcow2 file; None when it was replaced under our hands."""
    try:
        meta = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        try:
            return make(path, wanted, ephemeral, undo, over=False)[0]
        except FileExistsError:
            return None
    except OSError as problem:
        raise ImageError(f"{path}: {problem.strerror}") from problem
    undo.callback(os.close, meta)
    if not locks.own(meta):
        raise InUse(f"{path}: in use by another program")
    return meta if is_at(path, meta) else None


def _checked(
    path: str, fd: int, wanted: qcow2.Meta, ephemeral: bool, least: int
) -> qcow2.Meta | None:
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
    if found.size < least:
        raise ImageError(f"{path}: has {found.size} bytes, its golden image {least}")
    # An older release went by the number of the file, and wrote none.
    return found if found.born else replace(found, born=os.fstat(fd).st_ino)


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
    return any(raw.strip(b"\0") for _, raw in entries(meta, size, path))

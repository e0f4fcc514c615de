"""How the file of an overlay's tables comes to be: made, copied with another header, replaced.

A header is never changed in place. A new file is complete before it has its name, so a power
cut leaves the old one, the new one or none; and it is locked before, so that it is nobody
else's at any time.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from netboot.errors import ImageError
from netboot.storage import live, qcow2
from netboot.storage.disk import DiskError
from netboot.storage.parts import InUse, claim, remove_sides, sibling, sync_folder
from netboot.storage.raw import write_at

log = logging.getLogger(__name__)


def make(
    path: str, wanted: qcow2.Meta, ephemeral: bool, undo: contextlib.ExitStack, *, over: bool
) -> tuple[int, qcow2.Meta]:
    """Begin an overlay; ``over`` an older one, or FileExistsError when there is one."""
    fresh = replace(wanted, born=int.from_bytes(os.urandom(8)) >> 1 | 1)
    new = path + ".new"
    try:
        meta = claim(path, over=over)
        undo.callback(os.close, meta)
        _write_tables(meta, fresh)
        if not ephemeral:
            os.fdatasync(meta)
        remove_sides(path, but=".data")
        if over:
            Path(new).rename(path)
            if not ephemeral:  # or the old entries could come back to data that is gone
                sync_folder(path)
        else:
            os.link(new, path)
            Path(new).unlink()
        # No entry speaks of data yet, so whatever lies in the data file is nobody's.
        data = os.open(sibling(path, ".data"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(data, 0)
            os.ftruncate(data, fresh.size)
        finally:
            os.close(data)
    except FileExistsError as problem:
        if over:
            raise InUse(f"{path}: in use by another program") from problem
        raise
    except OSError as problem:
        raise ImageError(f"{path}: cannot be created: {problem.strerror}") from problem
    return meta, fresh


def _write_tables(fd: int, meta: qcow2.Meta) -> None:
    tables = qcow2.tables(meta)
    # Can a file be so large here? Better to know while nothing asks for the data yet.
    os.ftruncate(fd, max(meta.size, qcow2.file_size(meta.size)))
    os.ftruncate(fd, qcow2.file_size(meta.size))
    for offset, content in tables:
        os.pwrite(fd, content, offset)


def copy(path: str, old: int, size: int, wanted: qcow2.Meta) -> int:
    """``<path>.new``, whole, synced and locked: another header, and the entries of ``old``, which
    are those of ``size`` bytes."""
    try:
        fd = claim(path, over=True)
        try:
            _write_tables(fd, wanted)
            for offset, raw in entries(old, size, path):
                write_at(fd, offset, raw, path)
            _as_whose(fd, os.fstat(old))
            os.fsync(fd)
        except BaseException:
            os.close(fd)
            Path(path + ".new").unlink(missing_ok=True)
            raise
    except (OSError, DiskError) as problem:
        words = problem.strerror if isinstance(problem, OSError) else problem
        raise ImageError(f"{path}: no new header can be written: {words}") from problem
    return fd


def _as_whose(fd: int, old: os.stat_result) -> None:
    """Root may be at work on the files of a service that is not root's."""
    os.fchmod(fd, old.st_mode & 0o777)
    with contextlib.suppress(OSError):  # not root, or nobody who has a number in our namespace
        os.fchown(fd, old.st_uid, old.st_gid)


def put_in_place(path: str, old: int, fresh: int, live_file: int | None) -> None:
    """Put ``<path>.new`` in the place of ``old``; the ``.live`` file goes with either meanwhile.

    Both are ours until the old one is closed. The name is not durable yet.
    """
    before, after = os.fstat(old).st_ino, os.fstat(fresh).st_ino
    try:
        if live_file is not None:
            live.name(live_file, before, after)
        Path(path + ".new").rename(path)
    except OSError as problem:
        Path(path + ".new").unlink(missing_ok=True)
        raise ImageError(f"{path}: cannot be replaced: {problem.strerror}") from problem
    if live_file is not None:
        with contextlib.suppress(OSError):  # it names both
            live.name(live_file, after)


def entries(fd: int, size: int, path: str) -> Iterator[tuple[int, bytes]]:
    """The L2 entries that were ever written, as (offset in the file, bytes)."""
    return live.written(fd, qcow2.L2, qcow2.L2 + qcow2.clusters(size) * qcow2.ENTRY, path)


def mend(path: str, old: int, meta: qcow2.Meta, undo: contextlib.ExitStack) -> int:
    """Write the header anew: files were moved, or QEMU cleared our bit."""
    fd = copy(path, old, meta.size, meta)
    undo.callback(os.close, fd)
    live_file = None
    try:
        with contextlib.suppress(FileNotFoundError):
            live_file = os.open(sibling(path, ".live"), os.O_RDWR | os.O_CLOEXEC)
        put_in_place(path, old, fd, live_file)
        sync_folder(path)
    except OSError as problem:
        raise ImageError(f"{path}: {problem.strerror}") from problem
    finally:
        if live_file is not None:
            os.close(live_file)
    log.info("%s: header brought up to date", path)
    return fd

"""The ``.live`` file: what a killed disk process had written and not yet flushed.

A guest whose disk process dies does not know that its cached writes were lost, and goes on. So
every change of a cell is also written, unsynced, to ``<client>.live``, one byte a cell: that
outlives the process, as the data in the page cache does. It means nothing after the kernel has
restarted (nothing orders it behind the data on its way to the disk), so it carries the kernel's
boot id; nor after another program wrote to the overlay, which the auto-clear bit of the header
tells (see ``qcow2.Meta``). A clean close removes it. It names the file of the tables by its
inode, for a backup may have been put there; and the one that is about to take its place, if any.

    0   magic "NBLIVE1\\n"      8   boot id, text      44  padding      48  inodes, two
    4096 + n   cell n
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from netboot.errors import ImageError
from netboot.storage.raw import read_at

_HEADER = struct.Struct(">8s36s4xQQ")
_INODES = struct.Struct(">QQ")
_INODES_AT = 48
_MAGIC = b"NBLIVE1\n"
_CELLS = 4096
_CHUNK = 1 << 20
_KINDS = bytes(range(4))  # what a cell may be: see ``qcow2``


def boot_id() -> bytes:
    """The name of this run of the kernel, 36 characters (proc(5), random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()


def offset_of(cell: int) -> int:
    """Where a cell lies in the file."""
    return _CELLS + cell


def begin(path: str, inode: int) -> int:
    """Begin the file for the tables ``inode``; an open descriptor. OSError leaves no file."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, _HEADER.pack(_MAGIC, boot_id(), inode, 0), 0)
    except OSError:  # a full disk; each write that follows comes by here again
        os.close(fd)
        Path(path).unlink(missing_ok=True)
        raise
    return fd


def resume(path: str, inode: int, *, must_match: bool) -> int | None:
    """Open what a killed process left; None, and no file, when there is nothing to go on with.

    That is so when it is of another overlay or of another run of the kernel. With
    ``must_match`` (an ephemeral overlay, which synced nothing) the latter is an ImageError:
    that disk was lost, and its machine must not go on as if it were not.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    found = os.pread(fd, _HEADER.size, 0)
    ours = _HEADER.pack(_MAGIC, boot_id(), inode, 0)[:_INODES_AT]
    if len(found) == _HEADER.size and found[:_INODES_AT] == ours:
        here, following = _INODES.unpack_from(found, _INODES_AT)
        if inode in (here, following):
            if inode != here:  # a kill came between the rename and what follows it
                name(fd, inode)
            return fd
    os.close(fd)
    if must_match:
        raise ImageError(
            f"{path.removesuffix('.live')}: this ephemeral disk was lost when the server went "
            "down; boot the machine anew"
        )
    Path(path).unlink()
    return None


def name(fd: int, inode: int, following: int = 0) -> None:
    """Say which file of tables it goes with, and which one takes that one's place; OSError."""
    os.pwrite(fd, _INODES.pack(inode, following), _INODES_AT)


def written(fd: int, begin: int, end: int, path: str) -> Iterator[tuple[int, bytes]]:
    """The parts of a sparse file between two offsets that are no holes, in order."""
    while begin < end:
        try:
            begin = os.lseek(fd, begin, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        until = min(os.lseek(fd, begin, os.SEEK_HOLE), end)
        while begin < until:
            length = min(until - begin, _CHUNK)
            yield begin, read_at(fd, begin, length, path)
            begin += length


def recover(fd: int, path: str, cells: int) -> Iterator[tuple[int, bytes]]:
    """(first cell, cells) for all that was written; cells that were not are 0.

    ``cells`` is how many the disk has. ImageError for what no process of ours writes.
    """
    size = os.fstat(fd).st_size
    for offset, found in written(fd, _CELLS, size, path):
        if size > _CELLS + cells or found.translate(None, _KINDS):
            raise ImageError(
                f"{path}: is damaged, so what was not flushed is lost: remove this file to go on "
                "with what was"
            )
        yield offset - _CELLS, found

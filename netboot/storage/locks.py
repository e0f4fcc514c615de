"""Locks on disk files that QEMU's tools respect, and we theirs.

QEMU (block/file-posix.c, "image locking") says with read locks on single bytes what it does
with a file and what it does not let others do: byte 100 + n "I use permission n", byte 200 + n
"I share permission n with nobody"; before that it looks whether anybody's lock speaks against
it. Permission 0 is reading consistent data, 1 is writing. They are open file description locks
(fcntl F_OFD_SETLK): they belong to the open file, not to the process, so that two disks of one
process exclude each other too, and they vanish with a killed process.
"""

import errno
import fcntl
import os
import struct

_USES_READ, _USES_WRITE, _KEEPS_WRITE = 100, 101, 201
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of Linux on 64-bit machines


def _ask(fd: int, command: int, kind: int, byte: int) -> int:
    answer = fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    return int(_FLOCK.unpack(answer)[0])


def _take(fd: int, kind: int, *bytes_: int) -> bool:
    try:
        for byte in bytes_:
            _ask(fd, fcntl.F_OFD_SETLK, kind, byte)
    except OSError as problem:
        if problem.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _free(fd: int, byte: int) -> bool:
    return _ask(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, byte) == fcntl.F_UNLCK


def own(fd: int) -> bool:
    """Be the only one who writes, and let nobody read what would change; False when in use.

    ``qemu-img info -U`` can still look. ``fd`` must be open for writing.
    """
    # First the lock, then the look: of two at once, at least one sees the other.
    return (
        _take(fd, fcntl.F_WRLCK, _USES_WRITE)
        and _free(fd, _KEEPS_WRITE)
        and _take(fd, fcntl.F_RDLCK, _KEEPS_WRITE)
    )


def hold(fd: int) -> bool:
    """Read, and let nobody write; False when somebody does. Any number may hold."""
    return _take(fd, fcntl.F_RDLCK, _USES_READ, _KEEPS_WRITE) and _free(fd, _USES_WRITE)


def in_use(fd: int) -> bool:
    """Whether anybody else owns or holds the file; a read-only ``fd`` will do."""
    return not all(_free(fd, byte) for byte in (_USES_READ, _USES_WRITE, _KEEPS_WRITE))

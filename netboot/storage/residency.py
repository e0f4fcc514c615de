"""Is it in memory? Asks the kernel about pages of a file, without reading and without waiting.

``mincore`` costs a microsecond for any range that a disk is asked for. Since Linux 5.0 it says
"yes" to whoever neither owns nor may write the file (a side channel was closed that way); then
we read with RWF_NOWAIT instead, which costs the copy. A file system that knows no RWF_NOWAIT
gets "no": slower, never wrong.
"""

import ctypes
import mmap
import os

_MINCORE = ctypes.PyDLL(None, use_errno=True).mincore  # PyDLL: it never waits, keep the lock
_MINCORE.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_MINCORE.restype = ctypes.c_int
_PAGE_MASK = mmap.PAGESIZE - 1
_SCRATCH = 1 << 20


class _PyBuffer(ctypes.Structure):
    """``Py_buffer`` (Include/cpython/object.h): what a C function gets to see of an object."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address_of(mapping: mmap.mmap) -> int:
    """Where a mapping begins in memory; valid as long as the mapping is open."""
    view = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapping), ctypes.byref(view), 0)
    try:
        return int(view.buf)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))


def mincore_is_honest(fd: int) -> bool:
    """Whether the kernel tells us the truth about this file's pages."""
    return os.geteuid() in (0, os.fstat(fd).st_uid) or os.access(f"/proc/self/fd/{fd}", os.W_OK)


def mapped(address: int, offset: int, length: int) -> bool:
    """Whether all pages of a range of the file mapping at ``address`` are in memory."""
    begin = offset & ~_PAGE_MASK
    pages = (offset + length - begin + _PAGE_MASK) // mmap.PAGESIZE
    vector = ctypes.create_string_buffer(pages)
    if _MINCORE(address + begin, offset + length - begin, vector):
        return False
    return b"\0" not in vector.raw


def read_cached(fd: int, offset: int, length: int) -> bytearray | None:
    """A range of an open file that is in memory; None when some of it is not."""
    room = bytearray(length)
    try:
        got = os.preadv(fd, (room,), offset, os.RWF_NOWAIT)
    except OSError:
        return None
    return room if got == length else None


def cached(fd: int, offset: int, length: int) -> bool:
    """The same for an open file without a mapping, by a read that must not wait.

    After a "no" the kernel may already be reading what was asked for.
    """
    end = offset + length
    while offset < end:
        want = min(end - offset, _SCRATCH)
        try:
            got = os.preadv(fd, [bytearray(want)], offset, os.RWF_NOWAIT)
        except OSError:
            return False
        if got < want:
            return False
        offset += got
    return True

# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""What has come by one connection, compiled: ``inlet.Inlet`` once more in C's terms.

The rules are told there, and a test holds both to them. What differs is how: a request that takes
the compiled lane is answered without a step of Python between the loop's call and the kernel's,
and what a connection needs for it lies in one place.
"""

from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from posix.unistd cimport write

from netboot.iscsi.lane cimport Lane
from netboot.iscsi.spin import EVERY as _EVERY

cdef uint64_t EVERY = _EVERY


cdef class Inlet:
    """See ``inlet.Inlet``."""

    def __init__(self, spin, room):
        self._spin = spin
        self._room = room
        self._tags = set()
        self._backlog = []

    def get_buffer(self, sizehint):
        """See ``inlet.Inlet``."""
        return self._room

    def buffer_updated(self, uint64_t nbytes):
        """See ``inlet.Inlet``."""
        self.updated(nbytes)

    cdef int updated(self, uint64_t nbytes) except -1:
        try:
            self._updated(nbytes)
        except Exception:
            self._failed()
        return 0

    cdef int _updated(self, uint64_t nbytes) except -1:
        cdef object spin = self._spin, room = self._room, lane = self._lane
        cdef set tags = self._tags
        cdef uint64_t at = 0, end, took, missing, came = spin.came + 1
        spin.came = came
        if not came & EVERY:
            spin.consider()
        if tags:
            tags.clear()
        while at < nbytes and not self.closed:
            end = nbytes
            if lane is not None and not self._full and not self._backlog:
                took = self._ride(lane, room, at, nbytes, tags)
                if took:
                    at += took
                    if self._outlet.waits:
                        self.send()
                    else:
                        self._leave()
                    continue
                missing = self.engine.missing
                if missing:
                    end = min(at + missing, nbytes)
            self._long_way(room[at:end], tags, nbytes)
            at = end
        return 0

    cdef uint64_t _ride(self, object lane, object room, uint64_t at, uint64_t nbytes, set tags) except? 0:
        """By the lane; a lane in Python is as good as the compiled one."""
        cdef Py_buffer come
        if type(lane) is not Lane:
            return lane.run(room[at:] if at else room, nbytes - at, tags)
        PyObject_GetBuffer(room, &come, PyBUF_SIMPLE)
        try:
            return (<Lane>lane).take(room, at, <const char *>come.buf + at, nbytes - at, tags)
        finally:
            PyBuffer_Release(&come)

    cdef int _leave(self) except -1:
        """Send what the lane answered: the compiled one makes one piece of it."""
        cdef object outlet = self._outlet, answers = self.engine.answers
        cdef list out = answers.out
        cdef const char *begin
        cdef ssize_t length, sent
        cdef int fd
        if len(out) != 1 or type(out[0]) is not bytes:
            outlet.write(answers.take())
            return 0
        data = out.pop()
        begin, length, fd = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), outlet.fd
        with nogil:
            sent = write(fd, begin, length)
        if sent != length:
            outlet.rest(data, max(sent, 0))
        return 0

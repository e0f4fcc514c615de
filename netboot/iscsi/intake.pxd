"""What ``gate`` needs of the inlet, to call it without a step of Python."""

from libc.stdint cimport uint64_t


cdef class Inlet:
    cdef public object engine, _outlet, _spin, _lane, _nearby, _room
    cdef public set _tags
    cdef public list _backlog
    cdef public bint _full, closed

    cdef int updated(self, uint64_t nbytes) except -1
    cdef int _updated(self, uint64_t nbytes) except -1
    cdef uint64_t _ride(self, object lane, object room, uint64_t at, uint64_t nbytes, set tags) except? 0
    cdef int _leave(self) except -1

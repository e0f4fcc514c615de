"""What ``intake`` needs of the lane, to call it without a step of Python."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint64_t


cdef class Looking:
    cdef Py_buffer[3] buffers
    cdef int held  #: how many of them
    cdef double now

    cdef int hold(self, object sight) except -1
    cdef void let_go(self)
    cdef const char *find(self, uint64_t offset, uint64_t length)


cdef class Lane:
    cdef object _first_read, _engine, _session, _answers, _views, _volumes
    cdef uint64_t _unasked
    cdef Looking _looking

    cdef uint64_t take(self, object data, uint64_t begin, const char *come, uint64_t end, set tags) except? 0
    cdef uint64_t _take(self, object data, uint64_t begin, const char *come, uint64_t end, set tags) except? 0

"""What ``gate`` needs of it: to fetch without a step of Python."""

from libc.stdint cimport uintptr_t


cdef class Nearby:
    cdef uintptr_t *_pieces  #: the address of the first line, plus the number of them
    cdef int _count

    cpdef void fetch(self)

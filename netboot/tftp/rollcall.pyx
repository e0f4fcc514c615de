# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""The roll, compiled: ``roll.Roll`` once more in C's terms, for machines that can build.

The rules are told there, and one set of tests holds both to them. What differs is how: a socket
is read without an object being made for it, or an exception when there is nothing. The GIL is
kept meanwhile: no call here waits, and to get it back could take longer than any of them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t

from netboot.tftp import roll

cdef extern from * nogil:
    """
    #include <endian.h>
    #include <string.h>
    static inline uint32_t big32(const char *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
    """
    uint32_t big32(const char *p)

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)

cdef enum:
    LARGEST = 256
    #: The opcode of an ACK, before the number of its block.
    ACK = 4 << 16

cdef int PATIENCE = roll.PATIENCE


cdef class Ready:
    """See ``ready.Ready``."""

    cdef tuple _packets
    cdef Py_ssize_t _at, _end, _taken
    cdef unsigned int _expected
    cdef public double heard

    def __init__(self):
        self._packets = ()

    def load(self, tuple packets not None, Py_ssize_t at):
        """See ``ready.Ready.load``."""
        self._packets, self._at, self._end = packets, at, len(packets)
        if at < self._end:
            self._expected = number_of(<bytes>packets[at - 1])

    def stop(self):
        """See ``ready.Ready.stop``."""
        self._end = 0

    def answer(self, bytes data not None, double now):
        """See ``ready.Ready.answer``."""
        return self._answer(PyBytes_AS_STRING(data), len(data), now)

    def taken(self):
        """See ``ready.Ready.taken``."""
        taken, self._taken = self._taken, 0
        return taken

    cdef inline bytes _answer(self, const char *data, Py_ssize_t size, double now):
        if self._at >= self._end or size != 4 or big32(data) != (ACK | self._expected):
            return None
        packet = <bytes>self._packets[self._at]
        self._at += 1
        self._taken += 1
        self._expected = self._expected + 1 & 0xFFFF
        self.heard = now
        return packet


cdef inline unsigned int number_of(bytes packet) except? 0:
    return big32(PyBytes_AS_STRING(packet)) & 0xFFFF


cdef class Name:
    """See ``roll.Name``."""

    cdef readonly int fd
    cdef readonly object member
    cdef object sock
    cdef Ready ready
    cdef public int credit
    cdef readonly bint called
    cdef readonly long heard
    cdef int misses


cdef class Roll:
    """See ``roll.Roll``."""

    cdef object _hear, _unreachable, _unsent
    cdef list _names
    cdef Py_ssize_t _at

    def __init__(self, hear, unreachable, unsent):
        self._hear = hear
        self._unreachable = unreachable
        self._unsent = unsent
        self._names = []
        self._at = 0

    def __len__(self):
        return len(self._names)

    @staticmethod
    def ready():
        """See ``roll.Roll.ready``."""
        return Ready()

    @staticmethod
    def name(sock, member, Ready ready not None, int credit):
        """See ``roll.Roll.name``."""
        cdef Name name = Name()
        name.fd, name.sock, name.member, name.ready = sock.fileno(), sock, member, ready
        name.credit = credit
        return name

    def add(self, Name name not None):
        """See ``roll.Roll.add``."""
        name.called, name.heard, name.misses = True, 0, 0
        self._names.append(name)

    def remove(self, Name name not None):
        """See ``roll.Roll.remove``."""
        self._remove(name)

    cdef int _remove(self, Name name) except -1:
        cdef Py_ssize_t at = self._names.index(name)
        del self._names[at]
        if at < self._at:
            self._at -= 1
        name.called = False
        return 0

    def ask(self, Name name not None, double now):
        """See ``roll.Roll.ask``."""
        return self._ask(name, now)

    cdef bint _ask(self, Name name, double now) except -1:
        cdef char[LARGEST] come
        cdef ssize_t size = recv(name.fd, come, LARGEST, MSG_DONTWAIT)
        cdef int error
        if size < 0:
            if errno != EAGAIN and errno != EINTR:
                self._unreachable(name.member)
            return False
        packet = name.ready._answer(come, size, now)
        if packet is None:
            self._hear(name.member, PyBytes_FromStringAndSize(come, size), now)
        elif send(name.fd, PyBytes_AS_STRING(packet), PyBytes_GET_SIZE(packet), MSG_DONTWAIT) < 0:
            error = errno
            self._unsent(name.member, OSError(error, "it was not sent"))
        return True

    def call(self, double now, Py_ssize_t most):
        """See ``roll.Roll.call``."""
        cdef list names = self._names, off = []
        cdef Py_ssize_t left, count = 0
        cdef Name name
        for left in range(min(most, len(names))):
            if self._at >= len(names):
                if not names:
                    break
                self._at = 0
            name = <Name>names[self._at]
            self._at += 1
            if self._ask(name, now):
                name.heard += 1
                name.misses = 0
                count += 1
            elif name.called:
                name.misses += 1
                if name.misses > PATIENCE:
                    self._remove(name)
                    off.append(name)
        return count, off

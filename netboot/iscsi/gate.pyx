# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True
"""Where the requests of all sessions come in: one epoll set of their own, read here.

A loop calls for each connection that something has come from, by way of its own objects for it,
which are as many more to wait for when a thousand machines boot at once and none of theirs is in
the cache; and it cannot say whose turn is next. Here the next ones are known, so what they will
touch is fetched while the one before is answered. Only for speed: logins, ends and mistakes are
the loop's, and where nobody could build this it does the reading too. Must never read from who
has been removed, nor hold a connection that has ended.
"""

import os

from cpython.buffer cimport Py_buffer, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from netboot.iscsi.intake cimport Inlet
from netboot.iscsi.nearby cimport Nearby

cdef extern from "<sys/epoll.h>" nogil:
    """
    #define soon(p) __builtin_prefetch(p)
    """
    enum:
        EPOLLIN
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int verb, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds)
    void soon(const void *p)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
    ssize_t recv(int fd, void *buffer, size_t length, int flags)

cdef enum:
    #: Read from so many before the loop may do something else.
    MANY = 64


cdef class Gate:
    """See the stub."""

    cdef readonly int fd
    cdef PyObject **_inlets  #: by the number of their sockets; each is held
    cdef int _room  #: of the table
    cdef epoll_event[MANY] _events

    def __cinit__(self):
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        self.close()
        free(self._inlets)

    def close(self):
        """See the stub."""
        cdef int fd
        cdef PyObject *held
        for fd in range(self._room):
            held, self._inlets[fd] = self._inlets[fd], NULL
            if held != NULL:
                Py_DECREF(<object>held)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def add(self, int fd, Inlet inlet not None):
        """See the stub."""
        cdef epoll_event event
        cdef PyObject *held
        cdef int room = self._room
        if fd < 0 or self.fd < 0:
            return  # who has ended, or after the end, is not read
        if fd >= room:
            while fd >= room:
                room = room * 2 or 1024
            table = <PyObject **>realloc(self._inlets, room * sizeof(PyObject *))
            if table == NULL:
                raise MemoryError
            memset(table + self._room, 0, (room - self._room) * sizeof(PyObject *))
            self._inlets, self._room = table, room
        event.events, event.data.fd = EPOLLIN, fd
        if epoll_ctl(self.fd, EPOLL_CTL_ADD, fd, &event) and epoll_ctl(self.fd, EPOLL_CTL_MOD, fd, &event):
            raise OSError(errno, os.strerror(errno))
        held = self._inlets[fd]
        Py_INCREF(inlet)
        self._inlets[fd] = <PyObject *>inlet
        if held != NULL:
            Py_DECREF(<object>held)

    def remove(self, int fd, Inlet inlet not None):
        """See the stub."""
        cdef epoll_event event
        if 0 <= fd < self._room and self._inlets[fd] == <PyObject *>inlet:
            self._inlets[fd] = NULL
            epoll_ctl(self.fd, EPOLL_CTL_DEL, fd, &event)  # closed already: nothing is left to do
            Py_DECREF(inlet)

    def turn(self):
        """See the stub."""
        cdef int came = 2, total = 0
        # Where several have come, more do meanwhile; the loop's way to sleep and back is long.
        while came > 1 and total < MANY:
            came = epoll_wait(self.fd, self._events, MANY, 0)
            self._round(came)
            total += max(came, 0)
        return total

    def look(self, double seconds):
        """See the stub."""
        cdef int came
        cdef timespec now
        cdef double end
        with nogil:
            clock_gettime(CLOCK_MONOTONIC, &now)
            end = now.tv_sec + now.tv_nsec * 1e-9 + seconds
            while True:
                came = epoll_wait(self.fd, self._events, MANY, 0)
                if came:
                    break
                clock_gettime(CLOCK_MONOTONIC, &now)
                if now.tv_sec + now.tv_nsec * 1e-9 >= end:
                    break
        self._round(came)
        return max(came, 0)

    cdef int _round(self, int came) except -1:
        cdef int n
        for n in range(came):
            if n == 0:
                self._fetch(0)
            if n + 1 < came:
                self._fetch(n + 1)
            if n + 2 < came:
                self._fetch_list(n + 2)
            if n + 3 < came:
                self._fetch_name(n + 3)
            if n + 4 < came:
                soon(self._inlets[self._events[n + 4].data.fd])
            self._read(self._events[n].data.fd)
        return 0

    # What one touches is fetched in steps, each of which knows where the next has to look.

    cdef Nearby _nearby(self, int n):
        cdef PyObject *held = self._inlets[self._events[n].data.fd]
        if held == NULL or type((<Inlet>held)._nearby) is not Nearby:
            return None
        return <Nearby>(<Inlet>held)._nearby

    cdef void _fetch_name(self, int n):
        cdef PyObject *held = self._inlets[self._events[n].data.fd]
        if held != NULL:
            soon(<PyObject *>(<Inlet>held)._nearby)

    cdef void _fetch_list(self, int n):
        cdef Nearby nearby = self._nearby(n)
        if nearby is not None:
            soon(nearby._pieces)
            soon(nearby._pieces + 8)
            soon(nearby._pieces + 16)

    cdef void _fetch(self, int n):
        cdef Nearby nearby = self._nearby(n)
        if nearby is not None:
            nearby.fetch()

    cdef int _read(self, int fd) except -1:
        """Once."""
        cdef PyObject *held = self._inlets[fd]
        cdef Py_buffer room
        cdef ssize_t got
        cdef int error
        cdef Inlet inlet
        if held == NULL:  # one before it ended it
            return 0
        inlet = <Inlet>held
        PyObject_GetBuffer(inlet._room, &room, PyBUF_WRITABLE)
        with nogil:
            got = recv(fd, room.buf, room.len, MSG_DONTWAIT)
            error = errno
        PyBuffer_Release(&room)
        if got > 0:
            return inlet.updated(got)
        if got < 0 and (error == EAGAIN or error == EINTR):
            return 0
        self.remove(fd, inlet)
        inlet.over(0 if got == 0 else error)
        return 0

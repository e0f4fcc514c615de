# cython: language_level=3
"""What a session's next request will touch, fetched into the cache before it is touched.

A thousand machines that boot at once have more objects here than a cache holds. When the next
request of one comes, its own are in memory only, and as one leads to the other, the processor
waits for each alone: a sixth of all its time in such a storm. But where they lie is known at the
login. So ``gate`` asks for all of them together, before it is their turn, and they arrive
meanwhile. Only for speed: no object is kept alive by it, and what lies at an address that is
nobody's any more is fetched in vain, which a processor does without a fault. Must never read or
write by an address that it keeps.

There is no such thing in Python: where nobody could build this, nothing is fetched.
"""

from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    /* The attributes of an object without __slots__ are apart from it, each Python puts the
       pointer elsewhere (3.11, 3.12) or them behind the object (3.13). */
    #if PY_VERSION_HEX < 0x030C0000
    #define VALUES(o) (PyType_HasFeature(Py_TYPE(o), Py_TPFLAGS_MANAGED_DICT) ? ((uintptr_t *)(o))[-4] : 0)
    #elif PY_VERSION_HEX < 0x030D0000
    #define VALUES(o) (PyType_HasFeature(Py_TYPE(o), Py_TPFLAGS_MANAGED_DICT) ? ((uintptr_t *)(o))[-3] : 0)
    #else
    #define VALUES(o) ((uintptr_t)(o) + Py_TYPE(o)->tp_basicsize)
    #endif
    #define SIZE(o) (Py_TYPE(o)->tp_basicsize)
    #define KEYS(o) ((uintptr_t)((PyDictObject *)(o))->ma_keys)
    #define fetched(p) __builtin_prefetch((const void *)(p))
    """
    uintptr_t VALUES(object o)
    uintptr_t SIZE(object o)
    uintptr_t KEYS(object o)
    void fetched(uintptr_t p) nogil

cdef enum:
    #: Bytes of a line of the cache, and at most so many lines in one piece.
    LINE = 64
    LONGEST = LINE - 1
    #: Bytes of an object's attributes, and of a small dict's table, that are worth it.
    ATTRIBUTES = 232
    TABLE = 192


cdef class Nearby:
    """The lines of the cache that some objects lie in; ``len`` is how many."""

    def __cinit__(self, *objects):
        cdef uintptr_t at
        lines = set()
        for each in objects:
            _add(lines, <uintptr_t><void *>each, SIZE(each))
            at = VALUES(each)
            if at:
                _add(lines, at & ~7ull, ATTRIBUTES)
            if type(each) is dict:
                _add(lines, KEYS(each), TABLE)
        pieces = []
        for line in sorted(lines):
            if pieces and line == pieces[-1][0] + pieces[-1][1] and pieces[-1][1] < LONGEST:
                pieces[-1][1] += 1
            else:
                pieces.append([line, 1])
        self._pieces = <uintptr_t *>malloc((len(pieces) + 1) * sizeof(uintptr_t))
        if self._pieces == NULL:
            raise MemoryError
        for line, count in pieces:
            self._pieces[self._count] = <uintptr_t>line * LINE + <uintptr_t>count
            self._count += 1

    def __dealloc__(self):
        free(self._pieces)

    def __len__(self):
        cdef int n
        return sum([self._pieces[n] & LONGEST for n in range(self._count)])

    cpdef void fetch(self):
        """Ask for all of them; does not wait."""
        cdef uintptr_t line, end
        cdef int n
        for n in range(self._count):
            line = self._pieces[n] & ~<uintptr_t>LONGEST
            end = line + (self._pieces[n] & LONGEST) * LINE
            while line < end:
                fetched(line)
                line += LINE


cdef _add(set lines, uintptr_t begin, uintptr_t size):
    for line in range(begin // LINE, (begin + size - 1) // LINE + 1):
        lines.add(line)

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""The express lane, compiled: ``express.Lane`` once more in C's terms, for machines that can build.

The rules are told there, and a test holds both to the same answers. What differs is how: answers
are one buffer made at the end, and what is in memory is looked for by the disk's ``Sight`` without
asking it, so that no object is made for a read. Must never keep a buffer of the disk while Python
runs (``Overlay.resize`` may, in another thread), nor touch what the sight does not vouch for.
"""

from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport off_t
from posix.unistd cimport pwrite

from netboot.iscsi import express
from netboot.iscsi.session import READING_LIMIT as _READING_LIMIT

cdef extern from * nogil:
    """
    #include <endian.h>
    static inline uint64_t big64(const char *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
    static inline uint32_t big32(const char *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
    static inline void put64(char *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }
    static inline void put32(char *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
    #define soon(p) __builtin_prefetch(p)
    """
    uint64_t big64(const char *p)
    uint32_t big32(const char *p)
    void put64(char *p, uint64_t v)
    void put32(char *p, uint32_t v)
    void soon(const void *p)

cdef enum:
    BHS = 48
    #: Answers of one run: a run that is longer goes on in the next.
    MANY = 256
    SUB_BITS = 12
    REGION_BITS = 20
    GOLDEN = 0
    DATA = 1
    #: Bytes of one pwrite (``raw.PIECE``).
    PIECE = 16384

cdef:
    uint32_t NO_TAG = 0xFFFFFFFF
    uint32_t LATE = express._LATE
    uint64_t ENOUGH = express.ENOUGH
    uint64_t DATA_IN_GOOD = express._DATA_IN_GOOD
    uint64_t RESPONSE_GOOD = express._RESPONSE_GOOD
    uint64_t READING_LIMIT = _READING_LIMIT

cdef struct Answer:
    const char *data  #: NULL: a response without data
    uint32_t length
    uint32_t itt


cdef bint all_are(uint8_t cell, const Py_buffer *cells, uint64_t offset, uint64_t length):
    """Whether a range has cells of one kind only."""
    cdef const uint8_t *each = <const uint8_t *>cells.buf
    cdef uint64_t at, end = (offset + length + (1 << SUB_BITS) - 1) >> SUB_BITS
    if end > <uint64_t>cells.len:
        return False
    for at in range(offset >> SUB_BITS, end):
        if each[at] != cell:
            return False
    return True


cdef bint all_own(object cells, uint64_t offset, uint64_t length) except -1:
    """Whether a range has blocks of the disk's own everywhere."""
    cdef Py_buffer held
    cdef bint found
    PyObject_GetBuffer(cells, &held, PyBUF_SIMPLE)
    found = all_are(DATA, &held, offset, length)
    PyBuffer_Release(&held)
    return found


cdef class Looking:
    """A disk's sight, while its buffers are held: image, known, and cells if there are any."""

    cdef int hold(self, object sight) except -1:
        """Hold all; whoever calls lets go of those that were held when one cannot be."""
        cdef timespec time
        for each in (sight.image, sight.known, sight.cells):
            if each is not None:
                PyObject_GetBuffer(each, &self.buffers[self.held], PyBUF_SIMPLE)
                self.held += 1
        clock_gettime(CLOCK_MONOTONIC, &time)
        self.now = time.tv_sec + time.tv_nsec * 1e-9
        return 0

    cdef void let_go(self):
        while self.held:
            self.held -= 1
            PyBuffer_Release(&self.buffers[self.held])

    cdef const char *find(self, uint64_t offset, uint64_t length):
        """A range that is all of the image and counts as in memory; NULL: ask the disk."""
        cdef uint64_t end = offset + length, at
        cdef const double *known = <const double *>self.buffers[1].buf
        if end > <uint64_t>self.buffers[0].len:
            return NULL
        if self.held == 3 and not all_are(GOLDEN, &self.buffers[2], offset, length):
            return NULL
        for at in range(offset >> REGION_BITS, ((end - 1) >> REGION_BITS) + 1):
            if known[at] <= self.now:
                return NULL
        return <const char *>self.buffers[0].buf + offset


cdef class Lane:
    """See ``express.Lane``."""

    def __init__(self, engine, views, volumes, first_read):
        self._first_read = first_read
        self._engine = engine
        self._session = session = engine.session
        self._answers = engine.answers
        agreed = session.parameters
        self._unasked = agreed.first_burst if agreed.immediate_data else 0
        self._views = views
        self._volumes = volumes
        self._looking = Looking()

    def run(self, data not None, end, set tags not None):
        """See ``express.Lane.run``."""
        cdef Py_buffer come
        PyObject_GetBuffer(data, &come, PyBUF_SIMPLE)
        try:
            end = min(<uint64_t>end, <uint64_t>come.len)
            return self.take(data, 0, <const char *>come.buf, end, tags)
        finally:
            PyBuffer_Release(&come)

    cdef uint64_t take(self, object data, uint64_t begin, const char *come, uint64_t end, set tags) except? 0:
        """The same from ``data[begin:]``, which lies at ``come`` and has ``end`` bytes."""
        try:
            return self._take(data, begin, come, end, tags)
        finally:
            self._looking.let_go()

    cdef uint64_t _take(self, object data, uint64_t begin, const char *come, uint64_t end, set tags) except? 0:
        cdef object engine = self._engine, session = self._session, answers = self._answers
        cdef Looking looking = self._looking
        cdef Answer[MANY] made
        cdef Answer *answer
        cdef Answer *other
        cdef Py_buffer view_of
        cdef const char *p = come
        cdef const char *source
        cdef char *out
        cdef uint64_t at = 0, size = 0, written = 0, total = 0, head, lun, length = 0
        cdef uint64_t block, unit_blocks, max_blocks, chunk, bloom = 0, first_sn, first_stat, most
        cdef uint64_t unasked = 0, start, this = <uint64_t>-1
        cdef uint32_t exp, stat, itt, turn, edtl, lba, tail, count = 0, reads = 0
        cdef uint16_t code
        cdef int n = 0, fd
        cdef off_t place
        cdef ssize_t wrote, found_length
        cdef bint fits = False, asked = False, seen, known_tags = bool(tags)
        if end < BHS or engine.tail or engine.held or engine.ended or session.early:
            return 0
        if <uint64_t>session.reading > READING_LIMIT:
            return 0
        first_sn, most, first_stat = session.exp_cmd_sn, session.max_cmd_sn, answers.stat_sn
        if not first_sn <= most < LATE or first_stat >= LATE:
            return 0
        lun = big64(p + 8)
        view, volume = self._views.get(lun), self._volumes.get(lun)
        if view is None or volume is None or not view.clear or not volume.tasks.clear:
            return 0
        unit, disk, pending = view.unit, volume.disk, session.tasks
        block, unit_blocks, max_blocks = unit.block_size, unit.blocks, unit.max_blocks
        chunk = answers.chunk
        sight = disk.sight
        own = None if sight is None else sight.own
        kept = None
        exp, stat = first_sn, first_stat
        if pending:
            known_tags = True
        while True:
            head, itt, edtl, turn = big64(p), big32(p + 16), big32(p + 20), big32(p + 24)
            code = <uint16_t>(big32(p + 32) >> 16)
            lba = big32(p + 34)
            tail = big32(p + 38)
            if tail != this:
                count = tail >> 8 & 0xFFFF
                if tail & 0xFF or count == 0 or count > max_blocks:
                    break
                this = tail
                length = count * block
                fits = length <= chunk
            if (
                turn != exp
                or edtl != length
                or big64(p + 8) != lun
                or lba + <uint64_t>count > unit_blocks
                or itt == NO_TAG
            ):
                break
            if bloom >> (itt & 63) & 1:
                seen = False
                for other in made[:n]:
                    if other.itt == itt:
                        seen = True
                        break
                if seen:
                    break
            if known_tags and (itt in tags or itt in pending):
                break
            bloom |= <uint64_t>1 << (itt & 63)
            answer = &made[n]
            answer.itt = itt
            if code == 0x2800 and fits and (head == 0x01C0ull << 48 or head == 0x01C1ull << 48):
                source = NULL
                if sight is not None and not looking.held:
                    try:
                        looking.hold(sight)
                    except ValueError:  # somebody has closed the image
                        looking.let_go()
                        sight = None
                if looking.held:
                    source = looking.find(lba * block, length)
                if source == NULL:
                    looking.let_go()
                    found = disk.at_once(lba * block, length)
                    if found is None:
                        break
                    PyObject_GetBuffer(found, &view_of, PyBUF_SIMPLE)
                    source, found_length = <const char *>view_of.buf, view_of.len
                    PyBuffer_Release(&view_of)
                    if found_length != <ssize_t>length:
                        break
                    if kept is None:
                        kept = []
                    kept.append(found)
                else:
                    soon(source)
                    soon(source + 64)
                answer.data, answer.length = source, length
                total += length
                size += length
                reads += 1
                at += BHS
            elif code == 0x2A00 and head >> 49 == 0x01A0 >> 1 and at + BHS + length <= end:
                if not asked:
                    unasked = self._unasked if unit.write_cache and not unit.protected else 0
                    asked = True
                if head & 0xFFFFFFFFFFFFull != length or length > unasked:
                    break
                start = at + BHS
                looking.let_go()
                if (
                    own is not None
                    and disk.sight is sight  # it has not failed meanwhile, in another thread
                    and length <= PIECE
                    and own.intent.meant is None
                    and all_own(sight.cells, lba * block, length)
                ):
                    fd, place, source = own.fd, lba * block, come + start
                    with nogil:
                        wrote = pwrite(fd, source, length, place)
                    own.unsynced = True
                    if wrote != <ssize_t>length:
                        break  # done once more, and answered for, by those who know faults
                else:
                    try:
                        disk.write(lba * block, data[begin + start : begin + start + length])
                    except Exception:
                        break  # likewise
                answer.data, answer.length = NULL, 0
                written += length
                at = start + length
            else:
                break
            n += 1
            exp += 1
            total += BHS
            if at == end:
                break
            if end - at < BHS or size > ENOUGH or n == MANY:
                break
            p = come + at
        if not n:
            return 0
        if at != end:
            for other in made[:n]:
                tags.add(other.itt)
        answered = PyBytes_FromStringAndSize(NULL, total)
        out = PyBytes_AS_STRING(answered)
        exp = first_sn
        for answer in made[:n]:
            exp += 1
            most += 1
            if answer.data != NULL:
                put64(out, DATA_IN_GOOD | answer.length)
                put32(out + 20, NO_TAG)
            else:
                put64(out, RESPONSE_GOOD)
                put32(out + 20, 0)
            memset(out + 8, 0, 8)
            put32(out + 16, answer.itt)
            put32(out + 24, stat)
            put32(out + 28, exp)
            put32(out + 32, most)
            memset(out + 36, 0, 12)
            out += BHS
            stat += 1
            if answer.data != NULL:
                memcpy(out, answer.data, answer.length)
                out += answer.length
        answers.out.append(answered)
        session.exp_cmd_sn, session.max_cmd_sn, answers.stat_sn = exp, most, stat
        tally = volume.tally
        if reads:
            tally.reads += reads
            tally.read_bytes += size
            if self._first_read is not None:
                self._first_read()
                self._first_read = None
        if written:
            tally.writes += n - reads
            tally.write_bytes += written
        return at

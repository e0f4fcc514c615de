"""Memory that is there when it is timed.

A virtual machine may give memory that nobody uses back to its host (free page reporting), every
two seconds, which fetches it anew, page by page, when it is wanted: 12 us for 4 KiB instead of 1.4
were measured so. Whoever measures what a server does with fresh pages would measure that.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

#: Of so many pages one is kept: only whole blocks of 512 pages are given back, and the kernel hands
#: out what is left of a broken block before it breaks another.
KEPT = 64


@contextmanager
def at_hand(size: int) -> Iterator[None]:
    """Meanwhile ``size`` bytes of free memory (0: none) have been touched and stay with us."""
    if not size:
        yield
        return
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[:: mmap.PAGESIZE] = bytes(-(-size // mmap.PAGESIZE))
        piece = KEPT * mmap.PAGESIZE
        for at in range(0, size - piece + 1, piece):
            memory.madvise(mmap.MADV_DONTNEED, at + mmap.PAGESIZE, piece - mmap.PAGESIZE)
        yield

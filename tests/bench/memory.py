"""Memory that is there when it is timed.

A virtual machine may give memory that nobody has used for two seconds back to its host (free page
reporting), which fetches it anew, page by page, when it is wanted: 12 us for 4 KiB instead of 1.4
were measured so. Whoever measures what a server does with fresh pages would measure that.
"""

import mmap


def at_hand(size: int) -> None:
    """Touch ``size`` bytes of free memory and give them back: the kernel hands out first what was
    freed last."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, size, flags=flags).close()

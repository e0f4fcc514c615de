"""What is touched is free again, but for one page of many, which break it up."""

import resource
from pathlib import Path

from tests.bench.memory import KEPT, at_hand


def resident() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_memory_is_touched_and_free_again() -> None:
    with at_hand(1 << 20):
        pass
    highest, before = peak(), resident()
    size = max(64 << 20, highest - before + (64 << 20))
    with at_hand(size):
        assert peak() >= highest + (32 << 20)
        # Of each 64 pages one stays, so that no 512 in a row are free.
        assert size // KEPT // 2 < resident() - before < size // KEPT + (16 << 20)
    assert resident() - before < size // KEPT + (16 << 20)


def test_who_wants_none_touches_none() -> None:
    before = resident()
    with at_hand(0):
        assert resident() - before < 1 << 20

"""What is touched is given back."""

import resource
from pathlib import Path

from tests.bench.memory import at_hand


def resident() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_memory_is_touched_and_given_back() -> None:
    size = 64 << 20
    at_hand(1 << 20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    before = resident()
    at_hand(max(size, peak - before + size))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 >= peak + size // 2
    assert resident() < before + size // 2

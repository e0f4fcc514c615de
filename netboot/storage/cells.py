"""What a range of the disk is made of: runs of like cells (see ``qcow2``), in bytes of the disk."""

import re
from collections.abc import Iterable
from typing import Final

from netboot.storage.qcow2 import SUB, SUB_BITS

_MASK = SUB - 1

READ_RUNS: Final = re.compile(rb"\x00+|\x01+|[\x02\x03]+")  #: by where a read goes
ALLOCATION_RUNS: Final = re.compile(rb"[\x00-\x02]+|\x03+")
HOLE_RUNS: Final = re.compile(rb"\x03+")
DATA_RUNS: Final = re.compile(rb"\x01+")
CHANGED_RUNS: Final = re.compile(rb"[^\x00]+")


def runs(
    cells: bytes, offset: int, length: int, pattern: re.Pattern[bytes] = READ_RUNS
) -> Iterable[tuple[int, int, int]]:
    """The range, whose cells these are, as (cell, begin, end) by runs of like cells."""
    base = offset & ~_MASK
    end = offset + length
    for run in pattern.finditer(cells):
        begin = max(base + (run.start() << SUB_BITS), offset)
        yield cells[run.start()], begin, min(base + (run.end() << SUB_BITS), end)

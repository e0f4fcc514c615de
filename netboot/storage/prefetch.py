"""What a boot needs of a golden image: learned by the way, read ahead for the boots that follow.

Which regions of 1 MiB the first boots from an image ask for, and in which order, ``Golden`` notes
where it looks at a region for the first time, so that no read pays for it. It is kept as
``<image>.boot`` beside the image. When a machine then asks for its address, ``read_ahead`` fetches
what is not in memory while the firmware is still on its way to its first block.

A hint and no more: a file that is missing, damaged or of another image teaches nothing, and
whatever fails leaves a slower boot. Must never have more than ``AHEAD`` regions under way, so that
whoever reads meanwhile finds a short queue. (An idle I/O priority would do harm: who needs a page
that is on its way waits at that priority too.)
"""

import contextlib
import json
import logging
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from netboot.storage import residency
from netboot.storage.raw import MOST_NEEDED, REGION_BITS

log = logging.getLogger(__name__)

REGION: Final = 1 << REGION_BITS
#: Regions under way at a time.
AHEAD: Final = 8
#: Who needed fewer did not boot.
FEW: Final = 8
#: Bytes of a file of ours at most.
_LONGEST: Final = 16 * MOST_NEEDED


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of reading ahead, in bytes."""

    known: int = 0  #: of what a boot needs
    cold: int = 0  #: of those, what was not in memory and is now


def learned_path(golden: str) -> Path:
    """Where it is kept what a boot needs of a golden file."""
    return Path(golden + ".boot")


def keep(golden: str, size: int, regions: Sequence[int]) -> None:
    """Keep what a boot needed of ``size`` bytes, whole or not at all, where that can be done.

    A boot that was cut short teaches nothing: what needed more is kept.
    """
    if len(regions) < max(FEW, len(learned(golden, size))):
        return
    path = learned_path(golden)
    new = path.with_name(f"{path.name}.{threading.get_native_id()}.new")
    try:
        new.write_text(json.dumps({"size": size, "regions": list(regions)}))
        new.rename(path)
    except OSError as problem:
        log.debug("%s: not kept: %s", path, problem.strerror)
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
    else:
        log.info("%s: a boot needs %d MiB of it", golden, len(regions) * REGION >> 20)


def learned(golden: str, size: int) -> tuple[int, ...]:
    """The regions that a boot needs, in order; none when nobody knows."""
    try:
        with learned_path(golden).open("rb") as file:
            found = json.loads(file.read(_LONGEST))
        regions = found["regions"]
        most = -(-size // REGION)
        if found["size"] != size or not isinstance(regions, list) or len(regions) > MOST_NEEDED:
            return ()
        if any(type(region) is not int or not 0 <= region < most for region in regions):
            return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(dict.fromkeys(regions))


def read_ahead(golden: str, stop: Callable[[], bool] = lambda: False) -> Fetched:
    """Fetch what a boot needs and is not in memory; returns when it is, or when ``stop`` says so.

    Waits for the disk: call it in a worker thread. Raises nothing.
    """
    try:
        fd = os.open(golden, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        log.debug("%s: not read ahead: %s", golden, problem.strerror)
        return Fetched()
    try:
        size = os.fstat(fd).st_size
        regions = learned(golden, size)
        return _fetch(fd, size, regions, stop) if regions else Fetched()
    except (OSError, ValueError) as problem:
        log.debug("%s: not read ahead: %s", golden, problem)
        return Fetched()
    finally:
        os.close(fd)


def _fetch(fd: int, size: int, regions: Sequence[int], stop: Callable[[], bool]) -> Fetched:
    known = cold = 0
    under_way: list[int] = []  #: where each ends
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapping:
        address = residency.address_of(mapping)
        honest = residency.mincore_is_honest(fd)
        for region in regions:
            begin = region << REGION_BITS
            length = min(REGION, size - begin)
            known += length
            if stop() or (honest and residency.mapped(address, begin, length)):
                continue
            os.posix_fadvise(fd, begin, length, os.POSIX_FADV_WILLNEED)
            cold += length
            under_way.append(begin + length)
            if len(under_way) > AHEAD:
                os.pread(fd, 1, under_way.pop(0) - 1)  # waits for it
        for end in under_way if not stop() else ():
            os.pread(fd, 1, end - 1)
    return Fetched(known, cold)

"""What a SCSI command wants of the world: the only words between SCSI and storage.

``scsi`` decides and never touches a disk; the iSCSI server's edge matches on these values and
calls the disk's verbs. Offsets and lengths are bytes. A CHECK CONDITION is a value, not an
exception.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from netboot.scsi.sense import Sense


class Status(IntEnum):
    """Status codes (SAM-5 section 5.3.1)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


@dataclass(slots=True)
class Reply:
    """Answer at once: ``data`` is already cut to the command's allocation length."""

    data: bytes = b""
    status: Status = Status.GOOD


@dataclass(slots=True)
class Read:
    """Send ``length`` bytes of the disk from ``offset``."""

    offset: int
    length: int


@dataclass(slots=True)
class Write:
    """Take ``length`` bytes from the initiator and write them at ``offset``."""

    offset: int
    length: int
    fua: bool = False  #: answer only when these bytes are on stable storage


@dataclass(slots=True)
class Collect:
    """Take ``length`` bytes of parameter data, then ask ``then`` what to do with them."""

    length: int
    then: "Callable[[bytes], Action]"


@dataclass(slots=True)
class Compare:
    """Compare the disk at ``offset`` with ``data``.

    ``then`` is None: GOOD when equal, else MISCOMPARE with the first differing offset. With
    ``then`` it says what follows an equal comparison (COMPARE AND WRITE).
    """

    offset: int
    data: bytes
    then: "Action | None" = None


@dataclass(slots=True)
class Store:
    """Write ``data``, which came as parameter data, at ``offset``."""

    offset: int
    data: bytes
    fua: bool = False


@dataclass(slots=True)
class Atomic:
    """Write ``data`` so that all or nothing of it is there, also after a power cut."""

    offset: int
    data: bytes
    fua: bool = False


@dataclass(slots=True)
class Fill:
    """Repeat ``pattern`` (one logical block, not all zero) from ``offset`` for ``length``."""

    offset: int
    length: int
    pattern: bytes
    fua: bool = False


@dataclass(slots=True)
class Zero:
    """Make the range read as zeros; with ``unmap`` the space may be given back."""

    offset: int
    length: int
    unmap: bool = False
    fua: bool = False


@dataclass(slots=True)
class Merge:
    """OR ``data``, which came as parameter data, into the disk at ``offset`` (ORWRITE)."""

    offset: int
    data: bytes
    fua: bool = False


@dataclass(slots=True)
class Verify:
    """Read the range, send nothing; GOOD when all of it could be read."""

    offset: int
    length: int


@dataclass(slots=True)
class Unmap:
    """Deallocate ranges of (offset, length); they read as zeros afterwards (LBPRZ)."""

    ranges: tuple[tuple[int, int], ...]
    fua: bool = False


@dataclass(slots=True)
class Abort:
    """Abort every task that ``nexuses`` have on this unit, without an answer; then GOOD.

    PREEMPT AND ABORT; the members are ``unit.Nexus`` objects, compared by identity.
    """

    nexuses: tuple[object, ...]


@dataclass(slots=True)
class Prefetch:
    """The range will be wanted soon; GOOD or CONDITION MET, nothing is sent."""

    offset: int
    length: int


@dataclass(slots=True)
class Extents:
    """Ask the disk which parts from ``offset`` are allocated; ``then`` makes the answer.

    It is called with rows of (offset, length, allocated), in order, at most ``limit`` of them.
    """

    offset: int
    length: int
    limit: int
    then: "Callable[[list[tuple[int, int, bool]]], Action]"


@dataclass(slots=True)
class Space:
    """Ask what the disk takes, and what there is for more; ``then`` makes the answer.

    It is called with both, in bytes. Only of a unit that is ``measured``.
    """

    then: "Callable[[int, int], Action]"


@dataclass(slots=True)
class Flush:
    """Answer when all writes answered so far are on stable storage (``immediate``: at once)."""

    immediate: bool = False


@dataclass(slots=True)
class Sanitize:
    """Make all ``size`` bytes unreadable: overwrite them once for each pattern, or unmap them.

    First every other task on the unit is ended with ``begins``. It goes on when its own task is
    aborted. ``progress`` is told the bytes that are done, of how many. ``then`` is told whether
    all was done and is on stable storage, and says what follows; with ``immediate`` the answer
    is GOOD, and at once.
    """

    size: int
    patterns: tuple[bytes, ...]  #: each one logical block; none: unmap
    immediate: bool
    then: "Callable[[bool], Action]"
    progress: Callable[[int, int], None] = lambda done, of: None
    begins: Sense | None = None


@dataclass(slots=True)
class Amend:
    """Change what outlives a power cut, when no other such change is under way.

    ``change`` is called when it is its turn, and says what follows: a ``Keep`` or any Action.
    """

    change: "Callable[[], Action]"


@dataclass(slots=True)
class Keep:
    """Only out of ``Amend``: bring ``content`` to stable storage in place of what was kept.

    ``then`` is told whether that was done, and says what follows. Empty: nothing is kept.
    """

    content: bytes
    then: "Callable[[bool], Action]"


@dataclass(slots=True)
class Copy:
    """Copy between units of this target, in order.

    ``segments`` are rows of (source LUN, offset, destination LUN, offset, length). ``then`` is
    told how many were done in full and whether a fault ended it, and says what to answer.
    """

    segments: tuple[tuple[int, int, int, int, int], ...]
    then: "Callable[[int, bool], Action]"


@dataclass(slots=True)
class Check:
    """CHECK CONDITION with this sense data."""

    sense: Sense


Action: TypeAlias = (
    Reply
    | Read
    | Write
    | Collect
    | Compare
    | Store
    | Fill
    | Zero
    | Merge
    | Verify
    | Unmap
    | Abort
    | Prefetch
    | Extents
    | Space
    | Flush
    | Atomic
    | Sanitize
    | Amend
    | Keep
    | Copy
    | Check
)

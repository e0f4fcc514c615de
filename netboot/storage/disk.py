"""The verbs that every disk understands, and the error that each of them may raise.

A disk is bytes from 0 to ``size``; offsets and lengths are bytes and always whole multiples of
512 inside the disk: the caller has checked. Nothing in ``storage`` awaits: a caller that must
not wait asks ``resident`` first, and takes the slow verbs (a cold read, ``flush``) to a worker
thread. So every disk allows ``read``, ``flush``, ``intend``, ``settle`` and ``resize`` in a
worker while the owner's thread calls any verb; ``write``, ``zero`` and ``unmap`` are the owner's
alone.
"""

import mmap
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class Fault(StrEnum):
    """What kind of thing went wrong below a verb; SCSI sense is chosen by it."""

    MEDIUM = "medium"  #: the file system answered EIO, or the golden file shrank
    SPACE = "space"  #: ENOSPC, EDQUOT or the overlay's own quota
    FAILED = "failed"  #: an earlier flush failed; this disk answers nothing any more
    READ_ONLY = "read-only"


class DiskError(Exception):
    """A verb could not be done; ``fault`` says of what kind, the text says where."""

    def __init__(self, fault: Fault, text: str, offset: int = 0) -> None:
        super().__init__(text)
        self.fault = fault
        self.offset = offset


class Extent(NamedTuple):
    """A run of bytes that is all allocated, or all not (reads as zeros, LBPRZ)."""

    offset: int
    length: int
    allocated: bool


class Memory(Protocol):
    """A small text beside a disk's bytes, replaced as a whole (see ``notes``); in a worker."""

    @property
    def born(self) -> int:
        """What tells its disk from all that had its name before, or will have."""

    @property
    def lasting(self) -> bool:
        """Whether it outlives a power cut, as its disk does, and not only a kill."""

    def put(self, text: bytes) -> None:
        """Return when ``text`` is in place of the last one, safe as ``lasting`` says; DiskError."""

    def left(self) -> bytes:
        """The text that was put last; empty when there is none. DiskError says it is damaged."""


class Meant(Protocol):
    """What is about to be written as a whole or not at all (see ``intent``)."""

    meant: tuple[int, int] | None


@dataclass(slots=True)
class Own:
    """The file with a disk's own blocks, for who writes over such as are there already."""

    fd: int
    intent: Meant  #: while something is meant, ``write`` must be asked
    unsynced: bool = True  #: something was written since the last sync began: set after a write


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a disk's blocks lie, for the compiled lane, which looks for itself and does by it what
    ``at_once`` and ``write`` do: for each 4 KiB its cell (see ``qcow2``), and for each MiB of
    ``image`` in ``known`` until when (``time.monotonic``) it counts as in memory.
    """

    image: memoryview
    known: "array[float]"
    cells: mmap.mmap | None = None  #: None: all are the image's
    own: Own | None = None  #: None: nothing is written


class Disk(Protocol):
    """Bytes that can be read and perhaps written."""

    @property
    def size(self) -> int:
        """Bytes, a multiple of 512."""

    @property
    def read_only(self) -> bool:
        """Whether the changing verbs raise ``DiskError(Fault.READ_ONLY)``."""

    @property
    def notes(self) -> Memory | None:
        """What the disk can remember but its bytes; None: nothing."""

    @property
    def sight(self) -> Sight | None:
        """What there is to see of it now; None: ``at_once`` must be asked."""

    def space(self) -> tuple[int, int] | None:
        """Bytes it takes, and those there are for more; None: it takes none. May wait."""

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        """Buffers that together are the range; slices of a mapping where that saves a copy."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data``; durable after the next ``flush``."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, and keep it allocated."""

    def unmap(self, offset: int, length: int) -> None:
        """Make the range read as zeros and give its space back when that is safe."""

    def flush(self) -> None:
        """Return when every earlier write is on stable storage. Never lies."""

    def intend(self, offset: int, data: Buffer) -> None:
        """Put down what is about to be written, so that it is whole even if power is cut.

        ``write`` and ``flush`` it next, then ``settle``; one at a time. What others write to the
        same blocks after that ``write`` is not undone by it. May wait for the disk.
        """

    def settle(self) -> None:
        """What was intended is done and flushed, or will not be done. May wait for the disk."""

    def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """The range as runs, in order, without gaps."""

    def resident(self, offset: int, length: int) -> bool:
        """Whether ``read`` of the range would be answered from memory."""

    def at_once(self, offset: int, length: int) -> Buffer | None:
        """``resident`` and ``read`` in one for the data path: the range as one buffer.

        None: not without waiting, not in one piece, or not so cheaply; ask the other two.
        """

    def resize(self, size: int) -> None:
        """Become larger: what is new reads as zeros. Durable on return; may wait for the disk.

        ImageError, and nothing has changed, for fewer bytes, or where there is no room.
        """

    def close(self) -> None:
        """Give back files and locks; unflushed writes are flushed first. Twice is harmless."""

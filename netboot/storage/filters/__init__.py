"""Disks around a disk: each passes the verbs on, and adds one thing.

``stats`` counts, ``delay`` waits, ``fault`` fails as it is told to, ``null`` has no disk inside
at all. They are products for the tests of others, and for watching a disk that misbehaves.
"""

from collections.abc import Sequence

from netboot.storage.disk import Buffer, Disk, Extent, Memory, Sight


class Filter:
    """Passes every verb on; a filter overrides the ones that it is about."""

    def __init__(self, inner: Disk) -> None:
        self.inner = inner

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def read_only(self) -> bool:
        return self.inner.read_only

    @property
    def notes(self) -> Memory | None:
        return self.inner.notes

    @property
    def sight(self) -> Sight | None:
        """None, for the same reason as ``at_once``."""
        return None

    def space(self) -> tuple[int, int] | None:
        return self.inner.space()

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        return self.inner.read(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        self.inner.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.inner.zero(offset, length)

    def unmap(self, offset: int, length: int) -> None:
        self.inner.unmap(offset, length)

    def flush(self) -> None:
        self.inner.flush()

    def intend(self, offset: int, data: Buffer) -> None:
        self.inner.intend(offset, data)

    def settle(self) -> None:
        self.inner.settle()

    def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return self.inner.extents(offset, length)

    def resident(self, offset: int, length: int) -> bool:
        return self.inner.resident(offset, length)

    def at_once(self, offset: int, length: int) -> Buffer | None:
        """None, so that no filter is ever passed by: its ``resident`` and ``read`` are asked."""
        return None

    def resize(self, size: int) -> None:
        self.inner.resize(size)

    def close(self) -> None:
        self.inner.close()

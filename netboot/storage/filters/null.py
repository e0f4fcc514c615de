"""A disk of zeros that forgets what is written: what remains is the cost of everything else."""

from collections.abc import Sequence

from netboot.storage.disk import Buffer, Extent
from netboot.storage.padded import zeros


class Null:
    """``size`` bytes that read as zeros, always at once."""

    sight = None

    def __init__(self, size: int, *, read_only: bool = False) -> None:
        self.size = size
        self.read_only = read_only
        self.notes = None

    def space(self) -> None:
        """Nothing is taken."""

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        return zeros(length)

    def write(self, offset: int, data: Buffer) -> None:
        """Forget it."""

    def zero(self, offset: int, length: int) -> None:
        """Nothing to do: it is zeros."""

    def unmap(self, offset: int, length: int) -> None:
        """Nothing to give back."""

    def flush(self) -> None:
        """Nothing is kept."""

    def intend(self, offset: int, data: Buffer) -> None:
        """Nothing is kept, and so nothing in part."""

    def settle(self) -> None:
        """Nothing is kept."""

    def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return (Extent(offset, length, False),)

    def resident(self, offset: int, length: int) -> bool:
        return True

    def at_once(self, offset: int, length: int) -> Buffer | None:
        return bytes(length)

    def resize(self, size: int) -> None:
        self.size = size

    def close(self) -> None:
        """Nothing to give back."""

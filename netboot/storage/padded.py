"""A disk that goes on as zeros where the one below it ends: a golden image below a larger disk."""

from collections.abc import Sequence

from netboot.storage.disk import Buffer, Disk
from netboot.storage.filters import Filter

_ZEROS = bytes(1 << 20)


def zeros(length: int) -> list[Buffer]:
    """``length`` zero bytes, in pieces of a shared buffer."""
    whole, rest = divmod(length, len(_ZEROS))
    pieces: list[Buffer] = [_ZEROS] * whole
    if rest:
        pieces.append(memoryview(_ZEROS)[:rest])
    return pieces


class Padded(Filter):
    """``inner``, and zeros up to ``size``. For reading alone."""

    def __init__(self, inner: Disk, size: int) -> None:
        super().__init__(inner)
        self._size = size
        self._end = inner.size

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        below = min(length, self._end - offset)
        if below == length:
            return self.inner.read(offset, length)
        if below <= 0:
            return zeros(length)
        return [*self.inner.read(offset, below), *zeros(length - below)]

    def at_once(self, offset: int, length: int) -> Buffer | None:
        return self.inner.at_once(offset, length) if offset + length <= self._end else None

    def resident(self, offset: int, length: int) -> bool:
        below = min(length, self._end - offset)
        return below <= 0 or self.inner.resident(offset, below)

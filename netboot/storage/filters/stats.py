"""Counts what passes: calls, bytes and errors of each verb."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from netboot.storage.disk import Buffer, Disk, DiskError
from netboot.storage.filters import Filter

T = TypeVar("T")


class Stats(Filter):
    """``calls``, ``bytes`` and ``errors`` by the name of the verb; never negative, never reset."""

    def __init__(self, inner: Disk) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def _count(self, verb: str, length: int, call: Callable[[], T]) -> T:
        self.calls[verb] += 1
        try:
            result = call()
        except DiskError:
            self.errors[verb] += 1
            raise
        self.bytes[verb] += length
        return result

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        return self._count("read", length, lambda: self.inner.read(offset, length))

    def write(self, offset: int, data: Buffer) -> None:
        self._count("write", len(data), lambda: self.inner.write(offset, data))

    def zero(self, offset: int, length: int) -> None:
        self._count("zero", length, lambda: self.inner.zero(offset, length))

    def unmap(self, offset: int, length: int) -> None:
        self._count("unmap", length, lambda: self.inner.unmap(offset, length))

    def flush(self) -> None:
        self._count("flush", 0, self.inner.flush)

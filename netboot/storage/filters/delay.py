"""Makes a disk slow: every verb that may wait for a platter waits.

``wait`` gets the name of the verb, its offset and its length, and returns when it likes: a
sleep, or an event that a test sets. With ``cold`` nothing is resident, so that a caller takes
every read to a worker thread, as it must for a golden image that is not in memory.
"""

from collections.abc import Callable, Sequence

from netboot.storage.disk import Buffer, Disk
from netboot.storage.filters import Filter


class Delay(Filter):
    """Calls ``wait(verb, offset, length)`` before read, write, zero, unmap and flush."""

    def __init__(
        self, inner: Disk, wait: Callable[[str, int, int], None], *, cold: bool = False
    ) -> None:
        super().__init__(inner)
        self._wait = wait
        self._cold = cold

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        self._wait("read", offset, length)
        return self.inner.read(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        self._wait("write", offset, len(data))
        self.inner.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._wait("zero", offset, length)
        self.inner.zero(offset, length)

    def unmap(self, offset: int, length: int) -> None:
        self._wait("unmap", offset, length)
        self.inner.unmap(offset, length)

    def flush(self) -> None:
        self._wait("flush", 0, 0)
        self.inner.flush()

    def resident(self, offset: int, length: int) -> bool:
        return not self._cold and self.inner.resident(offset, length)

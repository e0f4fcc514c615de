"""A smaller disk, then zeros."""

from typing import Any

import pytest

from netboot.storage.disk import DiskError, Fault
from netboot.storage.filters.null import Null
from netboot.storage.padded import Padded, zeros


class Sevens(Null):
    """Reads as sevens, but only where it is; remembers what it was asked."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.asked: list[tuple[int, int]] = []
        self.cold = False

    def read(self, offset: int, length: int) -> Any:
        assert offset >= 0 and length > 0 and offset + length <= self.size
        self.asked.append((offset, length))
        return (b"7" * length,)

    def resident(self, offset: int, length: int) -> bool:
        assert length > 0 and offset + length <= self.size
        return not self.cold

    def at_once(self, offset: int, length: int) -> Any:
        return None if self.cold else b"7" * length


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 1024, b"7" * 1024),
        (512, 512, b"7" * 512),
        (512, 1024, b"7" * 512 + bytes(512)),
        (1024, 512, bytes(512)),
        (3 << 20, 512, bytes(512)),
        (0, 3 << 20, b"7" * 1024 + bytes((3 << 20) - 1024)),
    ],
)
def test_what_it_reads_as(offset: int, length: int, expected: bytes) -> None:
    disk = Padded(Sevens(1024), 4 << 20)
    assert disk.size == 4 << 20
    assert disk.resident(offset, length)
    assert b"".join(disk.read(offset, length)) == expected


def test_what_is_below_is_handed_on_as_it_is() -> None:
    inner = Sevens(1024)
    disk = Padded(inner, 8192)
    disk.read(0, 512)
    disk.read(512, 2048)
    disk.read(1024, 512)
    assert inner.asked == [(0, 512), (512, 512)]
    inner.cold = True
    assert not disk.resident(0, 512)
    assert not disk.resident(512, 2048)
    assert disk.resident(1024, 512)  # zeros are never cold


def test_errors_below_pass() -> None:
    class Broken(Sevens):
        def read(self, offset: int, length: int) -> Any:
            raise DiskError(Fault.MEDIUM, "gone")

    with pytest.raises(DiskError, match="gone"):
        Padded(Broken(1024), 8192).read(512, 1024)


def test_zeros() -> None:
    for length in (0, 1, 512, 1 << 20, (1 << 20) + 1, 5 << 20):
        assert b"".join(zeros(length)) == bytes(length)
    shared = zeros(3 << 20)
    assert shared[0] is shared[1] is shared[2]


def test_at_once_only_where_the_disk_below_is() -> None:
    disk = Padded(Sevens(1024), 4096)
    assert disk.at_once(0, 1024) == b"7" * 1024
    assert disk.at_once(512, 1024) is None and disk.at_once(2048, 512) is None

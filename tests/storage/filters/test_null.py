"""A disk of zeros."""

from netboot.storage.disk import Extent
from netboot.storage.filters.null import Null


def test_it_reads_as_zeros_whatever_is_written():
    disk = Null(4 << 20)
    disk.write(0, b"x" * 4096)
    disk.zero(0, 512)
    disk.unmap(0, 512)
    disk.flush()
    assert b"".join(disk.read(0, (3 << 20) + 512)) == bytes((3 << 20) + 512)


def test_it_is_always_in_memory_and_never_allocated():
    disk = Null(4096, read_only=True)
    assert disk.resident(0, 4096)
    assert disk.extents(0, 4096) == (Extent(0, 4096, False),)
    assert (disk.size, disk.read_only) == (4096, True)
    disk.close()
    disk.close()

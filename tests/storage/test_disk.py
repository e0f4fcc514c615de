"""What every disk promises, held against every disk there is."""

import pytest

from netboot.storage.disk import Disk, DiskError, Extent, Fault
from netboot.storage.filters import Filter
from netboot.storage.filters.delay import Delay
from netboot.storage.filters.fault import Faulty
from netboot.storage.filters.null import Null
from netboot.storage.filters.stats import Stats
from netboot.storage.raw import Golden, Raw

DISKS = {
    "overlay": lambda bench: bench.attach(),
    "ephemeral overlay": lambda bench: bench.attach(ephemeral=True, generation=1),
    "read-only overlay": lambda bench: bench.attach(read_only=True),
    "golden": lambda bench: bench.attach(overlay=None),
    "bare golden": lambda bench: Golden(str(bench.golden)),
    "raw": lambda bench: Raw(bench.golden),
    "filter": lambda bench: Filter(bench.attach()),
    "stats": lambda bench: Stats(bench.attach()),
    "delay": lambda bench: Delay(bench.attach(), lambda *call: None),
    "fault": lambda bench: Faulty(bench.attach()),
    "null": lambda bench: Null(bench.size),
}


@pytest.fixture(params=DISKS)
def disk(request, bench):
    made: Disk = DISKS[request.param](bench)
    yield made
    made.close()


def content(disk, offset, length):
    return b"".join(disk.read(offset, length))


def test_size_is_a_whole_number_of_sectors(disk, bench):
    assert disk.size == bench.size
    assert disk.size % 512 == 0


@pytest.mark.parametrize(("offset", "length"), [(0, 512), (3584, 1024), (131072 - 512, 1024)])
def test_a_read_has_the_length_asked_for(disk, offset, length):
    for _ in range(2):
        assert len(content(disk, offset, length)) == length
        assert isinstance(disk.resident(offset, length), bool)


def test_the_whole_and_the_last_sector_can_be_read(disk):
    whole = content(disk, 0, disk.size)
    assert len(whole) == disk.size
    assert content(disk, disk.size - 512, 512) == whole[-512:]


def test_what_is_written_is_read(disk):
    before = content(disk, 0, disk.size)
    if disk.read_only:
        for change in (
            lambda: disk.write(512, b"x" * 1024),
            lambda: disk.zero(512, 1024),
            lambda: disk.unmap(512, 1024),
        ):
            with pytest.raises(DiskError) as caught:
                change()
            assert caught.value.fault is Fault.READ_ONLY
        assert content(disk, 0, disk.size) == before
        return
    disk.write(512, memoryview(b"x" * 1024))
    if not isinstance(disk, Null):
        assert content(disk, 0, 2048) == before[:512] + b"x" * 1024 + before[1536:2048]
    disk.zero(0, 1024)
    disk.unmap(1024, disk.size - 1024)
    disk.flush()
    assert content(disk, 0, disk.size) == bytes(disk.size)


def test_extents_cover_a_range_in_order_without_gaps(disk):
    if not disk.read_only:
        disk.unmap(131072, 65536)
    for offset, length in ((0, disk.size), (512, 4096), (131072 + 512, 131072)):
        at = offset
        for extent in disk.extents(offset, length):
            assert isinstance(extent, Extent)
            assert extent.offset == at
            at += extent.length
        assert at == offset + length


def test_closing_twice_is_harmless(disk):
    disk.flush()
    disk.close()
    disk.close()


def test_an_error_says_of_what_kind_and_where():
    error = DiskError(Fault.SPACE, "full", 4096)
    assert (error.fault, str(error), error.offset) == (Fault.SPACE, "full", 4096)
    assert {str(fault) for fault in Fault} == {"medium", "space", "failed", "read-only"}

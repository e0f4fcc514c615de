"""Counting calls, bytes and errors."""

import pytest

from netboot.storage.disk import DiskError, Fault
from netboot.storage.filters.fault import Faulty, Rule
from netboot.storage.filters.null import Null
from netboot.storage.filters.stats import Stats


def test_each_verb_is_counted_with_its_bytes():
    disk = Stats(Null(1 << 20))
    disk.read(0, 4096)
    disk.read(0, 512)
    disk.write(0, bytes(1024))
    disk.zero(0, 8192)
    disk.unmap(0, 16384)
    disk.flush()
    assert disk.calls == {"read": 2, "write": 1, "zero": 1, "unmap": 1, "flush": 1}
    assert disk.bytes == {"read": 4608, "write": 1024, "zero": 8192, "unmap": 16384, "flush": 0}
    assert not disk.errors


def test_an_error_is_counted_and_comes_through():
    disk = Stats(Faulty(Null(1 << 20), [Rule("read", Fault.MEDIUM, times=1)]))
    with pytest.raises(DiskError):
        disk.read(0, 512)
    disk.read(0, 512)
    assert (disk.calls["read"], disk.errors["read"], disk.bytes["read"]) == (2, 1, 512)


def test_what_is_asked_without_doing_is_not_counted():
    disk = Stats(Null(4096))
    disk.extents(0, 4096)
    disk.resident(0, 4096)
    disk.close()
    assert not disk.calls

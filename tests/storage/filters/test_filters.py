"""The base of all filters passes everything on."""

from netboot.storage.disk import Extent
from netboot.storage.filters import Filter


class Recorder:
    size = 4096
    read_only = True

    def __init__(self):
        self.calls = []

    def __getattr__(self, verb):
        def call(*arguments):
            self.calls.append((verb, *arguments))
            return [Extent(1, 2, True)]

        return call


def test_every_verb_and_property_is_passed_on():
    inner = Recorder()
    disk = Filter(inner)
    assert (disk.size, disk.read_only, disk.inner) == (4096, True, inner)
    assert disk.read(0, 512) == [Extent(1, 2, True)]
    assert disk.extents(1, 2) == [Extent(1, 2, True)]
    assert disk.resident(3, 4)
    assert disk.at_once(3, 4) is None  # nobody passes a filter by
    disk.write(5, b"x")
    disk.zero(6, 7)
    disk.unmap(8, 9)
    disk.flush()
    disk.intend(10, b"y")
    disk.settle()
    disk.resize(8192)
    disk.close()
    assert inner.calls == [
        ("read", 0, 512),
        ("extents", 1, 2),
        ("resident", 3, 4),
        ("write", 5, b"x"),
        ("zero", 6, 7),
        ("unmap", 8, 9),
        ("flush",),
        ("intend", 10, b"y"),
        ("settle",),
        ("resize", 8192),
        ("close",),
    ]

"""Waiting before the verbs that may wait."""

from netboot.storage.filters.delay import Delay
from netboot.storage.filters.null import Null


def test_each_slow_verb_waits_first():
    waits = []
    disk = Delay(Null(1 << 20), lambda *call: waits.append(call))
    disk.read(512, 1024)
    disk.write(1024, bytes(512))
    disk.zero(2048, 512)
    disk.unmap(4096, 8192)
    disk.flush()
    assert waits == [
        ("read", 512, 1024),
        ("write", 1024, 512),
        ("zero", 2048, 512),
        ("unmap", 4096, 8192),
        ("flush", 0, 0),
    ]


def test_asking_never_waits():
    waits = []
    disk = Delay(Null(1 << 20), lambda *call: waits.append(call))
    assert disk.resident(0, 512)
    disk.extents(0, 512)
    disk.close()
    assert waits == []


def test_a_cold_disk_has_nothing_in_memory():
    assert not Delay(Null(4096), lambda *call: None, cold=True).resident(0, 512)


def test_it_may_raise_instead():
    class Stop(Exception):
        pass

    def stop(*call):
        raise Stop

    disk = Delay(Null(4096), stop)
    try:
        disk.flush()
    except Stop:
        return
    raise AssertionError("it did not wait")

"""Failing as told: which verb, where, how often, of what kind."""

import pytest

from netboot.storage.disk import DiskError, Fault
from netboot.storage.filters.fault import Faulty, Rule
from netboot.storage.filters.null import Null

CALLS = {
    "read": lambda disk: disk.read(4096, 4096),
    "write": lambda disk: disk.write(4096, bytes(4096)),
    "zero": lambda disk: disk.zero(4096, 4096),
    "unmap": lambda disk: disk.unmap(4096, 4096),
    "flush": lambda disk: disk.flush(),
}


def disk_with(*rules):
    return Faulty(Null(1 << 20), rules)


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize("fault", Fault)
def test_only_the_verb_of_the_rule_fails(verb, fault):
    for other, call in CALLS.items():
        disk = disk_with(Rule(verb, fault))
        if other != verb:
            call(disk)
            continue
        with pytest.raises(DiskError) as caught:
            call(disk)
        assert caught.value.fault is fault


@pytest.mark.parametrize(
    ("offset", "length", "at"),
    [(0, 4096, None), (8192, 512, None), (0, 4608, 4096), (4096, 512, 4096), (7680, 512, 7680)],
)
def test_a_rule_may_be_for_a_range(offset, length, at):
    disk = disk_with(Rule("read", Fault.MEDIUM, range(4096, 8192)))
    if at is None:
        disk.read(offset, length)
        return
    with pytest.raises(DiskError) as caught:
        disk.read(offset, length)
    assert caught.value.offset == at


def test_after_and_times():
    disk = disk_with(Rule("write", Fault.SPACE, after=2, times=2))
    outcomes = []
    for _ in range(6):
        try:
            disk.write(0, bytes(512))
            outcomes.append(True)
        except DiskError:
            outcomes.append(False)
    assert outcomes == [True, True, False, False, True, True]


def test_a_rule_that_is_used_up_lets_the_next_one_strike():
    disk = disk_with(Rule("read", Fault.MEDIUM, times=1), Rule("read", Fault.SPACE))
    faults = []
    for _ in range(2):
        with pytest.raises(DiskError) as caught:
            disk.read(0, 512)
        faults.append(caught.value.fault)
    assert faults == [Fault.MEDIUM, Fault.SPACE]


def test_after_a_failed_flush_nothing_is_answered():
    disk = disk_with(Rule("flush", Fault.MEDIUM, times=1))
    with pytest.raises(DiskError):
        disk.flush()
    for call in CALLS.values():
        with pytest.raises(DiskError) as caught:
            call(disk)
        assert caught.value.fault is Fault.FAILED


def test_rules_may_change_while_it_is_used():
    disk = disk_with()
    disk.read(0, 512)
    disk.rules.append(Rule("read", Fault.MEDIUM))
    with pytest.raises(DiskError):
        disk.read(0, 512)
    disk.rules.clear()
    disk.read(0, 512)

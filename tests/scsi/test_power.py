"""A unit after a power cut: who held it still does, and what was being erased goes on."""

import struct
from collections.abc import Callable

import pytest

from netboot.scsi.action import Check, Read, Reply, Sanitize, Status
from netboot.scsi.power import recall
from netboot.scsi.reservations import Kind
from netboot.scsi.sanitize import FAILED, IN_PROGRESS
from tests.scsi.conftest import SIZE, Bench

READ = "28 00 00000000 00 0001 00"
CONFLICT = Reply(status=Status.RESERVATION_CONFLICT)
MakeBench = Callable[..., Bench]


def out(bench: Bench, action: int, key: int, argument: int = 0, kind: int = 0, flags: int = 0):  # type: ignore[no-untyped-def]
    cdb = struct.pack(">BBB2xIB", 0x5F, action, kind, 24, 0)
    return bench.run(cdb, data=struct.pack(">QQ4xBxH", key, argument, flags, 0))


def cut(make_bench: MakeBench, before: Bench) -> tuple[Bench, object]:
    """The power is cut; the same unit, as it comes up again, and what it has to do."""
    after = make_bench(remembers=True)
    action = recall(after.unit, before.kept[-1] if before.kept else b"")
    return after, action


def test_a_reservation_holds_and_its_holder_goes_on(make_bench: MakeBench) -> None:
    before = make_bench(remembers=True)
    assert out(before, 0, 0, 0xA1, flags=1) == Reply()
    assert out(before, 1, 0xA1, kind=Kind.EXCLUSIVE_ACCESS) == Reply()
    after, action = cut(make_bench, before)
    assert action is None
    assert after.run(READ) == Read(0, 512)
    assert after.run(READ, nexus=after.other) == CONFLICT
    # A stranger who comes later conflicts as well, and the holder can release.
    stranger = after.join("iqn.1994-05.com.example:three", b"\x40\0\1\x37\0\2")
    assert after.run(READ, nexus=stranger) == CONFLICT
    assert out(after, 2, 0xA1, kind=Kind.EXCLUSIVE_ACCESS) == Reply()
    assert after.run(READ, nexus=after.other) == Read(0, 512)


def test_the_generation_is_zero_again(make_bench: MakeBench) -> None:
    before = make_bench(remembers=True)
    out(before, 0, 0, 0xA1, flags=1)
    assert before.data("5E 00 0000000000 0100 00")[:4] == b"\0\0\0\1"
    after, _ = cut(make_bench, before)
    assert after.data("5E 00 0000000000 0100 00") == bytes(4) + struct.pack(">IQ", 8, 0xA1)
    assert after.data("5E 02 0000000000 0008 00")[2:4] == b"\x01\x81"


def test_nothing_kept_is_a_new_unit(make_bench: MakeBench) -> None:
    before = make_bench(remembers=True)
    assert out(before, 0, 0, 0xA1) == Reply()
    assert not before.kept
    after, action = cut(make_bench, before)
    assert (action, after.data("5E 00 0000000000 0100 00")) == (None, bytes(8))


def test_an_operation_goes_on_and_ends(make_bench: MakeBench) -> None:
    before = make_bench(remembers=True)
    assert isinstance(before.run("48 02 0000000000 0000 00"), Sanitize)
    after, action = cut(make_bench, before)
    assert isinstance(action, Sanitize)
    assert (action.size, action.patterns, action.immediate) == (SIZE, (), False)
    assert after.run(READ) == Check(IN_PROGRESS)
    assert after.settle(action.then(True)) == Reply()
    assert after.kept == [b""]
    assert after.run(READ) == Read(0, 512)


def test_a_failed_operation_has_failed_still(make_bench: MakeBench) -> None:
    before = make_bench(remembers=True)
    action = before.run("48 22 0000000000 0000 00")
    assert isinstance(action, Sanitize)
    assert before.settle(action.then(False)) == Check(FAILED)
    after, todo = cut(make_bench, before)
    assert todo is None
    assert after.run(READ) == Check(FAILED)
    assert after.run("48 1F 0000000000 0000 00") == Reply()  # AUSE was set
    assert after.run(READ) == Read(0, 512)
    assert after.kept == [b""]


@pytest.mark.parametrize("text", [b"nonsense", b'{"registrations": [["a", 0]]}'])
def test_what_cannot_be_read_leaves_a_new_unit(make_bench: MakeBench, text: bytes) -> None:
    bench = make_bench(remembers=True)
    with pytest.raises(ValueError, match="cannot be read"):
        recall(bench.unit, text)
    assert bench.run(READ) == Read(0, 512)


def test_a_pattern_of_another_block_size_is_not_written(make_bench: MakeBench) -> None:
    before = make_bench(remembers=True)
    data = struct.pack(">BBH", 1, 0, 512) + bytes(512)
    before.run(bytes.fromhex("48 01 0000000000 0204 00"), data=data)
    after = make_bench(remembers=True, block_size=4096)
    with pytest.raises(ValueError, match="no block of this unit"):
        recall(after.unit, before.kept[-1])
    assert after.unit.barred is None

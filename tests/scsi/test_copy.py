"""EXTENDED COPY: descriptors to segments, each refusal, and what is told afterwards."""

import struct

import pytest

from netboot.scsi.action import Action, Check, Collect, Copy, Reply
from netboot.scsi.copy import MAX_LIST, MAX_SEGMENTS, MAX_TARGETS
from netboot.scsi.inquiry import naa
from netboot.scsi.reservations import Kind
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Unit
from tests.scsi.conftest import NAME, SIZE, Bench

BLOCKS = SIZE // 512


class Pair(Bench):
    """Two units of one target; the second is half as large."""

    def __init__(self) -> None:
        super().__init__()
        self.second = Unit(1, SIZE // 2, "second", target_name=NAME)
        self.units = LogicalUnits([self.unit, self.second])
        self.nexus = self.units.attach("iqn.a", b"\x40\0\1\x37\0\0")
        self.run("00 00000000 00")

    def copy(
        self,
        segments: list[bytes],
        targets: list[bytes] | None = None,
        *,
        head: tuple[int, int] = (7, 0),
        cut: int = 0,
    ) -> Action:
        """EXTENDED COPY; ``head`` is the list identifier and the byte after it."""
        rows = b"".join([target(self.unit), target(self.second)] if targets is None else targets)
        runs = b"".join(segments)
        data = struct.pack(">BBH4xII", *head, len(rows), len(runs), 0) + rows + runs
        data = data[: len(data) - cut]
        cdb = struct.pack(">BB8xIBB", 0x83, 0, len(data), 0, 0)
        return self.run(cdb, data=data)

    def told(self, identifier: int = 7) -> bytes:
        """COPY STATUS after its length."""
        return self.data(struct.pack(">BBB7xIBB", 0x84, 0, identifier, 255, 0, 0))[4:]


def target(unit: Unit, code: int = 0xE4, size: int | None = None) -> bytes:
    name = naa(unit)
    length = len(name) if size is None else size
    row = struct.pack(">BxxxBBxB", code, 1, 3, length) + name
    return row.ljust(28, b"\0") + (512).to_bytes(4)


def segment(
    source: int, destination: int, count: int, start: int = 0, to: int = 0, *, kind: int = 2
) -> bytes:
    return struct.pack(">BBHHHxxHQQ", kind, 0, 24, source, destination, count, start, to)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def asc(action: Action) -> int:
    assert isinstance(action, Check), action
    return action.sense.asc


def test_segments_become_bytes(pair: Pair) -> None:
    action = pair.copy([segment(0, 0, 2048, 0, BLOCKS - 2048), segment(0, 1, 3, 5, 7)])
    assert isinstance(action, Copy)
    assert action.segments == (
        (0, 0, 0, SIZE - 2048 * 512, 2048 * 512),
        (0, 5 * 512, 1, 7 * 512, 3 * 512),
    )
    assert action.then(2, False) == Reply()


def test_the_other_designator_names_the_unit_too(pair: Pair) -> None:
    unknown = target(pair.unit)[:8] + b"?" * 8 + target(pair.unit)[16:]
    assert asc(pair.copy([segment(0, 0, 1)], [unknown])) == 0x0804
    # A descriptor that nothing uses may name whatever it likes.
    assert isinstance(pair.copy([segment(1, 1, 1, 0, 9)], [unknown, target(pair.unit)]), Copy)


def test_nothing_to_copy(pair: Pair) -> None:
    assert pair.run("83 00 0000000000000000 00000000 00 00") == Reply()
    assert pair.copy([]) == Reply()
    assert pair.copy([segment(0, 0, 0)]) == Reply()


def test_lists_that_end_too_early(pair: Pair) -> None:
    for cut in (1, 27, 29, 91):
        assert asc(pair.copy([segment(0, 0, 1)], cut=cut)) == 0x1A00
    assert asc(pair.copy([segment(0, 0, 1)[:-1]])) == 0x1A00
    assert asc(pair.copy([segment(0, 0, 1)], [target(pair.unit)[:-1]])) == 0x1A00
    assert pair.asc("83 00 0000000000000000 0000000F 00 00", edtl=15) == 0x1A00
    assert pair.asc("83 00 0000000000000000 0000FFFF 00 00", edtl=65535) == 0x1A00
    assert pair.field("83 00 0000000000000000 00000010 00 00", edtl=8) == (10, None)


def test_a_list_that_is_shorter_than_its_command_says(pair: Pair) -> None:
    wants = pair.run("83 00 0000000000000000 00000030 00 00", edtl=48)
    assert isinstance(wants, Collect)
    for length in (0, 1, 15):
        assert asc(wants.then(bytes(length))) == 0x1A00


def test_the_limits_that_operating_parameters_tells(pair: Pair) -> None:
    data = pair.data("84 03 0000000000000000 000000FF 00 00")
    assert struct.unpack_from(">I", data) == (len(data) - 4,)
    assert struct.unpack_from(">HHII", data, 8) == (
        MAX_TARGETS,
        MAX_SEGMENTS,
        MAX_LIST,
        0xFFFF * 512,
    )
    assert data[43:] == bytes((2, 0x02, 0xE4))
    one, row = segment(0, 0, 1), target(pair.unit)
    assert isinstance(pair.copy([one] * MAX_SEGMENTS), Copy)
    assert asc(pair.copy([one] * (MAX_SEGMENTS + 1))) == 0x2608
    assert isinstance(pair.copy([one], [row] * MAX_TARGETS), Copy)
    assert asc(pair.copy([one], [row] * (MAX_TARGETS + 1))) == 0x2606
    assert asc(pair.copy([one] * (MAX_SEGMENTS + 2), [row] * (MAX_TARGETS + 1))) == 0x1A00


def test_descriptors_that_are_not_ours(pair: Pair) -> None:
    assert asc(pair.copy([segment(0, 0, 1)], [target(pair.unit, 0xE0)])) == 0x2607
    assert asc(pair.copy([segment(0, 0, 1, kind=3)])) == 0x2609
    wrong = pair.copy([segment(0, 0, 1)], [target(pair.unit, size=21)])
    assert isinstance(wrong, Check) and (wrong.sense.asc, wrong.sense.field) == (0x2600, 23)
    odd = bytearray(segment(0, 0, 1))
    odd[3] = 28
    wrong = pair.copy([bytes(odd)])
    assert isinstance(wrong, Check) and (wrong.sense.asc, wrong.sense.field) == (0x2600, 82)


def test_units_that_cannot_be_reached(pair: Pair) -> None:
    assert asc(pair.copy([segment(0, 2, 1)])) == 0x0804
    assert asc(pair.copy([segment(65535, 0, 1)])) == 0x0804
    pair.second.eject()
    assert asc(pair.copy([segment(0, 1, 1)])) == 0x0804


def test_ranges_that_leave_a_unit(pair: Pair) -> None:
    beyond = [segment(0, 0, 2048, 0, BLOCKS - 1), segment(0, 0, 2, BLOCKS - 1, 0)]
    beyond += [segment(0, 1, 1, 0, BLOCKS // 2), segment(0, 0, 1, (1 << 64) - 1, 0)]
    for run in beyond:
        action = pair.copy([segment(0, 0, 1), run])
        assert isinstance(action, Check) and action.sense.key == 0xA
        assert action.sense.asc == 0x0D02


def test_writing_where_one_must_not(pair: Pair) -> None:
    pair.second.reservations.register("other", 1)
    pair.second.reservations.reserve("other", Kind.WRITE_EXCLUSIVE)
    pair.second.refresh()
    assert asc(pair.copy([segment(0, 1, 1)])) == 0x0804
    assert isinstance(pair.copy([segment(1, 0, 1)]), Copy)
    pair.unit.turn({"software_protected": True})
    assert asc(pair.copy([segment(1, 0, 1)])) == 0x2702


def test_what_is_told_of_a_copy_once(pair: Pair) -> None:
    empty = "84 00 07 00000000000000 000000FF 00 00"
    assert pair.field(empty) == (2, None)
    action = pair.copy([segment(0, 0, 3, 0, 9)] * 2)
    assert isinstance(action, Copy)
    assert action.then(2, False) == Reply()
    assert pair.told() == bytes.fromhex("01 0002 00 00000C00")
    assert pair.field(empty) == (2, None)
    failed = action.then(1, True)
    assert isinstance(failed, Check) and failed.sense.key == 0xA
    assert pair.told() == bytes.fromhex("02 0001 00 00000600")


def test_a_list_without_an_identifier(pair: Pair) -> None:
    action = pair.copy([segment(0, 0, 1, 0, 9)], head=(0, 3 << 3))
    assert isinstance(action, Copy) and action.then(1, False) == Reply()
    assert not pair.nexus.copies
    assert asc(pair.copy([segment(0, 0, 1)], head=(1, 3 << 3))) == 0x2600
    assert asc(pair.copy([segment(0, 0, 1)], head=(1, 1 << 3))) == 0x2600

"""The express lane: the same answers as by the long way, whatever comes; what takes the lane.

All of it twice: as Python, and compiled.
"""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.iscsi import express, lane, server
from netboot.scsi.sense import Code
from netboot.storage.disk import DiskError, Fault
from tests.iscsi.conftest import Bench, Session

BLOCKS = 128
CONTENT = b"".join(bytes([n % 251]) * 512 for n in range(BLOCKS))
DATA = bytes(range(256)) * 2
EAGER = ("InitialR2T=No", "ImmediateData=Yes", "MaxRecvDataSegmentLength=65536")

LANES = {"python": express.Lane, "compiled": lane.Lane}


@pytest.fixture(scope="module", params=LANES.values(), ids=LANES, autouse=True)
def used(request: pytest.FixtureRequest) -> Iterator[type[express.Lane]]:
    """The lane that sessions take."""
    before, server.Lane = server.Lane, request.param
    yield request.param
    server.Lane = before


def test_the_compiled_lane_is_compiled_and_is_what_sessions_take() -> None:
    assert lane.Lane is not express.Lane and lane.__file__.endswith(".so")


def test_it_is_said_which_of_them_runs(used: type[express.Lane]) -> None:
    said = server.express_lane()
    assert said == "compiled" if used is lane.Lane else said.startswith("in Python: no C compiler")


def answers(sent: bytes) -> list[bytes]:
    """PDUs without their three numbers, sorted: the long way counts all commands of a breath
    first, and rejects what is wrong with one before it answers those that came before it."""
    found, at = [], 0
    while at < len(sent):
        end = at + 48 + (int.from_bytes(sent[at + 5 : at + 8], "big") + 3 & ~3)
        found.append(sent[at : at + 24] + sent[at + 36 : end])
        at = end
    return sorted(found)


class Way:
    """A session that says a chunk as ``peer`` would, by the lane or without it."""

    def __init__(self, *pairs: str, lane: bool = True, blocks: int = BLOCKS) -> None:
        self.bench = Bench(blocks * 512)
        self.bench.disk.data[: len(CONTENT)] = CONTENT
        self.session: Session = self.bench.session(*(pairs or EAGER))
        self.open = lane
        self.express = 0  #: bytes that the lane took

    def say(self, chunk: bytes) -> list[bytes]:
        """One breath; everything that is sent because of it."""
        view = memoryview(bytearray(chunk))
        self.express += self.session.breathe(view, express=self.open)
        self.bench.workers.work()
        view.release()  # who kept a view of the receive buffer would be found out here
        return answers(self.session.take())

    @property
    def state(self) -> object:
        """What must be the same whichever way a command went."""
        session = self.session.engine.session
        numbers = session.exp_cmd_sn, session.max_cmd_sn, self.session.engine.answers.stat_sn
        pending = sorted(session.tasks)
        return self.bench.disk.data, self.bench.tally, numbers, pending, self.session.engine.ended


def command(
    way: Way,
    code: int = 0x28,
    lba: int = 0,
    count: int = 8,
    *,
    byte1: int = 0,
    control: int = 0,
    flags: int | None = None,
    edtl: int | None = None,
    data: bytes | None = None,
    **more: Any,
) -> bytes:
    """READ(10) or WRITE(10), with whatever is to be wrong with it."""
    writes = code == 0x2A
    cdb = struct.pack(">BBIBHB", code, byte1, lba, 0, count, control)
    if data is None:
        data = DATA * count if writes else b""
    edtl = count * 512 if edtl is None else edtl
    flags = (0xA1 if writes else 0xC1) if flags is None else flags
    return way.session.initiator.command(cdb, edtl, flags=flags, data=data, **more)


@pytest.mark.parametrize("code", [0x28, 0x2A])
def test_plain_commands_take_the_lane(code: int) -> None:
    way, long = Way(), Way(lane=False)
    chunks = [b"".join(command(side, code, n * 8) for n in range(5)) for side in (way, long)]
    assert way.say(chunks[0]) == long.say(chunks[1])
    assert way.express == len(chunks[0])
    assert way.state == long.state


OTHER = {
    "another opcode": {"code": 0x2F},
    "DPO": {"byte1": 0x10},
    "FUA": {"byte1": 0x08},
    "protection": {"byte1": 0x20},
    "NACA": {"control": 0x04},
    "no blocks": {"count": 0, "edtl": 0},
    "beyond the end": {"lba": BLOCKS - 1},
    "less room than blocks": {"edtl": 512},
    "more room than blocks": {"edtl": 8192},
    "ordered": {"flags": 0xC2},
    "head of queue": {"flags": 0xC3},
    "not final": {"flags": 0x41},
    "data of nobody": {"data": b"1234"},
    "another unit": {"lun": 3 << 48},
    "no tag": {"itt": 0xFFFFFFFF},
}


@pytest.mark.parametrize("wrong", OTHER.values(), ids=OTHER)
def test_whatever_is_different_takes_the_long_way(wrong: dict[str, Any]) -> None:
    way, long = Way(), Way(lane=False)
    assert way.say(command(way, **wrong)) == long.say(command(long, **wrong))
    assert way.express == 0
    assert way.state == long.state


def test_a_tag_used_twice_in_one_breath_is_rejected() -> None:
    way, long = Way(), Way(lane=False)
    twice = [b"".join(command(side, itt=77) for _ in range(2)) for side in (way, long)]
    assert way.say(twice[0]) == long.say(twice[1])
    assert way.express == 48


@pytest.mark.parametrize("between", [0, 1, 63, 64, 300])
def test_a_tag_used_again_among_many_is_found(between: int) -> None:
    way, long = Way(), Way(lane=False)
    for side in (way, long):
        side.session.engine.session.max_cmd_sn += 400
    tags = [7, *range(64, 64 + between), 7, 9999]
    said = [b"".join(command(side, itt=tag) for tag in tags) for side in (way, long)]
    assert way.say(said[0]) == long.say(said[1])
    assert way.express == 48 * (between + 1)


def test_all_ones_are_no_write_of_nothing() -> None:
    """A CDB that ends in ones is not one that was looked at before."""
    way, long = Way(), Way(lane=False)
    cdb = struct.pack(">BBIBHB", 0x2A, 0, 0, 0xFF, 0xFFFF, 0xFF)
    said = [side.session.initiator.command(cdb, 0, flags=0xA1) for side in (way, long)]
    assert way.say(said[0]) == long.say(said[1])
    assert way.express == 0 and not way.bench.disk.calls


def test_what_stands_in_the_way_of_a_unit() -> None:
    way = Way()
    way.bench.unit.tell(Code.CAPACITY_DATA_HAS_CHANGED)
    assert way.say(command(way))[0][3] == 2 and way.express == 0  # CHECK CONDITION
    assert way.say(command(way))[0][3] == 0 and way.express == 48
    way.bench.unit.turn({"write_cache": False})
    way.say(command(way, 0x2A))
    assert ("flush",) in way.bench.disk.calls and way.express == 48


def test_cold_blocks_and_faults_take_the_long_way() -> None:
    way, disk = Way(), None
    disk = way.bench.disk
    disk.cold = True
    assert way.say(command(way))[0][:1] == b"\x25" and way.express == 0
    disk.cold = False
    disk.error = DiskError(Fault.SPACE, "full")
    (answer,) = way.say(command(way, 0x2A))
    assert answer[0] == 0x21 and answer[3] == 2 and way.express == 0
    assert way.bench.tally.errors == 1


def test_what_does_not_fit_in_one_pdu_takes_the_long_way() -> None:
    way, long = (Way("MaxRecvDataSegmentLength=8192", lane=lane) for lane in (True, False))
    assert way.say(command(way, count=17)) == long.say(command(long, count=17))
    assert way.express == 0


def test_digests_and_immediate_data_are_heeded() -> None:
    digests = Way("HeaderDigest=CRC32C", "DataDigest=CRC32C")
    assert digests.session.edge.lane is None
    late = Way("InitialR2T=Yes", "ImmediateData=No")
    late.say(command(late, 0x2A, data=b""))
    assert late.express == 0
    late.say(command(late, 0x2A))  # unexpected unsolicited data
    assert late.express == 0


def test_it_stops_when_enough_is_to_be_sent() -> None:
    way = Way("MaxRecvDataSegmentLength=262144", blocks=1024)
    chunk = b"".join(command(way, count=512) for _ in range(4))
    taken = way.session.edge.lane
    assert taken is not None
    view = memoryview(chunk)
    assert taken.run(view, len(view), set()) == 144  # three times 256 KiB is above ENOUGH
    assert sum(map(len, way.session.engine.answers.out)) > express.ENOUGH


@pytest.mark.parametrize(("late", "express"), [(0xFFFEFFFE, 0), (0xFFFFFFFE, 5 * 96)])
def test_numbers_that_begin_again_at_0_are_the_long_ways_affair(late: int, express: int) -> None:
    way, long = Way(), Way(lane=False)
    for side in (way, long):
        session = side.session.engine.session
        session.exp_cmd_sn, session.max_cmd_sn = late, late + 64 & 0xFFFFFFFF
        side.session.engine.answers.stat_sn = late
        side.session.initiator.cmd_sn = late
    for turn in range(6):
        said = [b"".join(command(side, lba=turn) for _ in range(2)) for side in (way, long)]
        assert way.say(said[0]) == long.say(said[1])
        assert way.state == long.state
    assert way.express == express
    assert way.session.engine.session.exp_cmd_sn == late + 12 & 0xFFFFFFFF


def test_a_pdu_that_is_not_whole_waits() -> None:
    way, long = Way(), Way(lane=False)
    for side in (way, long):
        whole = command(side, 0x2A) + command(side)
        said = [side.say(whole[at : at + 1000]) for at in range(0, len(whole), 1000)]
        assert any(said)
    assert way.state == long.state


CDB = st.fixed_dictionaries(
    {
        "code": st.sampled_from([0x28, 0x28, 0x28, 0x2A, 0x2A, 0x2F, 0x35, 0x00]),
        "lba": st.sampled_from([0, 1, 8, 9, BLOCKS - 8, BLOCKS - 1, 0xFFFFFFFF]),
        "count": st.sampled_from([8, 8, 8, 1, 3, 0, 64]),
    },
    optional={
        "byte1": st.sampled_from([0x08, 0x10, 0x01, 0xE0]),
        "control": st.sampled_from([0x04, 0xC0]),
        "flags": st.sampled_from([0xC0, 0xC2, 0xA0, 0xA1, 0x81, 0x41, 0x21, 0xE1]),
        "edtl": st.sampled_from([0, 512, 4096, 4097, 1 << 20]),
        "data": st.sampled_from([b"", b"x" * 512, b"y" * 4096]),
        "lun": st.sampled_from([0, 0, 1 << 48]),
        "itt": st.sampled_from([5, 6, 0xFFFFFFFF]),
        "cmd_sn": st.sampled_from([0, 3, 4, 5, 6, 7, 1000]),
    },
)
CHUNKS = st.lists(
    st.tuples(st.booleans(), st.lists(CDB, min_size=1, max_size=6)), min_size=1, max_size=4
)


@settings(max_examples=300, deadline=None)
@given(CHUNKS)
def test_both_ways_say_and_do_the_same(chunks: list[tuple[bool, list[dict[str, Any]]]]) -> None:
    way, long = Way(), Way(lane=False)
    for cold, commands in chunks:
        for side in (way, long):
            side.bench.disk.cold = cold
        said = [b"".join(command(side, **one) for one in commands) for side in (way, long)]
        assert said[0] == said[1]
        assert way.say(said[0]) == long.say(said[1])
        assert way.state == long.state


def test_the_lane_is_the_sessions_alone(used: type[express.Lane]) -> None:
    way = Way()
    assert type(way.session.edge.lane) is used
    way.session.edge.close()
    assert way.session.edge.lane is None


def test_the_first_read_is_told_of_once_whichever_way_it_goes() -> None:
    for ways in ((True, True, False), (False, True, True)):
        way = Way()
        way.say(command(way, 0x2A))
        assert way.session.reads == 0
        for way.open in ways:
            way.say(command(way))
        assert way.session.reads == 1

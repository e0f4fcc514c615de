"""A trace is what was on the wire: of captures made here byte by byte."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import storm_trace as trace
from tests.bench.bench_storm import TRACE
from tests.bench.storm_trace import FLUSH, READ, WRITE, Moment, Step, TraceError

CLIENT, SERVER = (b"\x0a\0\0\x09", 40000), (b"\x0a\0\0\x01", 3260)
READ10 = struct.pack(">BBIBHB6x", 0x28, 0, 64, 0, 8, 0)
WRITE16 = struct.pack(">BBQIBB", 0x8A, 0, 4096, 16, 0, 0)
SYNC10 = b"\x35" + bytes(15)


class Capture:
    """A pcap file of one connection."""

    def __init__(self) -> None:
        self.raw = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        self.numbers = {True: 1000, False: 5000}
        for up in (True, False):
            self.segment(0, b"", up, flags=2)

    def segment(
        self, at: float, data: bytes, up: bool, flags: int = 16, number: int | None = None
    ) -> None:
        (source, sport), (target, tport) = (CLIENT, SERVER) if up else (SERVER, CLIENT)
        if number is None:
            number = self.numbers[up]
            self.numbers[up] += len(data) + (flags >> 1 & 1)
        tcp = struct.pack(">HHIIBBHHH", sport, tport, number, 0, 0x50, flags, 0, 0, 0) + data
        ip = struct.pack(">BBHIBBH", 0x45, 0, 20 + len(tcp), 0, 64, 6, 0) + source + target
        frame = bytes(12) + b"\x08\x00" + ip + tcp
        head = struct.pack("<IIII", int(at), round(at % 1 * 1e6), len(frame), len(frame))
        self.raw += head + frame

    def steps(self) -> list[Step]:
        return trace.of_capture(io.BytesIO(self.raw))


def command(tag: int, cdb: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">BBHIQIIII16s", 1, 0x80, 0, len(data), 0, tag, 0, 0, 0, cdb) + data


def answer(tag: int, data: bytes = b"", op: int = 0x25, flags: int = 0x81) -> bytes:
    padded = data + bytes(-len(data) % 4)
    return struct.pack(">BBHIQI28x", op, flags, 0, len(data), 0, tag) + padded


def test_a_boot_on_the_wire_becomes_steps() -> None:
    capture = Capture()
    capture.segment(1.0, command(1, READ10), True)
    capture.segment(1.001, answer(1, b"x" * 4096), False)
    capture.segment(1.003, command(2, WRITE16, bytes(512)) + command(3, SYNC10), True)
    capture.segment(1.004, answer(3, op=0x21, flags=0x80), False)
    capture.segment(1.005, answer(2, op=0x21, flags=0x80), False)
    assert capture.steps() == [
        Step(READ, 64, 8, 0, 0),
        Step(WRITE, 4096, 16, 2000, 1),
        Step(FLUSH, 0, 0, 0, 1),
    ]


def test_pdus_are_found_however_they_are_cut_and_in_whatever_order() -> None:
    capture = Capture()
    first = command(1, READ10)
    number = capture.numbers[True]
    capture.segment(1.0, first[30:], True, number=number + 30)
    capture.segment(1.0, first[:30], True, number=number)
    capture.segment(1.0, first[:40], True, number=number)  # sent again
    for cut in (answer(1, bytes(5))[:50], answer(1, bytes(5))[50:]):
        capture.segment(1.5, cut, False)
    assert capture.steps() == [Step(READ, 64, 8, 0, 0)]


def test_what_was_not_answered_is_left_out() -> None:
    capture = Capture()
    capture.segment(1.0, command(1, READ10) + command(2, READ10), True)
    capture.segment(1.1, answer(1), False)
    capture.segment(1.2, answer(2, flags=0x80), False)  # its data, and never a status
    assert len(capture.steps()) == 1


def test_a_gap_is_told() -> None:
    capture = Capture()
    capture.segment(1.0, command(1, READ10), True)
    capture.segment(1.1, answer(1), False)
    capture.segment(1.2, command(2, READ10), True, number=capture.numbers[True] + 1)
    with pytest.raises(TraceError, match="gap"):
        capture.steps()


def test_a_capture_of_nothing_is_told() -> None:
    with pytest.raises(TraceError, match="nobody"):
        Capture().steps()
    with pytest.raises(TraceError, match="pcap"):
        trace.of_capture(io.BytesIO(b"nonsense"))


def test_a_capture_of_parts_of_packets_is_told() -> None:
    capture = Capture()
    capture.segment(1.0, command(1, READ10), True)
    at = len(capture.raw) - 54 - 48
    cut = capture.raw[:at] + capture.raw[at : at + 70]
    kept = struct.pack("<I", 70)
    with pytest.raises(TraceError, match="part"):
        trace.of_capture(io.BytesIO(cut[: at - 8] + kept + cut[at - 4 :]))


@pytest.mark.parametrize(
    ("cdb", "known"),
    [
        (READ10, (READ, 64, 8)),
        (WRITE16, (WRITE, 4096, 16)),
        (SYNC10, (FLUSH, 0, 0)),
        (b"\x91" + bytes(15), (FLUSH, 0, 0)),
        (b"\x28" + bytes(15), None),  # no blocks
        (b"\x12" + bytes(15), None),
    ],
)
def test_cdbs(cdb: bytes, known: tuple[str, int, int] | None) -> None:
    assert trace.decoded(cdb) == known


def test_a_step_waits_for_those_that_were_done_when_it_was_sent() -> None:
    moments = [
        Moment(READ, 0, 1, 1.0, 3.0),
        Moment(READ, 1, 1, 1.5, 2.0),
        Moment(READ, 2, 1, 2.25, 4.0),
        Moment(READ, 3, 1, 3.5, 3.75),
    ]
    assert [(step.after, step.think) for step in trace.steps_of(moments)] == [
        (0, 0),
        (0, 500_000),
        (1, 250_000),
        (2, 500_000),
    ]


STEPS = st.lists(
    st.tuples(
        st.sampled_from([READ, WRITE, FLUSH]),
        st.integers(0, 1 << 31),
        st.integers(0, 65535),
        st.integers(0, 1 << 31),
        st.floats(0, 1),
    ),
    max_size=40,
)


@given(STEPS)
def test_the_file_gives_back_what_was_put_in(rows: list[tuple[str, int, int, int, float]]) -> None:
    steps = [
        Step(kind, block, blocks, think, int(share * number))
        for number, (kind, block, blocks, think, share) in enumerate(rows)
    ]
    assert trace.decode(trace.encode(steps)) == steps


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: b"x" + raw,
        lambda raw: raw[:-9],
        lambda raw: raw[:20] + b"\xff\xff" + raw[22:],
    ],
)
def test_a_damaged_file_is_refused(change: object) -> None:
    raw = trace.encode([Step(READ, number, 1, number, number) for number in range(50)])
    with pytest.raises(TraceError):
        trace.decode(change(raw))  # type: ignore[operator]


def test_ranges_are_joined_where_they_touch_or_are_near() -> None:
    steps = [Step(READ, 8, 8, 0, 0), Step(READ, 16, 8, 0, 0), Step(READ, 10, 2, 0, 0)]
    steps += [Step(WRITE, 0, 8, 0, 0), Step(READ, 100, 1, 0, 0)]
    assert trace.ranges(steps) == [(4096, 8192), (51200, 512)]
    assert trace.ranges(steps, near=1 << 16) == [(4096, 51712 - 4096)]


def test_a_quicker_machine_thinks_less() -> None:
    steps = [Step(READ, 0, 1, 1000, 0), Step(READ, 0, 1, 9_000_000, 1)]
    assert [step.think for step in trace.quickened(steps, 10, 20_000)] == [100, 20_000]


def test_the_shape_of_a_boot() -> None:
    steps = [Step(READ, 0, 8, 1_000_000, 0), Step(READ, 0, 8, 0, 1), Step(WRITE, 8, 1, 0, 2)]
    steps.append(Step(FLUSH, 0, 0, 500_000, 3))
    assert trace.shape(steps) == (4, 2, 1, 1, 8192, 512, 4096, 1.5)


def test_the_clients_read_a_line_for_each_step() -> None:
    assert trace.lines([Step(READ, 8, 16, 3, 0), Step(FLUSH, 0, 0, 0, 1)]) == (
        "R 8 16 3 0\nF 0 0 0 1\n"
    )


def test_the_recorded_boot_is_one() -> None:
    shape = trace.shape(trace.decode(TRACE.read_bytes()))
    assert shape.reads > 1000 and shape.writes and shape.flushes
    assert shape.first_read <= shape.read_bytes

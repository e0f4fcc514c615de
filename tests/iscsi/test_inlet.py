"""What comes goes to the lane as far as that takes it, and the long way from there; in Python
and compiled."""

import os
import random
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.iscsi import inlet, intake
from netboot.iscsi.outlet import Outlet
from netboot.iscsi.spin import EVERY, Spin

INLETS: dict[str, type[inlet.Inlet]] = {"python": inlet.Inlet, "compiled": intake.Inlet}


class Lane:
    """Takes what it was told, one number a call, and answers each with a piece of its own."""

    def __init__(self, answers: Any, takes: Iterable[int]) -> None:
        self.answers, self.takes = answers, list(takes)
        self.asked: list[tuple[bytes, int, set[int]]] = []

    def run(self, data: memoryview, end: int, tags: set[int]) -> int:
        self.asked.append((bytes(data[:end]), end, set(tags)))
        took = min(self.takes.pop(0), end) if self.takes else 0
        if took:
            tags.add(len(self.asked))
            self.answers.out.append(b"<%d>" % took)
        return took


class Answers:
    """What is to be sent."""

    def __init__(self) -> None:
        self.out: list[Any] = []

    def take(self) -> list[Any]:
        out, self.out = self.out, []
        return out


class Transport:
    """Takes what the outlet passes on."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def writelines(self, out: Any) -> None:
        self.taken.append(b"".join(map(bytes, out)))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class Rig:
    """An inlet of one of the two kinds, with a pipe for a socket."""

    def __init__(self, base: type[inlet.Inlet], takes: Iterable[int] = ()) -> None:
        rig = self

        class Door(base):  # type: ignore[valid-type, misc]
            def _long_way(self, view: memoryview, tags: set[int], nbytes: int) -> None:
                rig.long.append((bytes(view), set(tags), nbytes))
                rig.on_long_way()

            def send(self) -> None:
                rig.sent.append(b"".join(self.engine.answers.take()))

            def _failed(self) -> None:
                rig.failures += 1

        self.long: list[tuple[bytes, set[int], int]] = []
        self.sent: list[bytes] = []
        self.failures = self.considered = 0
        self.on_long_way = lambda: None
        self.room = bytearray(1 << 16)
        self.spin = Spin(lambda look: None, lambda: 0.0)
        self.spin.consider = self._consider  # type: ignore[method-assign]
        self.inlet: inlet.Inlet = Door(self.spin, memoryview(self.room))
        self.answers = Answers()
        self.engine: Any = SimpleNamespace(answers=self.answers, missing=0)
        self.inlet.engine = self.engine
        self.transport: Any = Transport()
        self.theirs, self.ours = os.pipe()
        os.set_blocking(self.ours, False)
        os.set_blocking(self.theirs, False)
        self.inlet._outlet = Outlet(self.transport, self.ours)
        self.inlet._outlet.waits = False
        self.lane = Lane(self.answers, takes)
        self.inlet._lane = self.lane  # type: ignore[assignment]

    def _consider(self) -> None:
        self.considered += 1

    def say(self, data: bytes) -> None:
        buffer = self.inlet.get_buffer(-1)
        buffer[: len(data)] = data
        self.inlet.buffer_updated(len(data))

    def came(self) -> bytes:
        try:
            return os.read(self.theirs, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture(params=INLETS.values(), ids=INLETS)
def rig(request: pytest.FixtureRequest) -> Any:
    rig = Rig(request.param)
    yield rig
    rig.close()


def test_the_lane_takes_all_and_its_answers_leave_at_once(rig: Rig) -> None:
    rig.lane.takes = [4, 6]
    rig.say(b"0123456789")
    assert rig.lane.asked == [(b"0123456789", 10, set()), (b"456789", 6, {1})]
    assert rig.came() == b"<4><6>" and not rig.long and not rig.sent


def test_what_the_lane_leaves_goes_the_long_way_with_the_tags_of_the_rest(rig: Rig) -> None:
    rig.lane.takes = [4]
    rig.say(b"0123456789")
    assert rig.long == [(b"456789", {1}, 10)] and rig.came() == b"<4>"


def test_without_a_lane_all_goes_the_long_way(rig: Rig) -> None:
    rig.inlet._lane = None
    rig.say(b"0123456789")
    assert rig.long == [(b"0123456789", set(), 10)]


def test_the_lane_is_asked_again_behind_the_rest_of_a_pdu(rig: Rig) -> None:
    rig.lane.takes = [0, 7]
    rig.engine.missing = 3
    rig.say(b"0123456789")
    assert rig.long == [(b"012", set(), 10)]
    assert rig.lane.asked[1][0] == b"3456789" and rig.came() == b"<7>"
    rig.engine.missing = 30
    rig.say(b"0123456789")
    assert rig.long[1:] == [(b"0123456789", set(), 10)]  # more than has come


@pytest.mark.parametrize("why", ["full", "backlog"])
def test_nothing_overtakes_what_waits(rig: Rig, why: str) -> None:
    rig.lane.takes = [10]
    if why == "full":
        rig.inlet._full = True
    else:
        rig.inlet._backlog.append(object())  # type: ignore[arg-type]
    rig.say(b"0123456789")
    assert rig.long == [(b"0123456789", set(), 10)] and not rig.lane.asked


def test_answers_wait_behind_those_that_wait(rig: Rig) -> None:
    rig.lane.takes = [10]
    rig.inlet._outlet.waits = True
    rig.say(b"0123456789")
    assert rig.sent == [b"<10>"] and rig.came() == b""


def test_nothing_is_handled_after_the_end(rig: Rig) -> None:
    def over() -> None:
        rig.inlet.closed = True

    rig.engine.missing, rig.on_long_way = 4, over
    rig.say(b"0123456789")
    assert rig.long == [(b"0123", set(), 10)]
    rig.say(b"more")
    assert len(rig.long) == 1


def test_tags_are_of_one_breath(rig: Rig) -> None:
    rig.lane.takes = [4, 0, 4]
    rig.say(b"0123456789")
    rig.say(b"0123456789")
    assert rig.lane.asked[2][2] == set()


@pytest.mark.parametrize("where", ["lane", "long way", "send", "spin"])
def test_a_mistake_is_told_and_reaches_nobody_else(rig: Rig, where: str) -> None:
    def fails(*_: object) -> int:
        raise ZeroDivisionError

    rig.lane.takes = [10]
    if where == "lane":
        rig.lane.run = fails  # type: ignore[method-assign]
    elif where == "long way":
        rig.lane.takes, rig.on_long_way = [], fails  # type: ignore[assignment]
    elif where == "send":
        rig.inlet._outlet = SimpleNamespace(waits=False, write=fails, rest=fails, fd=-1)  # type: ignore[assignment]
    else:
        rig.spin.came, rig.spin.consider = EVERY, fails  # type: ignore[assignment, method-assign]
    rig.say(b"0123456789")
    assert rig.failures == 1


def test_wake_ups_are_counted_for_those_who_keep_the_loop_awake(rig: Rig) -> None:
    for _ in range(2 * (EVERY + 1)):
        rig.say(b"x")
    assert rig.spin.came == 2 * (EVERY + 1) and rig.considered == 2


def test_answers_in_several_pieces_are_sent_as_one(rig: Rig) -> None:
    def run(data: memoryview, end: int, tags: set[int]) -> int:
        rig.answers.out += [b"head", memoryview(b"data"), bytearray(b"tail")]
        return end

    rig.lane.run = run  # type: ignore[method-assign]
    rig.say(b"0123456789")
    assert rig.came() == b"headdatatail" and not rig.answers.out
    rig.lane.run = lambda *_: rig.answers.out.append(bytearray(b"one")) or 10  # type: ignore[method-assign]
    rig.say(b"0123456789")
    assert rig.came() == b"one"


def test_what_the_socket_does_not_take_the_transport_does(rig: Rig) -> None:
    filled = 0
    while True:
        try:
            filled += os.write(rig.ours, bytes(4096))
        except BlockingIOError:
            break
    rig.lane.takes = [10, 10]
    rig.say(b"0123456789")
    assert rig.transport.taken == [b"<10>"] and rig.inlet._outlet.waits
    rig.say(b"0123456789")  # which goes behind it
    assert rig.sent == [b"<10>"]
    while filled:
        filled -= len(rig.came())


def test_a_part_that_the_socket_took_is_not_sent_again(rig: Rig) -> None:
    body = random.Random(1).randbytes(200_000)  # more than a pipe takes

    def run(data: memoryview, end: int, tags: set[int]) -> int:
        rig.answers.out.append(body)
        return end

    rig.lane.run = run  # type: ignore[method-assign]
    rig.say(b"0123456789")
    assert rig.came() + rig.transport.taken[0] == body and len(rig.transport.taken[0]) < len(body)


@settings(max_examples=200, deadline=None)
@given(
    takes=st.lists(st.integers(0, 12), max_size=8),
    missing=st.integers(0, 12),
    length=st.integers(1, 40),
    waits=st.booleans(),
)
def test_both_do_the_same(takes: list[int], missing: int, length: int, waits: bool) -> None:
    seen = []
    for base in INLETS.values():
        rig = Rig(base, takes)
        rig.engine.missing, rig.inlet._outlet.waits = missing, waits
        rig.say(bytes(range(length)))
        seen.append((rig.lane.asked, rig.long, rig.sent, rig.came(), rig.failures))
        rig.close()
    assert seen[0] == seen[1] and not seen[0][4]

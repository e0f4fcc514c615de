"""Many sockets behind one reader: everybody is heard, nobody holds the loop. With both rolls."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from netboot.tftp import crowd as module
from netboot.tftp.crowd import CREDIT, LOOK, SHARE, TURN, Crowd
from netboot.tftp.roll import PATIENCE

pytestmark = pytest.mark.usefixtures("used")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(3)]
    for ours, _ in made:
        ours.setblocking(False)
    yield made
    for pair in made:
        for sock in pair:
            sock.close()


class Soon:
    def __init__(self, loop: "FakeLoop") -> None:
        self.loop = loop

    def cancel(self) -> None:
        self.loop.soon = None


class FakeLoop:
    """Remembers the one reader, and what is to be called soon."""

    def __init__(self) -> None:
        self.ready: Callable[[], None] = lambda: None
        self.soon: Callable[[], None] | None = None
        self.removed = False

    def add_reader(self, descriptor: int, ready: Callable[[], None]) -> None:
        self.ready = ready

    def remove_reader(self, descriptor: int) -> None:
        self.removed = True

    def call_soon(self, function: Callable[[], None]) -> Soon:
        assert self.soon is None, "once is enough"
        self.soon = function
        return Soon(self)

    def run(self) -> int:
        """Until nothing is to be done soon: how many turns that were."""
        for turns in range(10_000):
            soon, self.soon = self.soon, None
            if soon is None:
                return turns
            soon()
        raise AssertionError("it never rests")


class Clock:
    """Each look at it takes a step."""

    def __init__(self, step: float) -> None:
        self.now, self.step, self.looks = 0.0, step, 0

    def __call__(self) -> float:
        self.looks += 1
        self.now += self.step
        return self.now


def crowd_of(
    loop: Any,
    hear: Callable[[int, bytes, float], object],
    clock: Callable[[], float] | None = None,
) -> Crowd[int]:
    def never(*what: object) -> None:
        raise AssertionError(what)

    return Crowd(loop, lambda *heard: (hear(*heard), None)[1], never, never, clock or Clock(1e-6))


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_everybody_is_heard(
    factory: Callable[[], asyncio.AbstractEventLoop], pairs: list[Pair]
) -> None:
    async def body() -> None:
        heard: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        done = asyncio.Event()

        def hear(number: int, data: bytes, now: float) -> None:
            heard[number].append(data)
            if sum(map(len, heard.values())) == 300:
                done.set()

        crowd = crowd_of(asyncio.get_running_loop(), hear, asyncio.get_running_loop().time)
        for number, (ours, _) in enumerate(pairs):
            crowd.add(ours, number, crowd.ready())
        for round_ in range(100):
            for _, theirs in pairs:
                theirs.send(bytes([round_]))
            await asyncio.sleep(0.001 if round_ % 20 == 0 else 0)
        await asyncio.wait_for(done.wait(), 20)
        assert heard == {number: [bytes([n]) for n in range(100)] for number in range(3)}
        for ours, _ in pairs:
            crowd.remove(ours)
        crowd.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(body())


def test_an_answer_that_comes_at_once_is_heard_in_the_same_turn(pairs: list[Pair]) -> None:
    ours, theirs = pairs[0]
    heard: list[bytes] = []

    def hear(_: int, data: bytes, now: float) -> None:
        heard.append(data)
        if len(heard) < 50:
            theirs.send(b"next")

    loop = FakeLoop()
    crowd = crowd_of(loop, hear)
    crowd.add(ours, 0, crowd.ready())
    theirs.send(b"first")
    soon, loop.soon = loop.soon, None
    assert soon is not None
    soon()
    assert heard == [b"first", *[b"next"] * 49]
    crowd.close()
    assert loop.removed


@pytest.mark.parametrize("members", [1, 3])
def test_the_loop_has_its_turn_back_however_much_comes(pairs: list[Pair], members: int) -> None:
    heard = 0

    def hear(number: int, data: bytes, now: float) -> None:
        nonlocal heard
        heard += 1
        clock()
        pairs[number][1].send(b"more")

    loop, clock = FakeLoop(), Clock(LOOK / 10)
    crowd = crowd_of(loop, hear, clock)
    for number in range(members):
        crowd.add(pairs[number][0], number, crowd.ready())
        pairs[number][1].send(b"first")
    for _ in range(5):
        before, begun = heard, clock.now
        soon, loop.soon = loop.soon, None
        assert soon is not None, "it comes back soon"
        soon()
        assert heard > before + 1
        assert clock.now - begun <= TURN + (SHARE + 2) * clock.step
    crowd.close()
    assert loop.soon is None


def test_who_has_nothing_for_a_while_is_told_of_by_the_set(pairs: list[Pair]) -> None:
    heard: list[int] = []
    loop = FakeLoop()
    crowd = crowd_of(loop, lambda number, data, now: heard.append(number), Clock(LOOK))
    for number in range(3):
        crowd.add(pairs[number][0], number, crowd.ready())
    loop.run()
    assert not crowd._roll and loop.soon is None
    pairs[1][1].send(b"x")
    loop.ready()
    assert heard == [1] and len(crowd._roll) == 1
    loop.ready()  # as the set would have it, beside the turn that is due: no second one
    assert heard == [1]
    loop.run()
    assert not crowd._roll
    crowd.close()


def test_the_others_are_not_forgotten_while_one_is_heard_all_the_time(pairs: list[Pair]) -> None:
    order: list[int] = []

    def hear(number: int, data: bytes, now: float) -> None:
        order.append(number)
        if number == 0 and len(order) < 40:
            pairs[0][1].send(b"more")
        if len(order) == 20:
            pairs[1][1].send(b"me too")

    loop = FakeLoop()
    crowd = crowd_of(loop, hear)
    for number in (0, 1):
        crowd.add(pairs[number][0], number, crowd.ready())
    loop.run()
    pairs[0][1].send(b"first")
    loop.ready()
    loop.run()
    assert 20 <= order.index(1) <= 22 and len(order) == 40
    crowd.close()


def test_a_member_that_ends_leaves_nothing_behind(pairs: list[Pair]) -> None:
    heard: list[int] = []

    def hear(number: int, data: bytes, now: float) -> None:
        heard.append(number)
        pairs[number][1].send(b"more")
        if len(heard) == 2:
            crowd.remove(pairs[number][0])

    loop = FakeLoop()
    crowd = crowd_of(loop, hear)
    for _ in range(2):
        crowd.add(pairs[0][0], 0, crowd.ready())  # the second time the same descriptor, anew
        pairs[0][1].send(b"first")
        loop.run()
        assert heard == [0, 0]
        assert not crowd._roll and not crowd._names
        heard.clear()
        while True:
            try:
                pairs[0][0].recv(10)
            except BlockingIOError:
                break
    crowd.add(pairs[1][0], 1, crowd.ready())
    loop.run()
    crowd.remove(pairs[1][0])  # from the set
    pairs[1][1].send(b"x")
    loop.ready()
    assert heard == []
    crowd.close()


def test_who_never_answers_soon_is_not_looked_for_any_more(pairs: list[Pair]) -> None:
    ours, theirs = pairs[0]
    loop, heard = FakeLoop(), []
    crowd = crowd_of(loop, lambda number, data, now: heard.append(data), Clock(LOOK))
    crowd.add(ours, 0, crowd.ready())

    def turns() -> bool:
        theirs.send(b"x")
        loop.ready()
        looked = bool(crowd._roll)
        loop.run()
        return looked

    loop.run()  # the first time in vain
    assert [turns() for _ in range(CREDIT + 1)] == [*[True] * (CREDIT - 1), False, False]
    assert len(heard) == CREDIT + 1
    crowd.add(pairs[1][0], 1, crowd.ready())
    assert len(crowd._roll) == 1, "somebody new is"
    crowd.close()


def test_who_answers_soon_gets_its_credit_back(pairs: list[Pair]) -> None:
    loop, heard = FakeLoop(), []

    def hear(number: int, data: bytes, now: float) -> None:
        heard.append(data)
        if len(heard) % 3:
            pairs[0][1].send(b"more")

    crowd = crowd_of(loop, hear)
    crowd.add(pairs[0][0], 0, crowd.ready())
    for _ in range(3 * CREDIT):
        pairs[0][1].send(b"x")
        loop.ready()
        loop.run()
    assert len(heard) == 9 * CREDIT
    assert crowd._names[pairs[0][0].fileno()].credit == CREDIT - 1
    crowd.close()


def test_who_was_ended_by_a_neighbours_packet_is_not_heard(pairs: list[Pair]) -> None:
    heard: list[int] = []

    def hear(number: int, data: bytes, now: float) -> None:
        heard.append(number)
        if len(heard) == 1:
            crowd.remove(pairs[1 - number][0])

    loop = FakeLoop()
    crowd = crowd_of(loop, hear)
    for number in (0, 1):
        crowd.add(pairs[number][0], number, crowd.ready())
        pairs[number][1].send(b"x")
    loop.run()
    assert len(heard) == 1
    crowd.close()


def test_who_was_ended_while_on_its_way_to_the_set_stays_out_of_it(pairs: list[Pair]) -> None:
    """One is off the roll for its silence; a neighbour that is called after it ends it."""
    loop = FakeLoop()
    ends: list[int] = []

    def hear(number: int, data: bytes, now: float) -> None:
        if not crowd._names[pairs[0][0].fileno()].called:
            crowd.remove(pairs[0][0])
            ends.append(number)
        else:
            pairs[1][1].send(b"x")

    crowd = crowd_of(loop, hear)
    for number in (0, 1):
        crowd.add(pairs[number][0], number, crowd.ready())
    pairs[1][1].send(b"x")
    loop.run()
    assert ends == [1]
    pairs[0][1].send(b"x")
    loop.ready()
    assert pairs[0][0].recv(10) == b"x"
    crowd.close()


def test_after_a_fault_of_ours_the_others_are_heard_all_the_same(pairs: list[Pair]) -> None:
    heard: list[int] = []

    def hear(number: int, data: bytes, now: float) -> None:
        if data == b"bad":
            raise ZeroDivisionError
        heard.append(number)

    loop = FakeLoop()
    crowd = crowd_of(loop, hear)
    for number in range(3):
        crowd.add(pairs[number][0], number, crowd.ready())
        pairs[number][1].send(b"bad" if number == 0 else b"good")
    with pytest.raises(ZeroDivisionError):
        loop.run()
    loop.run()
    assert heard == [1, 2]
    crowd.close()


def test_a_client_on_this_very_processor_gets_it_when_nobody_has_anything(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    yielded = []
    monkeypatch.setattr(module.os, "sched_yield", lambda: yielded.append(1))
    loop = FakeLoop()
    crowd = crowd_of(loop, lambda *heard: None)
    crowd.add(pairs[0][0], 0, crowd.ready())
    loop.run()
    assert len(yielded) == PATIENCE + 1
    crowd.close()

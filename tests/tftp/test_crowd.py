"""Many sockets behind one reader: everybody is heard, nobody holds the loop."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator

import pytest
import uvloop

from netboot.tftp.crowd import CREDIT, LOOK, TURN, Crowd

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


class FakeLoop:
    """Remembers the one reader."""

    def __init__(self) -> None:
        self.ready: Callable[[], None] = lambda: None
        self.removed = False

    def add_reader(self, descriptor: int, ready: Callable[[], None]) -> None:
        self.ready = ready

    def remove_reader(self, descriptor: int) -> None:
        self.removed = True


class Clock:
    """Each look at it takes a step."""

    def __init__(self, step: float) -> None:
        self.now, self.step, self.looks = 0.0, step, 0

    def __call__(self) -> float:
        self.looks += 1
        self.now += self.step
        return self.now


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_everybody_is_heard(
    factory: Callable[[], asyncio.AbstractEventLoop], pairs: list[Pair]
) -> None:
    async def body() -> None:
        heard: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        done = asyncio.Event()

        def hear(number: int) -> None:
            heard[number].append(pairs[number][0].recv(100))
            if sum(map(len, heard.values())) == 300:
                done.set()

        crowd: Crowd[int] = Crowd(asyncio.get_running_loop(), hear)
        for number, (ours, _) in enumerate(pairs):
            crowd.add(ours, number)
        for round_ in range(100):
            for _, theirs in pairs:
                theirs.send(bytes([round_]))
            await asyncio.sleep(0)
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

    def hear(member: str) -> None:
        heard.append(ours.recv(100))
        if len(heard) < 5:
            theirs.send(b"next")

    loop = FakeLoop()
    crowd: Crowd[str] = Crowd(loop, hear, Clock(1e-6))  # type: ignore[arg-type]
    crowd.add(ours, "one")
    theirs.send(b"first")
    loop.ready()
    assert heard == [b"first", *[b"next"] * 4]
    crowd.close()
    assert loop.removed


def test_the_loop_has_its_turn_back_however_much_comes(pairs: list[Pair]) -> None:
    ours, theirs = pairs[0]
    counts = itertools.count()

    def hear(member: str) -> None:
        next(counts)
        ours.recv(100)
        theirs.send(b"more")

    loop = FakeLoop()
    clock = Clock(LOOK / 10)
    crowd: Crowd[str] = Crowd(loop, hear, clock)  # type: ignore[arg-type]
    crowd.add(ours, "one")
    theirs.send(b"first")
    loop.ready()
    assert 1 < next(counts) <= TURN / (LOOK / 10) + 1
    assert clock.now <= TURN + LOOK
    crowd.close()


def test_who_never_answers_soon_is_not_looked_for_any_more(pairs: list[Pair]) -> None:
    ours, theirs = pairs[0]
    loop, clock = FakeLoop(), Clock(LOOK / 4)
    crowd: Crowd[str] = Crowd(loop, lambda member: [ours.recv(100)], clock)  # type: ignore
    crowd.add(ours, "one")

    def looks() -> int:
        before = clock.looks
        theirs.send(b"x")
        loop.ready()
        return clock.looks - before

    assert all(looks() > 2 for _ in range(CREDIT))
    assert looks() == 1
    crowd.add(pairs[1][0], "somebody new")
    assert looks() > 2
    crowd.close()


def test_who_was_ended_by_a_neighbours_packet_is_not_heard(pairs: list[Pair]) -> None:
    heard: list[int] = []
    loop = FakeLoop()

    def hear(number: int) -> None:
        heard.append(number)
        pairs[number][0].recv(100)
        crowd.remove(pairs[1 - number][0])

    crowd: Crowd[int] = Crowd(loop, hear, Clock(LOOK))  # type: ignore[arg-type]
    for number in (0, 1):
        crowd.add(pairs[number][0], number)
        pairs[number][1].send(b"x")
    loop.ready()
    assert len(heard) == 1
    crowd.close()

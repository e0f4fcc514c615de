"""Many sockets behind one reader: everybody is heard, nobody holds the loop."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator

import pytest
import uvloop

from netboot.tftp.crowd import ALONE, CREDIT, LOOK, TURN, Crowd

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


def read(sock: socket.socket, most: int, got: Callable[[bytes], object]) -> int:
    """What a member does: up to ``most`` datagrams; how many there were."""
    for count in range(most):
        try:
            got(sock.recv(100))
        except BlockingIOError:
            return count
    return most


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

        def hear(number: int, most: int) -> int:
            count = read(pairs[number][0], most, heard[number].append)
            if sum(map(len, heard.values())) == 300:
                done.set()
            return count

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

    def got(data: bytes) -> None:
        heard.append(data)
        if len(heard) < 50:
            theirs.send(b"next")

    loop = FakeLoop()
    crowd: Crowd[str] = Crowd(loop, lambda _, most: read(ours, most, got), Clock(1e-6))  # type: ignore[arg-type]
    crowd.add(ours, "one")
    theirs.send(b"first")
    loop.ready()
    assert heard == [b"first", *[b"next"] * 49]
    crowd.close()
    assert loop.removed


@pytest.mark.parametrize("lane", [True, False])
def test_the_loop_has_its_turn_back_however_much_comes(pairs: list[Pair], lane: bool) -> None:
    counts = itertools.count()

    def hear(number: int, most: int) -> int:
        ours, theirs = pairs[number]

        def got(data: bytes) -> None:
            next(counts)
            clock()
            theirs.send(b"more")

        return read(ours, most, got)

    loop = FakeLoop()
    clock = Clock(LOOK / 10)
    crowd: Crowd[int] = Crowd(loop, hear, clock)  # type: ignore[arg-type]
    for number in range(1 if lane else 2):
        crowd.add(pairs[number][0], number)
        pairs[number][1].send(b"first")
    for _ in range(5):
        before, begun = next(counts), clock.now
        loop.ready()
        assert next(counts) > before + 1
        assert clock.now - begun <= TURN + LOOK + ALONE * clock.step
    crowd.close()


def test_one_member_alone_is_read_directly_until_another_has_something(
    pairs: list[Pair],
) -> None:
    order: list[tuple[int, int]] = []

    def hear(number: int, most: int) -> int:
        def got(data: bytes) -> None:
            order.append((number, most))
            if number == 0 and len(order) < 40:
                pairs[0][1].send(b"more")
            if len(order) == 20:
                pairs[1][1].send(b"me too")

        return read(pairs[number][0], most, got)

    loop = FakeLoop()
    crowd: Crowd[int] = Crowd(loop, hear, Clock(1e-6))  # type: ignore[arg-type]
    for number in (0, 1):
        crowd.add(pairs[number][0], number)
    pairs[0][1].send(b"first")
    loop.ready()
    assert order[:2] == [(0, 1), (0, ALONE)]
    other = order.index((1, 1))
    assert 20 <= other <= 20 + ALONE
    assert len(order) == 40
    assert {number for number, _ in order[other + 1 :]} == {0}
    crowd.close()


def test_a_member_that_ends_in_its_lane_leaves_nothing_behind(pairs: list[Pair]) -> None:
    heard: list[int] = []

    def hear(number: int, most: int) -> int:
        ours, theirs = pairs[number]

        def got(data: bytes) -> None:
            heard.append(number)
            theirs.send(b"more")

        if len(heard) < 2:
            return read(ours, 1, got)
        read(ours, 1, lambda data: None)
        crowd.remove(ours)
        return 1

    loop = FakeLoop()
    crowd: Crowd[int] = Crowd(loop, hear, Clock(1e-6))  # type: ignore[arg-type]
    for number in (0, 1):
        crowd.add(pairs[number][0], number)
    pairs[0][1].send(b"first")
    loop.ready()
    assert heard == [0, 0]
    crowd.add(pairs[0][0], 0)  # the same descriptor, anew
    heard.clear()
    pairs[0][1].send(b"again")
    loop.ready()
    assert heard == [0, 0]
    crowd.close()


def test_who_never_answers_soon_is_not_looked_for_any_more(pairs: list[Pair]) -> None:
    ours, theirs = pairs[0]
    loop, clock = FakeLoop(), Clock(LOOK / 4)
    crowd: Crowd[str] = Crowd(
        loop,
        lambda _, most: read(ours, most, lambda data: None),
        clock,  # type: ignore[arg-type]
    )
    crowd.add(ours, "one")

    def looks() -> int:
        before = clock.looks
        theirs.send(b"x")
        loop.ready()
        return clock.looks - before

    assert all(looks() > 2 for _ in range(CREDIT))
    assert looks() <= 2
    crowd.add(pairs[1][0], "somebody new")
    assert looks() > 2
    crowd.close()


def test_who_was_ended_by_a_neighbours_packet_is_not_heard(pairs: list[Pair]) -> None:
    heard: list[int] = []
    loop = FakeLoop()

    def hear(number: int, most: int) -> int:
        heard.append(number)
        pairs[number][0].recv(100)
        if len(heard) == 1:
            crowd.remove(pairs[1 - number][0])
        return 1

    crowd: Crowd[int] = Crowd(loop, hear, Clock(LOOK))  # type: ignore[arg-type]
    for number in (0, 1):
        crowd.add(pairs[number][0], number)
        pairs[number][1].send(b"x")
    loop.ready()
    assert len(heard) == 1
    crowd.close()

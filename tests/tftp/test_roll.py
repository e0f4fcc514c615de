"""The roll: who has something is answered, who has nothing costs a look, and for how long."""

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from netboot.tftp import rollcall, wire
from netboot.tftp.roll import LARGEST_ANSWER, PATIENCE, Name, Roll
from netboot.tftp.wire import Ack, Data

COUNT = 4
PACKETS = tuple(wire.encode(Data(block, bytes(9))) for block in range(1, 9))


def ack(block: int) -> bytes:
    return wire.encode(Ack(block))


class Room:
    """A roll of some sockets, and what it told of them."""

    def __init__(self, kind: type[Roll[int]]) -> None:
        self.roll = kind(self.hear, self.unreachable, self.unsent)
        self.pairs = []
        self.names: list[Name[int]] = []
        self.told: list[object] = []
        self.ending: int | None = None  #: who is to be taken off when somebody is heard
        for number in range(COUNT):
            ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
            ours.setblocking(False)
            theirs.setblocking(False)
            ready = self.roll.ready()
            ready.load(PACKETS, 1)
            self.pairs.append((ours, theirs))
            self.names.append(self.roll.name(ours, number, ready, 3))

    def hear(self, member: int, data: bytes, now: float) -> None:
        self.told.append((member, data, now))
        if self.ending is not None:
            self.roll.remove(self.names[self.ending])
            self.ending = None

    def unreachable(self, member: int) -> None:
        self.told.append(("unreachable", member))

    def unsent(self, member: int, error: OSError) -> None:
        self.told.append(("unsent", member, error.errno))

    def say(self, number: int, data: bytes) -> None:
        self.pairs[number][1].send(data)

    def got(self, number: int) -> bytes | None:
        try:
            return self.pairs[number][1].recv(100)
        except BlockingIOError:
            return None


@pytest.fixture
def room(used: type[Roll[Any]]) -> Iterator[Room]:
    room = Room(used)
    for name in room.names:
        room.roll.add(name)
    yield room
    for pair in room.pairs:
        for sock in pair:
            sock.close()


def test_the_compiled_roll_is_compiled() -> None:
    assert rollcall.Roll is not Roll and rollcall.__file__.endswith(".so")


def test_what_is_expected_is_answered_and_all_else_is_handed_on(room: Room) -> None:
    room.say(0, ack(1))
    room.say(1, ack(7))
    room.say(2, b"")
    room.say(3, b"y" * (LARGEST_ANSWER + 50))
    assert room.roll.call(2.5, COUNT) == (4, [])
    assert [room.got(number) for number in range(COUNT)] == [PACKETS[1], None, None, None]
    assert room.told == [(1, ack(7), 2.5), (2, b"", 2.5), (3, b"y" * LARGEST_ANSWER, 2.5)]
    assert [name.heard for name in room.names] == [1, 1, 1, 1]


def test_everybody_is_called_in_turn_and_no_more_than_asked_for(room: Room) -> None:
    for number in range(COUNT):
        room.say(number, ack(1))
        room.say(number, ack(2))
    assert room.roll.call(0, 3) == (3, [])
    assert [room.got(number) for number in range(COUNT)] == [PACKETS[1]] * 3 + [None]
    assert room.roll.call(0, 3) == (3, [])
    assert [room.got(number) for number in (3, 0, 1, 2)] == [PACKETS[1], *[PACKETS[2]] * 2, None]
    assert room.roll.call(0, 100) == (2, [])
    assert room.roll.call(0, 100) == (0, [])


def test_who_has_nothing_is_off_after_a_while_and_the_others_stay(room: Room) -> None:
    for turn in range(PATIENCE):
        room.say(1, b"x")
        assert room.roll.call(turn, COUNT) == (1, [])
    room.say(1, b"x")
    count, off = room.roll.call(0, COUNT)
    assert (count, off) == (1, [room.names[0], room.names[2], room.names[3]])
    assert [name.called for name in room.names] == [False, True, False, False]
    assert len(room.roll) == 1 and room.names[1].heard == PATIENCE + 1
    room.roll.add(room.names[0])
    assert len(room.roll) == 2 and room.names[0].heard == 0
    for _ in range(PATIENCE):
        assert room.roll.call(0, COUNT) == (0, [])
    count, off = room.roll.call(0, COUNT)
    assert count == 0 and {name.member for name in off} == {0, 1}
    assert not room.roll and room.roll.call(0, COUNT) == (0, [])


@pytest.mark.parametrize("ending", range(COUNT))
def test_whoever_is_taken_off_meanwhile_nobody_is_called_twice_or_missed(
    room: Room, ending: int
) -> None:
    room.ending = ending
    for number in range(COUNT):
        room.say(number, b"x")
    room.roll.call(0, 2)
    room.roll.call(0, 2 if ending < 2 else 1)
    heard = [told[0] for told in room.told if isinstance(told, tuple)]
    assert sorted(heard) == [number for number in range(COUNT) if number != ending or ending == 0]


def test_all_may_be_taken_off_while_they_are_called(room: Room) -> None:
    room.ending = 0
    for name in room.names[1:]:
        room.roll.remove(name)
    room.say(0, b"x")
    assert room.roll.call(0, COUNT) == (1, [])
    assert not room.roll


def test_one_can_be_asked_without_being_on_the_roll(room: Room) -> None:
    name = room.names[2]
    room.roll.remove(name)
    assert room.roll.ask(name, 0) is False
    room.say(2, ack(1))
    room.say(2, b"what?")
    assert (room.roll.ask(name, 0), room.roll.ask(name, 1.5)) == (True, True)
    assert (room.got(2), room.told) == (PACKETS[1], [(2, b"what?", 1.5)])
    assert (name.member, name.credit, name.fd) == (2, 3, room.pairs[2][0].fileno())


def test_what_the_kernel_does_not_take_is_told(room: Room) -> None:
    room.say(0, ack(1))
    room.pairs[0][1].close()
    assert room.roll.call(0, 1) == (1, [])
    ((what, member, code),) = room.told  # type: ignore[misc]
    assert (what, member) == ("unsent", 0)  # type: ignore[has-type]
    assert code == errno.ECONNREFUSED  # type: ignore[has-type]


def test_an_error_that_waits_for_us_is_told_and_is_no_datagram(used: type[Roll[Any]]) -> None:
    told: list[object] = []
    roll = used(lambda *heard: told.append(heard), told.append, lambda *sent: told.append(sent))
    with socket.socket(type=socket.SOCK_DGRAM) as free, socket.socket(type=socket.SOCK_DGRAM) as us:
        free.bind(("127.0.0.1", 0))
        us.setblocking(False)
        us.connect(free.getsockname())
        free.close()
        us.send(b"anybody?")
        name = roll.name(us, "gone", roll.ready(), 0)
        roll.add(name)
        assert roll.call(0, 1) == (0, [])
        assert told == ["gone"]
        assert roll.call(0, 1) == (0, [])
        assert told == ["gone"]

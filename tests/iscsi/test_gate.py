"""All connections are read in one place: each its own bytes, whoever comes and goes meanwhile."""

import asyncio
import errno
import gc
import os
import select
import socket
import struct
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from netboot.iscsi import gate as module
from netboot.iscsi import intake
from netboot.iscsi.gate import Gate
from netboot.iscsi.nearby import Nearby
from netboot.iscsi.spin import Spin

ROOM = 4096


class Door(intake.Inlet):
    """One connection: notes what came, and does what it was told to do about it."""

    def __init__(self, rig: "Rig") -> None:
        super().__init__(Spin(lambda look: None, lambda: 0.0), memoryview(rig.room))
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.engine = SimpleNamespace(missing=0)
        self.came: list[bytes] = []
        self.overs: list[int] = []
        self.failures = 0
        self.then: Callable[[], object] = lambda: None

    @property
    def fd(self) -> int:
        return self.ours.fileno()

    def _long_way(self, view: memoryview, tags: set[int], nbytes: int) -> None:
        self.came.append(bytes(view))
        self.then()

    def _failed(self) -> None:
        self.failures += 1

    def over(self, error: int) -> None:
        self.overs.append(error)


class Rig:
    """A gate, and the connections that were made at it."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.room = bytearray(ROOM)
        self.doors: list[Door] = []

    def door(self, *, add: bool = True) -> Door:
        door = Door(self)
        self.doors.append(door)
        if add:
            self.gate.add(door.fd, door)
        return door

    def close(self) -> None:
        self.gate.close()
        for door in self.doors:
            door.ours.close()
            door.theirs.close()


@pytest.fixture
def rig() -> Any:
    rig = Rig()
    yield rig
    rig.close()


def test_it_is_compiled() -> None:
    assert module.__file__.endswith(".so")


def test_each_gets_what_came_by_its_own_connection(rig: Rig) -> None:
    assert rig.gate.turn() == 0
    doors = [rig.door() for _ in range(10)]
    for number, door in enumerate(doors):
        if number % 3:
            door.theirs.send(b"%d" % number)
    assert rig.gate.turn() == 6
    assert [door.came for door in doors] == [[b"%d" % n] if n % 3 else [] for n in range(10)]
    assert rig.gate.turn() == 0


def test_more_than_there_is_room_for_comes_next_time(rig: Rig) -> None:
    door = rig.door()
    door.theirs.send(b"a" * ROOM + b"b" * 10)
    assert rig.gate.turn() == 1 and door.came == [b"a" * ROOM]
    assert rig.gate.turn() == 1 and door.came[1:] == [b"b" * 10]


def test_where_several_come_those_are_read_that_come_meanwhile(rig: Rig) -> None:
    first, second, late = rig.door(), rig.door(), rig.door()
    first.then = lambda: late.theirs.send(b"late")
    first.theirs.send(b"1")
    second.theirs.send(b"2")
    assert rig.gate.turn() == 3 and late.came == [b"late"]


def test_the_loop_has_its_turn_however_much_comes(rig: Rig) -> None:
    doors = [rig.door() for _ in range(2)]
    for door in doors:
        door.then = lambda door=door: door.theirs.send(b"x")  # type: ignore[misc]
        door.theirs.send(b"x")
    assert 2 <= rig.gate.turn() <= 66


def test_a_look_waits_for_what_comes_and_no_longer_than_it_may(rig: Rig) -> None:
    door, other = rig.door(), rig.door()
    assert rig.gate.look(0.0) == rig.gate.look(1e-5) == 0
    later = threading.Timer(0.05, door.theirs.send, [b"x"])  # while nobody else may run: it may
    later.start()
    assert rig.gate.look(30.0) == 1 and door.came == [b"x"]
    later.join()
    door.theirs.send(b"y")
    other.theirs.send(b"z")
    assert rig.gate.look(30.0) == 2 and (door.came[1:], other.came) == ([b"y"], [b"z"])


def test_nobody_of_very_many_is_left_out(rig: Rig) -> None:
    doors = [rig.door() for _ in range(200)]
    for door in doors:
        door.theirs.send(b"x")
    turns = 0
    while rig.gate.turn():
        turns += 1
    assert turns == 4 and all(door.came == [b"x"] for door in doors)


def test_who_is_removed_is_read_no_more_and_can_be_added_again(rig: Rig) -> None:
    door = rig.door()
    door.theirs.send(b"one")
    rig.gate.remove(door.fd, door)
    rig.gate.remove(door.fd, door)
    assert rig.gate.turn() == 0 and not door.came
    rig.gate.add(door.fd, door)
    rig.gate.add(door.fd, door)
    assert rig.gate.turn() == 1 and door.came == [b"one"]


def test_who_is_ended_by_one_before_it_is_not_read(rig: Rig) -> None:
    doors = [rig.door() for _ in range(2)]
    for one, other in (doors, doors[::-1]):
        one.then = lambda other=other: rig.gate.remove(other.fd, other)  # type: ignore[misc]
        one.theirs.send(b"x")
    rig.gate.turn()
    assert sorted(len(door.came) for door in doors) == [0, 1]


def test_a_number_that_is_anothers_by_now(rig: Rig) -> None:
    old = rig.door()
    number = old.fd
    old.ours.close()  # the loop did, and has not said so yet
    new = rig.door(add=False)
    assert new.fd == number
    rig.gate.add(number, new)
    rig.gate.remove(number, old)
    new.theirs.send(b"new")
    assert rig.gate.turn() == 1 and new.came == [b"new"] and not old.came


def test_a_connection_that_was_closed_is_removed_without_a_word(rig: Rig) -> None:
    door = rig.door()
    number = door.fd
    door.ours.close()
    rig.gate.remove(number, door)
    assert rig.gate.turn() == 0 and not door.overs


def test_a_file_that_has_the_number_now_is_not_read(rig: Rig, tmp_path: Any) -> None:
    """Between the close and the word of it, a worker may have opened a disk."""
    (tmp_path / "disk").write_bytes(b"a disk's")
    first, second = rig.door(), rig.door()
    opened: list[int] = []

    def replace(other: Door) -> None:
        number = other.fd
        other.ours.close()
        opened.append(os.open(tmp_path / "disk", os.O_RDONLY))
        assert opened == [number]

    for one, other in ((first, second), (second, first)):
        one.then = lambda other=other: replace(other)  # type: ignore[misc]
        one.theirs.send(b"x")
    rig.gate.turn()
    ended = first if second.came else second
    assert ended.overs == [errno.ENOTSOCK] and not ended.came
    assert os.read(opened[0], 100) == b"a disk's"
    os.close(opened[0])


def test_the_end_of_the_stream_is_told_once(rig: Rig) -> None:
    door = rig.door()
    door.theirs.send(b"last")
    door.theirs.close()
    assert rig.gate.turn() == 1 and door.came == [b"last"]
    assert rig.gate.turn() == 1 and door.overs == [0]
    assert rig.gate.turn() == 0 and door.overs == [0]


def test_a_reset_is_told_with_its_reason(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        door = rig.door(add=False)
        door.ours.close()
        door.ours, _ = server.accept()
        rig.gate.add(door.fd, door)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert select.select([rig.gate.fd], [], [], 5.0)[0]
        rig.gate.turn()
    assert door.overs == [errno.ECONNRESET]


def test_a_mistake_at_one_ends_no_other(rig: Rig) -> None:
    doors = [rig.door() for _ in range(3)]
    for door in doors:
        door.then = lambda: 1 // 0
        door.theirs.send(b"x")
    assert rig.gate.turn() == 3
    assert [door.failures for door in doors] == [1, 1, 1]


def test_nothing_has_come_after_all(rig: Rig) -> None:
    """Somebody else has read it: the kernel's word is a hint."""
    one, two = rig.door(), rig.door()
    for each, other in ((one, two), (two, one)):
        each.then = lambda other=other: other.ours.recv(10)  # type: ignore[misc]
        each.theirs.send(b"x")
    rig.gate.turn()
    assert sorted([len(one.came), len(two.came)]) == [0, 1] and not one.overs + two.overs


def test_what_is_nearby_is_fetched_whoever_has_it(rig: Rig) -> None:
    for number in range(9):
        door = rig.door()
        if number % 2:
            door._nearby = Nearby(door, door.engine)
        elif number % 4:
            door._nearby = SimpleNamespace()  # of another kind: not ours to ask
        door.theirs.send(b"x")
    assert rig.gate.turn() == 9


def test_who_has_ended_is_kept_by_nobody(rig: Rig) -> None:
    for way in ("removed", "replaced", "closed"):
        door = Door(rig)
        there = weakref.ref(door)
        rig.gate.add(door.fd, door)
        if way == "removed":
            rig.gate.remove(door.fd, door)
        elif way == "replaced":
            rig.gate.add(door.fd, rig.door(add=False))
        else:
            rig.gate.close()
        door.ours.close()
        door.theirs.close()
        del door
        gc.collect()
        assert there() is None, way


def test_after_the_end_nobody_is_read(rig: Rig) -> None:
    door = rig.door()
    rig.gate.close()
    rig.gate.close()
    rig.gate.add(door.fd, door)
    rig.gate.remove(door.fd, door)
    rig.gate.add(-1, door)
    assert rig.gate.turn() == 0 and rig.gate.fd == -1


def test_what_is_not_a_connection_is_refused(rig: Rig, tmp_path: Any) -> None:
    door = rig.door(add=False)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="not permitted"):
        rig.gate.add(file.fileno(), door)
    rig.gate.remove(file.fileno() if not file.closed else 0, door)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_wakes_up_for_it(rig: Rig, new_loop: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        door, came = rig.door(), asyncio.Event()
        door.then = came.set
        loop.add_reader(rig.gate.fd, rig.gate.turn)
        for _ in range(3):
            came.clear()
            door.theirs.send(b"x")
            await asyncio.wait_for(came.wait(), 5.0)
        loop.remove_reader(rig.gate.fd)
        assert door.came == [b"x"] * 3

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())

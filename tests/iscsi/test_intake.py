"""What the compiled inlet does by itself: the compiled lane is taken without a step of Python.

That it does what the one in Python does is ``test_inlet``'s and ``test_peer``'s.
"""

import fcntl
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from netboot.iscsi import intake, lane
from netboot.iscsi.outlet import Outlet
from netboot.iscsi.spin import Spin
from tests.iscsi.conftest import Bench, read_pdus


class Door(intake.Inlet):
    """Of a session with the compiled lane; notes what else was asked of it."""

    def __init__(self, room: bytearray) -> None:
        super().__init__(Spin(lambda look: None, lambda: 0.0), memoryview(room))
        self.bench = Bench(1 << 20)
        self.session = self.bench.session("InitialR2T=No", "ImmediateData=Yes")
        self.engine = self.session.engine
        self._lane = self.session.edge.lane
        self.theirs, self.ours = os.pipe()
        fcntl.fcntl(self.ours, fcntl.F_SETPIPE_SZ, 1 << 20)
        self._outlet = Outlet(SimpleNamespace(), self.ours)  # type: ignore[arg-type]
        self._outlet.waits = False
        self.long: list[bytes] = []

    def _long_way(self, view: memoryview, tags: set[int], nbytes: int) -> None:
        self.long.append(bytes(view))

    def _failed(self) -> None:
        raise

    def say(self, data: bytes) -> list[Any]:
        self.get_buffer(-1)[: len(data)] = data
        self.buffer_updated(len(data))
        return list(read_pdus(os.read(self.theirs, 1 << 20)))

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def door() -> Any:
    door = Door(bytearray(1 << 16))
    yield door
    door.close()


def test_it_is_compiled() -> None:
    assert intake.__file__.endswith(".so")


def test_reads_and_writes_are_answered_without_a_step_of_python(door: Door) -> None:
    assert type(door._lane) is lane.Lane
    initiator = door.session.initiator
    called: list[str] = []
    disk = vars(type(door.bench.disk))

    def note(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name not in disk:
            called.append(frame.f_code.co_name)

    data = initiator.write(8, 1, b"w" * 512) + initiator.read(8, 1) + initiator.read(0, 1)
    room = door.get_buffer(-1)
    room[: len(data)] = data
    sys.setprofile(note)
    try:
        door.buffer_updated(len(data))
    finally:
        sys.setprofile(None)
    assert not set(called) - {"_first_read", "_begin_reading"} and not door.long
    written, own, golden = read_pdus(os.read(door.theirs, 1 << 16))
    assert (written.opcode, own.data, golden.data) == (0x21, b"w" * 512, bytes(512))


def test_a_write_is_taken_from_where_it_lies_in_the_buffer(door: Door) -> None:
    """The second run begins behind the first, and its data too."""
    initiator = door.session.initiator
    many = b"".join(initiator.read(0, 1) for _ in range(256))  # as many as one run answers
    answers = door.say(many + initiator.write(3, 1, b"3" * 512))
    assert [pdu.opcode for pdu in answers] == [0x25] * 256 + [0x21]
    assert door.bench.disk.data[1536:2048] == b"3" * 512


def test_nothing_of_the_buffer_is_kept(door: Door) -> None:
    room = bytearray(1 << 12)
    door._room = memoryview(room)
    door.say(door.session.initiator.read(0, 1))
    door._room.release()
    room.extend(b"grows")  # which nobody may do while somebody looks at it

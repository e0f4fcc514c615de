"""What all connections are read by: there when the first session needs it, gone at the end."""

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import uvloop

from netboot.iscsi import intake, reading
from netboot.iscsi.reading import RECEIVE_BUFFER, SMALL_ROOM, Reading
from tests.iscsi.uncompiled import without


class Door(intake.Inlet):
    """A connection that notes what came."""

    def __init__(self, shared: Reading) -> None:
        super().__init__(shared.spin, shared.small)
        self.engine = SimpleNamespace(missing=0)
        self.came: list[bytes] = []
        self.then: Callable[[], object] = lambda: None

    def _long_way(self, view: memoryview, tags: set[int], nbytes: int) -> None:
        self.came.append(bytes(view))
        self.then()


def test_a_small_chunk_is_the_beginning_of_the_buffer() -> None:
    shared = Reading()
    assert (len(shared.room), len(shared.small)) == (RECEIVE_BUFFER, SMALL_ROOM)
    shared.room[:5] = b"hello"
    assert shared.small[:5] == b"hello"


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_loop_reads_at_the_gate(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        shared = Reading()
        gate = shared.gate
        assert gate is not None and shared.gate is gate
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            door, came = Door(shared), asyncio.Event()
            door.then = came.set
            gate.add(ours.fileno(), door)
            theirs.send(b"x")
            await asyncio.wait_for(came.wait(), 20)
            assert door.came == [b"x"]
        shared.close()
        assert gate.fd == -1
        shared.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_who_keeps_the_loop_awake_looks_at_the_gate() -> None:
    async def main() -> None:
        shared = Reading()
        before = shared.spin.look
        assert before(1.0) == 0  # nobody is there: no wait
        gate = shared.gate
        assert gate is not None and shared.spin.look == gate.look != before
        shared.close()
        assert shared.spin.look(1.0) == 0  # a look that was put off before the end

    asyncio.run(main())


def test_nothing_is_made_for_nobody() -> None:
    shared = Reading()
    shared.close()
    assert shared._gate is None


def test_where_it_was_not_built_the_loop_reads() -> None:
    shared = without("netboot.iscsi.gate", "netboot.iscsi.reading").Reading()
    assert reading.Gate is not None and shared.gate is None
    assert shared.spin.look(1.0) == 0
    shared.close()

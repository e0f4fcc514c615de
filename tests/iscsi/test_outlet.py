"""Answers leave in order, whoever takes them: the socket, or the transport that waits for it."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from netboot.iscsi.outlet import JOIN, Outlet


class Transport:
    """Takes what is passed on."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.buffered, self.closing = 0, False

    def writelines(self, out: Any) -> None:
        self.taken.append(b"".join(map(bytes, out)))

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return self.closing


class Rig:
    """An outlet at one end of a socket."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours, self.theirs = ours, theirs
        self.transport: Any = Transport()
        self.outlet = Outlet(self.transport, ours.fileno())

    def full(self) -> int:
        """Fill the socket; with how many bytes."""
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += self.ours.send(bytes(65536))
        return filled

    def came(self) -> bytes:
        """What came by the socket."""
        found = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                found += self.theirs.recv(1 << 20)
        return found


@pytest.fixture
def rig() -> Iterator[Rig]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield Rig(ours, theirs)


def test_answers_go_straight_to_the_socket(rig: Rig) -> None:
    assert rig.outlet.waits  # nobody has asked the transport yet
    rig.outlet.put([b"one"])
    assert not rig.outlet.waits
    rig.outlet.write([b"two", memoryview(b"three")])
    assert rig.came() == b"onetwothree" and not rig.transport.taken


def test_what_the_socket_does_not_take_is_the_transports(rig: Rig) -> None:
    rig.outlet.put([b"one"])
    filled = rig.full() + 3
    rig.outlet.write([b"late"])
    assert rig.outlet.waits and rig.transport.taken == [b"late"]
    assert len(rig.came()) == filled


def test_a_part_that_the_socket_took_is_not_sent_again(rig: Rig) -> None:
    rig.outlet.put([b"1"])
    body = bytes(range(256)) * 3072  # 768 KiB: below JOIN, more than the socket takes
    rig.outlet.write([body[:1000], body[1000:]])
    came = rig.came()
    assert rig.outlet.waits and 0 < len(came) < len(body)
    assert came[1:] + rig.transport.taken[0] == body


def test_what_waits_goes_first_and_then_it_is_straight_again(rig: Rig) -> None:
    rig.transport.buffered = 1
    rig.outlet.put([b"one"])
    assert rig.outlet.waits
    rig.transport.buffered = 0
    rig.outlet.put([b"two"])
    assert not rig.outlet.waits
    assert rig.transport.taken == [b"one"] and rig.came() == b"two"


def test_nothing_is_written_to_a_number_that_may_be_anothers(rig: Rig) -> None:
    rig.transport.closing = True
    rig.outlet.put([b"one"])
    nobody = Outlet(rig.transport, -1)
    rig.transport.closing = False
    nobody.put([b"two"])
    assert rig.transport.taken == [b"one", b"two"] and not rig.came()


def test_answers_are_joined_unless_they_are_very_large(rig: Rig) -> None:
    rig.outlet.put([b"head", bytes(1000)])
    assert rig.came() == b"head" + bytes(1000)
    rig.outlet.put([b"head", bytes(JOIN)])
    assert rig.outlet.waits and rig.transport.taken == [b"head" + bytes(JOIN)]
    rig.outlet.put([bytes(JOIN + 1)])
    assert len(rig.came()) + len(rig.transport.taken[-1]) == JOIN + 1


def test_a_socket_that_is_gone_is_told_by_the_transport(rig: Rig) -> None:
    rig.outlet.put([b"one"])
    rig.theirs.close()
    rig.outlet.write([b"two"])
    assert rig.transport.taken == [b"two"]

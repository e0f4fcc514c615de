"""What is the compiled roll's alone: it says no less than the one in Python, and keeps nothing.

How it calls is ``test_roll``'s, what it answers ``test_ready``'s and ``test_engine``'s: all of
them hold both to the same.
"""

import gc
import inspect
import socket
import sys
import weakref

import pytest

from netboot.tftp import ready, roll, rollcall, wire
from netboot.tftp.wire import Ack, Data


@pytest.mark.parametrize(
    ("python", "compiled"), [(roll.Roll, rollcall.Roll), (ready.Ready, rollcall.Ready)]
)
def test_it_has_all_that_the_one_in_python_has(python: type, compiled: type) -> None:
    said = {name for name, _ in inspect.getmembers(python) if not name.startswith("_")}
    assert said <= {name for name, _ in inspect.getmembers(compiled)}


def test_a_name_has_all_that_a_crowd_asks_for() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        name = rollcall.Roll.name(sock, "member", rollcall.Ready(), 5)
        assert (name.fd, name.member, name.credit) == (sock.fileno(), "member", 5)
        assert (name.called, name.heard) == (False, 0)
        name.credit -= 1
        assert name.credit == 4


def test_nobody_and_nothing_is_kept_once_it_is_off() -> None:
    class Member:
        pass

    member, told = Member(), []
    gone = weakref.ref(member)
    calls = rollcall.Roll(lambda *heard: told.append(heard), told.append, told.append)
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    ours.setblocking(False)
    packets = tuple(wire.encode(Data(block, b"x" * 300)) for block in range(1, 5))
    before = [sys.getrefcount(packet) for packet in packets]
    answers = calls.ready()
    answers.load(packets, 1)
    name = calls.name(ours, member, answers, 1)
    calls.add(name)
    for block in range(1, 5):
        theirs.send(wire.encode(Ack(block)))
        assert calls.call(0, 1) == (1, [])
    assert len(told) == 1
    calls.remove(name)
    told.clear()
    ours.close()
    theirs.close()
    del member, name, answers
    gc.collect()
    assert gone() is None
    assert [sys.getrefcount(packet) for packet in packets] == before


def test_what_is_not_a_name_or_not_ready_is_an_error_and_no_crash() -> None:
    calls = rollcall.Roll(print, print, print)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(TypeError):
        calls.name(sock, "member", ready.Ready(), 1)
    with pytest.raises(TypeError):
        calls.add(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        rollcall.Ready().load([b"\0\3\0\1"], 1)  # type: ignore[arg-type]

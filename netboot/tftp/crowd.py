"""Many sockets behind one reader of the event loop, and a short look for the next answer.

In lock-step every block waits for its ACK, so a transfer is as fast as we wake up. Who answers
soon is on a roll and is read in turn, again and again; who does not is in an epoll set of our
own, which tells when something has come. An ACK from a client close by so costs nobody a wake-up,
and its sender none of what a set asks of it. Who never answers so soon costs a few such looks and
no more. Never holds the loop longer than ``TURN`` and what the roll does in one call.
"""

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from netboot.tftp.ready import Ready
from netboot.tftp.roll import Name

try:
    from netboot.tftp.rollcall import Roll
except ImportError:  # nobody built it here: the same rules as Python
    from netboot.tftp.roll import Roll

Member = TypeVar("Member")

#: Seconds after which the rest of the service has its turn.
TURN = 1e-3
#: Seconds that the next answer is looked for: about what it takes to be woken.
LOOK = 50e-6
#: So many times on the roll in vain, net of those that paid, and a member stays in the set.
CREDIT = 8
#: So many are called between two looks at the set.
SHARE = 64
_EVENTS = 64


class Crowd(Generic[Member]):
    """See ``Roll`` for ``hear``, ``unreachable`` and ``unsent``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hear: Callable[[Member, bytes, float], None],
        unreachable: Callable[[Member], None],
        unsent: Callable[[Member, OSError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._roll: Roll[Member] = Roll(hear, unreachable, unsent)
        self._clock = clock
        self._epoll = select.epoll()
        self._names: dict[int, Name[Member]] = {}
        self._next: asyncio.Handle | None = None
        loop.add_reader(self._epoll.fileno(), self._ready)

    def ready(self) -> Ready:
        """What a member can be answered from."""
        return self._roll.ready()

    def add(self, sock: socket.socket, member: Member, ready: Ready) -> None:
        """From now on ``sock`` is listened to."""
        name = self._names[sock.fileno()] = self._roll.name(sock, member, ready, CREDIT)
        self._roll.add(name)
        self._soon()

    def remove(self, sock: socket.socket) -> None:
        """No longer; call it before the socket is closed."""
        name = self._names.pop(sock.fileno())
        if name.called:
            self._roll.remove(name)
        else:
            with contextlib.suppress(FileNotFoundError):  # just off the roll, not in the set yet
                self._epoll.unregister(sock.fileno())

    def close(self) -> None:
        """Give the set back; its members are whose they are."""
        if self._next is not None:
            self._next.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        if self._next is None:
            self._turn()

    def _soon(self) -> None:
        if self._next is None:
            self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._next = None
        try:
            self._hear()
        finally:
            if self._roll:
                self._soon()

    def _hear(self) -> None:
        clock, poll, names, roll = self._clock, self._epoll.poll, self._names, self._roll
        end, vain = (now := clock()) + TURN, 0
        until = now + LOOK
        while now < end and now < until:
            for descriptor, _ in poll(0, _EVENTS):
                name = names.get(descriptor)
                if name is None or name.called:
                    continue  # a neighbour's packet has just ended it
                if name.credit:
                    self._epoll.unregister(descriptor)
                    roll.add(name)
                else:
                    roll.ask(name, now)
            if not roll:
                return
            heard, off = roll.call(now, SHARE)
            for name in off:
                if names.get(name.fd) is not name:
                    continue  # ended meanwhile
                self._epoll.register(name.fd, select.EPOLLIN)
                name.credit = min(CREDIT, name.credit + max(0, name.heard - 1)) - 1
            now = clock()
            if heard:
                vain, until = 0, now + LOOK
            else:
                vain += SHARE
                if vain >= len(roll):
                    os.sched_yield()  # to a client on this very processor, who cannot answer else
                    vain = 0

"""Many sockets behind one reader of the event loop, and a short look for the next answer.

In lock-step every block waits for its ACK, so a transfer is as fast as we wake up. One epoll set
of our own hands out what has come to all transfers in one go, and then looks on for a moment: an
ACK from a client close by comes within it, and nobody has to be woken. Who never answers so soon
costs a few such looks and no more. Never holds the loop longer than ``TURN``.
"""

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Member = TypeVar("Member")

#: Seconds that we look on for the next answer: about what it takes to be woken.
LOOK = 50e-6
#: Seconds after which the rest of the service has its turn.
TURN = 1e-3
#: So many looks in vain, net of those that paid, and there are no more until somebody new comes.
CREDIT = 8
_EVENTS = 64


class Crowd(Generic[Member]):
    """``hear`` is called with a member whenever its socket has something to read."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hear: Callable[[Member], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._hear = hear
        self._clock = clock
        self._epoll = select.epoll()
        self._members: dict[int, Member] = {}
        self._credit = CREDIT
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, sock: socket.socket, member: Member) -> None:
        """From now on ``sock`` is listened to."""
        self._members[sock.fileno()] = member
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._credit = CREDIT

    def remove(self, sock: socket.socket) -> None:
        """No longer; call it before the socket is closed."""
        self._epoll.unregister(sock.fileno())
        del self._members[sock.fileno()]

    def close(self) -> None:
        """Give the set back; its members are whose they are."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        clock, poll, members, hear = self._clock, self._epoll.poll, self._members, self._hear
        now = clock()
        end, until = now + TURN, now
        while now < end:
            events = poll(0, _EVENTS)
            if events:
                if until > now:
                    self._credit = min(CREDIT, self._credit + 1)
                for descriptor, _ in events:
                    member = members.get(descriptor)
                    if member is not None:  # else a neighbour's packet has just ended it
                        hear(member)
                if not members or not self._credit:
                    return
                until = (now := clock()) + LOOK
            else:
                os.sched_yield()  # to a client on this very processor, who cannot answer else
                now = clock()
                if now >= until:
                    self._credit = max(0, self._credit - 1)
                    return

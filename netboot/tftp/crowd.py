"""Many sockets behind one reader of the event loop, and a short look for the next answer.

In lock-step every block waits for its ACK, so a transfer is as fast as we wake up. One epoll set
of our own hands out what has come to all transfers in one go, and then looks on for a moment: an
ACK from a client close by comes within it, and nobody has to be woken. Who never answers so soon
costs a few such looks and no more. As long as only one member is heard it has a lane of its own:
its socket leaves the set, whose wake-ups its sender would pay for, and is read directly. Never
holds the loop longer than ``TURN`` and what its members do with a few datagrams.
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
#: So many datagrams of one member in a row, before we see whether another one has something.
ALONE = 16
_EVENTS = 64


class Crowd(Generic[Member]):
    """``hear(member, most)`` reads and answers up to ``most`` datagrams; it says how many.

    It is called when there is something to read, and in a lane when there may be.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hear: Callable[[Member, int], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._hear = hear
        self._clock = clock
        self._epoll = select.epoll()
        self._members: dict[int, Member] = {}
        self._credit = CREDIT
        self._last = -1  # the descriptor that was heard last, if no other was heard with it
        self._apart = -1  # the descriptor that is in its lane and not in the set
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, sock: socket.socket, member: Member) -> None:
        """From now on ``sock`` is listened to."""
        self._members[sock.fileno()] = member
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._credit = CREDIT

    def remove(self, sock: socket.socket) -> None:
        """No longer; call it before the socket is closed."""
        descriptor = sock.fileno()
        if descriptor == self._apart:
            self._apart = -1
        else:
            self._epoll.unregister(descriptor)
        if descriptor == self._last:
            self._last = -1
        del self._members[descriptor]

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
                descriptor = events[0][0] if len(events) == 1 else -1
                if descriptor == self._last and self._credit and descriptor in members:
                    if not self._lane(descriptor, end):
                        return
                else:
                    self._last = descriptor
                    for descriptor, _ in events:
                        member = members.get(descriptor)
                        if member is not None:  # else a neighbour's packet has just ended it
                            hear(member, 1)
                if not members or not self._credit:
                    return
                until = (now := clock()) + LOOK
            else:
                os.sched_yield()  # to a client on this very processor, who cannot answer else
                now = clock()
                if now >= until:
                    self._credit = max(0, self._credit - 1)
                    return

    def _lane(self, descriptor: int, end: float) -> bool:
        """Hear one member; whether another has something now, or may have: this one has ended."""
        clock, poll, hear = self._clock, self._epoll.poll, self._hear
        member, heard = self._members[descriptor], 0
        self._epoll.unregister(descriptor)
        self._apart = descriptor
        until = (now := clock()) + LOOK
        while now < until and now < end:
            count = hear(member, ALONE)
            if self._apart < 0:
                return True
            now = clock()
            if count:
                heard += count
                until = now + LOOK
            if poll(0, 1):
                break
            os.sched_yield()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._apart = -1
        if now < until:
            return now < end
        self._credit = min(CREDIT, self._credit + max(0, heard - 1)) - 1
        return False

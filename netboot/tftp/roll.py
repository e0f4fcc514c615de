"""A roll of sockets that are read in turn, without asking first whether there is something.

While hundreds of transfers go on at once, nearly every socket has its next ACK when its turn
comes. Then ``epoll`` helps nobody: the kernel would keep a list of who is ready, and the sender
of each ACK would pay for that and for waking us. So each socket is simply read; the one ACK that
is expected is answered with a packet that is ``Ready``, all else is handed on. Who has
had nothing for ``PATIENCE`` calls is off the roll. Never waits, knows nothing of the protocol.

Where there was a compiler at the installation, ``rollcall.pyx`` stands in for this: the same in
C's terms. A change here is a change there.
"""

import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from netboot.tftp.ready import Ready

Member = TypeVar("Member")

#: What a client says in a transfer: four bytes, or an ERROR with a short text.
LARGEST_ANSWER = 256
#: So many calls in vain, and a name is off the roll.
PATIENCE = 32


class Name(Generic[Member]):
    """One on the roll, or who may come on it again."""

    __slots__ = ("called", "credit", "fd", "heard", "member", "misses", "ready", "recv", "send")

    def __init__(
        self,
        sock: socket.socket,
        member: Member,
        ready: Ready,
        credit: int,
    ) -> None:
        self.fd = sock.fileno()
        self.recv = sock.recv
        self.send = sock.send
        self.member = member
        self.ready = ready
        self.credit = credit  #: kept for who uses the roll
        self.called = False  #: whether it is on the roll
        self.heard = 0  #: datagrams since it came on it
        self.misses = 0  #: calls in vain since the last datagram


class Roll(Generic[Member]):
    """``hear(member, data, now)`` takes what no ``Ready`` answers.

    ``unreachable(member)`` is told of an error that the kernel had for us, ``unsent(member,
    error)`` of what it did not take. Each of the three may take any name off the roll.
    """

    def __init__(
        self,
        hear: Callable[[Member, bytes, float], None],
        unreachable: Callable[[Member], None],
        unsent: Callable[[Member, OSError], None],
    ) -> None:
        self._hear = hear
        self._unreachable = unreachable
        self._unsent = unsent
        self._names: list[Name[Member]] = []
        self._at = 0  # who is called next

    def __len__(self) -> int:
        return len(self._names)

    @staticmethod
    def ready() -> Ready:
        """What a name can be answered from."""
        return Ready()

    @staticmethod
    def name(
        sock: socket.socket,
        member: Member,
        ready: Ready,
        credit: int,
    ) -> Name[Member]:
        """A name for ``add`` and ``ask``."""
        return Name(sock, member, ready, credit)

    def add(self, name: Name[Member]) -> None:
        """Call it from now on."""
        name.called, name.heard, name.misses = True, 0, 0
        self._names.append(name)

    def remove(self, name: Name[Member]) -> None:
        """No longer."""
        at = self._names.index(name)
        del self._names[at]
        if at < self._at:
            self._at -= 1
        name.called = False

    def ask(self, name: Name[Member], now: float) -> bool:
        """Read and answer one datagram; False: there is none."""
        try:
            data = name.recv(LARGEST_ANSWER)
        except BlockingIOError:
            return False
        except OSError:
            self._unreachable(name.member)
            return False
        packet = name.ready.answer(data, now)
        if packet is None:
            self._hear(name.member, data, now)
            return True
        try:
            name.send(packet)
        except OSError as error:
            self._unsent(name.member, error)
        return True

    def call(self, now: float, most: int) -> tuple[int, list[Name[Member]]]:
        """Ask the next ``most``, each once; how many had something, and who is off the roll."""
        names, ask, count, off = self._names, self.ask, 0, []
        for _ in range(min(most, len(names))):
            if self._at >= len(names):
                if not names:
                    break
                self._at = 0
            name = names[self._at]
            self._at += 1
            if ask(name, now):
                name.heard += 1
                name.misses = 0
                count += 1
            elif name.called:
                name.misses += 1
                if name.misses > PATIENCE:
                    self.remove(name)
                    off.append(name)
        return count, off

"""Packets that are ready: for all who fetch a file, and for one of them the next that it is sent.

In lock-step a client says one thing all the time: the ACK of the block that it was sent last. Its
answer is then a packet that lies ready, and how far the client has got is a number. ``Ready``
keeps both apart from all else that a transfer knows, which follows when somebody asks for it.
Pure, like the engine; it answers what the engine would, byte for byte, or leaves it to the engine.

Where there was a compiler at the installation, ``Ready`` in ``rollcall.pyx`` stands in for the
one in this module. A change here is a change there.
"""

from netboot.tftp.wire import Opcode

#: Such pieces of a file are kept for other transfers of it.
PIECES = 16

_ACK = Opcode.ACK.to_bytes(2)


class Shelf:
    """Packets of one file in blocks of one size, for all who fetch it at about the same time.

    In a storm hundreds do: what the first of them has read and cut up, the others only send.
    """

    __slots__ = ("__weakref__", "_pieces")

    def __init__(self) -> None:
        self._pieces: dict[int, tuple[tuple[bytes, ...], int]] = {}

    def get(self, first: int) -> tuple[tuple[bytes, ...], int] | None:
        """The packets after block ``first``, and the bytes of the file in them."""
        return self._pieces.get(first)

    def put(self, first: int, packets: tuple[bytes, ...], size: int) -> None:
        """Keep them until newer ones take their place."""
        if len(self._pieces) >= PIECES:
            del self._pieces[next(iter(self._pieces))]
        self._pieces[first] = packets, size


class Ready:
    """The packets that answer the next ACKs of one client, as long as they are the expected ones.

    ``heard`` is when the last of them came.
    """

    __slots__ = ("_at", "_expected", "_packets", "_taken", "heard")

    def __init__(self) -> None:
        self._packets: tuple[bytes, ...] = ()
        self._at = 0  # of the packet that comes next
        self._expected: bytes | None = None
        self._taken = 0
        self.heard = 0.0

    def load(self, packets: tuple[bytes, ...], at: int) -> None:
        """``packets[at - 1]`` is sent just now; those from ``at`` on, if any, are next."""
        self._packets, self._at = packets, at
        self._expected = _ACK + packets[at - 1][2:4] if at < len(packets) else None

    def stop(self) -> None:
        """From now on nothing is expected."""
        self._expected = None

    def answer(self, data: bytes, now: float) -> bytes | None:
        """The packet that answers ``data``; None: nothing has changed, ask the transfer."""
        if data != self._expected:
            return None
        packets, at = self._packets, self._at
        packet = packets[at]
        self._at = at = at + 1
        self._expected = _ACK + packet[2:4] if at < len(packets) else None
        self._taken += 1
        self.heard = now
        return packet

    def taken(self) -> int:
        """How many have been taken as answers since this was asked last."""
        taken, self._taken = self._taken, 0
        return taken

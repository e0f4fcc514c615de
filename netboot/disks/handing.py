"""How a connection gets to the disk process that owns its client.

All disk processes accept at the same listening sockets. Who has accepted somebody else's client
hands the connection over as soon as it has named its target, which is in its first request: the
socket and what was heard of it are one datagram to the owner's Unix socket, ``disk-<n>.door``
in the state folder. Who is away is waited for, and not for ever; what was not taken, because
its owner died the next moment, is sent again. Must never lose a connection in silence, nor take
one twice, nor answer for somebody else's client.
"""

import array
import asyncio
import contextlib
import logging
import os
import socket
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from netboot.disks import wire
from netboot.disks.engine import owner
from netboot.errors import WireError
from netboot.model import Knock, Portal
from netboot.private import private_socket

log = logging.getLogger(__name__)

#: Seconds that a connection waits for its owner: longer than another process takes to start,
#: shorter than an initiator waits for the answer to a login.
PATIENCE: Final = 8.0
#: Seconds until the owner is tried again: one that is away, one that has too much to do.
AWAY, FULL = 0.02, 0.002
#: Seconds until a connection that was not taken is sent again.
UNTAKEN = 0.25
#: Connections that are known to have been taken.
REMEMBERED: Final = 4096
#: Bytes of a datagram; what an initiator may say before it is answered is far less.
LIMIT: Final = 128 << 10
#: Datagrams that are taken in one breath.
BATCH: Final = 64

#: What takes a connection: its socket, where it came in, what was heard of it.
Take = Callable[[socket.socket, Portal, bytes], None]


class Handing:
    """One disk process's door for the others, and its way to theirs.

    ``folder`` is where the doors are, ``number`` which of the ``processes`` we are. ``take``
    gets a connection of ours that another one has accepted, ``needed`` is called while another
    one has sessions, ``deaf`` when one that stops does not listen any more.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        processes: int,
        take: Take,
        needed: Callable[[], None] = lambda: None,
        deaf: Callable[[], None] = lambda: None,
    ) -> None:
        self._doors = [folder / f"disk-{each}.door" for each in range(processes)]
        self._number = number
        self._take = take
        self._needed = needed
        self._deaf = deaf
        self._sock: socket.socket | None = None
        self._queues: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._last = os.getpid() << 32  #: our successor's numbers are others
        self._given: dict[int, asyncio.Event] = {}  #: to be taken
        self._had: OrderedDict[int, None] = OrderedDict()  #: what we have taken, of all

    def start(self) -> None:
        """Open the door, which only our owner may use; ConfigError when that cannot be.

        Whoever is alone has no door.
        """
        if len(self._doors) == 1:
            return
        sock = private_socket(self._doors[self._number], socket.SOCK_DGRAM)
        sock.setblocking(False)
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._come)

    def close(self) -> None:
        """Close the door: what others have for us waits with them. Twice is harmless."""
        if self._sock is None:
            return
        asyncio.get_running_loop().remove_reader(self._sock)
        self._doors[self._number].unlink(missing_ok=True)
        for _ in range(BATCH):  # what has been given to us already
            if not self._come():
                break
        self._sock.close()
        self._sock = None

    def mine(self, knock: Knock) -> bool:
        """Whether who knocks is our own client."""
        return owner(knock, len(self._doors)) == self._number

    async def pass_on(self, knock: Knock, handle: int, portal: Portal, heard: bytes) -> bool:
        """Give a connection to its owner; ``handle``, the socket's, stays ours to close.

        False when the owner did not come in time. Who comes first is given away first.
        """
        to = owner(knock, len(self._doors))
        self._last += 1
        number = self._last
        data = wire.encode(wire.Passed(number, portal)) + heard
        deadline = asyncio.get_running_loop().time() + PATIENCE
        taken = self._given[number] = asyncio.Event()
        try:
            while await self._bring(to, data, handle, deadline):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(taken.wait(), UNTAKEN)
                    return True
        finally:
            del self._given[number]
        return False

    async def _bring(self, to: int, data: bytes, handle: int, deadline: float) -> bool:
        """Send a datagram, when those before it were sent; False when that took too long."""
        loop = asyncio.get_running_loop()
        async with self._queues[to]:
            while loop.time() < deadline:
                pause = self._send(str(self._doors[to]), data, handle)
                if not pause:
                    return True
                await asyncio.sleep(pause)
        return False

    def tell(self, message: wire.Needed | wire.Deaf) -> None:
        """Tell all the others; who is away does not hear it."""
        for number in range(len(self._doors)):
            if number != self._number:
                self._send(str(self._doors[number]), wire.encode(message))

    def _send(self, to: str, data: bytes, handle: int = -1) -> float:
        """Seconds until it is worth another try; 0 when it was sent."""
        if self._sock is None:
            return AWAY
        rights = [] if handle < 0 else [array.array("i", [handle])]
        try:
            self._sock.sendmsg(
                [data],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, right) for right in rights],
                0,
                to,
            )
        except BlockingIOError:
            return FULL
        except (FileNotFoundError, ConnectionRefusedError):
            return AWAY
        except OSError as error:
            log.warning("%s: another disk process cannot be told anything: %s", to, error)
            return AWAY
        return 0.0

    def _is_new(self, number: int) -> bool:
        if number in self._had:
            return False
        self._had[number] = None
        while len(self._had) > REMEMBERED:
            self._had.popitem(last=False)
        return True

    def _come(self) -> bool:
        """Take what is there; whether there may be more."""
        assert self._sock is not None
        for _ in range(BATCH):
            try:
                data, handles, flags, sender = socket.recv_fds(
                    self._sock, LIMIT, 8, socket.MSG_CMSG_CLOEXEC
                )
            except OSError as error:
                if not isinstance(error, BlockingIOError):
                    log.warning("the other disk processes cannot be heard: %s", error)
                return False
            socks = [socket.socket(fileno=handle) for handle in handles]
            line, _, heard = data.partition(b"\n")
            whole = not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
            with contextlib.ExitStack() as left:
                for sock in socks:
                    left.push(sock)
                try:
                    match wire.decode(line) if whole else None:
                        case wire.Passed(number, portal) if len(socks) == 1:
                            if self._is_new(number):
                                left.pop_all()
                                self._take(socks[0], portal, heard)
                            if sender:
                                self._send(sender, wire.encode(wire.Taken(number)))
                        case wire.Taken(number):
                            if number in self._given:
                                self._given[number].set()
                        case wire.Needed():
                            self._needed()
                        case wire.Deaf():
                            self._deaf()
                        case other:
                            log.warning("another disk process says what we do not know: %r", other)
                except WireError as error:
                    log.warning("another disk process says what we cannot read: %s", error)
        return True

"""TFTP on its sockets: port 69 takes requests, each transfer has a socket of its own.

The only module of this folder that knows the event loop, files and the clock. It must never
open a file but through ``rooted.resolve``, never write one, and never let one client's packets
stop the others: garbage is dropped and counted, transfers are bounded in number, all in all and
for each client. RFC 1350, with the options of RFC 2347; what is answered is the engine's affair.

A transfer's socket is connected to its client, so the kernel keeps strangers out of it (they
get an ICMP "port unreachable"), tells us when the client has gone, and knows the path's MTU. With
``single_port`` everything runs over port 69 itself, for clients behind NAT or in containers
that drop answers from another port.
"""

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from netboot.errors import ConfigError
from netboot.tftp import options
from netboot.tftp.account import TftpCounters, TftpEvent
from netboot.tftp.crowd import Crowd
from netboot.tftp.engine import Packet, Transfer, refusal
from netboot.tftp.link import (
    Address,
    File,
    cannot_listen,
    connected,
    mtu,
    send_segmented,
    send_to,
)
from netboot.tftp.moment import Moment
from netboot.tftp.netascii import Netascii
from netboot.tftp.options import Limits
from netboot.tftp.ready import Shelf
from netboot.tftp.wire import ErrorCode, Request, printable

__all__ = ["TftpCounters", "TftpEvent", "TftpServer"]

log = logging.getLogger(__name__)

#: A request is at most 512 bytes (RFC 2347 section 2), an ACK has four: more is garbage anyway.
_LARGEST = 2048
#: Datagrams taken from one socket before the others have their turn.
_BATCH = 32
#: How often the kernel may say that nobody listens before we believe it.
_REFUSALS = 3


class _Session:
    """A transfer, its file and its socket."""

    def __init__(
        self, request: Request, peer: Address, file: File, sock: socket.socket, segment: bool
    ) -> None:
        self.request = request
        self.name = printable(request.name)
        self.peer = peer
        self.file = file
        self.sock = sock
        self.segment = segment  #: whether windows may be cut into packets by the kernel
        self.transfer: Transfer
        self.timer: asyncio.TimerHandle | None = None
        self.refusals = 0  #: that the kernel told of, since the client last got on
        self.delivered = 0
        self.started = False


class TftpServer:
    """Serves the files below ``folders`` to whoever asks ``address``.

    ``on_event`` is called on the event loop and must return at once. ``largest_block`` caps the
    block size below what the path's MTU allows. Port 0 takes any free port; see ``port``.
    """

    def __init__(
        self,
        address: str,
        folders: Sequence[Path],
        on_event: Callable[[TftpEvent], None],
        *,
        port: int = 69,
        single_port: bool = False,
        largest_block: int = 65464,
        transfers: int = 4096,
        transfers_per_client: int = 512,
    ) -> None:
        self.address = address
        self.port = port
        self.counters = TftpCounters()
        self._folders = tuple(folders)
        self._on_event = on_event
        self._single_port = single_port
        self._largest_block = largest_block
        self._transfers = transfers
        self._transfers_per_client = transfers_per_client
        self._sessions: dict[Address, _Session] = {}
        self._clients: Counter[str] = Counter()
        # Each lives as long as somebody fetches that file in blocks of that size.
        self._shelves: WeakValueDictionary[tuple[int, ...], Shelf] = WeakValueDictionary()
        self._door: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop
        self._crowd: Crowd[_Session]

    async def start(self) -> None:
        """Listen; ``ConfigError`` with the way out when the port cannot be had."""
        self._loop = asyncio.get_running_loop()
        door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            door.setblocking(False)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            door.bind((self.address, self.port))
        except OSError as error:
            door.close()
            raise ConfigError(cannot_listen(self.address, self.port, error)) from error
        self.port = door.getsockname()[1]
        self._door = door
        self._crowd = Crowd(self._loop, self._hear, self._unreachable, self._unsent)
        self._loop.add_reader(door.fileno(), self._knock)

    async def stop(self) -> None:
        """End every transfer and give the port back."""
        if self._door is None:
            return
        for session in list(self._sessions.values()):
            session.transfer.abandon("the service stopped")
            self._settle(session)
        self._crowd.close()
        self._loop.remove_reader(self._door.fileno())
        self._door.close()
        self._door = None

    # -- port 69 ---------------------------------------------------------------------------

    def _knock(self) -> None:
        door, moment = self._door, Moment(self._folders)
        for _ in range(_BATCH):
            if door is None:
                return
            try:
                data, peer = door.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about an earlier answer
                continue
            self._take(door, data, peer, moment)

    def _take(self, door: socket.socket, data: bytes, peer: Address, moment: Moment) -> None:
        now = self._loop.time()
        session = self._sessions.get(peer)
        request = moment.admit(data)
        if isinstance(request, Request):
            self.counters.requests += 1
            if session is None or self._anew(session, request, now):
                self._open(door, request, peer, moment, now)
        elif self._single_port and session is not None:
            self._hear(session, data, now)
        elif request is None:
            self.counters.garbage += 1
        else:
            self.counters.refused += 1
            send_to(door, request, peer)

    def _anew(self, session: _Session, request: Request, now: float) -> bool:
        """A request from a port that has a transfer: whether it begins another one.

        Old ROMs repeat a request that was answered late, and ask for every file from the same
        port. The same request before any answer means the former; in the middle of a lively
        transfer it is a late copy. Everything else is a client that began again.
        """
        same = session.request == request
        if same and not session.transfer.progressed:
            self._send(session, session.transfer.repeat(now))
            return False
        if same and now - session.transfer.heard < options.DEFAULT_TIMEOUT:
            return False
        session.transfer.abandon("the client began again")
        self._settle(session)
        return True

    def _open(
        self, door: socket.socket, request: Request, peer: Address, moment: Moment, now: float
    ) -> None:
        host = peer[0]
        if (
            len(self._sessions) >= self._transfers
            or self._clients[host] >= self._transfers_per_client
        ):
            # Silence, not an error: the client asks again, by then there is room.
            self.counters.busy += 1
            return
        path = moment.resolve(request.name)
        if path is None:
            self._refuse(door, request, peer, ErrorCode.NOT_FOUND, "there is no such file")
            return
        try:
            file = File(path)
        except OSError as error:
            why = f"{path} cannot be opened: {error.strerror or error}"
            code = ErrorCode.ACCESS_VIOLATION
            self._refuse(door, request, peer, code, "it cannot be opened", why)
            return
        try:
            sock = connected(self.address, peer)
        except OSError as error:
            file.close()
            self.counters.busy += 1
            log.warning("TFTP: no socket for %s: %s", host, error)
            return
        self._serve(_Session(request, peer, file, sock, not self._single_port), moment, now)

    def _serve(self, session: _Session, moment: Moment, now: float) -> None:
        limit = min(self._largest_block, mtu(session.sock) - options.OVERHEAD)
        if session.request.mode == "octet":
            read: Callable[[int, int], bytes | memoryview] = session.file.read
            limits = Limits(blksize=limit, size=session.file.size)
        else:
            read = Netascii(session.file.read, session.file.size).read
            limits = Limits(blksize=limit)
        terms, shelf = moment.negotiate(session.request, limits), None
        if session.request.mode == "octet" and terms.window == 1:
            shelf = self._shelves.setdefault((*session.file.identity, terms.blksize), Shelf())
        session.transfer = Transfer(read, terms, shelf, self._crowd.ready())
        if self._single_port and self._door is not None:
            session.sock.close()
            session.sock = self._door
        else:
            self._crowd.add(session.sock, session, session.transfer.ready)
        self._sessions[session.peer] = session
        self._clients[session.peer[0]] += 1
        self.counters.active += 1
        log.debug("TFTP: %s asks for %s", session.peer[0], session.name)
        self._send(session, session.transfer.start(now))
        self._watch(session)

    def _refuse(
        self,
        door: socket.socket,
        request: Request,
        peer: Address,
        code: ErrorCode,
        words: str,
        why: str = "",
    ) -> None:
        """``words`` are for the client, ``why`` for the operator, where it is not the same."""
        self.counters.missing += 1
        send_to(door, refusal(code, words), peer)
        self._publish(TftpEvent(peer[0], printable(request.name), "missing", detail=why or words))

    # -- a transfer ------------------------------------------------------------------------

    def _hear(self, session: _Session, data: bytes, now: float) -> None:
        self._send(session, session.transfer.receive(data, now))

    def _send(self, session: _Session, packets: list[Packet]) -> None:
        """Hand packets to the kernel; what it does not take counts as lost on the way."""
        transfer = session.transfer
        if packets:
            try:
                if len(packets) == 1 and not self._single_port:
                    session.sock.send(b"".join(packets[0]))  # cheaper than to gather two
                else:
                    self._transmit(session, packets)
            except OSError as error:
                self._unsent(session, error)
            if not session.started and transfer.started:
                session.started = True
                self._publish(TftpEvent(session.peer[0], session.name, "start"))
        if transfer.outcome is not None:
            self._settle(session)

    def _transmit(self, session: _Session, packets: list[Packet]) -> None:
        if self._single_port:
            for packet in packets:
                session.sock.sendmsg(packet, (), 0, session.peer)
            return
        if session.segment:
            try:
                send_segmented(session.sock, packets)
                return
            except ConnectionRefusedError:
                raise
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                    return
                session.segment = False  # an old kernel, or a device that cannot checksum
        for packet in packets:
            session.sock.sendmsg(packet)

    def _unsent(self, session: _Session, error: OSError) -> None:
        if isinstance(error, ConnectionRefusedError):
            self._unreachable(session)
        else:
            log.debug("TFTP: sending to %s failed: %s", session.peer[0], error)

    def _unreachable(self, session: _Session) -> None:
        """The kernel says that nobody listens there. Once may be a firmware between two drivers."""
        delivered = session.transfer.delivered
        session.refusals = session.refusals + 1 if delivered == session.delivered else 1
        session.delivered = delivered
        if session.refusals >= _REFUSALS:
            session.transfer.abandon("the client's port is closed")
            self._settle(session)

    def _watch(self, session: _Session) -> None:
        """One lazy timer a transfer: packets only move the deadline, not the timer."""
        deadline = session.transfer.deadline
        if deadline is not None:
            session.timer = self._loop.call_at(deadline, self._ring, session)

    def _ring(self, session: _Session) -> None:
        session.timer = None
        self._send(session, session.transfer.tick(self._loop.time()))
        self._watch(session)

    def _settle(self, session: _Session) -> None:
        """A transfer has ended: count it, tell of it, give everything back."""
        if self._sessions.get(session.peer) is not session:
            return
        del self._sessions[session.peer]
        host = session.peer[0]
        self._clients[host] -= 1
        if not self._clients[host]:
            del self._clients[host]
        if session.timer is not None:
            session.timer.cancel()
        if not self._single_port:
            self._crowd.remove(session.sock)
            session.sock.close()
        session.file.close()
        self._publish(self.counters.ended(session.transfer, host, session.name))

    def _publish(self, event: TftpEvent) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("TFTP: the receiver of %s failed", event)

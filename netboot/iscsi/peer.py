"""One TCP connection: bytes from the socket to the engine, answers back, in one breath.

A wake-up reads into one buffer that all connections share, every PDU in it is handled, and one
gathered send goes back. Must never read on while the initiator does not take its answers, never
let a mistake of ours or of theirs reach another connection, and never ping: iPXE does not
answer, so TCP itself finds out who is dead.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol, cast

from netboot.iscsi.engine import Connection, Event
from netboot.iscsi.entering import Arrived
from netboot.iscsi.outlet import Outlet
from netboot.iscsi.reading import SMALL_ROOM, Reading
from netboot.iscsi.requests import Logout, Management
from netboot.iscsi.server import Edge
from netboot.iscsi.session import READING_LIMIT, Task
from netboot.iscsi.target import Identity
from netboot.iscsi.transfer import Broken, Filled
from netboot.iscsi.wire import Function
from netboot.model import Admission, Knock, Portal

if TYPE_CHECKING:
    from netboot.iscsi.gate import Gate

try:
    from netboot.iscsi.intake import Inlet
except ImportError:  # nobody built it here: the same rules as Python
    from netboot.iscsi.inlet import Inlet

log = logging.getLogger(__name__)

#: Bytes waiting to be sent at which we stop reading, and at which we go on.
HIGH_WATER: Final = 4 << 20
LOW_WATER: Final = 1 << 20
#: Events that may wait, for the initiator or for workers, before we stop reading.
WAITING_LIMIT: Final = 512
#: Buffers collected before they are sent although the chunk is not finished (IOV_MAX is 1024).
GATHER: Final = 512
#: Answers and events of one breath from which on the next one is to be a small one; who sends
#: data is read in chunks as large as there is room.
MANY: Final = 256
#: Seconds a connection may take to log in.
LOGIN_TIMEOUT: Final = 30.0
#: Seconds that the last answers may take to be taken, when the connection has ended.
GOODBYE: Final = 10.0
#: Seconds of silence after which TCP asks, between questions, and in all until it gives up. An
#: iPXE under a boot menu polls no network and answers nothing; it opens a new connection later.
KEEPALIVE_IDLE: Final = 30
KEEPALIVE_INTERVAL: Final = 10
GIVE_UP: Final = 150


class House(Protocol):
    """What a connection needs of the portal it came in by."""

    reading: Reading  #: what all connections are read by
    portals: tuple[Portal, ...]  #: all there are

    def entered(self, peer: "Peer") -> None:
        """A connection was opened."""

    def knocked(self, peer: "Peer", knock: Knock) -> None:
        """Somebody wants to log in: find out whether, then call ``peer.admit``."""

    def arrived(self, peer: "Peer", arrived: Arrived) -> None:
        """A login is complete: find the target, then call ``peer.establish`` or ``refuse``."""

    def takes_leave(self, peer: "Peer") -> None:
        """The initiator logs out; it has not been answered yet."""

    def left(self, peer: "Peer", why: str) -> None:
        """The connection is gone."""

    def disconnect_all(self, peer: "Peer") -> None:
        """A TARGET COLD RESET: every session of this peer's target ends."""


class Peer(Inlet, asyncio.BufferedProtocol):
    """One initiator's connection."""

    def __init__(self, house: House, portal: Portal, heard: bytes = b"") -> None:
        super().__init__(house.reading.spin, house.reading.small)
        self._house = house
        self._gate: Gate | None = None  #: reads what comes; None: the loop does
        self.portal = portal
        self._before = heard  #: by another process, which has answered it
        self._heard: bytearray | None = bytearray(heard)  #: all that came, until it is admitted
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fd = -1  #: of the socket
        self._why = ""
        self.edge: Edge | None = None
        self.gone = asyncio.Event()  #: the connection has ended
        self.address = ""

    @property
    def identity(self) -> Identity:
        """Whose session this is."""
        return self.engine.session.identity

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        there = transport.get_extra_info("peername")
        if there is None:  # it was reset before it was accepted
            self.closed = True
            self._transport.abort()
            return
        self.address = str(there[0])
        self.engine = Connection(self.address, self._house.portals, os.urandom, self.portal.group)
        sock = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        self._outlet = Outlet(self._transport, self._fd)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GIVE_UP * 1000)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOGIN_TIMEOUT, self.close, "the login took too long")
        self._house.entered(self)
        if self._before:
            events = self.engine.receive(memoryview(self._before))
            self.engine.data_to_send()
            self._before = b""
            self._guard(lambda: events)

    def _long_way(self, view: memoryview, tags: set[int], nbytes: int) -> None:
        if self._heard is not None:
            self._heard += view
        self._tags = set()  # the engine keeps the old one
        events = self.engine.receive(view, tags)
        if len(events) + len(self.engine.answers.out) > MANY:
            self._room = self._house.reading.small
        elif nbytes == SMALL_ROOM:  # there is more
            self._room = self._house.reading.room
        self._handle(events)
        self.send()

    def over(self, error: int) -> None:
        self._gate = None
        if error:
            self._why = self._why or str(OSError(error, os.strerror(error)))
        self._read_on()  # the loop sees the end for itself, and does what follows from it

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._full = True
        self._read_no_more()

    def resume_writing(self) -> None:
        self._full = False
        self._catch_up()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.address:  # nobody was told that it came
            return
        why = self._why or self.engine.ended or (f"{exc}" if exc else "closed by the initiator")
        self._transport = None
        self._finish()
        self._fd = -1
        self.gone.set()
        self._house.left(self, why)

    # What the portal calls.

    def depart(self) -> tuple[int, bytes]:
        """A handle of the connection, and all that came by it, for another process to go on with
        after a Knock. When that has it, ``close``: the initiator will not notice."""
        return os.dup(self._fd), bytes(self._heard or b"")

    def admit(self, admission: Admission) -> None:
        """Go on after a Knock."""
        self._heard = None
        if not self.closed:
            self._guard(lambda: self.engine.admit(admission))
            self._read_on()

    def establish(self, edge: Edge | None, tsih: int) -> None:
        """The session begins."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.edge = edge
        if edge is not None:
            self._lane = edge.lane
            self._gate = self._house.reading.gate
            self._nearby = edge.nearby(self, self._outlet, self._tags)
        self._guard(lambda: self.engine.establish(tsih))
        self._read_on()

    def refuse(self, status: int, reason: str) -> None:
        """The login ends without a session."""
        if not self.closed:
            self._guard(lambda: self.engine.refuse(status, reason))

    def ask_to_leave(self, seconds: int) -> None:
        """Ask the initiator to log out; only an operating system understands it."""
        if not self.closed:
            self._guard(lambda: self.engine.requests.ask_to_leave(seconds))

    def probe(self) -> None:
        """Find out soon whether the other end is still there: TCP asks it every second.

        The dead end of a machine that was reset answers with a reset, a living one with an
        acknowledgement; only who answers nothing is waited for as long as always.
        """
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)

    def close(self, why: str) -> None:
        """End the connection now; none of its tasks is answered any more."""
        self._why = self._why or why
        self._finish()
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self, why: str) -> None:
        """End the connection when what was answered has been sent."""
        self._why = self._why or why
        self._say_goodbye()

    def send(self) -> None:
        """Send what there is, and close the connection if that was the last."""
        if self._transport is None or self.closed:
            return
        out = self.engine.data_to_send()
        if out:
            self._outlet.put(out)
        if self.engine.ended:
            self._say_goodbye()
        elif self._backlog and not self._blocked():
            self._catch_up()

    def _say_goodbye(self) -> None:
        """Close the connection when all was sent; not for ever when nobody takes it: TCP keeps
        whoever acknowledges, and reads nothing, and such a one is no session that is counted."""
        self._finish()
        if self._transport is not None:
            self._transport.close()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(GOODBYE, self._transport.abort)

    # Events.

    def _blocked(self) -> bool:
        """Whether no more commands are begun: the initiator does not take its answers, or is
        owed so much already that they would not fit in what a session may have."""
        return self._full or self.engine.session.reading > READING_LIMIT

    def _catch_up(self) -> None:
        """Handle what has waited, as far as it goes."""
        backlog, self._backlog = self._backlog, []
        self._guard(lambda: backlog)
        self._read_on()

    def _put_off(self, event: Event) -> None:
        """Let an event wait, and all that come behind it."""
        if isinstance(event, Task):
            self.engine.defer(event)
        elif isinstance(event, Filled):
            event.keep()
        self._backlog.append(event)
        if len(self._backlog) >= WAITING_LIMIT:
            self._read_no_more()

    def _read_no_more(self) -> None:
        if self._gate is not None:
            self._gate.remove(self._fd, self)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _read_on(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if len(self._backlog) >= WAITING_LIMIT:
            return
        if self._full or self.closed or self.engine.held:
            return
        if self._gate is not None:
            self._gate.add(self._fd, self)
        else:
            transport.resume_reading()

    def _finish(self) -> None:
        self.closed = True
        self._backlog.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lane = None
        if self._gate is not None:
            self._gate.remove(self._fd, self)
        if self.edge is not None:
            self.edge.close()

    def _guard(self, step: Callable[[], list[Event] | None]) -> None:
        """Take a step of the engine, handle what follows, and send; whatever goes wrong ends
        this connection only."""
        try:
            self._handle(step() or ())
            self.send()
        except Exception:
            self._failed()

    def _failed(self) -> None:
        log.exception("a session of %s failed", self.identity.initiator or self.address)
        self.close("an internal error; see the log")

    def _handle(self, events: Iterable[Event]) -> None:
        edge = self.edge
        out, session = self.engine.answers, self.engine.session
        for event in events:
            if self._full or self._backlog:
                self._put_off(event)
            elif self.closed:
                return
            elif type(event) is Task:
                assert edge is not None
                if session.reading > READING_LIMIT:
                    self._put_off(event)
                    continue
                edge.task(event)
                if len(out.out) > GATHER or event.edtl > 0xFFFF:
                    self.send()
            else:
                self._other(event)
                edge = self.edge

    def _other(self, event: Event) -> None:
        engine, edge = self.engine, self.edge
        match event:
            case Knock():
                self._read_no_more()  # an initiator has nothing to say before it is answered
                self._house.knocked(self, event)
            case Arrived():
                self._read_no_more()
                self._house.arrived(self, event)
            case Logout():
                self._house.takes_leave(self)
                engine.logged_out(event)
            case Filled() if edge is not None:
                edge.filled(event)
            case Broken() if edge is not None:
                edge.broken(event)
            case Management():
                response = edge.managed(event) if edge is not None else 5
                engine.managed(event, response)
                if event.function == Function.COLD_RESET and not response:
                    self.send()
                    self._house.disconnect_all(self)

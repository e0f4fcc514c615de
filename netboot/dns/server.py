"""DNS on its sockets: UDP and TCP at port 53, and questions passed on to other resolvers.

The only module of this folder that knows the event loop. Each question that is passed on has a
socket of its own, connected to the one it asks: a random port from the kernel, a random id from
us, and a reply must match both and the question (RFC 5452). Everything is bounded: questions
under way, connections, the time for each. It must never ask itself: our own address is struck
from the upstreams, and a question that comes from one of our own asking sockets is dropped.
"""

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from netboot.dns import engine
from netboot.dns.engine import Forward, Reply
from netboot.dns.zone import Zone
from netboot.errors import ConfigError

log = logging.getLogger(__name__)

Address: TypeAlias = tuple[Any, ...]

#: Questions under way at others' at one time.
PENDING = 512
#: Clients connected by TCP at one time, and how long they may be silent (RFC 7766 section 6.2.3);
#: when there are more, the one that has been silent for longest gives way.
CONNECTIONS = 128
IDLE = 10.0
#: Seconds that one upstream has; a client's resolver asks again after five.
PATIENCE = 2.0
ROUNDS = 2

_NO_ANSWER = (2, 5)  # SERVFAIL and REFUSED: another upstream may know better


@dataclass(slots=True)
class DnsCounters:
    """What has happened since the start; ``pending`` and ``connections`` are now."""

    queries: int = 0
    answered: int = 0
    forwarded: int = 0
    unanswered: int = 0  #: no upstream said anything; the client got SERVFAIL
    overflow: int = 0  #: too many questions or connections at once
    garbage: int = 0  #: datagrams that deserved silence
    mismatched: int = 0  #: replies that did not fit the question: mistakes or forgeries
    loops: int = 0  #: our own questions, come back to us
    pending: int = 0
    connections: int = 0


class DnsServer:
    """Answers for ``zone`` at ``address``, and asks ``upstreams`` in turn for the rest.

    An upstream is an IP address, with ``#port`` behind it where that is not 53. Without any,
    names that are not ours are refused. Port 0 takes any free port; see ``port``.
    """

    def __init__(
        self, address: str, zone: Zone, upstreams: Sequence[str] = (), *, port: int = 53
    ) -> None:
        self.address = address
        self.port = port
        self.counters = DnsCounters()
        self._zone = zone
        self._upstreams = [_endpoint(text) for text in upstreams]
        self._asking: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._visitors: set[asyncio.Task[None]] = set()
        self._idle: dict[asyncio.Task[None], None] = {}  #: who waits for its client, longest first
        self._door: asyncio.DatagramTransport | None = None
        self._stream: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; ``ConfigError`` with the way out when the port cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            stream = _bound(socket.SOCK_STREAM, self.address, self.port)
            self._stream = await asyncio.start_server(self._visit, sock=stream)
            self.port = stream.getsockname()[1]
            door = _bound(socket.SOCK_DGRAM, self.address, self.port)
            self._door, _ = await loop.create_datagram_endpoint(lambda: _Door(self), sock=door)
        except OSError as error:
            await self.stop()
            raise ConfigError(_cannot_listen(self.address, self.port, error)) from error
        ours = (self.address, self.port)
        if ours in self._upstreams:
            log.warning("DNS: %s port %d is this server itself: not asked", *ours)
            self._upstreams = [upstream for upstream in self._upstreams if upstream != ours]

    async def stop(self) -> None:
        """Give the ports back; questions under way are forgotten."""
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        running = [*self._tasks, *self._visitors]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # -- questions to us -------------------------------------------------------------------

    def datagram(self, data: bytes, peer: Address) -> None:
        """A datagram at our port."""
        outcome = self._judge(data, peer, stream=False)
        if isinstance(outcome, Reply):
            self._reply(outcome.data, peer)
        elif outcome is not None:
            self._keep(self._tasks, self._forward_datagram(outcome, peer))

    def _judge(self, data: bytes, peer: Address, *, stream: bool) -> Reply | Forward | None:
        counters = self.counters
        counters.queries += 1
        if (peer[0], peer[1]) in self._asking:
            counters.loops += 1
            log.warning("DNS: an upstream asks us what we asked it; correct dns.upstreams")
            return None
        outcome = engine.answer(data, self._zone, forwards=bool(self._upstreams), stream=stream)
        if outcome is None:
            counters.garbage += 1
        elif isinstance(outcome, Reply):
            counters.answered += 1
        elif counters.pending >= PENDING:
            counters.overflow += 1
            return Reply(engine.failed(outcome))
        else:
            counters.pending += 1
        return outcome

    def _reply(self, data: bytes, peer: Address) -> None:
        if self._door is not None:
            self._door.sendto(data, peer)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client by TCP (RFC 7766): length and message, as often as it likes."""
        if writer.get_extra_info("peername") is None:  # it was reset before it was accepted
            writer.close()
            return
        if len(self._visitors) >= CONNECTIONS:
            self.counters.overflow += 1
            if not self._idle:
                writer.close()
                return
            oldest = next(iter(self._idle))
            del self._idle[oldest]  # its end comes later, perhaps after another newcomer
            oldest.cancel()
        task = asyncio.current_task()
        assert task is not None
        self._visitors.add(task)
        self.counters.connections += 1
        try:
            await self._converse(task, reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
            pass  # gone, silent for too long, in the way, or we stop
        finally:
            self._visitors.discard(task)
            self.counters.connections -= 1
            writer.close()

    async def _converse(
        self,
        task: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        peer = writer.get_extra_info("peername")
        while True:
            async with self._at_leisure(task):
                length = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(length)
            outcome = self._judge(data, peer, stream=True)
            if isinstance(outcome, Forward):
                outcome = Reply(await self._forward(outcome, stream=True))
            if outcome is None:
                return
            writer.write(len(outcome.data).to_bytes(2, "big") + outcome.data)
            async with self._at_leisure(task):
                await writer.drain()

    @contextlib.asynccontextmanager
    async def _at_leisure(self, task: asyncio.Task[None]) -> AsyncIterator[None]:
        """Wait for a client, which has ``IDLE`` seconds, if nobody needs its place before."""
        self._idle[task] = None
        try:
            async with asyncio.timeout(IDLE):
                yield
        finally:
            self._idle.pop(task, None)

    # -- questions to others ---------------------------------------------------------------

    async def _forward_datagram(self, forward: Forward, peer: Address) -> None:
        self._reply(await self._forward(forward, stream=False), peer)

    async def _forward(self, forward: Forward, *, stream: bool) -> bytes:
        """The best reply that the upstreams have; SERVFAIL when they have none."""
        self.counters.forwarded += 1
        try:
            return await self._ask_all(forward, stream)
        finally:
            self.counters.pending -= 1

    async def _ask_all(self, forward: Forward, stream: bool) -> bytes:
        poor: bytes | None = None
        for _ in range(ROUNDS):
            for upstream in self._upstreams:
                ask = self._ask_stream if stream else self._ask_datagram
                try:
                    async with asyncio.timeout(PATIENCE):
                        reply = await ask(forward, upstream)
                except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                    log.debug("DNS: %s does not answer: %r", upstream[0], error)
                    continue
                if engine.rcode(reply) not in _NO_ANSWER:
                    return reply
                poor = reply
            if poor is not None:
                return poor
        self.counters.unanswered += 1
        return engine.failed(forward)

    async def _ask_datagram(self, forward: Forward, upstream: tuple[str, int]) -> bytes:
        loop = asyncio.get_running_loop()
        question = _Question(self, forward, loop.create_future())
        transport, _ = await loop.create_datagram_endpoint(lambda: question, remote_addr=upstream)
        here = transport.get_extra_info("sockname")[:2]
        self._asking.add(here)
        try:
            transport.sendto(forward.numbered(question.number))
            return await question.answer
        finally:
            self._asking.discard(here)
            transport.close()

    async def _ask_stream(self, forward: Forward, upstream: tuple[str, int]) -> bytes:
        reader, writer = await asyncio.open_connection(*upstream)
        here = writer.get_extra_info("sockname")[:2]
        self._asking.add(here)
        try:
            number = secrets.randbelow(65536)
            query = forward.numbered(number)
            writer.write(len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(await reader.readexactly(2), "big")
            reply = engine.accept(forward, number, await reader.readexactly(length))
        finally:
            self._asking.discard(here)
            writer.close()
        if reply is None:
            self.counters.mismatched += 1
            raise OSError("the reply does not fit the question")
        return reply

    def _keep(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


class _Door(asyncio.DatagramProtocol):
    """Port 53/udp."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._server.datagram(data, addr)


class _Question(asyncio.DatagramProtocol):
    """One question to one upstream; ``answer`` is the reply for our client."""

    def __init__(
        self, server: DnsServer, forward: Forward, answer: "asyncio.Future[bytes]"
    ) -> None:
        self.answer = answer
        self.number = secrets.randbelow(65536)
        self._server = server
        self._forward = forward

    def datagram_received(self, data: bytes, _addr: Address) -> None:
        reply = engine.accept(self._forward, self.number, data)
        if reply is None:
            self._server.counters.mismatched += 1
        elif not self.answer.done():
            self.answer.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(OSError(f"the port is closed: {exc}"))


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.partition("#")
    return host, int(port or 53)


def _bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    """Bound here and not by the event loop: uvloop's error would not say what was wrong."""
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:  # connections of an earlier life may still be lingering
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _cannot_listen(address: str, port: int, error: OSError) -> str:
    where = f"DNS cannot listen on {address} port {port}"
    if error.errno == errno.EADDRINUSE:
        way_out = (
            f"find it with `ss -lnptu sport = :{port}` and stop it, or set dns.enabled = false"
        )
        return f"{where}: another program has it; {way_out}"
    if error.errno == errno.EACCES:
        return f"{where}: not allowed; run as root, or grant CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: no interface has this address; set it up, or correct site.address"
    return f"{where}: {error.strerror or error}"

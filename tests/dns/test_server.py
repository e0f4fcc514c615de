"""The server on loopback, with resolvers beside it that answer, lie, refuse or say nothing."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import dnslib
import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from netboot.dns import server as module
from netboot.dns.server import DnsServer
from netboot.dns.zone import Zone
from netboot.errors import ConfigError

ZONE = Zone(
    "lab.netboot",
    IPv4Interface("192.168.77.1/24"),
    lambda: [("ws1", IPv4Address("192.168.77.21"))],
)

Answerer = Callable[[bytes], list[bytes]]


def truthful(query: bytes) -> list[bytes]:
    record = DNSRecord.parse(query)
    answer = record.reply(aa=0)
    answer.add_answer(dnslib.RR(record.q.qname, QTYPE.A, rdata=dnslib.A("192.0.2.9"), ttl=9))
    return [bytes(answer.pack())]


def forged(query: bytes) -> list[bytes]:
    """Wrong number, wrong question, junk; then the truth."""
    (good,) = truthful(query)
    number = int.from_bytes(good[:2], "big") ^ 1
    (other,) = truthful(bytes(DNSRecord.question("example.com").pack()))
    return [number.to_bytes(2, "big") + good[2:], query[:2] + other[2:], b"junk", query, good]


def failing(query: bytes) -> list[bytes]:
    answer = DNSRecord.parse(query).reply(aa=0)
    answer.header.rcode = RCODE.SERVFAIL
    return [bytes(answer.pack())]


def silent(_query: bytes) -> list[bytes]:
    return []


class Upstream(asyncio.DatagramProtocol):
    """A resolver by UDP and TCP; ``asked`` is what came, ``peers`` from where."""

    def __init__(self, answers: Answerer) -> None:
        self.answers = answers
        self.asked: list[bytes] = []
        self.peers: list[tuple[str, int]] = []
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        self.peers.append(addr)
        for answer in self.answers(data):
            self.transport.sendto(answer, addr)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        self.asked.append(data)
        for answer in self.answers(data)[-1:]:
            writer.write(len(answer).to_bytes(2, "big") + answer)
        await reader.read()  # until the other side closes
        writer.close()


@asynccontextmanager
async def upstream(answers: Answerer) -> Any:
    loop = asyncio.get_running_loop()
    this = Upstream(answers)
    listener = await asyncio.start_server(this.stream, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    await loop.create_datagram_endpoint(lambda: this, local_addr=("127.0.0.1", port))
    try:
        yield this, f"127.0.0.1#{port}"
    finally:
        this.transport.close()
        listener.close()


@asynccontextmanager
async def serving(*upstreams: str) -> Any:
    server = DnsServer("127.0.0.1", ZONE, upstreams, port=0)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.put_nowait(data)


@asynccontextmanager
async def client(server: DnsServer) -> Any:
    loop = asyncio.get_running_loop()
    this = Client()
    await loop.create_datagram_endpoint(lambda: this, remote_addr=("127.0.0.1", server.port))
    try:
        yield this
    finally:
        this.transport.close()


async def ask(server: DnsServer, name: str, kind: str = "A") -> DNSRecord:
    query = bytes(DNSRecord.question(name, kind).pack())
    async with client(server) as this, asyncio.timeout(20):
        this.transport.sendto(query)
        answer = await this.heard.get()
    assert answer[:2] == query[:2]
    return DNSRecord.parse(answer)


async def ask_stream(server: DnsServer, *names: str) -> list[DNSRecord]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answers = []
    async with asyncio.timeout(20):
        for name in names:
            query = bytes(DNSRecord.question(name).pack())
            writer.write(len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(await reader.readexactly(2), "big")
            answers.append(DNSRecord.parse(await reader.readexactly(length)))
    writer.close()
    await writer.wait_closed()
    return answers


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def values(record: DNSRecord) -> list[str]:
    return [str(row.rdata) for row in record.rr]


def test_our_names_by_udp_and_tcp() -> None:
    async def work() -> None:
        async with serving() as server:
            assert values(await ask(server, "ws1.lab.netboot")) == ["192.168.77.21"]
            first, second = await ask_stream(server, "ws1.lab.netboot", "no.lab.netboot")
            assert values(first) == ["192.168.77.21"]
            assert second.header.rcode == RCODE.NXDOMAIN
            assert (await ask(server, "example.org")).header.rcode == RCODE.REFUSED
            assert (server.counters.queries, server.counters.answered) == (4, 4)

    run(work)


def test_garbage_gets_silence_and_the_service_goes_on() -> None:
    async def work() -> None:
        async with serving() as server:
            async with client(server) as this:
                for data in (b"", b"x", b"\xff" * 600, os.urandom(5)):
                    this.transport.sendto(data)
                this.transport.sendto(bytes(DNSRecord.question("ws1.lab.netboot").pack()))
                assert values(DNSRecord.parse(await this.heard.get())) == ["192.168.77.21"]
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\0\3abc")
            assert await reader.read() == b""  # it hangs up
            writer.close()
            assert values(await ask(server, "ws1.lab.netboot")) == ["192.168.77.21"]
            assert server.counters.garbage >= 4

    run(work)


def test_the_rest_is_asked_elsewhere_with_another_number_and_port() -> None:
    async def work() -> None:
        async with upstream(truthful) as (other, where), serving(where) as server:
            for _ in range(8):
                record = await ask(server, "example.org")
                assert values(record) == ["192.0.2.9"]
                assert record.header.ra == 1
            assert len({port for _, port in other.peers}) > 1
            assert len({query[:2] for query in other.asked}) > 1
            assert server.counters.forwarded == 8
            assert server.counters.pending == 0
            await ask(server, "ws1.lab.netboot")
            assert len(other.asked) == 8

    run(work)


def test_by_tcp_it_is_asked_by_tcp() -> None:
    async def work() -> None:
        async with upstream(truthful) as (other, where), serving(where) as server:
            (record,) = await ask_stream(server, "example.org")
            assert values(record) == ["192.0.2.9"]
            assert other.peers == []

    run(work)


def test_forged_replies_are_passed_over_and_counted() -> None:
    async def work() -> None:
        async with upstream(forged) as (_, where), serving(where) as server:
            assert values(await ask(server, "example.org")) == ["192.0.2.9"]
            assert server.counters.mismatched == 4

    run(work)


def test_another_upstream_is_asked_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)

    async def work() -> None:
        async with upstream(truthful) as (_, good):
            for bad in (silent, failing):
                async with upstream(bad) as (_, where), serving(where, good) as server:
                    assert values(await ask(server, "example.org")) == ["192.0.2.9"]
            async with serving("127.0.0.1#1", good) as server:  # a closed port
                assert values(await ask(server, "example.org")) == ["192.0.2.9"]
                (record,) = await ask_stream(server, "example.org")
                assert values(record) == ["192.0.2.9"]

    run(work)


def test_nobody_answers_is_servfail_and_what_they_said_when_they_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)

    async def work() -> None:
        async with upstream(silent) as (other, where), serving(where) as server:
            assert (await ask(server, "example.org")).header.rcode == RCODE.SERVFAIL
            assert (await ask_stream(server, "example.org"))[0].header.rcode == RCODE.SERVFAIL
            assert server.counters.unanswered == 2
            assert server.counters.pending == 0
            assert len(other.asked) >= module.ROUNDS
        async with upstream(failing) as (other, where), serving(where) as server:
            assert (await ask(server, "example.org")).header.rcode == RCODE.SERVFAIL
            assert server.counters.unanswered == 0
            assert len(other.asked) == 1

    run(work)


def test_it_never_asks_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        port = free_port()
        server = DnsServer("127.0.0.1", ZONE, [f"127.0.0.1#{port}"], port=port)
        await server.start()
        try:
            assert (await ask(server, "example.org")).header.rcode == RCODE.REFUSED
        finally:
            await server.stop()

    run(work)
    assert "this server itself" in caplog.text


def test_a_question_that_comes_back_to_us_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another of our addresses it does not look like ourselves until the question comes."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)

    async def work() -> None:
        port = free_port()
        server = DnsServer("0.0.0.0", ZONE, [f"127.0.0.1#{port}"], port=port)
        await server.start()
        try:
            assert (await ask(server, "example.org")).header.rcode == RCODE.SERVFAIL
            (record,) = await ask_stream(server, "example.org")
            assert record.header.rcode == RCODE.SERVFAIL
        finally:
            await server.stop()
        assert server.counters.loops == 2 * module.ROUNDS
        assert (server.counters.forwarded, server.counters.pending) == (2, 0)

    run(work)


def test_questions_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING", 3)

    async def work() -> None:
        async with upstream(silent) as (_, where), serving(where) as server:
            async with client(server) as this:
                for _ in range(5):
                    this.transport.sendto(bytes(DNSRecord.question("example.org").pack()))
                for _ in range(2):
                    answer = DNSRecord.parse(await this.heard.get())
                    assert answer.header.rcode == RCODE.SERVFAIL
            assert (server.counters.overflow, server.counters.pending) == (2, 3)
            assert values(await ask(server, "ws1.lab.netboot")) == ["192.168.77.21"]

    run(work)


def test_the_silent_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE", 0.2)

    async def work() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert await reader.read() == b""
            writer.close()
            assert server.counters.overflow == 0

    run(work)


def test_of_too_many_connections_the_one_idle_for_longest_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CONNECTIONS", 3)
    monkeypatch.setattr(module, "IDLE", 300.0)
    query = bytes(DNSRecord.question("ws1.lab.netboot").pack())
    framed = len(query).to_bytes(2, "big") + query

    async def work() -> None:
        async with serving() as server, asyncio.timeout(60):
            lines = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
            first, second, third = lines
            for reader, writer in (second, third, first):  # now the second is idle for longest
                writer.write(framed)
                await reader.readexactly(2)
            (record,) = await ask_stream(server, "ws1.lab.netboot")
            assert values(record) == ["192.168.77.21"]
            await second[0].read()  # until the end
            first[1].write(framed)
            assert await first[0].read(1)
            assert (server.counters.overflow, third[0].at_eof()) == (1, False)
            for _, writer in lines:
                writer.close()

    run(work)


def test_a_flood_of_idle_connections_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS", 2)
    monkeypatch.setattr(module, "IDLE", 300.0)

    async def work() -> None:
        async with serving() as server, asyncio.timeout(60):
            idle = await asyncio.gather(
                *(asyncio.open_connection("127.0.0.1", server.port) for _ in range(20))
            )
            for _, writer in idle:
                writer.write(b"\0")  # the beginning of a length
            (record,) = await ask_stream(server, "ws1.lab.netboot")
            assert values(record) == ["192.168.77.21"]
            assert server.counters.connections <= 2
            for _, writer in idle:
                writer.close()

    run(work)


def test_connections_whose_questions_are_under_way_do_not_give_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CONNECTIONS", 2)
    query = bytes(DNSRecord.question("example.org").pack())

    async def work() -> None:
        async with upstream(silent) as (other, where), serving(where) as server:
            lines = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
            for _, writer in lines:
                writer.write(len(query).to_bytes(2, "big") + query)
            async with asyncio.timeout(10):
                while len(other.asked) < 2:
                    await asyncio.sleep(0.001)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert await reader.read() == b""
            assert (server.counters.overflow, server.counters.connections) == (1, 2)
            for _, line in [*lines, (reader, writer)]:
                line.close()

    run(work)


def test_who_is_gone_before_it_is_greeted_is_let_go() -> None:
    """A reset that comes before the accept: the event loop has no address to name any more."""

    async def work() -> None:
        here, there = socket.socketpair()
        async with serving() as server:
            reader, writer = await asyncio.open_connection(sock=here)
            writer.get_extra_info = lambda name, default=None: None  # type: ignore[method-assign]
            reader.feed_data(b"\0\x0cwhatever now")
            async with asyncio.timeout(10):
                await server._visit(reader, writer)
            assert writer.is_closing()
            assert server.counters.connections == server.counters.queries == 0
        there.close()
        await writer.wait_closed()

    run(work)


def test_stopping_ends_what_is_under_way_and_leaves_nothing_open() -> None:
    async def work() -> None:
        before = len(os.listdir("/proc/self/fd"))
        async with upstream(silent) as (_, where):
            server = DnsServer("127.0.0.1", ZONE, [where], port=0)
            await server.stop()
            await server.start()
            async with client(server) as this:
                this.transport.sendto(bytes(DNSRecord.question("example.org").pack()))
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                assert values(await ask(server, "ws1.lab.netboot")) == ["192.168.77.21"]
                await server.stop()
                await server.stop()
                writer.close()
            assert not server._asking
        async with asyncio.timeout(10):
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.001)

    run(work)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_port_in_use_is_one_line_with_the_way_out(kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            asyncio.run(DnsServer("127.0.0.1", ZONE, port=port).start())
    assert f"127.0.0.1 port {port}" in str(caught.value)
    assert "ss -lnptu" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_not_ours_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"site\.address"):
        asyncio.run(DnsServer("192.0.2.123", ZONE, port=0).start())

"""dig asks our name server everything a site asks."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import dnslib
import pytest
import uvloop
from dnslib import QTYPE, DNSRecord

from netboot.dns.server import DnsServer
from netboot.dns.zone import Zone

pytestmark = pytest.mark.interop

ZONE = Zone(
    "lab.netboot",
    IPv4Interface("192.168.77.1/24"),
    lambda: [("ws1", IPv4Address("192.168.77.21")), ("ws2", IPv4Address("192.168.77.22"))],
)


@dataclass
class Dig:
    """What dig printed: the status, the flags, the rows of each section."""

    text: str

    @property
    def status(self) -> str:
        found = re.search(r"status: (\w+)", self.text)
        return found[1] if found else ""

    @property
    def flags(self) -> set[str]:
        found = re.search(r"flags: ([a-z ]*);", self.text)
        return set(found[1].split()) if found else set()

    def section(self, name: str) -> list[list[str]]:
        found = re.search(rf";; {name} SECTION:\n(.*?)\n\n", self.text, re.DOTALL)
        return [line.split() for line in found[1].splitlines()] if found else []


Ask = Callable[..., Awaitable[Dig]]


class Resolver(asyncio.DatagramProtocol):
    """The rest of the world: every name is 192.0.2.9, ``large.`` names have sixty addresses."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(self.answer(data), addr)

    def answer(self, data: bytes) -> bytes:
        record = DNSRecord.parse(data)
        answer = record.reply(aa=0)
        count = 60 if str(record.q.qname).startswith("large.") else 1
        for number in range(9, 9 + count):
            rdata = dnslib.A(f"192.0.2.{number}")
            answer.add_answer(dnslib.RR(record.q.qname, QTYPE.A, rdata=rdata, ttl=60))
        return bytes(answer.pack())

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        answer = self.answer(data)
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await reader.read()
        writer.close()


@asynccontextmanager
async def resolver() -> AsyncIterator[str]:
    this = Resolver()
    listener = await asyncio.start_server(this.stream, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: this, local_addr=("127.0.0.1", port))
    try:
        yield f"127.0.0.1#{port}"
    finally:
        this.transport.close()
        listener.close()


def digging(body: Callable[[Ask], Awaitable[None]], *, forwards: bool = False) -> None:
    """Run ``body`` with a dig bound to a running server."""

    async def main() -> None:
        async with resolver() as where:
            server = DnsServer("127.0.0.1", ZONE, [where] if forwards else [], port=0)
            await server.start()

            async def ask(*words: str) -> Dig:
                # dig's ports are SO_REUSEPORT: of twenty digs, two may get one port, and one of
                # them the other's answer. So it may ask again.
                process = await asyncio.create_subprocess_exec(
                    *("dig", "@127.0.0.1", "-p", str(server.port), "+tries=4", "+time=2"),
                    *words,
                    stdout=asyncio.subprocess.PIPE,
                )
                output, _ = await asyncio.wait_for(process.communicate(), 30)
                assert process.returncode == 0, output
                text = output.decode()
                assert "WARNING" not in text.replace("WARNING: recursion requested", "")
                return Dig(text)

            try:
                await body(ask)
            finally:
                await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in the service
        runner.run(main())


def test_names_and_addresses_both_ways() -> None:
    async def body(ask: Ask) -> None:
        for name in ("ws1.lab.netboot", "WS1.LAB.NETBOOT"):
            found = await ask(name)
            assert (found.status, "aa" in found.flags) == ("NOERROR", True)
            assert found.section("ANSWER")[0][1:] == ["30", "IN", "A", "192.168.77.21"]
        for name in ("lab.netboot", "netboot.lab.netboot"):
            assert (await ask(name)).section("ANSWER")[0][-1] == "192.168.77.1"
        found = await ask("-x", "192.168.77.22")
        assert found.section("ANSWER")[0][-2:] == ["PTR", "ws2.lab.netboot."]
        found = await ask("-x", "192.168.77.1")
        assert found.section("ANSWER")[0][-2:] == ["PTR", "netboot.lab.netboot."]

    digging(body)


def test_a_no_is_a_no_with_its_soa() -> None:
    async def body(ask: Ask) -> None:
        for words, status in (
            (("ws1.lab.netboot", "AAAA"), "NOERROR"),
            (("ws1.lab.netboot", "MX"), "NOERROR"),
            (("ws9.lab.netboot",), "NXDOMAIN"),
            (("-x", "192.168.77.99"), "NXDOMAIN"),
        ):
            found = await ask(*words)
            assert (found.status, found.section("ANSWER")) == (status, [])
            (soa,) = found.section("AUTHORITY")
            assert soa[1:5] == ["5", "IN", "SOA", "netboot.lab.netboot."]

    digging(body)


@pytest.mark.parametrize("word", ["+tcp", "+bufsize=4096", "+bufsize=512", "+noedns", "+dnssec"])
def test_every_way_to_ask(word: str) -> None:
    async def body(ask: Ask) -> None:
        found = await ask(word, "ws1.lab.netboot")
        assert found.section("ANSWER")[0][-1] == "192.168.77.21"
        assert ("EDNS: version: 0" in found.text) == (word != "+noedns")

    digging(body)


def test_an_edns_version_to_come() -> None:
    async def body(ask: Ask) -> None:
        assert (await ask("+edns=1", "+noednsneg", "ws1.lab.netboot")).status == "BADVERS"
        found = await ask("+edns=1", "+ednsneg", "ws1.lab.netboot")
        assert found.section("ANSWER")[0][-1] == "192.168.77.21"

    digging(body)


def test_any_is_answered_with_little() -> None:
    async def body(ask: Ask) -> None:
        (row,) = (await ask("ws1.lab.netboot", "ANY")).section("ANSWER")
        assert row[3:] == ["HINFO", '"RFC8482"', '""']

    digging(body)


def test_refused_where_nobody_can_be_asked() -> None:
    async def body(ask: Ask) -> None:
        for words in (
            ("example.org",),
            ("+tcp", "example.org"),
            ("-c", "CH", "version.bind", "TXT"),
        ):
            found = await ask(*words)
            assert (found.status, "ra" in found.flags) == ("REFUSED", False)
        assert "Transfer failed" in (await ask("lab.netboot", "AXFR")).text

    digging(body)


def test_forwarded() -> None:
    async def body(ask: Ask) -> None:
        for words in (("example.org",), ("+tcp", "example.org"), ("+noedns", "example.org")):
            found = await ask(*words)
            assert (found.status, found.flags & {"ra", "aa"}) == ("NOERROR", {"ra"})
            assert found.section("ANSWER")[0][-1] == "192.0.2.9"
        assert (await ask("+norecurse", "example.org")).status == "REFUSED"
        assert (await ask("ws1.lab.netboot")).section("ANSWER")[0][-1] == "192.168.77.21"

    digging(body, forwards=True)


def test_a_large_answer_is_truncated_and_comes_by_tcp() -> None:
    async def body(ask: Ask) -> None:
        found = await ask("+noedns", "+ignore", "large.example.org")
        assert "tc" in found.flags
        assert found.section("ANSWER") == []
        assert len((await ask("+noedns", "large.example.org")).section("ANSWER")) == 60
        assert len((await ask("+bufsize=1232", "large.example.org")).section("ANSWER")) == 60

    digging(body, forwards=True)


def test_twenty_digs_at_once_with_ten_questions_each() -> None:
    async def body(ask: Ask) -> None:
        names = ["ws1.lab.netboot", "example.org", "ws9.lab.netboot", "-x 192.168.77.21", "a.b.org"]
        words = " ".join(names * 2).split()
        for found in await asyncio.gather(*(ask(*words) for _ in range(20))):
            assert found.text.count("status: NOERROR") == 8
            assert found.text.count("status: NXDOMAIN") == 2

    digging(body, forwards=True)

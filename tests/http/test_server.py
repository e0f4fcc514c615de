"""The server itself: it starts, says why it cannot, lives through garbage, and stops."""

import asyncio
import logging
import os
import re
import socket
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from netboot.errors import ConfigError
from netboot.http import server as module
from netboot.http.server import BODY_LIMIT, LINE_LIMIT, HttpServer, WireLog

GARBAGE = [
    b"\x00" * 64,
    b"\xff\xfe\xfd\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a TLS ClientHello
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: nonsense\r\n\r\n",
    b"GET /" + b"a" * (2 * LINE_LIMIT) + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"a" * (2 * LINE_LIMIT) + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    b"%s%s%n\r\n\r\n",
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_counted_and_never_a_traceback(
    fakes: ModuleType, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    caplog.set_level(logging.INFO)

    async def work(server: HttpServer) -> None:
        got = await fakes.raw(server.port, data)
        assert got == b"" or got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert server.garbage == 1
        assert (await fakes.ask(server.port, "/healthz")).status == 200
        assert server.garbage == 1

    fakes.run(work)
    assert "Traceback" not in caplog.text
    assert "no HTTP request from 127.0.0.1: " in caplog.text
    assert all(len(line) < 400 for line in caplog.text.splitlines())


def test_a_storm_of_random_bytes(fakes: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    async def poke(port: int, data: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        writer.close()

    async def work(server: HttpServer) -> None:
        await asyncio.gather(*(poke(server.port, os.urandom(size)) for size in range(1, 200)))
        assert (await fakes.ask(server.port, "/healthz")).status == 200

    fakes.run(work)
    assert "Traceback" not in caplog.text


def test_half_a_request_does_not_keep_the_others_waiting(fakes: ModuleType) -> None:
    async def work(server: HttpServer) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HT")
        assert (await fakes.ask(server.port, "/healthz")).status == 200
        writer.close()

    fakes.run(work)


def test_who_asks_for_nothing_is_sent_away(
    fakes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP", 0.01)
    monkeypatch.setattr(module, "PATIENCE", 0.2)

    async def work(server: HttpServer) -> None:
        listening, events = await asyncio.open_connection("127.0.0.1", server.port)
        events.write(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await listening.readuntil(b": listening\n\n")
        for said in (b"", b"GET /healthz HTTP/1.1\r\nHos"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
        assert not listening.at_eof(), "who has asked gets the whole answer"
        assert (await fakes.ask(server.port, "/healthz")).status == 200
        events.close()

    fakes.run(work)


def test_two_requests_on_one_connection(fakes: ModuleType) -> None:
    async def work(server: HttpServer) -> None:
        first = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        got = await fakes.raw(server.port, first + last)
        assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert got.count(b"Server: netboot\r\n") == 2

    fakes.run(work)


def test_http_1_0_without_a_host(fakes: ModuleType) -> None:
    async def work(server: HttpServer) -> None:
        got = await fakes.raw(server.port, b"GET /healthz HTTP/1.0\r\n\r\n")
        assert got.startswith(b"HTTP/1.0 200 OK\r\n")
        assert got.endswith(b'{"ok": true, "parts": {"dhcp": "serving"}}')

    fakes.run(work)


def test_a_body_that_nobody_wants(fakes: ModuleType) -> None:
    """It is not read into memory, and its sender gets an answer."""

    async def work(server: HttpServer) -> None:
        head = b"POST /api/v1/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        body = b"x" * (2 * BODY_LIMIT)
        length = f"Content-Length: {len(body)}\r\n\r\n".encode()
        assert (await fakes.raw(server.port, head + length + body)).startswith(b"HTTP/1.1 200 OK")

    fakes.run(work)


def test_a_client_that_goes_away_in_the_middle(
    fakes: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 << 20)

    async def work(server: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /loaders/big HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        assert (await fakes.ask(server.port, "/healthz")).status == 200

    program = fakes.run(work, loaders=[tmp_path])
    assert program.heard == [], "a loader that was not fetched is none"
    assert "Traceback" not in caplog.text


def test_many_at_once(fakes: ModuleType, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "snponly.efi").write_bytes(data)

    async def work(server: HttpServer) -> None:
        asked = [fakes.ask(server.port, "/loaders/snponly.efi") for _ in range(50)]
        assert all(got.body == data for got in await asyncio.gather(*asked))

    assert len(fakes.run(work, loaders=[tmp_path]).heard) == 50


def test_the_access_log(fakes: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="netboot.http.server")

    async def work(server: HttpServer) -> None:
        await fakes.ask(server.port, "/files/%0aforged?%1b[31m")
        await fakes.ask(server.port, "/healthz")

    fakes.run(work)
    tail = re.compile(r" [0-9]+ bytes in 0\.[0-9]{3} s")
    lines = [item for item in caplog.records if " bytes in " in item.getMessage()]
    assert [item.levelno for item in lines] == [logging.INFO, logging.DEBUG]
    assert [tail.sub("", item.getMessage()) for item in lines] == [
        "127.0.0.1 'GET /files/%0aforged?%1b[31m' 404",
        "127.0.0.1 'GET /healthz' 200",
    ]
    assert all(item.getMessage().isprintable() for item in lines)


def no_server(fakes: ModuleType, host: str, port: int) -> str:
    async def work() -> None:
        await HttpServer(fakes.Program().views(), host, port, loaders=[]).start()

    with pytest.raises(ConfigError) as caught:
        asyncio.run(work())
    return str(caught.value)


def test_a_port_that_is_taken(fakes: ModuleType) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert no_server(fakes, "127.0.0.1", port) == (
            f"http: cannot listen on 127.0.0.1:{port}: another program has the port; stop it "
            f"(`ss -ltnp sport = :{port}` shows it) or set another http.port"
        )


def test_an_address_that_is_not_here(fakes: ModuleType) -> None:
    assert no_server(fakes, "192.0.2.1", 8080) == (
        "http: cannot listen on 192.0.2.1:8080: this machine does not have the address; bring "
        "site.interface up, or mend site.address"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (13, "ports below 1024 are root's; start as root or set another http.port"),
        (24, "Too many open files"),
    ],
)
def test_other_reasons(
    fakes: ModuleType, monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    async def refuse(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "create_server", refuse)
    assert no_server(fakes, "127.0.0.1", 80) == f"http: cannot listen on 127.0.0.1:80: {text}"


def test_start_and_stop(fakes: ModuleType) -> None:
    async def work() -> None:
        server = HttpServer(fakes.Program().views(), "127.0.0.1", 0, loaders=[])
        assert server.port == 0
        await server.stop()
        await server.start()
        port = server.port
        assert port != 0
        assert (await fakes.ask(port, "/healthz")).status == 200
        await server.stop()
        await server.stop()
        with pytest.raises(ConnectionRefusedError):
            await fakes.ask(port, "/healthz")
        await server.start()
        assert (await fakes.ask(server.port, "/healthz")).status == 200
        await server.stop()

    asyncio.run(work())


def test_what_aiohttp_says_is_only_silenced_for_what_is_not_our_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    wire = WireLog(logging.getLogger("netboot.http.server"))
    wire.exception("a bug in %s", "here", exc_info=KeyError("bug"))
    wire.debug("a word")
    wire.exception("Error handling request from %s", "x", exc_info=ConnectionResetError())
    for _ in range(3):
        wire.exception("Error handling request from %s", "x", exc_info=BadHttpMessage("odd\nline"))
    assert wire.garbage == 3
    assert [(item.levelname, item.getMessage()) for item in caplog.records] == [
        ("ERROR", "a bug in here"),
        ("DEBUG", "a word"),
        ("DEBUG", "x closed the connection"),
        ("INFO", "no HTTP request from x: 'odd'"),
    ]


def test_requests_are_counted_by_route_and_status(fakes: ModuleType) -> None:
    """Whatever a stranger asks for adds to what is there, and no key of its own."""

    async def work(server: HttpServer) -> None:
        for path in ("/healthz", "/healthz", "/boot/52-54-00-12-34-56.ipxe", "/api/v1/clients/x"):
            await fakes.ask(server.port, path)
        await fakes.ask(server.port, "/healthz", "HEAD")
        for path in ("/a", "/b?c=d", "/%00", "/api/v1/nothing"):
            assert (await fakes.ask(server.port, path)).status == 404
        for name in ("one", "two"):
            assert (await fakes.ask(server.port, f"/loaders/{name}")).status == 404
        assert (await fakes.ask(server.port, "/healthz", "DELETE")).status == 405
        assert server.requests == {
            ("/healthz", 200): 3,
            ("/boot/{mac}.ipxe", 200): 1,
            ("/api/v1/clients/{mac}", 400): 1,
            ("", 404): 4,
            ("/loaders/{name}", 404): 2,
            ("", 405): 1,
        }

    fakes.run(work)


def test_a_fault_is_counted(fakes: ModuleType) -> None:
    async def work(server: HttpServer) -> None:
        await fakes.ask(server.port, "/api/v1/clients")
        await fakes.ask(server.port, "/metrics")
        assert server.requests == {("/api/v1/clients", 500): 1, ("/metrics", 500): 1}

    fakes.run(work, fakes.Program(trouble=RuntimeError("a bug")))

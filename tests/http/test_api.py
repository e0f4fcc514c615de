"""The JSON API: its shapes, its errors, and the stream of events."""

import asyncio
import json
from types import ModuleType

import pytest

from netboot.errors import ImageError
from netboot.events import BootEvent, Phase
from netboot.http import api
from netboot.http.views import event_dict, jsonable

WS1 = "52:54:00:12:34:56"
WS2 = "52:54:00:00:00:02"


def test_clients_images_overlays(fakes: ModuleType) -> None:
    expected = {
        "/api/v1/clients": {"clients": jsonable(fakes.CLIENTS)},
        "/api/v1/images": {"images": jsonable(fakes.IMAGES)},
        "/api/v1/overlays": {"overlays": [jsonable(fakes.OVERLAY)]},
        f"/api/v1/clients/{WS2}": jsonable(fakes.CLIENTS[1]),
        "/api/v1/clients/5254.0012.3456": jsonable(fakes.CLIENTS[0]),
        "/api/v1/explain/52-54-00-00-00-99": {"mac": "52:54:00:00:00:99", "rule": "because"},
    }

    async def work(server: object) -> None:
        for path, value in expected.items():
            got = await fakes.ask(server.port, path)
            assert (got.status, got.json()) == (200, value)
            assert got.headers["content-type"] == "application/json; charset=utf-8"
            head = await fakes.ask(server.port, path, "HEAD")
            assert (head.status, head.body) == (200, b"")

    fakes.run(work)


@pytest.mark.parametrize(("ok", "status"), [(True, 200), (False, 503)])
def test_health(fakes: ModuleType, ok: bool, status: int) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/healthz")
        assert (got.status, got.json()) == (status, {"ok": ok, "parts": {"dhcp": "serving"}})

    fakes.run(work, fakes.Program(ok=ok))


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/api/v1/clients/nonsense", 400, "'nonsense' is not a MAC address"),
        ("GET", "/api/v1/explain/52-54", 400, "'52-54' is not a MAC address"),
        (
            "GET",
            "/api/v1/clients/52-54-00-00-00-99",
            404,
            "no client with the MAC 52:54:00:00:00:99 is known",
        ),
        ("GET", "/api/v1/nothing", 404, "not found"),
        ("DELETE", "/api/v1/clients", 405, "method not allowed"),
        ("POST", "/api/v1/images", 405, "method not allowed"),
    ],
)
def test_errors_are_json(
    fakes: ModuleType, method: str, path: str, status: int, error: str
) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, path, method)
        assert (got.status, got.json()) == (status, {"error": error})

    fakes.run(work)


def test_trouble_for_people_and_bugs_of_ours(
    fakes: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    program = fakes.Program(trouble=ImageError("the library is gone"))

    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/api/v1/clients")
        assert (got.status, got.json()) == (500, {"error": "the library is gone"})
        assert "Traceback" not in caplog.text
        program.trouble = KeyError("bug")
        got = await fakes.ask(server.port, "/api/v1/clients")
        assert got.status == 500
        assert got.json() == {"error": "internal error: see the log of the service"}
        assert "GET /api/v1/clients failed: this is a bug of ours" in caplog.text
        assert "KeyError: 'bug'" in caplog.text
        program.trouble = None
        assert (await fakes.ask(server.port, "/api/v1/clients")).status == 200

    fakes.run(work, program)


async def listen(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An open stream, its headers and greeting read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/v1/events HTTP/1.0\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"\r\nContent-Type: text/event-stream\r\n" in head
    assert await reader.readuntil(b"\n\n") == b": listening\n\n"
    return reader, writer


async def next_event(reader: asyncio.StreamReader) -> object:
    lines = (await reader.readuntil(b"\n\n")).decode().split("\n")
    assert lines[0] == "event: boot"
    assert lines[2:] == ["", ""]
    return json.loads(lines[1].removeprefix("data: "))


def test_the_stream(fakes: ModuleType) -> None:
    program = fakes.Program()
    events = [
        BootEvent(WS1, 1.5, Phase.SEEN, "BIOS\n\ndata: x", fresh=True),
        BootEvent(WS2, 2.5, Phase.READY, "größe"),
    ]

    async def work(server: object) -> None:
        first, writer = await listen(server.port)
        second, other = await listen(server.port)
        for event in events:
            program.bus.publish(event)
        for reader in (first, second):
            assert [await next_event(reader) for _ in events] == [event_dict(e) for e in events]
        writer.close()
        await fakes.until(lambda: program.bus.publish(events[0]) or program.subscribed == 1)
        assert await next_event(second) == event_dict(events[0])
        other.close()

    fakes.run(work, program)
    assert program.subscribed == 0


def test_the_stream_says_that_it_lives(fakes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "HEARTBEAT", 0.01)

    async def work(server: object) -> None:
        reader, writer = await listen(server.port)
        assert await reader.readuntil(b"\n\n") == b": still here\n\n"
        writer.close()

    fakes.run(work)


def test_a_listener_that_does_not_keep_up_is_cut_off(
    fakes: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    program = fakes.Program()
    event = BootEvent(WS1, 1.0, Phase.SEEN, "x" * 1000)

    async def work(server: object) -> None:
        _, slow = await listen(server.port)
        quick, other = await listen(server.port)
        heard = 0
        for _ in range(api.QUEUE_LIMIT + 1):  # at once: nobody can take one meanwhile
            program.bus.publish(event)
        await fakes.until(lambda: program.subscribed == 0)
        slow.close()
        other.close()
        quick, other = await listen(server.port)
        for _ in range(3 * api.QUEUE_LIMIT):
            program.bus.publish(event)
            assert await next_event(quick) == event_dict(event)
            heard += 1
        assert heard == 3 * api.QUEUE_LIMIT
        other.close()

    fakes.run(work, program)
    assert caplog.text.count("127.0.0.1 listens too slowly to the events: cut off") == 2


def test_a_listener_that_stops_reading_is_cut_off_too(fakes: ModuleType) -> None:
    program = fakes.Program()
    event = BootEvent(WS1, 1.0, Phase.SEEN, "x" * 60_000)

    async def work(server: object) -> None:
        _, writer = await listen(server.port)

        def gone() -> bool:
            program.bus.publish(event)
            return bool(program.subscribed == 0)

        await fakes.until(gone)
        writer.close()

    fakes.run(work, program)


def test_there_is_an_end_to_listeners(fakes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LISTENER_LIMIT", 1)

    async def work(server: object) -> None:
        _, writer = await listen(server.port)
        got = await fakes.ask(server.port, "/api/v1/events")
        assert (got.status, got.json()) == (503, {"error": "1 listeners are connected already"})
        writer.close()

    fakes.run(work)


def test_head_of_the_stream_does_not_listen(fakes: ModuleType) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/api/v1/events", "HEAD")
        assert (got.status, got.headers["content-type"]) == (200, "text/event-stream")

    assert fakes.run(work).subscribed == 0


def test_the_stream_ends_with_the_server(fakes: ModuleType) -> None:
    readers: list[asyncio.StreamReader] = []

    async def work(server: object) -> None:
        reader, writer = await listen(server.port)
        await server.stop()
        assert await reader.read() == b""
        writer.close()
        readers.append(reader)

    program = fakes.run(work)
    assert program.subscribed == 0
    assert len(readers) == 1

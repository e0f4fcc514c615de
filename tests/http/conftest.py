"""A program behind the HTTP server that is all memory; and the server on an ephemeral port.

Tests take this module itself as the fixture ``fakes``.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import uvloop

from netboot.events import BootEvent, Bus, Phase
from netboot.http.metrics import Figures
from netboot.http.server import HttpServer
from netboot.http.views import ClientView, Health, ImageView, OverlayView, Views


@pytest.fixture
def fakes() -> ModuleType:
    """This module: its names are what tests of the server need."""
    return sys.modules[__name__]


WS1 = "52:54:00:12:34:56"
WS2 = "52:54:00:00:00:02"
NOW = 1_700_000_000.0
OVERLAY = OverlayView("/srv/ws1.qcow2", "persistent", 0, 8192, WS1, "debian", 3)
CLIENTS = (
    ClientView(WS1, "ws1", "127.0.0.1", "work", "debian", 3, Phase.OS, overlay=OVERLAY),
    ClientView(WS2, "ws2"),
)
IMAGES = (ImageView("debian", 3, 1 << 30, "sha256:33", 1.0, "images/debian", True, (WS1,)),)


@dataclass
class Program:
    """What ``app`` is in the product. ``mac`` holds 127.0.0.1, where the tests come from."""

    mac: str | None = WS1
    ok: bool = True
    scripts: dict[str, str] = field(default_factory=lambda: {WS1: "#!ipxe\necho größe\n"})
    trouble: Exception | None = None
    bus: Bus = field(default_factory=Bus)
    heard: list[BootEvent] = field(default_factory=list)
    readied: list[str] = field(default_factory=list)
    told: list[tuple[str, bool]] = field(default_factory=list)  #: who asked for whose script
    subscribed: int = 0

    def views(self) -> Views:
        self.bus.subscribe(self.heard.append)
        return Views(
            clients=self._clients,
            images=lambda: IMAGES,
            overlays=lambda: (OVERLAY,),
            health=lambda: Health(self.ok, {"dhcp": "serving"}),
            mac_of=lambda address: self.mac if address == "127.0.0.1" else None,
            subscribe=self._subscribe,
            publish=self.bus.publish,
            script_for=self._script,
            explain=lambda mac: {"mac": mac, "rule": "because"},
            ready=self.readied.append,
            metrics=lambda: Figures("1.2.3", NOW, self.ok, clients=self._clients()),
        )

    def _clients(self) -> Sequence[ClientView]:
        if self.trouble:
            raise self.trouble
        return CLIENTS

    def _script(self, mac: str, itself: bool) -> str | None:
        if self.trouble:
            raise self.trouble
        self.told.append((mac, itself))
        return self.scripts.get(mac)

    def _subscribe(self, receiver: Callable[[BootEvent], None]) -> Callable[[], None]:
        unsubscribe = self.bus.subscribe(receiver)
        self.subscribed += 1

        def end() -> None:
            self.subscribed -= 1
            unsubscribe()

        return end


@asynccontextmanager
async def serving(
    program: Program, loaders: Sequence[Path] = (), files: Sequence[Path] = ()
) -> AsyncIterator[HttpServer]:
    """The server, running, on 127.0.0.1."""
    server = HttpServer(
        program.views(), "127.0.0.1", 0, loaders=loaders, files=files, clock=lambda: NOW
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def raw(port: int, request: bytes) -> bytes:
    """Everything that comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def until(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds; the test's own time limit is the end of patience."""
    while not condition():
        await asyncio.sleep(0.005)


@dataclass
class Answer:
    """One HTTP answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


async def ask(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> Answer:
    """One HTTP/1.1 request of our own making on a connection of its own."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += ["Content-Length: 0"] if method == "POST" else []
    got = await raw(port, "\r\n".join([*lines, "", ""]).encode())
    head, _, body = got.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in rest)
    return Answer(int(first.split()[1]), {name.lower(): value for name, value in pairs}, body)


def run(
    work: Callable[[HttpServer], Awaitable[None]],
    program: Program | None = None,
    loaders: Sequence[Path] = (),
    files: Sequence[Path] = (),
) -> Program:
    """Run ``work`` against a server over ``program``; give the program back."""
    used = program or Program()

    async def whole() -> None:
        async with serving(used, loaders, files) as server:
            await asyncio.wait_for(work(server), 20)

    uvloop.run(whole())  # as the product does
    return used

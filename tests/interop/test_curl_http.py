"""curl against our HTTP server: HEAD, ranges, resuming, HTTP/1.0, the event stream, garbage."""

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from netboot.events import BootEvent, Bus, Phase
from netboot.http.metrics import Figures
from netboot.http.server import HttpServer
from netboot.http.views import ClientView, Health, Views

pytestmark = pytest.mark.interop

WS1 = "52:54:00:12:34:56"
DATA = os.urandom(1_500_000)


class Service:
    """The server in a thread of its own, as curl needs it; stopped and joined by ``close``."""

    def __init__(self, folder: Path) -> None:
        self.bus = Bus()
        self.heard: list[BootEvent] = []
        self.readied: list[str] = []
        self.bus.subscribe(self.heard.append)
        self.folder = folder
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()))
        self._thread.start()
        assert self._ready.wait(20)

    async def _main(self) -> None:
        views = Views(
            clients=lambda: (ClientView(WS1, "ws1"),),
            images=lambda: (),
            overlays=lambda: (),
            health=lambda: Health(True),
            mac_of=lambda address: WS1,
            subscribe=self.bus.subscribe,
            publish=self.bus.publish,
            script_for=lambda mac, itself: f"#!ipxe\necho {mac}\n",
            explain=lambda mac: {"mac": mac},
            ready=self.readied.append,
            metrics=lambda: Figures("1.2.3", 1.0, True),
        )
        server = HttpServer(views, "127.0.0.1", 0, loaders=[self.folder], files=[self.folder])
        await server.start()
        self.port = server.port
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._ready.set()
        await self._end.wait()
        await server.stop()

    def soon(self, event: BootEvent) -> None:
        """Publish from the test's thread."""
        self._loop.call_soon_threadsafe(self.bus.publish, event)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    folder = tmp_path / "loaders"
    folder.mkdir()
    (folder / "snponly.efi").write_bytes(DATA)
    (tmp_path / "secret").write_bytes(b"secret")
    running = Service(folder)
    yield running
    running.close()


def curl(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, timeout=30, check=False
    )


def headers(output: bytes) -> tuple[str, dict[str, str]]:
    first, *rest = output.decode().strip().split("\r\n")
    return first, {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}


def test_get(service: Service) -> None:
    assert curl("--fail", service.url("/loaders/snponly.efi")).stdout == DATA
    assert [(event.mac, event.phase) for event in service.heard] == [(WS1, Phase.LOADER)]


def test_head(service: Service) -> None:
    status, fields = headers(curl("--head", service.url("/loaders/snponly.efi")).stdout)
    assert status == "HTTP/1.1 200 OK"
    assert fields["content-length"] == str(len(DATA))
    assert fields["content-type"] == "application/efi"
    assert fields["accept-ranges"] == "bytes"
    assert service.heard == []


def test_http_1_0(service: Service) -> None:
    got = curl("--http1.0", "--include", service.url("/loaders/snponly.efi")).stdout
    head, _, body = got.partition(b"\r\n\r\n")
    status, fields = headers(head)
    assert status == "HTTP/1.0 200 OK"
    assert fields["content-length"] == str(len(DATA))
    assert body == DATA


@pytest.mark.parametrize(
    ("wanted", "code", "body"),
    [
        ("0-0", "206", DATA[:1]),
        ("512-1023", "206", DATA[512:1024]),
        ("1000000-", "206", DATA[1_000_000:]),
        ("-7", "206", DATA[-7:]),
        ("u-u", "200", DATA),
    ],
)
def test_range(service: Service, tmp_path: Path, wanted: str, code: str, body: bytes) -> None:
    out = tmp_path / "out"
    asked = ["--header", f"Range: bytes={wanted}", "--output", out, "--write-out", "%{http_code}"]
    assert curl(*asked, service.url("/files/snponly.efi")).stdout == code.encode()
    assert out.read_bytes() == body


@pytest.mark.parametrize("have", [0, 1, 700_000, len(DATA) - 1])
def test_resume(service: Service, tmp_path: Path, have: int) -> None:
    out = tmp_path / "out"
    out.write_bytes(DATA[:have])
    done = curl("--fail", "--continue-at", "-", "--output", out, service.url("/files/snponly.efi"))
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == DATA


def test_resuming_what_is_complete(service: Service, tmp_path: Path) -> None:
    """curl learns from the 416 that there is nothing more, and leaves its file alone."""
    out = tmp_path / "out"
    out.write_bytes(DATA)
    asked = ["--continue-at", "-", "--output", out, "--write-out", "%{http_code}"]
    done = curl(*asked, service.url("/files/snponly.efi"))
    assert (done.returncode, done.stdout) == (0, b"416")
    assert out.read_bytes() == DATA


def test_a_name_that_leads_out(service: Service) -> None:
    for path in ("/loaders/../secret", "/loaders/..%2Fsecret", "/loaders/%2e%2e%2fsecret"):
        got = curl("--path-as-is", "--write-out", "%{http_code}", service.url(path)).stdout
        assert got.endswith(b"404")
        assert b"secret" not in got


def test_the_script_and_the_api(service: Service) -> None:
    got = curl("--fail", service.url("/boot/52-54-00-12-34-56.ipxe")).stdout
    assert got == f"#!ipxe\necho {WS1}\n".encode()
    clients = json.loads(curl("--fail", service.url("/api/v1/clients")).stdout)
    assert [client["mac"] for client in clients["clients"]] == [WS1]
    done = curl("--fail", "--request", "POST", service.url("/api/v1/ready"))
    assert json.loads(done.stdout) == {"mac": WS1, "phase": "ready"}
    assert service.readied == [WS1]


def test_the_event_stream(service: Service) -> None:
    command = ["curl", "--silent", "--no-buffer", "--noproxy", "*", "--max-time", "20"]
    with subprocess.Popen(
        [*command, service.url("/api/v1/events")], stdout=subprocess.PIPE
    ) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b": listening\n"
        assert listener.stdout.readline() == b"\n"
        service.soon(BootEvent(WS1, 5.0, Phase.LOGIN, "session"))
        assert listener.stdout.readline() == b"event: boot\n"
        data = json.loads(listener.stdout.readline().removeprefix(b"data: "))
        assert (data["mac"], data["phase"], data["at"]) == (WS1, "login", 5.0)
        listener.terminate()


@pytest.mark.parametrize("data", [b"\0" * 4096, os.urandom(4096), b"\r\n" * 4096, b"GET"])
def test_garbage_beside_a_download(service: Service, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as bad:
        bad.sendall(data)
        assert curl("--fail", service.url("/loaders/snponly.efi")).stdout == DATA


def test_ten_at_once_on_one_connection_each(service: Service, tmp_path: Path) -> None:
    urls = [f"{service.url('/files/snponly.efi')}?{number}" for number in range(10)]
    outputs = [tmp_path / f"out{number}" for number in range(10)]
    pairs = zip(outputs, urls, strict=True)
    done = curl("--fail", "--parallel", *(x for out, url in pairs for x in ("--output", out, url)))
    assert done.returncode == 0, done.stderr
    assert all(out.read_bytes() == DATA for out in outputs)

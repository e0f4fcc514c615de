"""Foreign TFTP clients fetch files from us: atftp, tftp-hpa, busybox and curl."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from netboot.tftp import crowd, roll, rollcall
from netboot.tftp.server import TftpCounters, TftpServer

pytestmark = pytest.mark.interop


@pytest.fixture(params=[roll.Roll, rollcall.Roll], ids=["python", "compiled"], autouse=True)
def used(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The roll that a server calls."""
    monkeypatch.setattr(crowd, "Roll", request.param)


#: Not a multiple of any block size below; the second is one of 512 and of 1024.
SIZES = {"odd": 300_001, "even": 262_144, "empty": 0, "one": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    chance = random.Random(7)
    for name, size in SIZES.items():
        (folder / name).write_bytes(chance.randbytes(size))
    (tmp_path / "got").mkdir()
    return folder


async def run(*command: str, cwd: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


Body = Callable[[TftpServer], Awaitable[None]]


def serving(folder: Path, body: Body, **settings: bool) -> TftpCounters:
    """Run ``body`` beside a server; the counters after everything has ended."""

    async def main() -> TftpCounters:
        server = TftpServer("127.0.0.1", [folder], lambda event: None, port=0, **settings)
        await server.start()
        try:
            await body(server)
            async with asyncio.timeout(10):
                while server.counters.active:
                    await asyncio.sleep(0.001)
        finally:
            await server.stop()
        return server.counters

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in the service
        return runner.run(main())


def atftp(*options: str) -> Callable[[str, str], list[str]]:
    pairs = [part for option in options for part in ("--option", option)]
    return lambda name, port: [
        *("atftp", *pairs, "-g", "-r", name, "-l", "copy", "127.0.0.1", port)
    ]


def hpa(mode: str) -> Callable[[str, str], list[str]]:
    return lambda name, port: ["tftp", "-m", mode, "127.0.0.1", port, "-c", "get", name, "copy"]


def busybox(*options: str) -> Callable[[str, str], list[str]]:
    return lambda name, port: [
        *("busybox", "tftp", "-g", "-r", name, "-l", "copy", *options, "127.0.0.1", port)
    ]


def curl(*options: str) -> Callable[[str, str], list[str]]:
    return lambda name, port: [
        *("curl", "-sS", "-m", "40", *options, "-o", "copy", f"tftp://127.0.0.1:{port}/{name}")
    ]


CLIENTS = {
    "atftp": atftp(),
    "atftp-tsize": atftp("tsize 0", "timeout 3"),
    "atftp-blksize": atftp("blksize 1468"),
    "atftp-window": atftp("blksize 1468", "windowsize 16"),
    "atftp-window-4": atftp("windowsize 4"),
    "hpa": hpa("octet"),
    "busybox": busybox(),
    "busybox-blksize": busybox("-b", "1468"),
    "busybox-huge": busybox("-b", "65464"),
    "curl": curl(),
    "curl-plain": curl("--tftp-no-options"),
    "curl-blksize": curl("--tftp-blksize", "1468"),
    "curl-smallest": curl("--tftp-blksize", "8"),
}


def sizes(client: str) -> list[str]:
    """What ``client`` is asked to fetch.

    curl 7.88 takes "tsize 0" in an OACK for an error, whoever sends it (dnsmasq's fails it the
    same way): with options it cannot fetch an empty file.
    """
    broken = client.startswith("curl") and client != "curl-plain"
    return [name for name in SIZES if not (broken and name == "empty")]


@pytest.mark.parametrize("single_port", [False, True], ids=["own-ports", "single-port"])
@pytest.mark.parametrize("client", CLIENTS)
def test_every_file_arrives_whole(folder: Path, client: str, single_port: bool) -> None:
    got = folder.parent / "got"

    async def body(server: TftpServer) -> None:
        for name in sizes(client):
            copy = got / "copy"
            copy.unlink(missing_ok=True)
            code, output = await run(*CLIENTS[client](name, str(server.port)), cwd=got)
            assert code == 0, output
            data = copy.read_bytes() if copy.exists() else b""
            assert data == (folder / name).read_bytes(), f"{name}: {output}"

    counters = serving(folder, body, single_port=single_port)
    assert (counters.done, counters.failed) == (len(sizes(client)), 0)


def test_netascii_comes_back_as_it_was(folder: Path) -> None:
    text = b"one\ntwo\r\nthree\rfour\n\0five" * 300
    (folder / "text").write_bytes(text)
    got = folder.parent / "got"

    async def body(server: TftpServer) -> None:
        code, output = await run(*hpa("netascii")("text", str(server.port)), cwd=got)
        assert code == 0, output

    serving(folder, body)
    assert (got / "copy").read_bytes() == text


def test_block_numbers_roll_over(folder: Path) -> None:
    """34 MB in blocks of 512 is more than 65535 blocks."""
    data = random.Random(8).randbytes(34_000_000)
    (folder / "big").write_bytes(data)
    got = folder.parent / "got"

    async def body(server: TftpServer) -> None:
        for client in ("atftp", "curl-plain", "hpa"):
            code, output = await run(*CLIENTS[client]("big", str(server.port)), cwd=got)
            assert code == 0, output
            assert (got / "copy").read_bytes() == data, client

    assert serving(folder, body).done == 3


def test_a_missing_file_is_said_to_be_missing(folder: Path) -> None:
    got = folder.parent / "got"

    async def body(server: TftpServer) -> None:
        port = str(server.port)
        code, _ = await run(*curl()("nothing", port), cwd=got)
        assert code == 68  # TFTP: file not found
        code, output = await run(*busybox()("nothing", port), cwd=got)
        assert code != 0
        assert "there is no such file" in output
        _, output = await run(*hpa("octet")("nothing", port), cwd=got)
        assert "Error code 1: there is no such file" in output

    counters = serving(folder, body)
    assert (counters.missing, counters.done) == (3, 0)


def test_an_upload_is_refused(folder: Path) -> None:
    async def body(server: TftpServer) -> None:
        url = f"tftp://127.0.0.1:{server.port}/new"
        code, _ = await run("curl", "-sS", "-m", "20", "-T", "odd", url, cwd=folder)
        assert code == 69  # TFTP: permission problem

    counters = serving(folder, body)
    assert counters.refused >= 1
    assert not (folder / "new").exists()


def test_fifty_clients_at_once(folder: Path) -> None:
    got = folder.parent / "got"
    names = [name for name in CLIENTS if not name.endswith("smallest")]

    async def one(server: TftpServer, number: int) -> None:
        place = got / str(number)
        place.mkdir()
        client = CLIENTS[names[number % len(names)]]
        code, output = await run(*client("odd", str(server.port)), cwd=place)
        assert code == 0, output
        assert (place / "copy").read_bytes() == (folder / "odd").read_bytes()

    async def body(server: TftpServer) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(one(server, number))

    counters = serving(folder, body)
    assert (counters.done, counters.failed, counters.active) == (50, 0, 0)

"""The back door: one line each way, errors in words, root's alone, and never stopped."""

import asyncio
import json
import socket
import stat
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ConfigError, ImageError, NetbootError
from netboot.service.control import NAME, ControlServer, ask


async def echo(asked: Mapping[str, Any]) -> object:
    return {"said": asked.get("word")}


async def refuse(_asked: Mapping[str, Any]) -> object:
    raise ImageError("it is in use")


async def broken(_asked: Mapping[str, Any]) -> object:
    raise RuntimeError("a bug")


HANDLERS = {"echo": echo, "refuse": refuse, "broken": broken}


def serving(tmp_path: Path, talk: Callable[[], object]) -> object:
    """What ``talk`` returns, called in a thread while the server runs."""

    async def run() -> object:
        server = ControlServer(tmp_path, HANDLERS)
        await server.start()
        try:
            return await asyncio.to_thread(talk)
        finally:
            await server.stop()

    return asyncio.run(run())


def raw(path: Path, line: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(path / NAME))
        door.sendall(line)
        door.shutdown(socket.SHUT_WR)
        answer = b""
        while part := door.recv(4096):
            answer += part
    return dict(json.loads(answer))


def test_it_is_asked_and_answers(tmp_path: Path) -> None:
    assert serving(tmp_path, lambda: ask(tmp_path, "echo", word="héllo")) == {"said": "héllo"}


def test_errors_come_through_in_words(tmp_path: Path) -> None:
    def talk() -> list[str]:
        told = []
        for word in ("refuse", "broken", "dance"):
            with pytest.raises(NetbootError) as caught:
                ask(tmp_path, word)
            told.append(str(caught.value))
        return told

    assert serving(tmp_path, talk) == [
        "it is in use",
        "internal error: see the log of the service",
        "this service cannot dance",
    ]


@pytest.mark.parametrize(
    "line", [b"\n", b"garbage\n", b"[]\n", b"{}\n", b'"x"\n', b"{" * 5000 + b"\n", b'{"do": []}\n']
)
def test_garbage_is_answered_and_stops_nothing(tmp_path: Path, line: bytes) -> None:
    def talk() -> object:
        assert raw(tmp_path, line) == {"error": "not a line of control"}
        return ask(tmp_path, "echo", word=1)

    assert serving(tmp_path, talk) == {"said": 1}


def test_an_endless_line_and_a_silent_caller_stop_nothing(tmp_path: Path) -> None:
    def talk() -> object:
        with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as endless:
            silent.connect(str(tmp_path / NAME))
            endless.connect(str(tmp_path / NAME))
            endless.settimeout(10)
            with pytest.raises(OSError):
                while True:
                    endless.sendall(b"x" * 65536)
            return ask(tmp_path, "echo", word=1)

    assert serving(tmp_path, talk) == {"said": 1}


def test_only_the_owner_may_use_it_and_it_goes_away(tmp_path: Path) -> None:
    def talk() -> int:
        return stat.S_IMODE((tmp_path / NAME).stat().st_mode)

    assert serving(tmp_path, talk) == 0o600
    assert not (tmp_path / NAME).exists()


def test_a_dead_services_socket_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / NAME))
    assert serving(tmp_path, lambda: ask(tmp_path, "echo", word=1)) == {"said": 1}


def test_a_path_too_long_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()

    async def run() -> None:
        await ControlServer(folder, HANDLERS).start()

    with pytest.raises(ConfigError, match=r"choose another \[site\] state"):
        asyncio.run(run())


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NetbootError, match="the service does not answer at"):
        ask(tmp_path, "echo")


def test_a_service_that_hangs_up_is_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / NAME))
        door.listen()
        rude = threading.Thread(target=lambda: door.accept()[0].close())
        rude.start()
        with pytest.raises(NetbootError):
            ask(tmp_path, "echo")
        rude.join()


def test_handlers_are_awaited_one_by_one_or_together(tmp_path: Path) -> None:
    """Two callers at once: neither waits for the other."""
    met = threading.Barrier(2, timeout=10)

    async def meet(_asked: Mapping[str, Any]) -> object:
        await asyncio.to_thread(met.wait)
        return "met"

    async def run() -> list[object]:
        handlers: dict[str, Callable[[Mapping[str, Any]], Awaitable[object]]] = {"meet": meet}
        server = ControlServer(tmp_path, handlers)
        await server.start()
        try:
            calls = [asyncio.to_thread(ask, tmp_path, "meet") for _ in range(2)]
            return list(await asyncio.gather(*calls))
        finally:
            await server.stop()

    assert asyncio.run(run()) == ["met", "met"]

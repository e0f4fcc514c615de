"""What the tests of several commands share."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from netboot.service.control import ControlServer
from netboot.service.preflight import StateFolder

Beside: TypeAlias = Callable[[Path, str, object, Callable[[], Any]], list[Mapping[str, Any]]]


@pytest.fixture
def beside_a_service() -> Beside:
    """Call something while a service holds a state folder and has one answer to one word.

    Returns what the service was asked.
    """

    def call(state: Path, word: str, answer: object, do: Callable[[], Any]) -> list[Any]:
        asked: list[Mapping[str, Any]] = []

        async def handler(words: Mapping[str, Any]) -> object:
            asked.append(words)
            return answer

        async def serve() -> None:
            server = ControlServer(state, {word: handler})
            await server.start()
            await asyncio.to_thread(do)
            await server.stop()

        held = StateFolder(state)
        service = threading.Thread(target=lambda: asyncio.run(serve()))
        service.start()
        service.join()
        held.release()
        return asked

    return call

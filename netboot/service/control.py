"""The service's back door for the command line: a Unix socket in the state folder, root's alone.

One JSON object on a line each way: ``{"do": "reset", "mac": …}`` and ``{"ok": …}`` or
``{"error": …}``. Only what cannot be done beside a running service goes through here; whatever
the database can answer is asked there. Garbage is answered with an error, and never stops it.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from netboot.errors import NetbootError
from netboot.private import private_socket

log = logging.getLogger(__name__)

NAME = "control.sock"
_LINE = 65536
#: Seconds: for the caller to say something, and for the service to do it.
_PATIENCE = 60.0

Handler: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[object]]


class ControlServer:
    """Answers at ``<state>/control.sock``; ``handlers`` by the word after ``do``."""

    def __init__(self, state: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = state / NAME
        self._handlers = handlers
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; ConfigError when that is not possible. The caller holds the state folder."""
        sock = private_socket(self._path, socket.SOCK_STREAM)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=_LINE)

    async def stop(self) -> None:
        """Close and clear away the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await self._answer(await reader.readline())
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:
            log.info("control: a caller went away: %r", error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> Mapping[str, object]:
        try:
            asked = json.loads(line)
            handler = self._handlers.get(asked["do"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"error": "not a line of control"}
        if handler is None:
            return {"error": f"this service cannot {asked['do']}"}
        try:
            return {"ok": await handler(asked)}
        except NetbootError as error:
            return {"error": str(error)}
        except Exception:
            log.exception("control: %s failed: this is a bug of ours", asked["do"])
            return {"error": "internal error: see the log of the service"}


def ask(state: Path, do: str, **more: object) -> Any:
    """Have the running service do something; NetbootError with its words when it does not."""
    line = json.dumps({"do": do, **more}).encode() + b"\n"
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_PATIENCE)
            door.connect(str(state / NAME))
            door.sendall(line)
            while not answer.endswith(b"\n") and len(answer) < _LINE:
                more_bytes = door.recv(_LINE)
                if not more_bytes:
                    break
                answer += more_bytes
        found = json.loads(answer)
    except OSError as error:
        raise NetbootError(
            f"the service does not answer at {state / NAME}: {error.strerror or error}"
        ) from None
    except ValueError:
        raise NetbootError(f"the service hung up at {state / NAME}: see its log") from None
    if "error" in found:
        raise NetbootError(str(found["error"]))
    return found.get("ok")

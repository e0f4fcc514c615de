"""The sockets of HTTP: an aiohttp application made of the route table.

It knows the rest of the program only through ``Views``. Garbage on the port is answered with a
400 and counted, without a traceback; a mistake of ours is one traceback in the log and a 500 for
the asker; neither ever stops the service.
"""

import asyncio
import contextlib
import errno
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from netboot.errors import ConfigError, NetbootError
from netboot.http.api import Api, failure
from netboot.http.machines import Machines
from netboot.http.routes import ROUTES
from netboot.http.views import Views
from netboot.sparing import Sparing

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: No request has a body worth more; scripts and files only ever go out.
BODY_LIMIT = 64 << 10
#: One header line, and the request line: iPXE's own are below 500 bytes.
LINE_LIMIT = 8190
#: Seconds that an idle connection is kept.
KEEP_ALIVE = 75.0
#: Seconds that a connection has for its first request: aiohttp itself would wait for ever.
PATIENCE = 60.0
#: Seconds between two looks for those.
SWEEP = 5.0
#: Seconds that transfers have left when the server stops.
LAST_SECONDS = 2.0


class HttpServer:
    """``loaders`` and ``files`` are folders, searched in order; the first hit counts.

    >>> server = HttpServer(views, "192.168.77.1", 8080, loaders=[Path("/var/lib/netboot/loaders")])
    >>> await server.start()    # ConfigError: the port is taken, the address is not here
    >>> await server.stop()
    """

    def __init__(
        self,
        views: Views,
        host: str,
        port: int,
        *,
        loaders: Sequence[Path],
        files: Sequence[Path] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._port = port
        self._api = Api(views)
        self._machines = Machines(views, loaders, files, clock)
        self._wire_log = WireLog(log)
        self._runner: web.AppRunner | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._asked: set[web.RequestHandler] = set()
        self.requests: Counter[tuple[str, int]] = Counter()  #: by route ("": none) and status

    @property
    def port(self) -> int:
        """The TCP port: of the running server, where 0 asked for any."""
        if self._runner is not None and self._runner.addresses:
            return int(self._runner.addresses[0][1])
        return self._port

    @property
    def garbage(self) -> int:
        """How many requests were no HTTP."""
        return self._wire_log.garbage

    async def start(self) -> None:
        """Listen. ConfigError when that cannot be, with the way out."""
        app = web.Application(middlewares=[self._note, _guard], client_max_size=BODY_LIMIT)
        for route in ROUTES:
            app.router.add_route(route.method, route.path, self._handler(route.handler))
            if route.method == "GET":
                app.router.add_route("HEAD", route.path, self._handler(route.handler))
        app.on_response_prepare.append(_sign)
        app.on_shutdown.append(self._end_streams)
        runner = web.AppRunner(
            app,
            access_log_class=AccessLog,
            access_log=log,
            logger=cast(logging.Logger, self._wire_log),
            keepalive_timeout=KEEP_ALIVE,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
            shutdown_timeout=LAST_SECONDS,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(self._way_out(error)) from error
        self._runner = runner
        self._sweeper = asyncio.create_task(self._sweep(runner))
        log.info("HTTP on http://%s:%d/", self._host, self.port)

    async def stop(self) -> None:
        """End the streams, give transfers two seconds, and close. Twice is harmless."""
        runner, self._runner = self._runner, None
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        if runner is not None:
            await runner.cleanup()

    async def _sweep(self, runner: web.AppRunner) -> None:
        """Send away who came and asks for nothing: a thousand of them have all descriptors."""
        loop = asyncio.get_running_loop()
        since: dict[web.RequestHandler, float] = {}
        while True:
            await asyncio.sleep(SWEEP)
            now, server = loop.time(), runner.server
            here = server.connections if server is not None else []
            self._asked.intersection_update(here)
            silent = [connection for connection in here if connection not in self._asked]
            since = {connection: since.get(connection, now) for connection in silent}
            for connection, first in since.items():
                if now - first >= PATIENCE:
                    connection.force_close()

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._asked.add(request.protocol)
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else ""
        try:
            response = await handler(request)
        except web.HTTPException as error:
            self.requests[route, error.status] += 1
            raise
        self.requests[route, response.status] += 1
        return response

    async def _end_streams(self, app: web.Application) -> None:
        self._api.close()

    def _handler(self, name: str) -> Handler:
        owner = self._machines if hasattr(self._machines, name) else self._api
        return cast(Handler, getattr(owner, name))

    def _way_out(self, error: OSError) -> str:
        where = f"http: cannot listen on {self._host}:{self._port}"
        if error.errno == errno.EADDRINUSE:
            return (
                f"{where}: another program has the port; stop it "
                f"(`ss -ltnp sport = :{self._port}` shows it) or set another http.port"
            )
        if error.errno == errno.EADDRNOTAVAIL:
            return (
                f"{where}: this machine does not have the address; bring site.interface up, or "
                "mend site.address"
            )
        if error.errno == errno.EACCES:
            return f"{where}: ports below 1024 are root's; start as root or set another http.port"
        return f"{where}: {error.strerror or error}"


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in the shape of whoever asked: JSON below ``/api/``, else one line of text."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if not request.path.startswith("/api/"):
            raise
        return failure(error.status, error.reason.lower())
    except ConnectionError:
        raise  # the client went away: aiohttp's business
    except NetbootError as error:
        log.error("%s %s: %s", request.method, request.path, error)
        text = str(error)
    except Exception:
        log.exception("%s %s failed: this is a bug of ours", request.method, request.path)
        text = "internal error: see the log of the service"
    if request.path.startswith("/api/"):
        return failure(500, text)
    return web.Response(status=500, text=text + "\n")


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "netboot"


class AccessLog(AbstractAccessLogger):
    """One line a request, at DEBUG; what went wrong at INFO."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """``192.168.77.21 'GET /loaders/snponly.efi' 200 162304 bytes in 0.004 s``, headers and
        all."""
        level = logging.DEBUG if response.status < 400 else logging.INFO
        self.logger.log(
            level,
            "%s %s %d %d bytes in %.3f s",
            request.remote,
            ascii(f"{request.method} {request.path_qs}"),
            response.status,
            response.body_length,
            time,
        )


class WireLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log, where a request that is none is counted, and one line a minute at most."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self.garbage = 0
        self._sparing = Sparing()

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        """What aiohttp calls for a request that it could not parse, and for bugs."""
        if not self._dropped(args, exc_info):
            super().exception(msg, *args, exc_info=exc_info, **more)

    def debug(self, msg: object, *args: object, exc_info: Any = None, **more: Any) -> None:
        """What aiohttp calls when the very first line of a connection is no HTTP."""
        if not self._dropped(args, exc_info):
            super().debug(msg, *args, exc_info=exc_info, **more)

    def _dropped(self, args: tuple[object, ...], error: object) -> bool:
        if isinstance(error, ConnectionError):  # it went away in the middle of its answer
            self.logger.debug("%s closed the connection", args[0] if args else "?")
            return True
        if not isinstance(error, HttpProcessingError):
            return False
        self.garbage += 1
        more = self._sparing.more("garbage", time.monotonic())
        if more is not None:
            reason = error.message.strip().partition("\n")[0]
            asker = args[0] if args else "?"
            self.logger.info("no HTTP request from %s: %s%s", asker, ascii(reason), more)
        return True

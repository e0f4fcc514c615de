"""The JSON API: what the service knows, and what happens, as plain values.

It reads and never changes anything. Errors are ``{"error": "…"}``. Times are seconds since the
epoch, sizes are bytes. ``/api/v1/events`` is a stream of server-sent events (WHATWG HTML, section
9.2): ``event: boot``, ``data:`` one JSON object; a listener that does not keep up is cut off, so
that it can neither slow down a boot nor fill the memory. ``/metrics`` is for Prometheus.
"""

import asyncio
import json
import logging
from dataclasses import dataclass, field

from aiohttp import web

from netboot.events import BootEvent
from netboot.http import metrics
from netboot.http.machines import mac_in
from netboot.http.views import Views, event_dict, jsonable

log = logging.getLogger(__name__)

#: Events that may wait for one listener; and listeners at the same time.
QUEUE_LIMIT = 256
LISTENER_LIMIT = 64
#: Seconds of silence after which a comment is sent, so that dead listeners are noticed.
HEARTBEAT = 15.0


def answer(value: object, status: int = 200) -> web.Response:
    """``value`` as JSON."""
    return web.json_response(jsonable(value), status=status)


def failure(status: int, text: str) -> web.Response:
    """An error in the API's own shape."""
    return answer({"error": text}, status)


@dataclass(slots=True, eq=False)
class Listener:
    """One open event stream; None in the queue ends it."""

    request: web.Request
    queue: "asyncio.Queue[BootEvent | None]" = field(
        default_factory=lambda: asyncio.Queue(QUEUE_LIMIT)
    )

    def hear(self, event: BootEvent | None) -> None:
        """Queue an event; a listener with a full queue loses its connection."""
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            transport = self.request.transport
            if transport is not None and not transport.is_closing():
                log.info("%s listens too slowly to the events: cut off", self.request.remote)
                transport.abort()


class Api:
    """The handlers for people and programs; the rows of ``routes`` name its methods."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._listeners: set[Listener] = set()

    async def health(self, request: web.Request) -> web.StreamResponse:
        """``{"ok": true, "parts": {"dhcp": "…"}}``."""
        health = self._views.health()
        return answer(health, 200 if health.ok else 503)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """The rows of ``http.metrics``; rendered in a thread, for a thousand machines are a lot."""
        text = await asyncio.to_thread(metrics.render, self._views.metrics())
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def clients(self, request: web.Request) -> web.StreamResponse:
        """``{"clients": [ClientView]}``."""
        return answer({"clients": self._views.clients()})

    async def client(self, request: web.Request) -> web.StreamResponse:
        """One ClientView."""
        mac = mac_in(request)
        if mac is None:
            return failure(400, f"{request.match_info['mac']!r} is not a MAC address")
        for view in self._views.clients():
            if view.mac == mac:
                return answer(view)
        return failure(404, f"no client with the MAC {mac} is known")

    async def images(self, request: web.Request) -> web.StreamResponse:
        """``{"images": [ImageView]}``."""
        return answer({"images": self._views.images()})

    async def overlays(self, request: web.Request) -> web.StreamResponse:
        """``{"overlays": [OverlayView]}``."""
        return answer({"overlays": self._views.overlays()})

    async def explain(self, request: web.Request) -> web.StreamResponse:
        """What this machine would get; it need not have been seen."""
        mac = mac_in(request)
        if mac is None:
            return failure(400, f"{request.match_info['mac']!r} is not a MAC address")
        return answer(self._views.explain(mac))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The stream; it ends when the server stops, or the listener is too slow."""
        if len(self._listeners) >= LISTENER_LIMIT:
            return failure(503, f"{LISTENER_LIMIT} listeners are connected already")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        if request.method == "HEAD":
            return response
        listener = Listener(request)
        self._listeners.add(listener)
        unsubscribe = self._views.subscribe(listener.hear)
        try:
            await response.prepare(request)
            await response.write(b": listening\n\n")
            await _relay(listener, response)
        finally:
            unsubscribe()
            self._listeners.discard(listener)
        return response

    def close(self) -> None:
        """End every stream."""
        for listener in tuple(self._listeners):
            listener.hear(None)


async def _relay(listener: Listener, response: web.StreamResponse) -> None:
    while True:
        try:
            event = await asyncio.wait_for(listener.queue.get(), HEARTBEAT)
        except TimeoutError:
            await response.write(b": still here\n\n")
            continue
        if event is None:
            return
        data = json.dumps(event_dict(event))
        await response.write(f"event: boot\ndata: {data}\n\n".encode())

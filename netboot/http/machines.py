"""What machines ask for on their way up: scripts, loaders, files, and the end of the story.

They are known by their address alone, so nothing here is secret, but for what a machine's own
script tells it to prove at its login; and nothing is changed. What they fetch is published as
LOADER and SCRIPT. iPXE stands still until it has its answer: every answer, a 404 too, comes at
once.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

from netboot.events import BootEvent, Phase
from netboot.http.files import send
from netboot.http.views import Views
from netboot.model import canonical_mac
from netboot.rooted import resolve

log = logging.getLogger(__name__)


def mac_in(request: web.Request) -> str | None:
    """The ``{mac}`` of the URL in its canonical spelling; None when it is no MAC."""
    try:
        return canonical_mac(request.match_info["mac"])
    except ValueError:
        return None


class Machines:
    """The handlers for machines; the rows of ``routes`` name its methods."""

    def __init__(
        self,
        views: Views,
        loaders: Sequence[Path],
        files: Sequence[Path],
        clock: Callable[[], float],
    ) -> None:
        self._views = views
        self._loaders = loaders
        self._files = files
        self._clock = clock

    async def script(self, request: web.Request) -> web.StreamResponse:
        """``/boot/52-54-00-12-34-56.ipxe``."""
        mac = mac_in(request)
        # A person who looks at a script is not a boot, and no script but one's own has secrets
        # in it: the client's address tells them apart. Where addresses are not ours to know,
        # iPXE's own User-Agent tells of a boot, but is no reason to tell a secret.
        holder = self._views.mac_of(request.remote or "")
        text = self._views.script_for(mac, holder == mac) if mac else None
        if mac is None or text is None:
            raise web.HTTPNotFound(text="no such machine\n")
        agent = request.headers.get("User-Agent", "")
        if request.method == "GET" and (holder == mac or (not holder and agent[:5] == "iPXE/")):
            self._publish(mac, Phase.SCRIPT, "script by HTTP")
        # One machine's answer is not for another to find in a cache on the way.
        headers = {"Cache-Control": "no-store"}
        return web.Response(text=text, content_type="text/plain", charset="utf-8", headers=headers)

    async def loader(self, request: web.Request) -> web.StreamResponse:
        """``/loaders/snponly.efi``; the last byte of one is a LOADER event."""
        name = request.match_info["name"]
        response, finished = await self._serve(request, self._loaders, name)
        mac = self._views.mac_of(request.remote or "")
        if finished and mac:
            self._publish(mac, Phase.LOADER, f"{name} by HTTP")
        return response

    async def file(self, request: web.Request) -> web.StreamResponse:
        """``/files/vmlinuz``."""
        response, _ = await self._serve(request, self._files, request.match_info["name"])
        return response

    async def autoexec(self, request: web.Request) -> web.StreamResponse:
        """iPXE (efi_autoexec.c) tries this on its own, and waits up to 30 s: serve the
        operator's, or a 404, never an empty file, which hides the real script (ipxe#1522)."""
        response, _ = await self._serve(request, self._loaders, "autoexec.ipxe")
        return response

    async def ready(self, request: web.Request) -> web.StreamResponse:
        """A guest says that it is up."""
        mac = self._views.mac_of(request.remote or "")
        if mac is None:
            text = f"no client has the address {request.remote}"
            return web.json_response({"error": text}, status=404)
        self._views.ready(mac)
        return web.json_response({"mac": mac, "phase": Phase.READY.label})

    async def _serve(
        self, request: web.Request, folders: Sequence[Path], name: str
    ) -> tuple[web.StreamResponse, bool]:
        path = await asyncio.to_thread(resolve, folders, name)
        if path is None:
            raise web.HTTPNotFound(text="no such file\n")
        return await send(request, path)

    def _publish(self, mac: str, phase: Phase, detail: str) -> None:
        self._views.publish(BootEvent(mac, self._clock(), phase, detail))

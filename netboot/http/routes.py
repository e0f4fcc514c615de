"""THE route table of the HTTP server: each row is a URL, who answers it, and what it is for.

``handler`` is the name of a method of ``machines.Machines`` or ``api.Api``. GET rows answer HEAD
as well. Nothing is ever served that has no row here.
"""

from typing import NamedTuple


class Route(NamedTuple):
    """One URL, in aiohttp's spelling."""

    method: str
    path: str
    handler: str
    help: str


ROUTES: tuple[Route, ...] = (
    # for machines on their way up
    Route("GET", "/boot/{mac}.ipxe", "script", "the machine's own iPXE script"),
    Route("GET", "/loaders/{name:.+}", "loader", "boot programs: undionly.kpxe, snponly.efi, …"),
    Route("GET", "/files/{name:.+}", "file", "kernels, initrds and whatever a script fetches"),
    Route("GET", "/autoexec.ipxe", "autoexec", "iPXE looks here on its own: yours, or a quick 404"),
    Route("POST", "/api/v1/ready", "ready", "a guest says that it is up; its address tells who"),
    # for people and programs
    Route("GET", "/healthz", "health", "200 when every part works, 503 when one does not"),
    Route("GET", "/metrics", "metrics", "figures for Prometheus: docs/metrics.md"),
    Route("GET", "/api/v1/clients", "clients", "all clients: phase, timeline, counters, overlay"),
    Route("GET", "/api/v1/clients/{mac}", "client", "one client"),
    Route("GET", "/api/v1/images", "images", "the versions of the golden images"),
    Route("GET", "/api/v1/overlays", "overlays", "the overlays and the room they take"),
    Route("GET", "/api/v1/explain/{mac}", "explain", "what a machine would get at each stage: why"),
    Route("GET", "/api/v1/events", "events", "what happens, as it happens (server-sent events)"),
)

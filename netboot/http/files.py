"""One file over HTTP: HEAD, ranges, resuming, and the types that UEFI firmware looks for.

RFC 9110 sections 8.8, 13.1.5 and 14. ``Content-Length`` is always there: EDK2 gives up without.
An odd ``Range`` is as good as none: a machine that asks for ``bytes=u-u`` (bootimus#140) wants
its file, not an error. Never loads a file into memory.
"""

import asyncio
import logging
import os
import re
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO, NamedTuple

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from netboot.http.splice import sendfile

log = logging.getLogger(__name__)

#: Bytes that are read and sent by us, before the kernel takes over.
CHUNK = 256 << 10

#: EDK2 (HttpBootSupport.c) goes by these three types, and by the suffix where there are none.
TYPES: dict[str, str] = {
    ".efi": "application/efi",
    ".iso": "application/vnd.efi-iso",
    ".img": "application/vnd.efi-img",
    ".ipxe": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".cfg": "text/plain; charset=utf-8",
    ".conf": "text/plain; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
}
_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,19})\s*-\s*([0-9]{0,19})\s*", re.IGNORECASE)


class Span(NamedTuple):
    """Bytes from ``start`` up to, not including, ``stop``; empty: the range lies behind the end."""

    start: int
    stop: int


def content_type(name: str) -> str:
    """The media type by the suffix of a file name."""
    return TYPES.get(Path(name).suffix.lower(), "application/octet-stream")


def parse_range(header: str | None, size: int) -> Span | None:
    """The one range that ``header`` wants of ``size`` bytes; None: send the whole file.

    None too for several ranges and for whatever makes no sense (RFC 9110 section 14.2 allows to
    ignore any of them). Empty only for a range that begins behind the end: a download that is
    resumed although it is complete must learn so.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or size == 0:
        return None
    first, last = match.groups()
    if first:
        start = int(first)
        if last and int(last) < start:
            return None
        stop = min(int(last) + 1, size) if last else size
        return Span(start, stop) if start < size else Span(size, size)
    count = int(last or 0)
    return Span(max(0, size - count), size) if count else None


def etag(size: int, changed: int) -> str:
    """A strong validator of a file's content, of its size and its mtime in nanoseconds."""
    return f'"{changed:x}-{size:x}"'


async def send(request: web.Request, path: Path) -> tuple[web.StreamResponse, bool]:
    """Answer with the file at ``path``; and whether its last byte went out to the client.

    HTTPNotFound when it cannot be opened. A file that shrinks meanwhile ends the connection: the
    client must not take the rest of something else for its end.
    """
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        log.warning("cannot serve %s: %s", path, error.strerror)
        raise web.HTTPNotFound(text="no such file\n") from error
    with file:
        return await _send(request, path, file)


async def _send(
    request: web.Request, path: Path, file: BinaryIO
) -> tuple[web.StreamResponse, bool]:
    status = os.fstat(file.fileno())
    size = status.st_size
    headers = {
        "Content-Type": content_type(path.name),
        "Accept-Ranges": "bytes",
        "ETag": etag(size, status.st_mtime_ns),
        "Last-Modified": formatdate(int(status.st_mtime), usegmt=True),
    }
    wanted = request.headers.get("Range") if request.method == "GET" else None
    if request.headers.get("If-Range", headers["ETag"]) not in (
        headers["ETag"],
        headers["Last-Modified"],
    ):
        wanted = None
    span = parse_range(wanted, size)
    if span is not None and span.start == span.stop:
        raise web.HTTPRequestRangeNotSatisfiable(
            headers={"Content-Range": f"bytes */{size}"}, text=f"the file has {size} bytes\n"
        )
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    start, stop = span or Span(0, size)
    response = web.StreamResponse(status=200 if span is None else 206, headers=headers)
    response.content_length = stop - start
    writer = await response.prepare(request)
    if request.method == "HEAD":
        return response, False
    at = await _pour(request.transport, writer, file.fileno(), Span(start, stop))
    if at < stop:
        log.warning("%s shrank while it was being sent to %s", path, request.remote)
        if request.transport is not None:
            request.transport.close()
        return response, False
    await response.write_eof()
    return response, stop == size


async def _pour(
    transport: asyncio.Transport | None,
    writer: AbstractStreamWriter | None,
    file: int,
    span: Span,
) -> int:
    """Send a span of descriptor ``file``; where it ended: before its stop if the file did.

    The headers and the first chunk go through aiohttp; once they have left it, so that nothing
    can overtake them, the kernel sends the rest by itself.
    """
    at = span.start
    if transport is None or writer is None or transport.is_closing():
        raise ConnectionResetError("the client went away")
    if span.stop - at > CHUNK:
        transport.set_write_buffer_limits(high=0)  # a drain now waits until all has left
    while at < span.stop:
        data = await asyncio.to_thread(os.pread, file, min(CHUNK, span.stop - at), at)
        if not data:
            break
        await writer.write(data)
        at += len(data)
        if at < span.stop and not transport.is_closing() and not transport.get_write_buffer_size():
            connection = transport.get_extra_info("socket").fileno()
            before = at
            at = await sendfile(connection, file, at, span.stop, transport.is_closing)
            writer.output_size += at - before  # which the access log tells
            break
    return at

"""Files over HTTP: ranges that make sense, ranges that do not, and files that change."""

import asyncio
import os
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.http.files import CHUNK, TYPES, Span, content_type, etag, parse_range

DATA = bytes(range(256)) * 4  # 1024 bytes, each offset tells where it is


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("", None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-511", Span(0, 512)),
        ("bytes=512-1023", Span(512, 1024)),
        ("bytes=512-", Span(512, 1024)),
        ("bytes=512-9999", Span(512, 1024)),
        ("bytes=-512", Span(512, 1024)),
        ("bytes=-9999", Span(0, 1024)),
        ("bytes=1023-", Span(1023, 1024)),
        ("bytes=0-9999999999999999999", Span(0, 1024)),
        (" Bytes = 0 - 1 ", Span(0, 2)),
        ("bytes=1024-", Span(1024, 1024)),
        ("bytes=9999-10000", Span(1024, 1024)),
        ("bytes=u-u", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes", None),
        ("bytes=-0", None),
        ("bytes=2-1", None),
        ("bytes=0-1,4-5", None),
        ("bytes=0x10-0x20", None),
        ("bytes=--1", None),
        ("bytes=+1-2", None),
        ("bytes=1.5-2", None),
        ("blocks=0-1", None),
        ("bytes=\u0661-\u0662", None),
        ("bytes=99999999999999999999-", None),
    ],
)
def test_ranges(header: str | None, span: Span | None) -> None:
    assert parse_range(header, 1024) == span


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=0-0", "bytes=5-"])
def test_every_range_of_an_empty_file_is_the_empty_file(header: str) -> None:
    assert parse_range(header, 0) is None


@given(st.text() | st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True), st.integers(0, 2000))
def test_a_span_lies_in_the_file(header: str, size: int) -> None:
    span = parse_range(header, size)
    if span is not None:
        assert 0 <= span.start <= span.stop <= size
        assert span.start < span.stop or span.start == size


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 2000))
def test_against_what_python_would_slice(first: int, last: int, size: int) -> None:
    content = bytes(size)
    span = parse_range(f"bytes={first}-{last}", size)
    if last < first:
        assert span is None
    else:
        assert span is not None
        assert len(content[span.start : span.stop]) == len(content[first : last + 1])


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("snponly.efi", "application/efi"),
        ("SNPONLY.EFI", "application/efi"),
        ("debian.iso", "application/vnd.efi-iso"),
        ("disk.img", "application/vnd.efi-img"),
        ("undionly.kpxe", "application/octet-stream"),
        ("vmlinuz", "application/octet-stream"),
        ("boot.ipxe", "text/plain; charset=utf-8"),
        (".efi", "application/octet-stream"),
    ],
)
def test_media_types(name: str, media_type: str) -> None:
    assert content_type(name) == media_type


def test_suffixes_are_in_lower_case() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in TYPES)


def test_the_etag_changes_with_size_and_time() -> None:
    assert etag(255, 16) == '"10-ff"'
    assert len({etag(1, 1), etag(1, 2), etag(2, 1)}) == 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.efi").write_bytes(DATA)
    (tmp_path / "empty").write_bytes(b"")
    return tmp_path


def test_the_whole_file(fakes: ModuleType, folder: Path) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/files/a.efi")
        assert (got.status, got.body) == (200, DATA)
        assert got.headers["content-length"] == "1024"
        assert got.headers["content-type"] == "application/efi"
        assert got.headers["accept-ranges"] == "bytes"
        assert "content-range" not in got.headers
        status = (folder / "a.efi").stat()
        assert got.headers["etag"] == etag(1024, status.st_mtime_ns)
        at = parsedate_to_datetime(got.headers["last-modified"]).timestamp()
        assert at == int(status.st_mtime)

    fakes.run(work, files=[folder])


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-1"}])
def test_head_tells_the_size_and_sends_nothing(
    fakes: ModuleType, folder: Path, headers: dict[str, str]
) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/files/a.efi", "HEAD", headers)
        assert (got.status, got.body) == (200, b"")
        assert got.headers["content-length"] == "1024"
        assert got.headers["content-type"] == "application/efi"

    fakes.run(work, files=[folder])


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=512-", 512, 1024), ("bytes=-4", 1020, 1024)],
)
def test_a_part(fakes: ModuleType, folder: Path, wanted: str, start: int, stop: int) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/files/a.efi", headers={"Range": wanted})
        assert (got.status, got.body) == (206, DATA[start:stop])
        assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/1024"
        assert got.headers["content-length"] == str(stop - start)

    fakes.run(work, files=[folder])


@pytest.mark.parametrize("wanted", ["bytes=u-u", "bytes=5-1", "bytes=0-1,3-4", "lines=1-2"])
def test_an_odd_range_gets_the_whole_file(fakes: ModuleType, folder: Path, wanted: str) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/files/a.efi", headers={"Range": wanted})
        assert (got.status, got.body) == (200, DATA)

    fakes.run(work, files=[folder])


def test_behind_the_end(fakes: ModuleType, folder: Path) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/files/a.efi", headers={"Range": "bytes=1024-"})
        assert got.status == 416
        assert got.headers["content-range"] == "bytes */1024"
        got = await fakes.ask(server.port, "/files/empty", headers={"Range": "bytes=0-"})
        assert (got.status, got.headers["content-length"]) == (200, "0")

    fakes.run(work, files=[folder])


def test_resuming_only_what_is_still_the_same(fakes: ModuleType, folder: Path) -> None:
    async def work(server: object) -> None:
        first = await fakes.ask(server.port, "/files/a.efi", "HEAD")
        for name in ("etag", "last-modified"):
            wanted = {"Range": "bytes=1000-", "If-Range": first.headers[name]}
            assert (await fakes.ask(server.port, "/files/a.efi", headers=wanted)).status == 206
        (folder / "a.efi").write_bytes(b"new" + DATA)
        os.utime(folder / "a.efi", ns=(1, 1))
        for name in ("etag", "last-modified"):
            wanted = {"Range": "bytes=1000-", "If-Range": first.headers[name]}
            got = await fakes.ask(server.port, "/files/a.efi", headers=wanted)
            assert (got.status, got.body) == (200, b"new" + DATA)

    fakes.run(work, files=[folder])


def test_a_file_of_many_chunks(fakes: ModuleType, folder: Path) -> None:
    big = os.urandom(5 * CHUNK + 17)
    (folder / "big").write_bytes(big)

    async def work(server: object) -> None:
        assert (await fakes.ask(server.port, "/files/big")).body == big
        wanted = {"Range": f"bytes={CHUNK - 1}-{3 * CHUNK}"}
        got = await fakes.ask(server.port, "/files/big", headers=wanted)
        assert got.body == big[CHUNK - 1 : 3 * CHUNK + 1]

    fakes.run(work, files=[folder])


def test_a_file_that_shrinks_is_never_padded(
    fakes: ModuleType, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The length was promised: the client must see that it did not get all of it."""
    path = folder / "shrinking"
    size = 64 << 20
    with path.open("wb") as file:
        file.truncate(size)

    async def work(server: object) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /files/shrinking HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"Content-Length: {size}".encode() in head
        os.truncate(path, CHUNK)
        body = await reader.read(-1)
        assert len(body) < size
        writer.close()

    fakes.run(work, files=[folder])
    assert "shrank while it was being sent to 127.0.0.1" in caplog.text


def test_a_file_that_may_not_be_read(
    fakes: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied")

    async def work(server: object) -> None:
        monkeypatch.setattr(Path, "open", refuse)
        got = await fakes.ask(server.port, "/files/a.efi")
        assert (got.status, got.body) == (404, b"no such file\n")

    fakes.run(work, files=[folder])

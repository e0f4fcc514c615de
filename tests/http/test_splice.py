"""sendfile to a connection: whole, in order; clients that are slow or leave, files that shrink."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from netboot.http import splice
from netboot.http.splice import STRIDE, TURN, bring, in_memory, sendfile

DATA = os.urandom(3 * TURN + 12345)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def run(body: Callable[[], object]) -> None:
    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(body(), 30))  # type: ignore[arg-type]


async def swallow(theirs: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    found = bytearray()
    while len(found) < count:
        data = await loop.sock_recv(theirs, 1 << 16)
        if not data:
            break
        found += data
    return bytes(found)


def open_still() -> bool:
    return False


@pytest.mark.parametrize(("start", "stop"), [(0, len(DATA)), (17, TURN + 18), (5, 6), (9, 9)])
def test_a_span_arrives_whole(
    file: int, pair: tuple[socket.socket, socket.socket], start: int, stop: int
) -> None:
    async def body() -> None:
        ours, theirs = pair
        reader = asyncio.create_task(swallow(theirs, stop - start))
        assert await sendfile(ours.fileno(), file, start, stop, open_still) == stop
        assert await reader == DATA[start:stop]

    run(body)


def test_a_file_that_is_shorter_ends_it_early(
    file: int, pair: tuple[socket.socket, socket.socket]
) -> None:
    async def body() -> None:
        ours, theirs = pair
        reader = asyncio.create_task(swallow(theirs, len(DATA)))
        assert await sendfile(ours.fileno(), file, 0, len(DATA) + 5, open_still) == len(DATA)
        assert await reader == DATA

    run(body)


def test_what_is_not_in_memory_is_brought_by_a_thread(
    file: int, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[tuple[int, int]] = []
    monkeypatch.setattr(splice, "in_memory", lambda file, start, stop: start == TURN)
    monkeypatch.setattr(splice, "bring", lambda file, start, stop: brought.append((start, stop)))

    async def body() -> None:
        ours, theirs = pair
        brought.clear()
        reader = asyncio.create_task(swallow(theirs, len(DATA)))
        await sendfile(ours.fileno(), file, 0, len(DATA), open_still)
        assert await reader == DATA
        assert brought == [(0, TURN), (2 * TURN, 3 * TURN), (3 * TURN, len(DATA))]

    run(body)


def test_a_client_that_leaves_ends_it(file: int) -> None:
    async def body() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            asyncio.get_running_loop().call_later(0.05, theirs.close)
            with pytest.raises(ConnectionError):
                await sendfile(ours.fileno(), file, 0, len(DATA), open_still)

    run(body)


def test_a_connection_that_we_close_ends_it_though_the_client_only_waits(
    file: int, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splice, "LOOK", 0.01)
    looks = iter([False] * 5)

    async def body() -> None:
        with pytest.raises(ConnectionResetError, match="is closed"):
            await sendfile(pair[0].fileno(), file, 0, len(DATA), lambda: next(looks, True))

    with asyncio.Runner() as runner:
        runner.run(asyncio.wait_for(body(), 30))


def test_no_descriptor_is_left_behind(file: int, pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        before = os.listdir("/proc/self/fd")
        task = asyncio.create_task(sendfile(pair[0].fileno(), file, 0, len(DATA), open_still))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(os.listdir("/proc/self/fd")) <= len(before)

    run(body)


def test_samples_tell_what_is_in_memory(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(file, 0, len(DATA))
    assert in_memory(file, 0, len(DATA))
    asked: list[int] = []

    def absent(file: int, buffers: object, at: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        asked.append(at)
        if at >= 2 * STRIDE:
            raise BlockingIOError(errno.EAGAIN, "not there")
        return 1

    monkeypatch.setattr(os, "preadv", absent)
    assert not in_memory(file, 0, TURN)
    assert asked == [0, STRIDE, 2 * STRIDE]


def test_what_cannot_be_read_is_left_to_who_sends_it(file: int) -> None:
    bring(-1, 0, 10)
    assert not in_memory(-1, 0, 10)
    bring(file, len(DATA), len(DATA) + TURN)  # behind the end: ends at once

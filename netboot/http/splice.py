"""A file's bytes to a connection inside the kernel: sendfile(2), which uvloop itself does not do.

They go to a duplicate of the connection's descriptor, for an event loop lets nobody else watch its
own, and only once the loop has nothing of its own left to send. Pages that are not in memory are
brought there by a thread first: a disk that is slow to answer must not hold up the loop. Never
copies file data into Python, but for those; never waits for a client longer than it is there.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

#: Bytes that one turn of the loop sends at most: about 0.2 ms.
TURN = 1 << 20
#: Between two looks at the page cache; Linux reads ahead in no smaller pieces.
STRIDE = 64 << 10
#: Seconds between two looks whether a client that takes nothing is still connected.
LOOK = 5.0


async def sendfile(
    connection: int, file: int, start: int, stop: int, closed: Callable[[], bool]
) -> int:
    """Send ``start`` to ``stop`` of descriptor ``file``; where it ended: earlier if the file did.

    ``ConnectionError`` when the client has gone, or ``closed`` says that we have closed it.
    """
    loop = asyncio.get_running_loop()
    own = os.dup(connection)
    try:
        at = warm = start
        while at < stop:
            if at >= warm:
                warm = min(at + TURN, stop)
                if not in_memory(file, at, warm):
                    await asyncio.to_thread(bring, file, at, warm)
            if closed():
                raise ConnectionResetError("the connection is closed")
            try:
                sent = os.sendfile(own, file, at, warm - at)
            except BlockingIOError:
                await _writable(loop, own)
                continue
            if sent == 0:
                break
            at += sent
            if at == warm:
                await asyncio.sleep(0)  # the others' turn
        return at
    finally:
        os.close(own)


def in_memory(file: int, start: int, stop: int) -> bool:
    """Whether those bytes can be had without a disk, as far as samples tell."""
    byte = [bytearray(1)]
    try:
        for at in (*range(start, stop, STRIDE), stop - 1):
            os.preadv(file, byte, at, os.RWF_NOWAIT)
    except OSError:  # EAGAIN; or a file system that cannot tell
        return False
    return True


def bring(file: int, start: int, stop: int) -> None:
    """Read them, so that they are in memory; a fault shows when they are sent."""
    with contextlib.suppress(OSError):
        for at in range(start, stop, STRIDE):
            if not os.pread(file, min(STRIDE, stop - at), at):
                return


async def _writable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    """Until there is room, or it is time to look whether anybody is there."""
    ready: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(LOOK, _wake, ready)
    loop.add_writer(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
        timer.cancel()


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)

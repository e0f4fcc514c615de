"""The control process's end of the line to one disk process: starts or adopts it, restarts it.

The disk process listens on ``<state>/disk-<n>.sock`` and we connect, so that a control process
that was restarted finds the running one and its sessions again. It is started in a session of
its own and writes its words to ``<state>/disk-<n>.log``: nothing of it hangs on our life. Must
never take a disk process down because we end by accident: only ``stop`` does that.
"""

import asyncio
import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from netboot.disks import wire
from netboot.disks.server import RIGHTS_LIMIT
from netboot.disks.wire import Message
from netboot.errors import ConfigError, NetbootError, WireError
from netboot.model import DiskProcess, Portal

log = logging.getLogger(__name__)

#: Seconds: how long a new process may take to answer, and an old one to end.
START_TIMEOUT = 20.0
STOP_TIMEOUT = 30.0
POLL_INTERVAL = 0.02
#: Bytes at which a log is set aside when a process starts.
LOG_LIMIT = 1 << 20
#: Seconds between restarts: the first at once, then doubling up to the last; a process that
#: lived longer than the last begins anew.
BACKOFF = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)


class Keeper:
    """Keeps one disk process alive, and is the only one who talks to it.

    ``sockets`` gives the handles of the sockets that listen at the portals, in their order,
    which a new process inherits. ``hear`` gets every message that is no answer to a request;
    ``greet`` says what a process is told first. Both are called on this loop and never raise.
    """

    def __init__(
        self,
        state: Path,
        number: int,
        processes: int,
        sockets: Callable[[], Sequence[int]],
        hear: Callable[["Keeper", Message], None],
        greet: Callable[["Keeper"], Iterable[Message]],
        python: str = sys.executable,
    ) -> None:
        self.path = state / f"disk-{number}.sock"
        self.portals: tuple[Portal, ...] = ()
        self.number = number
        self.restarts = 0  #: of a process that died
        self.sessions = 0
        self.counted = asyncio.Event()  #: its counters have come
        self._processes = processes
        self._log = state / f"disk-{number}.log"
        self._sockets = sockets
        self._hear = hear
        self._greet = greet
        self._python = python
        self._waiting: dict[int, asyncio.Future[Message | None]] = {}
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None
        self._hello: wire.Hello | None = None
        self._keeping: asyncio.Task[None] | None = None

    def alive(self) -> bool:
        """Whether the process answers at the moment."""
        return self._writer is not None and not self._writer.is_closing()

    @property
    def pid(self) -> int | None:
        """The process's number; None while there is none."""
        return self._hello.pid if self._hello is not None and self.alive() else None

    @property
    def started(self) -> bool:
        """Whether we have started it, and did not find it."""
        return self._process is not None

    @property
    def listening(self) -> tuple[Portal, ...]:
        """Where the process says that it listens."""
        return self._hello.listening if self._hello is not None else ()

    @property
    def status(self) -> DiskProcess:
        """How it is at the moment."""
        return DiskProcess(self.number, self.pid, self.sessions, self.restarts)

    def keep(self) -> None:
        """From now on, see to it that there is a process; after ``adopt`` or ``launch``."""
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the process in order: logins refused, everything flushed, disks closed."""
        await self._keep_no_more()
        hello, process = self._hello, self._process
        if self.alive():
            self.send(wire.Stop())
        elif process is not None:
            process.terminate()  # it has just been started, or has hung up
        if process is not None and not await _ended(process, STOP_TIMEOUT):
            log.error("the disk process %d did not end; killed", process.pid)
            process.kill()
            await _ended(process, STOP_TIMEOUT)
        elif process is None and hello is not None:
            await _gone(hello.pid)
        self._process = None
        self._hang_up()

    async def leave(self) -> None:
        """Let the process live on for the next control process, which will adopt it."""
        await self._keep_no_more()
        if self._process is not None:
            self._process.returncode = 0  # not ours any more: nobody shall wait for it
            self._process = None
        self._hang_up()

    async def _keep_no_more(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None

    async def request(self, make: Callable[[int], Message]) -> Message | None:
        """What it answers to a request; None when it is not there, or dies over it."""
        if not self.alive():
            return None
        self._count += 1
        number = self._count
        done = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.send(make(number))
        try:
            return await asyncio.wait_for(done, STOP_TIMEOUT)
        except TimeoutError:
            raise NetbootError("the disk process does not answer; see its log") from None
        finally:
            self._waiting.pop(number, None)

    def send(self, message: Message) -> None:
        """Tell it something; nothing happens while it is away."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.encode(message))

    # Starting, adopting, restarting.

    async def adopt(self) -> list[int]:
        """Take over a running process, or end it when it is not the one that is wanted.

        The handles of the sockets that it listens at, which are ours to close; ``alive`` tells
        whether there is one now.
        """
        handles = await self._connect()
        found = self._hello
        if found is None:
            return []
        if found.fits(self.number, self._processes, self.portals):
            log.info("adopted disk process %d with %d sessions", found.pid, found.sessions)
            return handles
        log.info("disk process %d is of another release, address or number: ended", found.pid)
        _close(handles)
        self.send(wire.Stop())
        await _gone(found.pid)
        self._hang_up()
        return []

    async def launch(self) -> None:
        """Start a process and wait until it answers; ConfigError when it does not."""
        self.path.unlink(missing_ok=True)
        begin = self._spawn()
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            _close(await self._connect())
            if self._hello is not None:
                return
            await asyncio.sleep(POLL_INTERVAL)
        if process.poll() is None:
            process.kill()
        await _ended(process, STOP_TIMEOUT)
        self._process = None
        raise ConfigError(self._last_words(begin))

    def _spawn(self) -> int:
        """Start a process; where its words begin in the log.

        Not asyncio's subprocess: its transport kills the child when it is thrown away, and a
        disk process must outlive us.
        """
        if self._log.exists() and self._log.stat().st_size > LOG_LIMIT:
            self._log.replace(self._log.with_suffix(".log.1"))
        handles = self._sockets()
        with self._log.open("ab") as words:
            begin = words.tell()
            self._process = subprocess.Popen(
                [
                    *(self._python, "-m", "netboot.disk_process"),
                    *("--socket", str(self.path)),
                    *(f"--listen={portal}" for portal in self.portals),
                    f"--sockets={','.join(map(str, handles))}",
                    f"--number={self.number}",
                    f"--processes={self._processes}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
                pass_fds=handles,
            )
        return begin

    def _last_words(self, begin: int) -> str:
        with self._log.open("rb") as words:
            words.seek(begin)
            lines = words.read(1 << 16).decode(errors="replace").strip().splitlines()
        return (
            lines[-1].removeprefix("netboot: ")
            if lines
            else f"the disk process did not start; see {self._log}"
        )

    async def _connect(self) -> list[int]:
        """Connect and read the Hello, and the handles that came with it."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        handles: list[int] = []
        try:
            sock.connect(str(self.path))
            async with asyncio.timeout(START_TIMEOUT):
                line, rest = await _first_line(loop, sock, handles)
            hello = wire.decode(line)
            if not isinstance(hello, wire.Hello):
                raise WireError("a disk process begins with a Hello")
        except BaseException as error:
            sock.close()
            _close(handles)
            if isinstance(error, OSError | WireError | TimeoutError):
                return []
            raise
        reader = asyncio.StreamReader(limit=wire.LINE_LIMIT)
        reader.feed_data(rest)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_unix_connection(lambda: protocol, sock=sock)
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._reader, self._hello, self.sessions = reader, hello, hello.sessions
        for message in self._greet(self):
            self.send(message)
        return handles

    async def _keep(self) -> None:
        """Serve the channel; when it breaks, connect again or start a new process."""
        attempt = 0
        while True:
            since = time.monotonic()
            await self._serve()
            self._hang_up()
            attempt = attempt + 1 if time.monotonic() - since < BACKOFF[-1] else 0
            while True:
                if attempt:
                    await asyncio.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)])
                try:
                    _close(await self.adopt())
                    if not self.alive():
                        await self._relaunch()
                    break
                except (NetbootError, OSError) as error:
                    log.error("the disk process cannot be restarted: %s", error)
                    attempt += 1

    async def _relaunch(self) -> None:
        if self._process is not None:
            if not await _ended(self._process, 1.0):
                self._process.kill()  # it has hung up without being told to
                await _ended(self._process, STOP_TIMEOUT)
            log.error("the disk process %d has died; starting another", self._process.pid)
        await self.launch()
        self.restarts += 1

    # The conversation.

    async def _serve(self) -> None:
        """Handle lines until the other end is gone."""
        reader = self._reader
        assert reader is not None
        while True:
            try:
                line = await reader.readline()
            except (OSError, ValueError) as error:
                log.error("the disk process's line broke: %s", error)
                return
            if not line.endswith(b"\n"):
                return
            try:
                message = wire.decode(line)
            except WireError as error:
                log.error("the disk process sent a line we cannot read: %s", error)
                continue
            match message:
                case wire.Forgotten(number) | wire.Resized(number):
                    waiting = self._waiting.get(number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                case None:
                    continue
                case _:
                    self._hear(self, message)

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reader = self._hello = None
        self.sessions = 0
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)  # its sessions ended with the process


async def _first_line(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, handles: list[int]
) -> tuple[bytes, bytes]:
    """The first line that comes, what is behind it, and (added) the handles along with it."""
    came = b""
    while b"\n" not in came:
        readable = asyncio.Event()
        loop.add_reader(sock, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(sock)
        data, more, _, _ = socket.recv_fds(sock, 1 << 16, RIGHTS_LIMIT, socket.MSG_CMSG_CLOEXEC)
        handles += more
        came += data
        if not data or len(came) > wire.LINE_LIMIT:
            raise WireError("it hung up, or its first line has no end")
    line, _, rest = came.partition(b"\n")
    return line, rest


def _close(handles: Iterable[int]) -> None:
    for handle in handles:
        os.close(handle)


async def _ended(process: "subprocess.Popen[bytes]", patience: float) -> bool:
    """Wait for our child; whether it has ended."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return True
        await asyncio.sleep(POLL_INTERVAL)
    return process.poll() is not None


async def _gone(pid: int) -> None:
    """Wait until a process that may not be our child has ended.

    An adopted one is its own parent's to reap, who may never do it (a container's first
    process), so its end is asked for and not its absence: a pidfd tells of both.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            if ended.poll(0):
                return
            await asyncio.sleep(POLL_INTERVAL)
    finally:
        os.close(handle)
    log.error("the disk process %d does not end", pid)

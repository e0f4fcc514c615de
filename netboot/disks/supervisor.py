"""The control process's end: starts or adopts the disk process, answers it, restarts it.

The disk process listens on ``<state>/disk-0.sock`` and we connect, so that a control process
that was restarted finds the running one and its sessions again. It is started in a session of
its own and writes its words to ``<state>/disk-0.log``: nothing of it hangs on our life. Must
never take a disk process down because we end by accident: only ``stop`` does that.
"""

import asyncio
import contextlib
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netboot.disks import wire
from netboot.disks.wire import DiskEvent, Message
from netboot.errors import ConfigError, NetbootError, WireError
from netboot.model import Admission, Counters, Knock, Portal, SessionLimits

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
#: Bytes: sun_path of Linux holds 108 with its final zero.
SOCKET_PATH_LIMIT = 107


class Supervisor:
    """Keeps one disk process alive, and is the only one who talks to it.

    ``state`` is the folder for its socket and its log, ``portals`` its iSCSI portals.
    ``admit`` answers who may log in; ``on_event`` hears what happened to whom. Both are called
    on this loop, must not block, and must not raise.

    >>> disks = Supervisor(state, [Portal("192.168.77.1", 3260)], admit, on_event)
    >>> await disks.start()      # ConfigError: the port is in use, ...
    >>> disks.counters()["52:54:00:12:34:56"].reads
    >>> await disks.stop()       # flushes and ends the process
    """

    def __init__(
        self,
        state: Path,
        portals: Sequence[Portal],
        admit: Callable[[Knock], Admission],
        on_event: Callable[[DiskEvent], None],
        python: str = sys.executable,
        limits: SessionLimits | None = None,
    ) -> None:
        self._socket = state / "disk-0.sock"
        self._log = state / "disk-0.log"
        self._portals = tuple(portals)
        self._admit = admit
        self._on_event = on_event
        self._python = python
        self._limits = limits or SessionLimits()
        self.restarts = 0  #: of a process that died
        self._counters: dict[str, Counters] = {}
        self._counted = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[Message | None]] = {}
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._hello: wire.Hello | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the disk process accepts logins; ConfigError when it cannot."""
        if len(os.fsencode(self._socket)) > SOCKET_PATH_LIMIT:
            raise ConfigError(
                f"{self._socket}: a socket's path is at most {SOCKET_PATH_LIMIT} bytes; "
                f"choose a shorter [site] state"
            )
        self._socket.parent.mkdir(parents=True, exist_ok=True)
        reader = await self._adopt() or await self._launch()
        if self._hello is not None:
            self._portals = self._hello.listening  # a port that was free to choose stays
        self._keeper = asyncio.create_task(self._keep(reader))

    async def stop(self) -> None:
        """End the disk process in order: logins refused, everything flushed, disks closed."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        hello, process = self._hello, self._process
        if self.alive():
            self._send(wire.Stop())
        if process is not None and not await self._ended(process, STOP_TIMEOUT):
            log.error("the disk process %d did not end; killed", process.pid)
            process.kill()
            await self._ended(process, STOP_TIMEOUT)
        elif process is None and hello is not None:
            await self._gone(hello.pid)
        self._process = None
        self._hang_up()

    async def leave(self) -> None:
        """Let the disk process live on for the next control process, which will adopt it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._process is not None:
            self._process.returncode = 0  # not ours any more: nobody shall wait for it
            self._process = None
        self._hang_up()

    def alive(self) -> bool:
        """Whether a disk process answers at the moment."""
        return self._writer is not None and not self._writer.is_closing()

    @property
    def pid(self) -> int | None:
        """The disk process's number; None while there is none."""
        return self._hello.pid if self._hello is not None and self.alive() else None

    @property
    def port(self) -> int:
        """The port of the first portal."""
        return self._portals[0].port

    @property
    def portals(self) -> tuple[Portal, ...]:
        """Where it listens, also when ``portals`` said port 0."""
        return self._portals

    def limit(self, limits: SessionLimits) -> None:
        """So many sessions there may be from now on."""
        self._limits = limits
        self._send(wire.Limit(limits))

    def counters(self) -> Mapping[str, Counters]:
        """What every client's disk has done, by MAC; at most a second old."""
        return dict(self._counters)

    async def refresh(self) -> Mapping[str, Counters]:
        """Ask for the counters now, and return them."""
        self._counted.clear()
        if self.alive():
            self._send(wire.Count())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._counted.wait(), 2.0)
        return self.counters()

    async def forget(self, mac: str) -> None:
        """End ``mac``'s sessions, close its disk, and forget whom we admitted it as.

        Afterwards nobody holds its overlay, and its next login asks ``admit`` again.
        """
        await self._request(lambda number: wire.Forget(number, mac, memory=True))

    async def close(self, mac: str) -> None:
        """End ``mac``'s sessions and close its disk; it may come back while we are away."""
        await self._request(lambda number: wire.Forget(number, mac, memory=False))

    async def resize(self, mac: str, path: str, size: int) -> bool:
        """Let ``mac``'s disk at ``path`` grow, if it is open, which is the answer; NetbootError."""
        done = await self._request(lambda number: wire.Resize(number, mac, path, size))
        if isinstance(done, wire.Resized) and done.error:
            raise NetbootError(done.error)
        return isinstance(done, wire.Resized) and done.open

    async def _request(self, make: Callable[[int], Message]) -> Message | None:
        if not self.alive():
            return None
        self._number += 1
        number = self._number
        done = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(make(number))
        try:
            return await asyncio.wait_for(done, STOP_TIMEOUT)
        except TimeoutError:
            raise NetbootError("the disk process does not answer; see its log") from None
        finally:
            self._waiting.pop(number, None)

    # Starting, adopting, restarting.

    async def _adopt(self) -> asyncio.StreamReader | None:
        """Take over a running disk process; None when there is none, or one that must go."""
        reader = await self._connect()
        if reader is None or self._hello is None:
            return None
        found = self._hello
        if found.protocol == wire.PROTOCOL and found.listens_at(self._portals):
            log.info("adopted disk process %d with %d sessions", found.pid, found.sessions)
            return reader
        log.info("disk process %d is of another release or address: replaced", found.pid)
        self._send(wire.Stop())
        await self._gone(found.pid)
        self._hang_up()
        return None

    async def _launch(self) -> asyncio.StreamReader:
        """Start a disk process and wait until it answers."""
        self._socket.unlink(missing_ok=True)
        begin = self._spawn()
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            reader = await self._connect()
            if reader is not None:
                return reader
            await asyncio.sleep(POLL_INTERVAL)
        if process.poll() is None:
            process.kill()
        await self._ended(process, STOP_TIMEOUT)
        self._process = None
        raise ConfigError(self._last_words(begin))

    def _spawn(self) -> int:
        """Start a process; where its words begin in the log.

        Not asyncio's subprocess: its transport kills the child when it is thrown away, and a
        disk process must outlive us.
        """
        if self._log.exists() and self._log.stat().st_size > LOG_LIMIT:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as words:
            begin = words.tell()
            self._process = subprocess.Popen(
                [
                    *(self._python, "-m", "netboot.disk_process"),
                    *("--socket", str(self._socket)),
                    *(f"--listen={portal}" for portal in self._portals),
                ],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )
        return begin

    @staticmethod
    async def _ended(process: "subprocess.Popen[bytes]", patience: float) -> bool:
        """Wait for our child; whether it has ended."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return True
            await asyncio.sleep(POLL_INTERVAL)
        return process.poll() is not None

    def _last_words(self, begin: int) -> str:
        with self._log.open("rb") as words:
            words.seek(begin)
            lines = words.read(1 << 16).decode(errors="replace").strip().splitlines()
        return (
            lines[-1].removeprefix("netboot: ")
            if lines
            else f"the disk process did not start; see {self._log}"
        )

    async def _connect(self) -> asyncio.StreamReader | None:
        """Connect and read the Hello; None when nobody answers there."""
        try:
            reader, writer = await asyncio.open_unix_connection(
                str(self._socket), limit=wire.LINE_LIMIT
            )
        except OSError:
            return None
        try:
            hello = wire.decode(await asyncio.wait_for(reader.readline(), START_TIMEOUT))
        except (WireError, OSError, TimeoutError, ValueError):
            hello = None
        if not isinstance(hello, wire.Hello):
            writer.close()
            return None
        self._hello, self._writer = hello, writer
        self._send(wire.Limit(self._limits))
        self._send(wire.Count())
        return reader

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        """Serve the channel; when it breaks, connect again or start a new process."""
        attempt = 0
        while True:
            since = time.monotonic()
            await self._serve(reader)
            self._hang_up()
            attempt = attempt + 1 if time.monotonic() - since < BACKOFF[-1] else 0
            while True:
                if attempt:
                    await asyncio.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)])
                try:
                    reader = await self._adopt() or await self._relaunch()
                    break
                except (NetbootError, OSError) as error:
                    log.error("the disk process cannot be restarted: %s", error)
                    attempt += 1

    async def _relaunch(self) -> asyncio.StreamReader:
        if self._process is not None:
            if not await self._ended(self._process, 1.0):
                self._process.kill()  # it has hung up without being told to
                await self._ended(self._process, STOP_TIMEOUT)
            log.error("the disk process %d has died; starting another", self._process.pid)
        reader = await self._launch()
        self.restarts += 1
        return reader

    async def _gone(self, pid: int) -> None:
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

    # The conversation.

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        """Handle lines until the other end is gone."""
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
            self._heard(message)

    def _heard(self, message: Message | None) -> None:
        match message:
            case wire.Asked(number, knock):
                self._send(wire.Admitted(number, self._answer(knock)))
            case wire.Happened(event):
                try:
                    self._on_event(event)
                except Exception:
                    log.exception("an event of %s was not handled", event.mac)
            case wire.Counted(counters):
                self._counters.update((row.mac, row) for row in counters)
                self._counted.set()
            case wire.Forgotten(number) | wire.Resized(number):
                waiting = self._waiting.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case wire.Logged(level, name, text):
                logging.getLogger(name).log(level, "%s", text)

    def _answer(self, knock: Knock) -> Admission:
        try:
            return self._admit(knock)
        except Exception as error:
            log.exception("nobody could say whether %s may log in", knock.initiator)
            return Admission(status=0x0301, detail=f"internal error: {error}")

    def _send(self, message: Message) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.encode(message))

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = self._hello = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)  # its sessions ended with the process

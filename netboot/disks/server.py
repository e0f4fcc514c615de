"""The disk process's end of the line: asks at each login, reports, obeys.

Listens on a Unix socket that only its owner may open; one control process at a time, the
newest counts. Must never let a login wait longer than a few seconds for a control process that
does not answer, and never end because the control process did.
"""

import array
import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Final

from netboot.disks import wire
from netboot.disks.engine import Memory
from netboot.disks.wire import DiskEvent, Message
from netboot.errors import WireError
from netboot.model import Admission, Counters, Knock, SessionLimits
from netboot.private import private_socket

log = logging.getLogger(__name__)

#: Seconds that the control process has for an answer; an initiator gives us more.
ANSWER_TIMEOUT: Final = 4.0
#: Seconds between pushes of counters that have changed.
PUSH_INTERVAL: Final = 1.0
#: Counters in one message.
PIECE: Final = 100
#: Bytes the control process may leave unread before it is taken for dead.
UNREAD_LIMIT: Final = 8 << 20
#: Handles that one message may carry (unix(7): SCM_MAX_FD).
RIGHTS_LIMIT: Final = 253


class Channel:
    """Serves the control process; hands out its answers.

    ``hello`` makes our first line, ``counters`` the present ones, ``end`` ends a client's
    sessions and closes its disk (politely or not), ``limit`` hears how many sessions there may
    be, ``resize`` lets the open disk of a client (MAC, path of the overlay) grow to so many
    bytes and tells whether there is one, ``stop`` is called when we are told to end. ``handles``
    are those of the sockets that we listen for iSCSI at: they go along with the first line, so
    that a control process that did not start us can start another one like us.
    """

    def __init__(
        self,
        hello: Callable[[], wire.Hello],
        counters: Callable[[], Sequence[Counters]],
        end: Callable[[str, bool], Awaitable[None]],
        limit: Callable[[SessionLimits], None],
        resize: Callable[[str, str, int], Awaitable[bool]],
        stop: Callable[[], None],
        handles: Callable[[], Sequence[int]] = lambda: (),
    ) -> None:
        self._hello = hello
        self._counters = counters
        self._end = end
        self._limit = limit
        self._resize = resize
        self._stop = stop
        self._handles = handles
        self._memory = Memory()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._control: asyncio.StreamWriter | None = None
        self._met = asyncio.Event()  #: a control process has been there
        self._asked: dict[int, asyncio.Future[Admission]] = {}
        self._number = 0
        self._pushed: dict[str, Counters] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether a control process is there."""
        return self._control is not None

    async def start(self, path: Path) -> None:
        """Listen at ``path``, mode 0600; a socket left behind there is replaced.

        ConfigError when that is not possible.
        """
        sock = private_socket(path, socket.SOCK_STREAM)
        self._path = path
        self._server = await asyncio.start_unix_server(
            self._serve, sock=sock, limit=wire.LINE_LIMIT
        )
        self._spawn(self._push())

    async def close(self) -> None:
        """Hang up."""
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        if self._server is not None:
            self._server.close()
        control = self._control
        if control is not None:
            self._tell_counters(self._counters())
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(control.drain(), 1.0)
            control.close()
            self._control = None
        if self._path is not None:
            _remove(self._path)

    async def ask(self, knock: Knock) -> Admission:
        """Whether ``knock`` may log in: from the control process, or from memory."""
        if self._control is None and not self._met.is_set():
            # We have just been started, by who is on its way to us: a machine that has waited
            # for us need not try again.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._met.wait(), ANSWER_TIMEOUT)
        if self._control is None:
            return self._memory.answer(knock)
        self._number += 1
        number = self._number
        waiting: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        self._send(wire.Asked(number, knock))
        try:
            admission = await asyncio.wait_for(waiting, ANSWER_TIMEOUT)
        except TimeoutError:
            log.warning("the control process does not answer; answered from memory")
            return self._memory.answer(knock)
        except ConnectionError:
            return self._memory.answer(knock)
        finally:
            self._asked.pop(number, None)
        self._memory.learn(knock, admission)
        return admission

    def tell(self, event: DiskEvent) -> None:
        """Report an event; while nobody listens it is lost."""
        self._send(wire.Happened(event))

    def log(self, level: int, name: str, text: str) -> None:
        """Pass on a line for the log."""
        self._send(wire.Logged(level, name, text))

    def _send(self, message: Message) -> None:
        control = self._control
        if control is None or control.is_closing():
            return
        if control.transport.get_write_buffer_size() > UNREAD_LIMIT:
            self._control = None
            control.transport.abort()
            return
        control.write(wire.encode(message))

    def _spawn(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(errand)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One control process, until it hangs up or another one comes."""
        if self._control is not None:
            self._control.close()
        self._control = writer
        self._met.set()
        self._pushed.clear()
        self._introduce(writer)
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    break
                try:
                    self._heard(wire.decode(line))
                except WireError as error:
                    log.error("the control process sent a line we cannot read: %s", error)
        except (OSError, ValueError) as error:
            log.warning("the line to the control process broke: %s", error)
        finally:
            if self._control is writer:
                self._control = None
                for waiting in self._asked.values():
                    if not waiting.done():
                        waiting.set_exception(ConnectionResetError())
            writer.close()

    def _introduce(self, writer: asyncio.StreamWriter) -> None:
        """The first line, and with it the sockets; before anything else was written."""
        line = wire.encode(self._hello())
        handles = array.array("i", self._handles()[:RIGHTS_LIMIT])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)] if handles else []
        sent = 0
        own = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
        with own, contextlib.suppress(OSError):  # who has gone is found out by reading
            sent = own.sendmsg([line], rights)
        writer.write(line[sent:])

    def _heard(self, message: Message | None) -> None:
        match message:
            case wire.Admitted(number, admission):
                waiting = self._asked.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(admission)
            case wire.Forget(number, mac, memory):
                if memory:
                    self._memory.forget(mac)
                self._spawn(self._forgotten(number, mac, politely=not memory))
            case wire.Resize():
                self._spawn(self._resized(message))
            case wire.Limit(limits):
                self._limit(limits)
            case wire.Count():
                self._tell_counters(self._counters())
            case wire.Stop():
                self._stop()

    async def _forgotten(self, number: int, mac: str, *, politely: bool) -> None:
        try:
            await self._end(mac, politely)
        except Exception:
            log.exception("%s: its disk could not be closed", mac)
        self._send(wire.Forgotten(number))

    async def _resized(self, asked: wire.Resize) -> None:
        try:
            there = await self._resize(asked.mac, asked.path, asked.size)
        except Exception as error:
            log.warning("%s: its disk did not grow: %s", asked.mac, error)
            self._send(wire.Resized(asked.number, error=str(error) or repr(error)))
        else:
            self._send(wire.Resized(asked.number, there))

    async def _push(self) -> None:
        """Once a second, the counters that have changed."""
        while True:
            await asyncio.sleep(PUSH_INTERVAL)
            if self._control is None:
                continue
            changed = [row for row in self._counters() if self._pushed.get(row.mac) != row]
            for piece, _ in _pieces(changed) if changed else ():
                self._pushed.update((row.mac, row) for row in piece)
                self._send(wire.Counted(piece, more=True))
                await asyncio.sleep(0)  # nobody's reads wait for the counters of a thousand

    def _tell_counters(self, rows: Sequence[Counters]) -> None:
        """All of them, in lines of which none is too long."""
        for piece, more in _pieces(rows):
            self._send(wire.Counted(piece, more))


def _pieces(rows: Sequence[Counters]) -> Iterator[tuple[tuple[Counters, ...], bool]]:
    """As many as one message holds, and whether more follow; of no rows, one piece with none."""
    for at in range(0, len(rows) or 1, PIECE):
        yield tuple(rows[at : at + PIECE]), at + PIECE < len(rows)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)

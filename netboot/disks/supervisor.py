"""The control process's side of the disk processes: how many there are, and all of them as one.

The sockets that listen at the portals are opened here once and inherited by every process, so
that a machine that connects while its process is being restarted waits, and is not refused. Each
process has a ``Keeper``; which one a client belongs to is known to the processes alone
(``handing``), so that what is wanted of a client's is asked of all of them: one has it.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from netboot.disks import wire
from netboot.disks.keeper import Keeper
from netboot.disks.listening import inherited, listen
from netboot.disks.wire import DiskEvent, Kind, Message
from netboot.errors import ConfigError, NetbootError
from netboot.model import Admission, Counters, DiskProcess, Knock, Portal, SessionLimits

log = logging.getLogger(__name__)

#: Bytes: sun_path of Linux holds 108 with its final zero.
SOCKET_PATH_LIMIT = 107
#: Seconds in which logins and logouts add up, before the processes are told of one another's.
SHARE_INTERVAL = 0.1


class Supervisor:
    """Keeps the disk processes alive, and is the only one who talks to them.

    ``state`` is the folder for their sockets and logs, ``portals`` the iSCSI portals.
    ``admit`` answers who may log in; ``on_event`` hears what happened to whom. Both are called
    on this loop, must not block, and must not raise.

    >>> disks = Supervisor(state, [Portal("192.168.77.1", 3260)], admit, on_event, processes=2)
    >>> await disks.start()      # ConfigError: the port is in use, ...
    >>> disks.counters()["52:54:00:12:34:56"].reads
    >>> await disks.stop()       # flushes and ends the processes
    """

    def __init__(
        self,
        state: Path,
        portals: Sequence[Portal],
        admit: Callable[[Knock], Admission],
        on_event: Callable[[DiskEvent], None],
        python: str = sys.executable,
        limits: SessionLimits | None = None,
        processes: int = 1,
    ) -> None:
        self._state = state
        self._portals = tuple(portals)
        self._admit = admit
        self._on_event = on_event
        self._python = python
        self._limits = limits or SessionLimits()
        self._counters: dict[str, Counters] = {}
        self._listening: list[socket.socket] = []
        self._keepers = [self._keeper(number, processes) for number in range(processes)]
        self._sharing: asyncio.TimerHandle | None = None

    def _keeper(self, number: int, processes: int) -> Keeper:
        return Keeper(
            self._state,
            number,
            processes,
            self._handles,
            self._heard,
            self._greet,
            self._python,
        )

    async def start(self) -> None:
        """Return when all disk processes accept logins; ConfigError when they cannot."""
        path = self._keepers[-1].path
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            raise ConfigError(
                f"{path}: a socket's path is at most {SOCKET_PATH_LIMIT} bytes; "
                f"choose a shorter [site] state"
            )
        self._state.mkdir(parents=True, exist_ok=True)
        try:
            await self._start()
        except BaseException:
            await self._end(lambda keeper: keeper.stop() if keeper.started else keeper.leave())
            raise
        for keeper in self._keepers:
            keeper.keep()

    async def _start(self) -> None:
        named = [path.stem.removeprefix("disk-") for path in self._state.glob("disk-*.sock")]
        found = {int(number) for number in named if number.isascii() and number.isdecimal()}
        left = found - {keeper.number for keeper in self._keepers}
        for keeper in self._keepers:
            keeper.portals = self._portals
        adopted = [keeper.adopt() for keeper in self._keepers]
        ended = [self._keeper(number, 0).adopt() for number in left]  # of none: none of them fits
        handles = await asyncio.gather(*adopted, *ended)
        for keeper, inside in zip(self._keepers, handles, strict=False):
            if keeper.alive():
                self._portals = keeper.listening  # a port that was free to choose stays
                self._hold(inside)
        away = [keeper for keeper in self._keepers if not keeper.alive()]
        if away:
            self._handles()
        for keeper in self._keepers:
            keeper.portals = self._portals
        await asyncio.gather(*(keeper.launch() for keeper in away))

    def _hold(self, handles: Sequence[int]) -> None:
        """Sockets of an adopted process; those of one are those of all."""
        if self._listening or len(handles) != len(self._portals):
            for handle in handles:
                os.close(handle)
        else:
            self._listening = [sock for _, sock in inherited(self._portals, handles)]

    def _handles(self) -> list[int]:
        """Of the sockets that listen at the portals; ConfigError when one cannot be had.

        They are not ours from the beginning where a process of an older release was adopted."""
        if not self._listening:
            found = listen(self._portals)
            self._portals = tuple(portal for portal, _ in found)
            self._listening = [sock for _, sock in found]
        return [sock.fileno() for sock in self._listening]

    def listen_no_more(self) -> None:
        """Let the sockets go: the processes alone listen. Before they are stopped, so that nobody
        waits at a door that nobody will open any more."""
        for sock in self._listening:
            sock.close()
        self._listening = []

    async def stop(self) -> None:
        """End the processes in order: logins refused, everything flushed, disks closed."""
        await self._end(Keeper.stop)

    async def leave(self) -> None:
        """Let the processes live on for the next control process, which will adopt them."""
        await self._end(Keeper.leave)

    async def _end(self, how: Callable[[Keeper], Awaitable[None]]) -> None:
        self.listen_no_more()
        await asyncio.gather(*(how(keeper) for keeper in self._keepers))
        self.listen_no_more()  # one may just have been being started
        if self._sharing is not None:
            self._sharing.cancel()
            self._sharing = None

    def alive(self) -> bool:
        """Whether every disk process answers at the moment."""
        return all(keeper.alive() for keeper in self._keepers)

    @property
    def processes(self) -> tuple[DiskProcess, ...]:
        """How each of them is at the moment."""
        return tuple(keeper.status for keeper in self._keepers)

    @property
    def restarts(self) -> int:
        """How many of them died and were replaced."""
        return sum(keeper.restarts for keeper in self._keepers)

    @property
    def pid(self) -> int | None:
        """The first disk process's number; None while there is none."""
        return self._keepers[0].pid

    @property
    def port(self) -> int:
        """The port of the first portal."""
        return self._portals[0].port

    @property
    def portals(self) -> tuple[Portal, ...]:
        """Where they listen, also when ``portals`` said port 0."""
        return self._portals

    def counters(self) -> Mapping[str, Counters]:
        """What every client's disk has done, by MAC; at most a second old."""
        return dict(self._counters)

    async def refresh(self) -> Mapping[str, Counters]:
        """Ask for the counters now, and return them."""
        asked = [keeper for keeper in self._keepers if keeper.alive()]
        for keeper in asked:
            keeper.counted.clear()
            keeper.send(wire.Count())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                for keeper in asked:
                    await keeper.counted.wait()
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
        answers = await self._request(lambda number: wire.Resize(number, mac, path, size))
        found = [done for done in answers if isinstance(done, wire.Resized)]
        for done in found:
            if done.error:
                raise NetbootError(done.error)
        return any(done.open for done in found)

    async def _request(self, make: Callable[[int], Message]) -> list[Message | None]:
        return await asyncio.gather(*(keeper.request(make) for keeper in self._keepers))

    # The conversation.

    def _heard(self, keeper: Keeper, message: Message) -> None:
        match message:
            case wire.Asked(number, knock):
                keeper.send(wire.Admitted(number, self._answer(knock)))
            case wire.Happened(event):
                if event.kind in (Kind.LOGIN, Kind.LOGOUT):
                    keeper.sessions += 1 if event.kind is Kind.LOGIN else -1
                    self._share_soon()
                try:
                    self._on_event(event)
                except Exception:
                    log.exception("an event of %s was not handled", event.mac)
            case wire.Counted(counters, more):
                self._counters.update((row.mac, row) for row in counters)
                if not more:
                    keeper.counted.set()
            case wire.Logged(level, name, text):
                logging.getLogger(name).log(level, "%s", text)

    def _answer(self, knock: Knock) -> Admission:
        try:
            return self._admit(knock)
        except Exception as error:
            log.exception("nobody could say whether %s may log in", knock.initiator)
            return Admission(status=0x0301, detail=f"internal error: {error}")

    def _greet(self, keeper: Keeper) -> list[Message]:
        self._share_soon()
        return [wire.Limit(self._share(keeper)), wire.Count()]

    # How many sessions there may be: in all, so that what the others have is not to be had.

    def limit(self, limits: SessionLimits) -> None:
        """So many sessions there may be from now on."""
        self._limits = limits
        self._share_out()

    def _share(self, keeper: Keeper) -> SessionLimits:
        taken = sum(other.sessions for other in self._keepers if other is not keeper)
        return replace(self._limits, sessions=max(0, self._limits.sessions - taken))

    def _share_soon(self) -> None:
        if len(self._keepers) > 1 and self._sharing is None:
            loop = asyncio.get_running_loop()
            self._sharing = loop.call_later(SHARE_INTERVAL, self._share_out)

    def _share_out(self) -> None:
        self._sharing = None
        for keeper in self._keepers:
            keeper.send(wire.Limit(self._share(keeper)))

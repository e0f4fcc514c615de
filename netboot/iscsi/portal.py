"""The portal: who comes in, whose disks are open, who has to leave (RFC 7143 section 6.3).

A ``Target`` is one client's open disks with the sessions at them. It is opened by the first
login and stays open for a while after the last session, so that a machine that comes back
finds its disks warm and its reservations in place. Must never refuse a login because of a dead
session, nor close a disk that a worker is busy with.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from netboot.errors import ConfigError
from netboot.iscsi.engine import Arrived
from netboot.iscsi.peer import Peer
from netboot.iscsi.server import Attach, Edge, Volume
from netboot.iscsi.target import displaced
from netboot.iscsi.volume import Done, Tally
from netboot.iscsi.wire import LoginStatus
from netboot.model import Admission, Counters, Knock, Lun
from netboot.scsi.primary import lun_fields
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Unit
from netboot.sparing import Sparing

log = logging.getLogger(__name__)

RECEIVE_BUFFER: Final = 512 << 10
#: Threads for cold reads and flushes of all disks.
WORKERS: Final = 8
#: Connections that have not logged in yet, and discovery sessions, which anybody may have; the
#: oldest gives way.
HALF_OPEN_LIMIT: Final = 512
BACKLOG: Final = 1024
#: Seconds that connections have to end when the portal stops.
STOP_TIMEOUT: Final = 5.0
#: Seconds that a client's disks stay open after its last session.
LINGER: Final = 30.0


class Kind(StrEnum):
    """What is reported of a client."""

    LOGIN = "login"
    READING = "reading"
    LOGOUT = "logout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Report:
    """Something happened at one client's disk."""

    mac: str
    kind: Kind
    initiator: str = ""
    address: str = ""
    detail: str = ""
    isid: str = ""  #: hex


Admit: TypeAlias = Callable[[Knock], Awaitable[Admission]]


@dataclass(slots=True, eq=False)
class Target:
    """One client's open disks, and the sessions at them."""

    mac: str
    name: str
    luns: tuple[Lun, ...]
    units: LogicalUnits
    volumes: dict[int, Volume]  #: by LUN field
    tally: Tally
    peers: dict[Peer, None] = field(default_factory=dict)  #: in the order of their logins
    linger: asyncio.TimerHandle | None = None


class Portal:
    """One listening address and everything behind it.

    ``attach`` opens a disk (in a worker), ``admit`` says who may log in, ``report`` hears what
    happened; the last two are called on the loop.
    """

    def __init__(
        self,
        attach: Attach,
        admit: Admit,
        report: Callable[[Report], None],
        linger: float = LINGER,
    ) -> None:
        self.room = memoryview(bytearray(RECEIVE_BUFFER))
        self._attach = attach
        self._admit = admit
        self._report = report
        self._linger = linger
        self._pool = ThreadPoolExecutor(WORKERS, "disk")
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop
        self._targets: dict[str, Target] = {}
        self._tallies: dict[str, Tally] = {}
        self._doors: dict[str, asyncio.Lock] = {}
        self._outside: dict[Peer, None] = {}  #: connections without a session
        self._discovering: dict[Peer, None] = {}
        self._connected: set[Peer] = set()
        self._all_left = asyncio.Event()
        self._errands: set[asyncio.Task[None]] = set()
        self._tsih = 0
        self._stopping = False
        self._sparing = Sparing()

    async def start(self, address: str, port: int) -> int:
        """Listen; returns the port. ConfigError when the address cannot be had."""
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
        except OSError as error:
            sock.close()
            raise ConfigError(
                f"iSCSI cannot listen on {address} port {port}: {os.strerror(error.errno or 0)}: "
                f"stop who has it (ss -ltnp 'sport = :{port}' names it), or change iscsi.port"
            ) from error
        self._server = await self._loop.create_server(
            lambda: Peer(self), sock=sock, backlog=BACKLOG
        )
        return int(sock.getsockname()[1])

    async def stop(self) -> None:
        """Refuse new logins ("try later"), flush and close every disk, then stop listening."""
        self._stopping = True
        for mac in list(self._targets):
            await self.close(mac, "the target is stopping")
        if self._server is not None:
            self._server.close()
        for peer in [*self._outside, *self._discovering]:
            peer.close("the target is stopping")
        for errand in list(self._errands):
            errand.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        if self._connected:
            self._all_left.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_left.wait(), STOP_TIMEOUT)
        self._pool.shutdown()

    async def close(self, mac: str, why: str = "closed by the operator") -> None:
        """End a client's sessions and close its disks; harmless when there are none."""
        async with self._door(mac):
            target = self._targets.get(mac)
            if target is not None:
                await self._shut(target, why)

    @property
    def sessions(self) -> int:
        """Sessions there are now."""
        return sum(len(target.peers) for target in self._targets.values())

    def counters(self) -> list[Counters]:
        """What every client's disk has done since this process first opened it."""
        return [tally.counters() for tally in self._tallies.values()]

    # What connections call (``peer.House``).

    def entered(self, peer: Peer) -> None:
        if len(self._outside) >= HALF_OPEN_LIMIT:
            next(iter(self._outside)).close("too many connections wait to log in")
        self._outside[peer] = None
        self._connected.add(peer)

    def knocked(self, peer: Peer, knock: Knock) -> None:
        self._send_on_errand(self._ask(peer, knock))

    def arrived(self, peer: Peer, arrived: Arrived) -> None:
        if arrived.session.discovery:
            self._outside.pop(peer, None)
            if len(self._discovering) >= HALF_OPEN_LIMIT:
                next(iter(self._discovering)).close("too many discovery sessions")
            self._discovering[peer] = None
            peer.establish(None, self._next_tsih())
        else:
            self._send_on_errand(self._settle(peer, arrived.admission))

    def left(self, peer: Peer, why: str) -> None:
        self._outside.pop(peer, None)
        self._discovering.pop(peer, None)
        self._connected.discard(peer)
        if not self._connected:
            self._all_left.set()
        if peer.edge is None:
            if peer.identity.initiator or why != "closed by the initiator":
                kind = "named" if peer.identity.initiator else "nameless"
                more = self._sparing.more(kind, self._loop.time())
                if more is not None:
                    log.info("%s: a connection ended: %s%s", peer.address, why, more)
            return
        for target in self._targets.values():
            if peer in target.peers:
                self._leave(target, peer, why)
                break

    def disconnect_all(self, peer: Peer) -> None:
        for target in self._targets.values():
            if peer in target.peers:
                for every in list(target.peers):
                    every.hang_up("target cold reset")
                break

    # Logging in.

    async def _ask(self, peer: Peer, knock: Knock) -> None:
        if self._stopping:
            admission = Admission(LoginStatus.OUT_OF_RESOURCES, detail="the target is stopping")
        else:
            admission = await self._admit(knock)
        if admission.status:
            log.info(  # whoever refused it says so aloud: there the machine has its name
                *("%s at %s is refused with %04x: %s", knock.initiator, knock.address),
                *(admission.status, admission.detail),
            )
        if not peer.closed:
            peer.admit(peer.engine.admit(admission))

    async def _settle(self, peer: Peer, admission: Admission) -> None:
        """Give a session its target: open it if need be, and make others give way."""
        mac = admission.mac
        async with self._door(mac):
            if self._stopping:
                peer.refuse(LoginStatus.OUT_OF_RESOURCES, "the target is stopping")
                return
            target = self._targets.get(mac)
            if target is not None and (target.luns, target.name) != (
                admission.luns,
                admission.target,
            ):
                await self._shut(target, "the client has another disk now")
                target = None
            if target is None:
                try:
                    target = await self._open(admission)
                except Exception as error:
                    log.info("%s: its disk cannot be opened: %s", mac, error)  # the report is loud
                    self._say(peer, mac, Kind.ERROR, str(error))
                    if not peer.closed:
                        # Class 3: who boots tries again; class 2 would be final.
                        peer.refuse(LoginStatus.UNAVAILABLE, str(error))
                    return
            if peer.closed:
                self._start_linger(target)
                return
            self._welcome(peer, target)

    def _welcome(self, peer: Peer, target: Target) -> None:
        gone, probed = displaced(peer.identity, target.peers)
        for old in gone:
            self._leave(target, old, "the same initiator port has logged in again")
            old.close("the same initiator port has logged in again")
        for old in probed:
            old.probe()
        if target.linger is not None:
            target.linger.cancel()
            target.linger = None
        self._outside.pop(peer, None)
        target.peers[peer] = None
        target.tally.sessions += 1
        identity = peer.identity
        edge = Edge(
            peer.engine,
            target.units,
            target.units.attach(identity.initiator, identity.isid),
            target.volumes,
            peer.send,
            lambda: self._say(peer, target.mac, Kind.READING, ""),
        )
        log.info("%s at %s has logged in to %s", identity.initiator, peer.address, target.name)
        self._say(peer, target.mac, Kind.LOGIN, "")
        peer.establish(edge, self._next_tsih())

    def _leave(self, target: Target, peer: Peer, why: str) -> None:
        target.peers.pop(peer, None)
        log.info("%s at %s has left: %s", peer.identity.initiator, peer.address, why)
        self._say(peer, target.mac, Kind.LOGOUT, why)
        if not target.peers:
            self._start_linger(target)

    def _say(self, peer: Peer, mac: str, kind: Kind, detail: str) -> None:
        who = peer.identity
        report = Report(mac, kind, who.initiator, peer.address, detail, who.isid.hex())
        self._report(report)

    # Opening and closing disks.

    async def _open(self, admission: Admission) -> Target:
        mac, name = admission.mac, admission.target
        tally = self._tallies.setdefault(mac, Tally(mac))
        units: list[Unit] = []
        volumes: dict[int, Volume] = {}
        opened: list[Volume] = []
        try:
            for lun in admission.luns:
                disk = await self._loop.run_in_executor(self._pool, self._attach, lun.disk)
                unit = Unit(
                    *(lun.number, disk.size, lun.serial),
                    target_name=name,
                    read_only=disk.read_only,
                    thin=lun.thin,
                    removable=lun.removable,
                    physical_block_exponent=lun.physical_block_exponent,
                )
                volume = Volume(
                    name=f"{mac} LUN {lun.number}",
                    block=unit.block_size,
                    tally=tally,
                    submit=self._submit,
                    sync=disk.flush,
                    on_error=lambda text: self._report(Report(mac, Kind.ERROR, detail=text)),
                    disk=disk,
                )
                opened.append(volume)
                units.append(unit)
                volumes |= dict.fromkeys(lun_fields(lun.number), volume)
            target = Target(mac, name, admission.luns, LogicalUnits(units), volumes, tally)
        except BaseException:
            for volume in opened:
                volume.disk.close()
            raise
        self._targets[mac] = target
        return target

    async def _shut(self, target: Target, why: str) -> None:
        """End all sessions of a target, wait for its workers, flush and close its disks."""
        if target.linger is not None:
            target.linger.cancel()
        for peer in list(target.peers):
            self._leave(target, peer, why)
            peer.close(why)
        if target.linger is not None:
            target.linger.cancel()
        self._targets.pop(target.mac, None)
        for volume in dict.fromkeys(target.volumes.values()):
            if volume.jobs:
                idle = asyncio.Event()
                volume.on_idle = idle.set
                await idle.wait()
            try:
                await self._loop.run_in_executor(self._pool, volume.disk.close)
            except Exception as error:
                volume.failed(error)

    def _start_linger(self, target: Target) -> None:
        if target.linger is not None:
            target.linger.cancel()
        target.linger = self._loop.call_later(
            self._linger, lambda: self._send_on_errand(self._retire(target))
        )

    async def _retire(self, target: Target) -> None:
        async with self._door(target.mac):
            if self._targets.get(target.mac) is target and not target.peers:
                await self._shut(target, "")

    # Small things.

    def _door(self, mac: str) -> asyncio.Lock:
        """Only one at a time opens, closes or enters a client's target."""
        return self._doors.setdefault(mac, asyncio.Lock())

    def _next_tsih(self) -> int:
        self._tsih = self._tsih % 0xFFFF + 1
        return self._tsih

    def _send_on_errand(self, errand: Awaitable[None]) -> None:
        task = asyncio.ensure_future(errand)
        self._errands.add(task)
        task.add_done_callback(self._returned)

    def _returned(self, task: "asyncio.Task[None]") -> None:
        self._errands.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a login failed", exc_info=task.exception())

    def _submit(self, do: Callable[[], object], done: Done) -> None:
        def finished(future: "Future[object]") -> None:
            error = future.exception()
            known = error if error is None or isinstance(error, Exception) else OSError(str(error))
            result = None if error is not None else future.result()
            self._loop.call_soon_threadsafe(done, result, known)

        self._pool.submit(do).add_done_callback(finished)

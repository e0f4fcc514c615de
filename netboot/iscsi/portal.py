"""The portals: who comes in, who may stay, who has to leave (RFC 7143 sections 4.4.1 and 6.3).

All portals lead to the same targets; a client's disks are opened and closed by
``open_targets``. Must never refuse a login because of a dead session, never let a newcomer throw
out anybody but its own older sessions, and never send firmware what it did not ask for.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final, TypeAlias

from netboot.iscsi.entering import Arrived
from netboot.iscsi.open_targets import LINGER, OpenTargets, Target
from netboot.iscsi.passing import AWAY, PASSED_ON, Alone, Others, give, take
from netboot.iscsi.peer import Peer
from netboot.iscsi.reading import Reading
from netboot.iscsi.server import Attach, Edge
from netboot.iscsi.target import displaced
from netboot.iscsi.wire import LoginStatus
from netboot.model import Admission, Counters, Knock, Portal, SessionLimits
from netboot.sparing import Sparing

log = logging.getLogger(__name__)

#: Connections that have not logged in yet, and discovery sessions, which anybody may have; the
#: oldest gives way. More than a large lab that is switched on in one moment; of those that say
#: nothing each takes some 25 KiB.
HALF_OPEN_LIMIT: Final = 2048
#: Seconds that connections have to end when the portals stop.
STOP_TIMEOUT: Final = 5.0
#: Seconds that operating systems have to log out before a planned end of their sessions. A
#: Linux with iscsid does it within milliseconds; one whose disk was attached by an initramfs
#: alone has nobody to hear the request.
GRACE: Final = 3
STOPPING: Final = "the target is stopping"


class Kind(StrEnum):
    """What is reported of a client."""

    LOGIN = "login"
    READING = "reading"
    LOGOUT = "logout"
    ERROR = "error"
    REFUSED = "refused"


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


class Portals:
    """The listening addresses and everything behind them.

    ``attach`` opens a disk (in a worker), ``admit`` says who may log in, ``report`` hears what
    happened; the last two are called on the loop. ``is_os`` knows by an ISID (hex) whether an
    operating system speaks, which may be asked to log out; ``others`` serve other clients.
    """

    def __init__(
        self,
        attach: Attach,
        admit: Admit,
        report: Callable[[Report], None],
        is_os: Callable[[str], bool] = lambda isid: False,
        linger: float = LINGER,
        others: Others | None = None,
    ) -> None:
        self.reading = Reading()
        self.portals: tuple[Portal, ...] = ()
        self.limits = SessionLimits()
        self._admit = admit
        self._report = report
        self._is_os = is_os
        self._others = others or Alone()
        self._targets = OpenTargets(attach, self._failed, self._spawn, linger)
        self.resize = self._targets.resize
        self._servers: list[asyncio.Server] = []
        self._outside: dict[Peer, None] = {}  #: connections without a session
        self._discovering: dict[Peer, None] = {}
        self._connected: set[Peer] = set()
        self._errands: set[asyncio.Task[None]] = set()
        self._tsih = 0
        self._stopping = False
        self._sparing = Sparing()

    async def start(self, found: Sequence[tuple[Portal, socket.socket]]) -> tuple[Portal, ...]:
        """Accept at the sockets that listen at the portals; returns the portals."""
        loop = asyncio.get_running_loop()
        self.portals = tuple(portal for portal, _ in found)
        self._targets.ports = tuple(sorted({portal.group for portal in self.portals}))
        for portal, sock in found:
            made = partial(Peer, self, portal)
            server = await loop.create_server(made, sock=sock, backlog=socket.SOMAXCONN)
            self._servers.append(server)
        return self.portals

    async def stop(self) -> None:
        """Refuse new logins ("try later"), let operating systems log out, flush and close every
        disk; nobody listens any more when the first of them logs out."""
        self._stopping = True
        await self._farewell(peer for target in self._targets for peer in target.peers)
        while there := list(self._targets):  # one may just be opening
            for target in there:
                await self.close(target.mac, STOPPING)
        self.listen_no_more()
        for peer in [*self._outside, *self._discovering]:
            peer.close(STOPPING)
        for errand in list(self._errands):
            errand.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)
        await _gone(self._connected, STOP_TIMEOUT)
        self._targets.dismiss()
        self.reading.close()

    def listen_no_more(self) -> None:
        """Accept nobody; whoever has the same sockets does."""
        for server in self._servers:
            server.close()

    def deaf(self) -> None:
        """Another process that stops does not listen any more: if we stop too, nor do we."""
        if self._stopping:
            self.listen_no_more()

    def take(self, sock: socket.socket, portal: Portal, heard: bytes) -> None:
        """A connection of ours came to another process, which has ``heard`` that much of it."""
        self._spawn(take(self, sock, portal, heard))

    async def close(
        self, mac: str, why: str = "closed by the operator", *, politely: bool = False
    ) -> None:
        """End a client's sessions and close its disks; harmless when there are none.

        ``politely``: an operating system is asked to log out before.
        """
        async with self._targets.door(mac):
            target = self._targets.get(mac)
            if target is None:
                return
            if politely:
                await self._farewell(target.peers)
            await self._shut(target, why)

    @property
    def sessions(self) -> int:
        """Sessions there are now."""
        return self._targets.sessions

    def counters(self) -> list[Counters]:
        """What every client's disk has done since this process first opened it."""
        return self._targets.counters()

    # What connections call (``peer.House``).

    def entered(self, peer: Peer) -> None:
        if len(self._outside) >= HALF_OPEN_LIMIT:
            next(iter(self._outside)).close("too many connections wait to log in")
        self._outside[peer] = None
        self._connected.add(peer)

    def knocked(self, peer: Peer, knock: Knock) -> None:
        self._spawn(self._ask(peer, knock))

    def arrived(self, peer: Peer, arrived: Arrived) -> None:
        if arrived.session.discovery:
            self._outside.pop(peer, None)
            if len(self._discovering) >= HALF_OPEN_LIMIT:
                next(iter(self._discovering)).close("too many discovery sessions")
            self._discovering[peer] = None
            peer.establish(None, self._next_tsih())
        else:
            self._spawn(self._settle(peer, arrived.admission))

    def takes_leave(self, peer: Peer) -> None:
        """open-iscsi comes back as soon as its logout is answered. When we stop it must then find
        the door closed: accepted, and reset a moment later, it was seen to try without end."""
        if self._stopping:
            self.listen_no_more()
            self._others.deaf()

    def left(self, peer: Peer, why: str) -> None:
        self._outside.pop(peer, None)
        self._discovering.pop(peer, None)
        self._connected.discard(peer)
        if why == PASSED_ON:
            return
        target = self._targets.of(peer) if peer.edge is not None else None
        if target is not None:
            self._leave(target, peer, why)
        elif peer.engine.login.unproved:
            self._unproved(peer)
        elif peer.edge is None and (peer.identity.initiator or why != "closed by the initiator"):
            kind = "named" if peer.identity.initiator else "nameless"
            more = self._sparing.more(kind, asyncio.get_running_loop().time())
            if more is not None:
                log.info("%s: a connection ended: %s%s", peer.address, why, more)

    def _unproved(self, peer: Peer) -> None:
        """Somebody is not who he says: told aloud, but not as often as he tries."""
        login = peer.engine.login
        assert login.admission is not None and login.identity is not None
        mac, (name, isid) = login.admission.mac, (login.identity.initiator, login.identity.isid)
        more = self._sparing.more(f"proof {mac}", asyncio.get_running_loop().time())
        if more is not None:
            log.info("%s at %s: %s%s", name, peer.address, login.unproved, more)
            detail = login.unproved + more
            self._report(Report(mac, Kind.REFUSED, name, peer.address, detail, isid.hex()))

    def disconnect_all(self, peer: Peer) -> None:
        target = self._targets.of(peer)
        for every in list(target.peers) if target is not None else ():
            every.hang_up("target cold reset")

    # Logging in.

    async def _ask(self, peer: Peer, knock: Knock) -> None:
        if self._stopping:
            admission = Admission(LoginStatus.OUT_OF_RESOURCES, detail=STOPPING)
        elif peer.closed:
            return
        elif not self._others.mine(knock):
            if await give(self._others, peer, knock):
                return
            admission = AWAY
        else:
            admission = await self._admit(knock)
        if admission.status:
            log.info(  # whoever refused it says so aloud: there the machine has its name
                *("%s at %s is refused with %04x: %s", knock.initiator, knock.address),
                *(admission.status, admission.detail),
            )
        peer.admit(admission)

    async def _settle(self, peer: Peer, admission: Admission) -> None:
        """Give a session its target: open it if need be, and make others give way."""
        mac = admission.mac
        async with self._targets.door(mac):
            if self._stopping:
                peer.refuse(LoginStatus.OUT_OF_RESOURCES, STOPPING)
                return
            target = self._targets.get(mac)
            if target is not None and not target.is_what(admission):
                await self._shut(target, "the client has another disk now")
                target = None
            if target is None:
                try:
                    target = await self._targets.open(admission)
                except Exception as error:
                    log.info("%s: its disk cannot be opened: %s", mac, error)  # the report is loud
                    self._say(peer, mac, Kind.ERROR, str(error))
                    # Class 3: who boots tries again; class 2 would be final.
                    peer.refuse(LoginStatus.UNAVAILABLE, str(error))
                    return
            if not peer.closed:
                self._welcome(peer, target)
            if not target.peers:
                self._targets.unused(target)

    def _welcome(self, peer: Peer, target: Target) -> None:
        identity = peer.identity
        gone, probed = displaced(identity, target.peers)
        for old in gone:
            self._end(target, old, "the same initiator port has logged in again")
        if not self._make_room(peer, target):
            detail = "there are as many sessions as there may be"
            self._say(peer, target.mac, Kind.ERROR, f"{identity.initiator}: {detail}")
            peer.refuse(LoginStatus.OUT_OF_RESOURCES, detail)
            return
        for old in probed:
            old.probe()
        self._outside.pop(peer, None)
        self._targets.enter(target, peer)
        target.tally.sessions += 1
        edge = Edge(
            peer.engine,
            target.units,
            target.units.attach(identity.initiator, identity.isid, identity.group),
            target.volumes,
            peer.send,
            lambda: self._say(peer, target.mac, Kind.READING, ""),
        )
        proof = peer.engine.login.proof
        log.info(
            *("%s at %s has logged in to %s%s", identity.initiator, peer.address, target.name),
            f" by {proof}" if proof else "",
        )
        self._say(peer, target.mac, Kind.LOGIN, proof)
        peer.establish(edge, self._next_tsih())

    def _make_room(self, peer: Peer, target: Target) -> bool:
        """Whether another session may begin; older ones of the same initiator give way to it."""
        limits, there = self.limits, target.peers
        excess = 1 + max(len(there) - limits.client, self.sessions - limits.sessions)
        if excess <= 0:
            return True
        mine = [old for old in there if old.identity.initiator == peer.identity.initiator]
        if excess > len(mine):
            return False
        for old in mine[:excess]:
            self._end(target, old, "the same initiator has too many sessions")
        return True

    # Leaving.

    async def _farewell(self, peers: Iterable[Peer]) -> None:
        """Ask the sessions of operating systems to log out, and give them a little time."""
        asked = [peer for peer in peers if self._is_os(peer.identity.isid.hex())]
        for peer in asked:
            peer.ask_to_leave(GRACE)
        await _gone(asked, GRACE)

    async def _shut(self, target: Target, why: str) -> None:
        """End all sessions of a target and close its disks."""
        for peer in list(target.peers):
            self._end(target, peer, why)
        await self._targets.close(target)

    def _end(self, target: Target, peer: Peer, why: str) -> None:
        self._leave(target, peer, why)
        peer.close(why)

    def _leave(self, target: Target, peer: Peer, why: str) -> None:
        self._targets.leave(target, peer)
        log.info("%s at %s has left: %s", peer.identity.initiator, peer.address, why)
        self._say(peer, target.mac, Kind.LOGOUT, why)
        if not target.peers:
            self._targets.unused(target)

    # Small things.

    def _say(self, peer: Peer, mac: str, kind: Kind, detail: str) -> None:
        who = peer.identity
        report = Report(mac, kind, who.initiator, peer.address, detail, who.isid.hex())
        self._report(report)

    def _failed(self, mac: str, text: str) -> None:
        self._report(Report(mac, Kind.ERROR, detail=text))

    def _next_tsih(self) -> int:
        self._tsih = self._tsih % 0xFFFF + 1
        return self._tsih

    def _spawn(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(errand)
        self._errands.add(task)
        task.add_done_callback(self._returned)

    def _returned(self, task: "asyncio.Task[None]") -> None:
        self._errands.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a login failed", exc_info=task.exception())


async def _gone(peers: Iterable[Peer], patience: float) -> None:
    """Wait until all these connections have ended, but no longer than ``patience`` seconds."""
    waiting = [asyncio.ensure_future(peer.gone.wait()) for peer in peers]
    if not waiting:
        return
    try:
        await asyncio.wait(waiting, timeout=patience)
    finally:
        for task in waiting:
            task.cancel()

"""Connections that go on in another process, played by two portals on one loop."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from netboot.disks.listening import listen
from netboot.iscsi import passing
from netboot.iscsi.portal import Portals, Report
from netboot.model import Admission, Chap, DiskSpec, Knock, Lun, Portal

MAC = "52:54:00:12:34:56"
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
LUNS = (Lun(0, DiskSpec("/golden.raw", 1 << 20, "sha256:x"), "525400123456"),)


def login(*pairs: str, flags: int = 0x87, cmd_sn: int = 0) -> bytes:
    """A login request; flags 0x44: its text goes on in the next (C)."""
    text = "".join(f"{pair}\0" for pair in pairs).encode()
    head = struct.pack(">BBHI6sHIHHII16x", 0x43, flags, 0, len(text), b"a", 0, 1, 0, 0, cmd_sn, 0)
    return head + text + bytes(-len(text) % 4)


NAMES = ("InitiatorName=iqn.a:b", f"TargetName={TARGET}", "SessionType=Normal")
PING = struct.pack(">BB14xIII20x", 0x40, 0x80, 9, 0xFFFFFFFF, 0)
READ = struct.pack(">BB14xIII4x10s6x", 0x01, 0xC1, 1, 512, 0, b"\x28\0\0\0\0\0\0\0\1\0")


class Porter:
    """The way of one portal to the other."""

    def __init__(self, owner: bool) -> None:
        self.owner = owner
        self.other: Portals | None = None  #: away
        self.patience = asyncio.Event()  #: not longer than this is set
        self.heard: list[bytes] = []
        self.deaf_called = 0

    def mine(self, knock: Knock) -> bool:
        return self.owner

    async def pass_on(self, knock: Knock, handle: int, portal: Portal, heard: bytes) -> bool:
        while self.other is None:
            if self.patience.is_set():
                return False
            await asyncio.sleep(0.002)
        self.heard.append(heard)
        self.other.take(socket.socket(fileno=os.dup(handle)), portal, heard)
        return True

    def deaf(self) -> None:
        self.deaf_called += 1


class Rig:
    """``front`` accepts, ``owner`` serves."""

    def __init__(self, memory: Any) -> None:
        self.reports: list[Report] = []
        self.wrong: list[Report] = []
        self.knocks: list[Knock] = []
        self.admission = Admission(0, MAC, TARGET, LUNS)
        self.porter, self.idle = Porter(owner=False), Porter(owner=True)
        attach = lambda spec: memory(spec.size)  # noqa: E731
        self.front = Portals(attach, self.no, self.wrong.append, others=self.porter)
        self.owner = Portals(attach, self.admit, self.reports.append, others=self.idle)
        self.port = 0
        self.socks: list[socket.socket] = []

    async def no(self, knock: Knock) -> Admission:
        raise AssertionError("this one's clients are another's")

    async def admit(self, knock: Knock) -> Admission:
        self.knocks.append(knock)
        return self.admission

    async def connect(self) -> socket.socket:
        sock = socket.socket()
        self.socks.append(sock)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def hear(self, sock: socket.socket) -> bytes:
        """One PDU."""
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(10):
            size = 48
            while len(data) < size:
                more = await loop.sock_recv(sock, size - len(data))
                assert more, "the connection was closed"
                data += more
                if len(data) == 48:
                    size = 48 + (int.from_bytes(data[5:8], "big") + 3 & ~3)
        return data

    async def say(self, sock: socket.socket, data: bytes) -> bytes:
        await asyncio.get_running_loop().sock_sendall(sock, data)
        return await self.hear(sock)


Scene = Callable[[Rig], Awaitable[None]]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest, memory: Any) -> Iterator[Callable[[Scene], Rig]]:
    def run(scene: Scene) -> Rig:
        async def main() -> Rig:
            rig = Rig(memory)
            rig.porter.other = rig.owner
            (portal,) = await rig.front.start(listen([Portal("127.0.0.1", 0, 3)]))
            rig.owner.portals = (portal,)
            rig.port = portal.port
            try:
                await scene(rig)
            finally:
                for sock in rig.socks:
                    sock.close()
                await rig.front.stop()
                await rig.owner.stop()
            assert not rig.front._connected and not rig.owner._connected
            assert not rig.wrong, "the first process has nothing to report"
            return rig

        found: Rig = request.param(main())
        return found

    yield run


def status(answer: bytes) -> int:
    return int.from_bytes(answer[36:38], "big")


def test_a_session_goes_on_where_its_client_belongs(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        sock = await rig.connect()
        answer = await rig.say(sock, login(*NAMES))
        assert status(answer) == 0 and b"TargetPortalGroupTag=3\0" in answer
        assert (await rig.say(sock, PING))[0] == 0x20
        assert (await rig.say(sock, READ))[3] == 2  # 29/00: it was never here
        assert (rig.front.sessions, rig.owner.sessions) == (0, 1)
        assert rig.porter.heard == [login(*NAMES)]

    rig = play(scene)
    assert [knock.address for knock in rig.knocks] == ["127.0.0.1"]
    assert [report.kind for report in rig.reports] == ["login", "logout"]


def test_in_pieces_and_with_more_behind(play: Any) -> None:
    """Whatever the pieces in which it comes: nothing is lost, nothing comes twice."""

    async def scene(rig: Rig) -> None:
        whole = login(*NAMES)
        for cut in (1, 47, 48, 60, len(whole) - 1):
            sock = await rig.connect()
            await asyncio.get_running_loop().sock_sendall(sock, whole[:cut])
            await asyncio.sleep(0.01)
            assert status(await rig.say(sock, whole[cut:] + PING)) == 0
            assert (await rig.hear(sock))[0] == 0x20
            sock.close()

    play(scene)


def test_what_was_answered_is_not_answered_again(play: Any) -> None:
    """A login whose text takes two requests (RFC 7143 section 11.12.2): the first is answered
    by who accepted it."""

    async def scene(rig: Rig) -> None:
        sock = await rig.connect()
        first = login("InitiatorName=iqn.a:b", flags=0x44)
        answer = await rig.say(sock, first)
        assert status(answer) == 0 and not rig.porter.heard
        stat_sn = int.from_bytes(answer[24:28], "big")
        second = login(*NAMES[1:])
        answer = await rig.say(sock, second)
        assert status(answer) == 0 and b"TargetPortalGroupTag=3" in answer
        assert int.from_bytes(answer[24:28], "big") == stat_sn + 1
        assert rig.porter.heard == [first + second]
        assert (await rig.say(sock, PING))[0] == 0x20

    play(scene)


def test_it_is_proved_to_the_owner(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        rig.admission = Admission(0, MAC, TARGET, LUNS, chap=Chap("ws1", "secret secret"))
        sock = await rig.connect()
        answer = await rig.say(sock, login(*NAMES, "AuthMethod=CHAP", flags=0x81))
        assert b"AuthMethod=CHAP\0" in answer
        answer = await rig.say(sock, login("CHAP_A=5", flags=0x81))
        assert b"CHAP_C=0x" in answer

    play(scene)


def test_who_waits_for_an_owner_is_served_when_it_comes(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        rig.porter.other = None
        socks = [await rig.connect() for _ in range(3)]
        for number, sock in enumerate(socks):
            sock.send(login(f"InitiatorName=iqn.a:{number}", *NAMES[1:]) + PING)
        await asyncio.sleep(0.05)
        socks.pop().close()  # somebody does not wait
        rig.porter.other = rig.owner
        for sock in socks:
            assert status(await rig.hear(sock)) == 0
            assert (await rig.hear(sock))[0] == 0x20

    play(scene)


def test_who_waits_in_vain_is_told_to_try_again(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        rig.porter.other = None
        rig.porter.patience.set()
        sock = await rig.connect()
        assert status(await rig.say(sock, login(*NAMES))) == 0x0301
        assert passing.AWAY.status == 0x0301 and "try again" in passing.AWAY.detail

    play(scene)


def test_a_stop_reaches_those_who_wait(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        rig.porter.other = None
        sock = await rig.connect()
        sock.send(login(*NAMES))
        async with asyncio.timeout(10):
            while not rig.front._outside:
                await asyncio.sleep(0.005)
        await rig.front.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""

    play(scene)


def test_whoever_stops_says_no_by_itself(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        sock = await rig.connect()
        await asyncio.sleep(0.01)
        rig.front._stopping = True
        assert status(await rig.say(sock, login(*NAMES))) == 0x0302
        assert not rig.porter.heard

    play(scene)


def test_a_connection_that_is_none_any_more(play: Any) -> None:
    """It was reset on its way."""

    async def scene(rig: Rig) -> None:
        with socket.create_server(("127.0.0.1", 0)) as door:
            for heard in (b"", login(*NAMES)):
                with socket.create_connection(door.getsockname()) as ours:
                    theirs, _ = door.accept()
                    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                rig.owner.take(theirs, rig.owner.portals[0], heard)
                await asyncio.sleep(0.05)
                assert theirs.fileno() < 0
        assert not rig.owner.sessions and not rig.owner._connected
        sock = await rig.connect()
        assert status(await rig.say(sock, login(*NAMES))) == 0

    play(scene)


def test_all_who_stop_are_deaf_together(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        rig.front.deaf()  # another one stops; we do not
        sock = await rig.connect()
        assert status(await rig.say(sock, login(*NAMES))) == 0
        rig.owner._stopping = True
        logout = struct.pack(">BB14xIII20x", 0x46, 0x80, 1, 0, 0)
        assert (await rig.say(sock, logout))[0] == 0x26
        assert (rig.idle.deaf_called, rig.porter.deaf_called) == (1, 0)
        rig.front._stopping = True
        rig.front.deaf()
        with pytest.raises(ConnectionRefusedError):
            await rig.connect()

    play(scene)


def test_who_is_alone_serves_everybody() -> None:
    alone = passing.Alone()
    knock = Knock("iqn.a", TARGET, "10.0.0.9")
    assert alone.mine(knock)
    assert not asyncio.run(alone.pass_on(knock, 0, Portal("10.0.0.1", 3260), b""))
    alone.deaf()

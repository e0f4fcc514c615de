"""Sockets on loopback: logins, takeovers, back-pressure, stopping, and what is not iSCSI."""

import asyncio
import contextlib
import logging
import resource
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from netboot.disks.listening import listen
from netboot.errors import ConfigError
from netboot.iscsi import auth
from netboot.iscsi import portal as module
from netboot.iscsi.peer import Peer
from netboot.iscsi.portal import Kind, Portals, Report
from netboot.model import Admission, Chap, DiskSpec, Knock, Lun, Portal, SessionLimits

MAC = "52:54:00:12:34:56"
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
SPEC = DiskSpec("/golden.raw", 1 << 20, "sha256:x")


class Client:
    """An initiator on a real socket."""

    def __init__(self, initiator: Any, pdus: Any, isid: bytes = b"\x00\x02\x3d\0\0\1") -> None:
        self.initiator = initiator
        self.pdus = pdus
        self.isid = isid
        self.welcome = b""  #: the text of the login response
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self, port: int, host: str = "127.0.0.1") -> "Client":
        self.reader, self.writer = await asyncio.open_connection(host, port)
        return self

    async def answer(self) -> Any:
        head = await asyncio.wait_for(self.reader.readexactly(48), 10)
        length = int.from_bytes(head[5:8], "big")
        data = await asyncio.wait_for(self.reader.readexactly(length + -length % 4), 10)
        return self.pdus(head + data)[0]

    async def say(self, pdu: bytes) -> Any:
        self.writer.write(pdu)
        return await self.answer()

    async def login(
        self, port: int, *pairs: str, name: str = "iqn.a:b", host: str = "127.0.0.1"
    ) -> Any:
        await self.connect(port, host)
        keys = pairs or (f"TargetName={TARGET}", "SessionType=Normal", "ImmediateData=Yes")
        answer = await self.say(
            self.initiator.login(0x87, f"InitiatorName={name}", *keys, isid=self.isid)
        )
        self.welcome = answer.data
        return int.from_bytes(answer.raw[36:38], "big")

    async def ready(self) -> "Client":
        await self.say(self.initiator.command(bytes(6)))
        return self

    async def hang_up(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
            with contextlib.suppress(OSError):
                await self.writer.wait_closed()

    async def gone(self) -> bool:
        """Whether the other end has hung up."""
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.wait_for(self.reader.read(1), 10) == b""
        return True


class House:
    """A portal over memory disks, and what it reported."""

    def __init__(self, memory: Any, initiator: Any, pdus: Any) -> None:
        self._memory, self._pdus = memory, pdus
        self._initiator = type(initiator)
        self.reports: list[Report] = []
        self.knocks: list[Knock] = []
        self.disks: list[Any] = []
        self.admission = Admission(0, MAC, TARGET, (Lun(0, SPEC, "525400123456"),))
        self.refusal: Exception | None = None
        self.clients: list[Client] = []
        self.portal = Portals(self.attach, self.admit, self.reports.append, self.is_os, linger=0.4)
        self.systems: set[str] = set()
        self.port = 0

    def attach(self, spec: DiskSpec) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.disks.append(self._memory(spec.size))
        return self.disks[-1]

    def is_os(self, isid: str) -> bool:
        return isid in self.systems

    async def admit(self, knock: Knock) -> Admission:
        self.knocks.append(knock)
        await asyncio.sleep(0)
        return self.admission

    def client(self, isid: bytes = b"\x00\x02\x3d\0\0\1") -> Client:
        self.clients.append(Client(self._initiator(), self._pdus, isid))
        return self.clients[-1]

    def kinds(self) -> list[Kind]:
        return [report.kind for report in self.reports]

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.005)


Scene = Callable[[House], Awaitable[None]]


@pytest.fixture(
    params=[(asyncio.run, True), (uvloop.run, True), (uvloop.run, False)],
    ids=["asyncio", "uvloop", "uvloop, without a gate"],
)
def play(
    request: pytest.FixtureRequest,
    memory: Any,
    initiator: Any,
    pdus: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Scene], House]:
    """Runs a scene against a portal, and stops the portal in the end."""
    run_loop, gate = request.param
    if not gate:  # as where nobody could build it
        monkeypatch.setattr("netboot.iscsi.reading.Gate", None)

    def run(scene: Scene, portals: Sequence[Portal] = (Portal("127.0.0.1", 0),)) -> House:
        async def main() -> House:
            house = House(memory, initiator, pdus)
            house.port = (await house.portal.start(listen(portals)))[0].port
            try:
                await scene(house)
            finally:
                await house.portal.stop()
                for client in house.clients:
                    await client.hang_up()
            return house

        return run_loop(main())  # type: ignore[no-any-return]

    return run


def test_a_session_from_login_to_logout(play: Any) -> None:
    async def scene(house: House) -> None:
        client = house.client()
        assert await client.login(house.port) == 0
        await client.ready()
        assert (await client.say(client.initiator.write(0, 1, b"w" * 512))).byte3 == 0
        assert (await client.say(client.initiator.read(0, 1))).data == b"w" * 512
        assert (await client.say(client.initiator.request(0x06))).opcode == 0x26
        assert await client.gone()
        await house.until(lambda: Kind.LOGOUT in house.kinds())

    house = play(scene)
    assert house.kinds() == [Kind.LOGIN, Kind.READING, Kind.LOGOUT]
    assert {report.mac for report in house.reports} == {MAC}
    assert house.reports[0].initiator == "iqn.a:b" and house.reports[0].address == "127.0.0.1"
    assert house.reports[2].detail == "logout"
    (knock,) = house.knocks
    assert knock == Knock("iqn.a:b", TARGET, "127.0.0.1", "00023d000001", False)
    (counters,) = house.portal.counters()
    assert (counters.mac, counters.sessions, counters.reads, counters.writes) == (MAC, 1, 1, 1)
    assert house.disks[0].calls[-1] == ("close",)


def test_sessions_are_read_at_one_gate_until_the_end(play: Any) -> None:
    async def scene(house: House) -> None:
        for number in (1, 2):
            client = house.client(b"\x00\x02\x3d\0\0%c" % number)
            assert await client.login(house.port) == 0
            await client.ready()
            assert (await client.say(client.initiator.read(0, 1))).opcode == 0x25
            gates.add(house.portal.reading.gate)

    gates: set[Any] = set()
    play(scene)
    (gate,) = gates
    assert gate is None or gate.fd == -1


def test_discovery_on_the_same_portal(play: Any) -> None:
    async def scene(house: House) -> None:
        client = house.client()
        assert await client.login(house.port, "SessionType=Discovery") == 0
        ask = client.initiator.request(0x04, word20=0xFFFFFFFF, data=b"SendTargets=All\0")
        answer = await client.say(ask)
        expected = f"TargetName={TARGET}\0TargetAddress=127.0.0.1:{house.port},1\0"
        assert answer.data == expected.encode()
        assert house.portal.sessions == 0

    assert play(scene).disks == []


@pytest.mark.parametrize("status", [0x0202, 0x0203, 0x0301])
def test_who_is_refused_gets_the_status_and_the_door(
    play: Any, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """Aloud it is said by whoever refuses, who has a name for the machine."""
    caplog.set_level(logging.INFO)

    async def scene(house: House) -> None:
        house.admission = Admission(status, detail="not today")
        client = house.client()
        assert await client.login(house.port) == status
        assert await client.gone()

    assert play(scene).reports == []
    assert "is refused with" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.INFO}


CHAP = Chap("ws1", "a secret of 12+", "lab", "another secret!")


async def prove(house: House, client: Client, secret: str = CHAP.secret) -> int:
    """A login by CHAP with SHA-256; its status."""
    say, login = client.say, client.initiator.login
    await client.connect(house.port)
    names = ("InitiatorName=iqn.a:b", f"TargetName={TARGET}", "SessionType=Normal")
    await say(login(0x00, *names, "AuthMethod=CHAP", isid=client.isid))
    answer = await say(login(0x00, "CHAP_A=7", isid=client.isid))
    told = dict(pair.split("=", 1) for pair in answer.data.decode().rstrip("\0").split("\0"))
    digest = auth.response(7, int(told["CHAP_I"]), secret, auth.read_binary(told["CHAP_C"]))
    keys = ("CHAP_N=ws1", f"CHAP_R=0x{digest.hex()}")
    answer = await say(login(0x83, *keys, isid=client.isid))
    return int.from_bytes(answer.raw[36:38], "big")


def test_who_proves_itself_is_told_so(play: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scene(house: House) -> None:
        house.admission = replace(house.admission, chap=CHAP)
        assert await prove(house, house.client()) == 0

    house = play(scene)
    assert (house.reports[0].kind, house.reports[0].detail) == (Kind.LOGIN, "CHAP with SHA256")
    assert f"iqn.a:b at 127.0.0.1 has logged in to {TARGET} by CHAP with SHA256" in caplog.messages
    assert CHAP.secret not in caplog.text


def test_a_wrong_secret_is_told_aloud_but_not_each_time(
    play: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scene(house: House) -> None:
        house.admission = replace(house.admission, chap=CHAP)
        for _ in range(3):
            client = house.client()
            assert await prove(house, client, "a wrong secret") == 0x0201
            assert await client.gone()
        await house.until(lambda: house.reports)
        house.admission = replace(house.admission, mac="52:54:00:00:00:99")
        client = house.client()
        assert await client.login(house.port) == 0x0201
        await house.until(lambda: len(house.reports) == 2)

    house = play(scene)
    assert house.disks == [], "nothing is opened for a stranger"
    first, second = house.reports
    assert first == Report(
        *(MAC, Kind.REFUSED, "iqn.a:b", "127.0.0.1", "name or secret is wrong", "00023d000001")
    )
    assert (second.mac, second.detail) == (
        *("52:54:00:00:00:99", "the initiator left authentication out"),
    )
    assert caplog.messages.count("iqn.a:b at 127.0.0.1: name or secret is wrong") == 1


def test_a_disk_that_cannot_be_opened_is_try_again(
    play: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Class 2 would be final for open-iscsi and stop a boot for good."""

    async def scene(house: House) -> None:
        house.refusal = ConfigError("golden.raw has changed")
        assert await house.client().login(house.port) == 0x0301
        house.refusal = None
        assert await house.client().login(house.port) == 0

    house = play(scene)
    assert house.kinds()[:2] == [Kind.ERROR, Kind.LOGIN]
    assert "golden.raw has changed" in house.reports[0].detail
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_reinstatement_ends_the_old_session_before_the_new_begins(play: Any) -> None:
    async def scene(house: House) -> None:
        old, new = house.client(), house.client()
        assert await old.login(house.port) == 0
        assert await new.login(house.port) == 0
        assert await old.gone()
        await new.ready()
        assert house.portal.sessions == 1 and len(house.disks) == 1

    assert play(scene).kinds()[:3] == [Kind.LOGIN, Kind.LOGOUT, Kind.LOGIN]


def test_two_living_sessions_of_one_name_see_one_disk(play: Any) -> None:
    async def scene(house: House) -> None:
        one, two = house.client(), house.client(b"\x00\x02\x3d\0\0\2")
        assert await one.login(house.port) == 0 and await two.login(house.port) == 0
        await one.ready()
        await two.ready()
        await one.say(one.initiator.write(0, 1, b"1" * 512))
        assert (await two.say(two.initiator.read(0, 1))).data == b"1" * 512
        assert house.portal.sessions == 2

    assert len(play(scene).disks) == 1


def test_another_disk_ends_the_sessions_on_the_old_one(play: Any) -> None:
    """A new boot of an ephemeral client: the overlay has a new generation."""

    async def scene(house: House) -> None:
        old, new = house.client(), house.client(b"\x40\0\x27\x23ab")
        assert await old.login(house.port) == 0
        spec = DiskSpec("/golden.raw", 1 << 20, "sha256:x", generation=2)
        house.admission = Admission(0, MAC, TARGET, (Lun(0, spec, "525400123456"),))
        assert await new.login(house.port) == 0
        assert await old.gone()
        assert len(house.disks) == 2 and house.disks[0].calls[-1] == ("close",)
        assert house.portal.sessions == 1

    play(scene)


def test_a_disk_stays_open_for_a_while_and_is_closed_then(play: Any) -> None:
    async def scene(house: House) -> None:
        first = house.client()
        await first.login(house.port)
        first.writer.close()
        await house.until(lambda: house.portal.sessions == 0)
        second = house.client()
        await second.login(house.port)
        assert len(house.disks) == 1  # the same one
        await asyncio.sleep(0.6)  # longer than it lingers: but it is in use
        assert house.disks[0].calls == []
        second.writer.close()
        await house.until(lambda: house.disks[0].calls == [("close",)])
        assert await house.client().login(house.port) == 0
        assert len(house.disks) == 2

    play(scene)


def test_one_breath_goes_partly_by_the_express_lane(play: Any) -> None:
    """Reads that can be answered at once, then a ping, then a read again: all in order."""

    async def scene(house: House) -> None:
        client = house.client()
        await client.login(house.port)
        await client.ready()
        say = client.initiator
        client.writer.write(say.read(0, 8))
        assert (await client.answer()).opcode == 0x25
        house.disks[0].calls.clear()
        plain = say.read(8, 8) + say.write(16, 1, b"w" * 512)
        client.writer.write(plain + say.request(0x00, word20=0xFFFFFFFF) + say.read(16, 1))
        answers = [await client.answer() for _ in range(4)]
        assert [pdu.opcode for pdu in answers] == [0x25, 0x21, 0x20, 0x25]
        assert answers[3].data == b"w" * 512
        assert [pdu.stat_sn - answers[0].stat_sn for pdu in answers] == [0, 1, 2, 3]

    play(scene)


def test_closing_a_client_waits_for_its_workers(play: Any) -> None:
    async def scene(house: House) -> None:
        client = house.client()
        await client.login(house.port)
        await client.ready()
        client.writer.write(client.initiator.command(b"\x35".ljust(10, b"\0")))
        await house.until(lambda: ("flush",) in house.disks[0].calls)
        await house.portal.close(MAC)
        await house.portal.close(MAC)
        assert house.disks[0].calls[-1] == ("close",)
        assert await client.gone() or True

    play(scene)


def test_stopping_refuses_the_newcomers_and_closes_the_rest(play: Any) -> None:
    async def scene(house: House) -> None:
        client, late = house.client(), house.client()
        await client.login(house.port)
        await late.connect(house.port)
        house.portal._stopping = True
        late.writer.write(
            late.initiator.login(0x87, "InitiatorName=iqn.late", f"TargetName={TARGET}")
        )
        answer = await late.answer()
        assert answer.raw[36:38] == b"\x03\x02"
        await house.portal.stop()
        assert await client.gone()
        with pytest.raises(ConnectionRefusedError):
            await house.client().connect(house.port)

    assert play(scene).disks[0].calls[-1] == ("close",)


def test_garbage_ends_its_own_connection_only(play: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="netboot.iscsi.portal")

    async def scene(house: House) -> None:
        good = house.client()
        await good.login(house.port)
        await good.ready()
        for rubbish in (b"GET / HTTP/1.1\r\n\r\n" * 5, bytes(100), b"\xff" * 4096):
            client = await house.client().connect(house.port)
            client.writer.write(rubbish)
            assert await client.gone()
        assert (await good.say(good.initiator.read(0, 1))).opcode == 0x25

    play(scene)
    assert caplog.text.count("a connection ended") == 1  # the others are in the next one's count


def test_half_a_login_is_given_up(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netboot.iscsi.peer.LOGIN_TIMEOUT", 0.05)

    async def scene(house: House) -> None:
        client = await house.client().connect(house.port)
        client.writer.write(b"\x43")
        assert await client.gone()
        monkeypatch.setattr("netboot.iscsi.peer.LOGIN_TIMEOUT", 0.5)
        session = house.client()
        await session.login(house.port)
        await asyncio.sleep(0.6)
        await session.ready()  # it has logged in: nothing times out

    play(scene)


def test_the_oldest_half_open_connection_gives_way(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HALF_OPEN_LIMIT", 2)

    async def scene(house: House) -> None:
        clients = [await house.client().connect(house.port) for _ in range(3)]
        assert await clients[0].gone()
        assert await house.client().login(house.port) == 0

    play(scene)


def test_a_whole_lab_may_knock_in_one_moment(play: Any) -> None:
    async def scene(house: House) -> None:
        first = await house.client().connect(house.port)
        with contextlib.ExitStack() as stack:
            for _ in range(1200):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", house.port))
            keys = ("InitiatorName=iqn.a:b", f"TargetName={TARGET}", "SessionType=Normal")
            answer = await first.say(first.initiator.login(0x87, *keys, isid=first.isid))
            assert answer.raw[36:38] == b"\0\0"
        await house.until(lambda: len(house.portal._connected) == 1)

    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        play(scene)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


def test_the_oldest_discovery_session_gives_way(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HALF_OPEN_LIMIT", 2)

    async def scene(house: House) -> None:
        clients = [house.client() for _ in range(3)]
        for client in clients:
            assert await client.login(house.port, "SessionType=Discovery") == 0
        assert await clients[0].gone()
        assert await house.client().login(house.port) == 0

    play(scene)


def test_an_initiator_that_does_not_read_stops_being_read(play: Any) -> None:
    """Its answers wait in the kernel and at most a few megabytes with us; others go on."""

    async def scene(house: House) -> None:
        slow, quick = house.client(), house.client(b"\x00\x02\x3d\0\0\2")
        await slow.login(house.port, f"TargetName={TARGET}", "MaxRecvDataSegmentLength=262144")
        await slow.ready()
        await quick.login(house.port)
        await quick.ready()
        count = 120
        reads = b"".join(slow.initiator.read(0, 2048) for _ in range(count))
        slow.writer.write(reads)
        await house.until(lambda: len(house.disks[0].calls) > 3)
        assert (await quick.say(quick.initiator.read(0, 1))).opcode == 0x25
        done = len(house.disks[0].calls)
        assert done < count
        received = 0
        while received < count << 20:
            pdu = await slow.answer()
            received += len(pdu.data)
        assert received == count << 20

    play(scene)


def test_cold_reset_ends_every_session_of_the_target(play: Any) -> None:
    async def scene(house: House) -> None:
        one, two = house.client(), house.client(b"\x00\x02\x3d\0\0\2")
        await one.login(house.port)
        await two.login(house.port)
        answer = await one.say(one.initiator.request(0x02, 0x87, immediate=True))
        assert (answer.opcode, answer.byte2) == (0x22, 0)
        assert await one.gone() and await two.gone()

    play(scene)


def test_a_mistake_of_ours_ends_one_session_and_not_the_service(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(house: House) -> None:
        bad, good = house.client(), house.client(b"\x00\x02\x3d\0\0\2")
        await bad.login(house.port)
        await good.login(house.port)
        await good.ready()
        with monkeypatch.context() as patch:
            patch.setattr(Peer, "_handle", lambda self, events: 1 / 0)
            bad.writer.write(bad.initiator.command(bytes(6)))
            assert await bad.gone()
        assert (await good.say(good.initiator.read(0, 1))).opcode == 0x25

    play(scene)


def test_a_dead_session_of_the_same_name_is_found_by_tcp(play: Any) -> None:
    """The rest of a machine that was reset: its end does not exist any more and answers RST."""

    async def scene(house: House) -> None:
        dead = house.client(b"\x40\0\x27\x23aa")
        await dead.login(house.port)
        sock = dead.writer.get_extra_info("socket")
        # TCP_REPAIR takes the socket away without a word to the other end, as a reset does.
        sock.setsockopt(socket.IPPROTO_TCP, 19, 1)
        dead.writer.transport.abort()
        alive = house.client(b"\x40\0\x27\x23bb")
        assert await alive.login(house.port) == 0
        assert house.portal.sessions == 2
        await house.until(lambda: house.portal.sessions == 1)
        await alive.ready()

    house = play(scene)
    assert [report.kind for report in house.reports[:3]] == [Kind.LOGIN, Kind.LOGIN, Kind.LOGOUT]


def test_a_hundred_connections_share_one_receive_buffer(play: Any) -> None:
    async def scene(house: House) -> None:
        house.portal.limits = SessionLimits(100, 100)
        clients = [house.client(struct.pack(">HI", 2, n)) for n in range(100)]
        assert not any(await asyncio.gather(*(c.login(house.port) for c in clients)))
        await asyncio.gather(*(client.ready() for client in clients))
        writes = [c.say(c.initiator.write(n, 1, bytes([n]) * 512)) for n, c in enumerate(clients)]
        assert {answer.byte3 for answer in await asyncio.gather(*writes)} == {0}
        reads = [c.say(c.initiator.read(n, 1)) for n, c in enumerate(clients)]
        got = [answer.data[:1] for answer in await asyncio.gather(*reads)]
        assert got == [bytes([n]) for n in range(100)]

    assert len(play(scene).disks) == 1


def test_every_connection_ends_by_itself_when_nothing_is_acknowledged(play: Any) -> None:
    """Also those that have not logged in; the numbers are explained in docs/iscsi.md."""

    async def scene(house: House) -> None:
        await house.client().connect(house.port)
        assert await house.client().login(house.port) == 0
        for peer in house.portal._connected:
            sock = peer._transport.get_extra_info("socket")  # type: ignore[union-attr]
            level = socket.IPPROTO_TCP
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(level, socket.TCP_USER_TIMEOUT) == 150_000
            assert sock.getsockopt(level, socket.TCP_KEEPIDLE) == 30
            assert sock.getsockopt(level, socket.TCP_KEEPINTVL) == 10
        assert len(house.portal._connected) == 2

    play(scene)


# Several portals.

THREE = (Portal("127.0.0.1", 0, 1), Portal("127.0.0.2", 0, 2), Portal("::1", 0, 2))


def test_every_portal_leads_to_the_disk_and_names_its_group(play: Any) -> None:
    async def scene(house: House) -> None:
        for number, portal in enumerate(house.portal.portals):
            client = house.client(struct.pack(">HI", 2, number))
            assert await client.login(portal.port, host=portal.address) == 0
            assert f"TargetPortalGroupTag={portal.group}\0".encode() in client.welcome
            await client.ready()
            assert (await client.say(client.initiator.read(0, 1))).opcode == 0x25
            vpd = await client.say(
                client.initiator.command(b"\x12\1\x83\xff\xff\0", 0xFFFF, flags=0xC1)
            )
            assert f"{TARGET},t,0x{portal.group:04x}\0".encode() in vpd.data
        assert house.portal.sessions == 3

    house = play(scene, THREE)
    assert len(house.disks) == 1
    assert [knock.address for knock in house.knocks] == ["127.0.0.1", "127.0.0.1", "::1"]


def test_discovery_tells_of_all_portals_of_the_own_target(play: Any) -> None:
    async def scene(house: House) -> None:
        portal = house.portal.portals[2]
        client = house.client()
        assert await client.login(portal.port, "SessionType=Discovery", host=portal.address) == 0
        ask = client.initiator.request(0x04, word20=0xFFFFFFFF, data=b"SendTargets=All\0")
        lines = [f"TargetName={TARGET}", *(f"TargetAddress={x}" for x in house.portal.portals)]
        assert (await client.say(ask)).data == "".join(f"{line}\0" for line in lines).encode()
        assert lines[3] == f"TargetAddress=[::1]:{portal.port},2"

    play(scene, THREE)


def test_reinstatement_is_within_a_portal_group(play: Any) -> None:
    """RFC 7143 sections 4.4.3 and 6.3.5: the tag is part of the nexus, the portal is not."""

    async def scene(house: House) -> None:
        first, second, third = house.portal.portals
        one, two, again = house.client(), house.client(), house.client()
        assert await one.login(first.port) == 0
        assert await two.login(second.port, host=second.address) == 0
        assert house.portal.sessions == 2
        assert await again.login(third.port, host=third.address) == 0
        assert await two.gone()
        await one.ready()
        await again.ready()
        assert house.portal.sessions == 2

    play(scene, THREE)


# Limits.


def test_an_initiators_own_oldest_sessions_give_way_to_its_newest(play: Any) -> None:
    """An iPXE in a boot loop leaves one behind at each turn."""

    async def scene(house: House) -> None:
        house.portal.limits = SessionLimits(100, 3)
        clients = [house.client(struct.pack(">HI", 2, n)) for n in range(5)]
        for client in clients:
            assert await client.login(house.port) == 0
        assert await clients[0].gone() and await clients[1].gone()
        assert house.portal.sessions == 3
        for client in clients[2:]:
            await client.ready()

    house = play(scene)
    leaving = [report.detail for report in house.reports if report.kind is Kind.LOGOUT]
    assert leaving[:2] == ["the same initiator has too many sessions"] * 2


@pytest.mark.parametrize("limits", [SessionLimits(2, 16), SessionLimits(100, 2)])
def test_nobody_throws_out_another(play: Any, limits: SessionLimits) -> None:
    async def scene(house: House) -> None:
        house.portal.limits = limits
        old = [house.client(), house.client(b"\0\2\x3d\0\0\2")]
        assert [await old[0].login(house.port), await old[1].login(house.port, name="iqn.c")] == [
            0,
            0,
        ]
        new = house.client(b"\0\2\x3d\0\0\3")
        assert await new.login(house.port, name="iqn.new") == 0x0302
        assert await new.gone()
        for client in old:
            await client.ready()
        assert await house.client().login(house.port) == 0  # reinstatement needs no room
        await house.until(lambda: house.portal.sessions == 2)
        assert await house.client(b"\0\2\x3d\0\0\4").login(house.port, name="iqn.c") == 0
        assert await old[1].gone()

    house = play(scene)
    (refusal,) = [report for report in house.reports if report.kind is Kind.ERROR]
    assert refusal.initiator == "iqn.new" and "as many sessions as there may be" in refusal.detail


def test_limits_that_were_lowered_throw_out_nobody_for_a_refusal(play: Any) -> None:
    async def scene(house: House) -> None:
        clients = [house.client(struct.pack(">HI", 2, n)) for n in range(4)]
        for number, client in enumerate(clients):
            assert await client.login(house.port, name=f"iqn.{number // 3}") == 0
        house.portal.limits = SessionLimits(100, 2)
        assert await house.client(b"\0\2\x3d\0\0\7").login(house.port, name="iqn.1") == 0x0302
        assert house.portal.sessions == 4
        assert await house.client(b"\0\2\x3d\0\0\7").login(house.port, name="iqn.0") == 0
        assert house.portal.sessions == 2
        await clients[3].ready()

    play(scene)


def test_who_finds_no_room_leaves_the_disk_as_it_was(play: Any) -> None:
    """The disk was opened for it, and closes again."""

    async def scene(house: House) -> None:
        house.portal.limits = SessionLimits(0, 1)
        assert await house.client().login(house.port) == 0x0302
        await house.until(lambda: house.disks[0].calls == [("close",)])

    play(scene)


# Going elsewhere, and leaving.


def test_a_redirect_is_the_first_answer(play: Any) -> None:
    async def scene(house: House) -> None:
        moved = Admission(0x0101, MAC, TARGET, detail="drained", redirect="192.0.2.2:3260")
        house.admission = moved
        client = house.client()
        assert await client.login(house.port) == 0x0101
        assert client.welcome == b"TargetAddress=192.0.2.2:3260\0"
        assert await client.gone()

    assert play(scene).disks == []


LINUX, IPXE, EDK2 = b"\0\2\x3d\0\0\1", b"\x40\0\x27\x23ab", b"\0RT\0\x12\x34"


def test_a_planned_stop_asks_operating_systems_to_log_out(play: Any) -> None:
    async def scene(house: House) -> None:
        house.systems.add(LINUX.hex())
        linux, others = house.client(LINUX), [house.client(IPXE), house.client(EDK2)]
        for client in (linux, *others):
            assert await client.login(house.port) == 0
            await client.ready()
        stopping = asyncio.ensure_future(house.portal.stop())
        message = await linux.answer()
        assert (message.opcode, message.raw[36], message.raw[42:44]) == (0x32, 1, b"\0\3")
        late = house.client(LINUX)
        assert await late.login(house.port) == 0x0302  # it logs in again, and waits
        # Until it has gone, everybody is served.
        assert (await linux.say(linux.initiator.write(0, 1, b"l" * 512))).byte3 == 0
        assert (await others[0].say(others[0].initiator.read(0, 1))).data == b"l" * 512
        assert (await linux.say(linux.initiator.request(0x06))).opcode == 0x26
        with pytest.raises(ConnectionRefusedError):  # and not accepted, to be reset at once
            await house.client(LINUX).connect(house.port)
        await asyncio.wait_for(stopping, 2)  # sooner than the time it was given
        for client in others:  # nothing came that they had not asked for
            with contextlib.suppress(ConnectionResetError):
                assert await client.reader.read() == b""

    house = play(scene)
    assert house.disks[0].calls[-1] == ("close",)
    assert next(r.detail for r in house.reports if r.kind is Kind.LOGOUT) == "logout"


def test_who_does_not_log_out_is_not_waited_for_long(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Linux whose initramfs attached the disk has nobody to hear the request."""
    monkeypatch.setattr(module, "GRACE", 1)

    async def scene(house: House) -> None:
        house.systems.add(LINUX.hex())
        client = house.client(LINUX)
        assert await client.login(house.port) == 0
        await asyncio.wait_for(house.portal.stop(), 10)
        assert (await client.answer()).opcode == 0x32
        assert await client.gone()

    assert play(scene).disks[0].calls[-1] == ("close",)


def test_closing_politely_and_not(play: Any) -> None:
    async def scene(house: House) -> None:
        house.systems.add(LINUX.hex())
        client = house.client(LINUX)
        assert await client.login(house.port) == 0
        closing = asyncio.ensure_future(house.portal.close(MAC, politely=True))
        assert (await client.answer()).opcode == 0x32
        again = asyncio.ensure_future(house.client(LINUX).login(house.port))
        await client.say(client.initiator.request(0x06))
        await closing
        assert await again == 0 and len(house.disks) == 2  # it waited at the door meanwhile
        await house.portal.close(MAC)
        assert await house.clients[-1].gone()  # without a word

    play(scene)

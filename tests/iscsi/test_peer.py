"""One connection without a network: a transport that remembers, and a house that obeys."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netboot.iscsi.entering import Arrived
from netboot.iscsi.outlet import Outlet
from netboot.iscsi.peer import (
    GATHER,
    GIVE_UP,
    GOODBYE,
    HIGH_WATER,
    WAITING_LIMIT,
    Peer,
)
from netboot.iscsi.reading import SMALL_ROOM
from netboot.iscsi.server import Edge
from netboot.iscsi.session import READING_LIMIT
from netboot.iscsi.spin import EVERY, Spin
from netboot.model import Admission, Knock, Portal
from tests.iscsi.uncompiled import without

PORTAL = Portal("192.168.77.1", 3260)


class Socket:
    """Notes the options that are set."""

    def __init__(self) -> None:
        self.options: dict[int, int] = {}
        self.number = -1

    def fileno(self) -> int:
        return self.number

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options[option] = value


class Transport(asyncio.Transport):
    """Takes what is written; says when it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = Socket()
        self.writes: list[bytes] = []
        self.reading = True
        self.closing = False
        self.buffered = 0
        self.limits: tuple[Any, ...] = ()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {
            "socket": self.socket,
            "peername": ("192.168.77.50", 4711),
        }[name]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def writelines(self, list_of_data: Any) -> None:
        self.writes.append(b"".join(map(bytes, list_of_data)))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


class House:
    """Keeps what it hears; a knock is answered by the test."""

    def __init__(self) -> None:
        self.reading: Any = SimpleNamespace(gate=None)
        self.reading.room = memoryview(bytearray(8 * SMALL_ROOM))
        self.reading.small = self.reading.room[:SMALL_ROOM]
        self.reading.spin = Spin(lambda look: None, lambda: 0.0)
        self.portals = (PORTAL, Portal("fd00::1", 3260, 2))
        self.heard: list[tuple[Any, ...]] = []

    def entered(self, peer: Peer) -> None:
        self.heard.append(("entered",))

    def knocked(self, peer: Peer, knock: Knock) -> None:
        self.heard.append(("knocked", knock))

    def arrived(self, peer: Peer, arrived: Arrived) -> None:
        self.heard.append(("arrived", arrived))

    def takes_leave(self, peer: Peer) -> None:
        self.heard.append(("leave",))

    def left(self, peer: Peer, why: str) -> None:
        self.heard.append(("left", why))

    def disconnect_all(self, peer: Peer) -> None:
        self.heard.append(("disconnect",))


def _over_python() -> type[Peer]:
    """The class once more, as it is where nobody could compile the inlet."""
    module = without("netboot.iscsi.intake", "netboot.iscsi.peer")
    return cast(type[Peer], module.Peer)


PEERS = {"python": _over_python(), "compiled": Peer}


@pytest.fixture(params=PEERS, autouse=True)
def used(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything with both inlets."""
    monkeypatch.setitem(globals(), "Peer", PEERS[request.param])


def test_the_compiled_inlet_is_taken_where_it_was_built() -> None:
    assert [each.__mro__[1].__module__ for each in PEERS.values()] == [
        "netboot.iscsi.inlet",
        "netboot.iscsi.intake",
    ]


class Rig:
    """A peer that is connected to nobody, over the bench's disk."""

    def __init__(self, bench: Any, initiator: Any, pdus: Any) -> None:
        self.bench, self.initiator, self.pdus = bench, initiator, pdus
        self.house, self.transport = House(), Transport()
        self.peer = Peer(self.house, PORTAL)
        self.peer.connection_made(self.transport)

    def say(self, *parts: bytes) -> list[Any]:
        """Hand bytes to the peer as a socket does; the PDUs that come back."""
        data = b"".join(parts)
        buffer = self.peer.get_buffer(-1)
        buffer[: len(data)] = data
        self.peer.buffer_updated(len(data))
        buffer[: len(data)] = b"\xee" * len(data)  # whoever kept a view of it reads rubbish
        return self.take()

    def take(self) -> list[Any]:
        stream, self.transport.writes = b"".join(self.transport.writes), []
        return list(self.pdus(stream))

    def enter(self) -> "Rig":
        self.say(
            self.initiator.login(0x87, "InitiatorName=iqn.a", "TargetName=t", "ImmediateData=Yes")
        )
        self.peer.admit(Admission(0, "52:54:00:12:34:56", "t"))
        nexus = self.bench.units.attach("iqn.a", b"123456")
        edge = Edge(
            *(self.peer.engine, self.bench.units, nexus, self.bench.volumes),
            *(self.peer.send, lambda: None),
        )
        self.peer.establish(edge, 1)
        self.say(self.initiator.command(bytes(6)))
        return self


@pytest.fixture
def play(bench: Any, initiator: Any, pdus: Any) -> Callable[[Callable[[Rig], None]], None]:
    """Runs a scene inside an event loop: timers need one."""

    def run(scene: Callable[[Rig], None]) -> None:
        async def main() -> None:
            rig = Rig(bench, initiator, pdus)
            scene(rig)
            if not rig.peer.closed:
                rig.peer.close("the end of the test")

        asyncio.run(main())

    return run


def test_the_socket_finds_out_who_is_dead(play: Any) -> None:
    def scene(rig: Rig) -> None:
        options = rig.transport.socket.options
        assert options[socket.TCP_NODELAY] == options[socket.SO_KEEPALIVE] == 1
        assert options[socket.TCP_USER_TIMEOUT] == GIVE_UP * 1000
        assert options[socket.TCP_KEEPIDLE] == 30
        assert rig.transport.limits[0] == HIGH_WATER
        rig.peer.probe()
        assert options[socket.TCP_KEEPIDLE] == options[socket.TCP_KEEPINTVL] == 1
        assert options[socket.TCP_USER_TIMEOUT] == GIVE_UP * 1000  # silence alone kills nobody

    play(scene)


def test_who_is_gone_before_it_is_greeted_is_let_go(bench: Any, initiator: Any, pdus: Any) -> None:
    """A reset that comes before the accept: the kernel has no address to name any more."""

    class Gone(Transport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return None if name == "peername" else super().get_extra_info(name)

    async def main() -> None:
        transport, house = Gone(), House()
        peer = Peer(house, PORTAL)
        peer.connection_made(transport)
        assert transport.closing and peer.closed
        peer.connection_lost(None)
        assert house.heard == []

    asyncio.run(main())


def test_nothing_is_read_between_a_knock_and_its_answer(play: Any) -> None:
    def scene(rig: Rig) -> None:
        assert rig.say(rig.initiator.login(0x87, "InitiatorName=iqn.a", "TargetName=t")) == []
        assert not rig.transport.reading
        assert rig.house.heard[1] == (
            "knocked",
            Knock("iqn.a", "t", "192.168.77.50", "400027231234", False),
        )
        rig.peer.admit(Admission(0, "m", "t"))
        assert not rig.transport.reading and rig.house.heard[2][0] == "arrived"
        rig.peer.establish(None, 1)
        assert rig.transport.reading

    play(scene)


def test_a_refusal_is_sent_before_the_connection_is_closed(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.say(rig.initiator.login(0x87, "InitiatorName=iqn.a", "TargetName=t"))
        rig.peer.admit(Admission(0x0301, detail="later"))
        (answer,) = rig.take()
        assert answer.raw[36:38] == b"\x03\x01"
        assert rig.transport.closing and rig.peer.closed
        rig.peer.connection_lost(None)
        assert "later" in rig.house.heard[-1][1]

    play(scene)


def test_a_late_refusal(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.say(rig.initiator.login(0x87, "InitiatorName=iqn.a", "TargetName=t"))
        rig.peer.admit(Admission(0, "m", "t"))
        rig.peer.refuse(0x0302, "stopping")
        assert rig.take()[0].raw[36:38] == b"\x03\x02" and rig.transport.closing

    play(scene)


def test_one_send_for_everything_in_a_chunk(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        stream = b"".join(rig.initiator.read(n, 1) for n in range(32))
        buffer = rig.peer.get_buffer(-1)
        buffer[: len(stream)] = stream
        rig.peer.buffer_updated(len(stream))
        assert len(rig.transport.writes) == 1
        assert len(rig.take()) == 32

    play(scene)


def test_many_small_answers_are_sent_in_parts(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        rig.bench.disk.read = lambda offset, length: [bytes(64)] * (length // 64)
        rig.bench.disk.at_once = lambda offset, length: None  # by the long way
        stream = b"".join(rig.initiator.read(0, 1) for _ in range(120))
        buffer = rig.peer.get_buffer(-1)
        buffer[: len(stream)] = stream
        rig.peer.buffer_updated(len(stream))
        assert len(rig.transport.writes) == 120 * 9 // GATHER + 1
        assert len(rig.take()) == 120

    play(scene)


def test_events_wait_while_the_initiator_does_not_read(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        rig.peer.pause_writing()
        assert not rig.transport.reading
        ping = rig.initiator.request(0x00, word20=0xFFFFFFFF)
        answers = rig.say(rig.initiator.write(0, 1, b"w" * 512), rig.initiator.read(0, 1), ping)
        assert [pdu.opcode for pdu in answers] == [0x20]  # the engine's own
        assert rig.bench.disk.calls == []
        rig.peer.resume_writing()
        write, read = rig.take()
        assert (write.opcode, read.data) == (0x21, b"w" * 512)  # a copy was kept
        assert rig.transport.reading

    play(scene)


def test_events_that_wait_keep_their_order_when_it_gets_full_again(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        rig.peer.pause_writing()
        reads = [rig.initiator.read(n, 256) for n in range(4)]
        rig.say(*reads)
        sent = rig.transport.writelines

        def full(data: Any) -> None:
            sent(data)
            rig.peer.pause_writing()

        rig.transport.writelines = full  # type: ignore[method-assign]
        order = []
        for _ in range(4):
            rig.peer.resume_writing()
            order += [pdu.itt for pdu in rig.take() if pdu.flags & 1]
            assert not rig.transport.reading
        assert order == sorted(order) and len(order) == 4

    play(scene)


def test_a_late_answer_after_the_end_is_not_sent(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        rig.bench.disk.cold = True
        rig.say(rig.initiator.read(0, 1))
        rig.peer.connection_lost(ConnectionResetError("reset by peer"))
        assert rig.house.heard[-1] == ("left", "reset by peer")
        rig.bench.workers.work()
        assert rig.take() == [] and not rig.bench.volume.tasks.all()

    play(scene)


def test_logout_closes_after_the_answer(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        (answer,) = rig.say(rig.initiator.request(0x06))
        assert answer.opcode == 0x26 and rig.transport.closing
        rig.peer.connection_lost(None)
        assert rig.house.heard[-1] == ("left", "logout")

    play(scene)


@pytest.mark.parametrize("how", ["logout", "hang up"])
def test_the_last_answers_are_not_kept_for_ever(play: Any, how: str) -> None:
    """Somebody logs out, and then reads nothing."""

    def scene(rig: Rig) -> None:
        rig.enter()
        aborted = []
        rig.transport.abort = lambda: aborted.append(how)  # type: ignore[method-assign]
        if how == "logout":
            rig.say(rig.initiator.request(0x06))
        else:
            rig.peer.hang_up("target cold reset")
        timer = rig.peer._timer
        assert rig.transport.closing and not aborted and timer is not None
        assert timer.when() - asyncio.get_running_loop().time() <= GOODBYE
        timer._run()  # type: ignore[attr-defined]
        assert aborted == [how]
        rig.peer.connection_lost(None)
        assert timer.cancelled() and rig.peer._timer is None

    play(scene)


def test_cold_reset_is_answered_and_passed_on(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        (answer,) = rig.say(rig.initiator.request(0x02, 0x87, immediate=True))
        assert (answer.opcode, answer.byte2) == (0x22, 0)
        assert rig.house.heard[-1] == ("disconnect",)

    play(scene)


def test_a_mistake_of_ours_is_logged_and_ends_the_connection(
    play: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        rig.bench.disk.read = lambda offset, length: 1 / 0
        with caplog.at_level(logging.ERROR):
            rig.say(rig.initiator.read(0, 1))
        assert rig.peer.closed and rig.transport.closing
        assert "a session of iqn.a failed" in caplog.text

    play(scene)


@pytest.mark.parametrize("method", ["receive", "admit", "establish", "refuse"])
def test_a_mistake_in_the_parser_ends_the_connection_too(
    play: Any, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """Otherwise the loop would end the protocol, and nobody would hear why."""

    def scene(rig: Rig) -> None:
        rig.say(rig.initiator.login(0x87, "InitiatorName=iqn.a", "TargetName=t"))
        if method in ("establish", "refuse"):
            rig.peer.admit(Admission(0, "m", "t"))
        setattr(rig.peer.engine, method, lambda *_: 1 // 0)
        steps = {
            "receive": lambda: rig.say(bytes(48)),
            "admit": lambda: rig.peer.admit(Admission(0, "m", "t")),
            "establish": lambda: rig.peer.establish(None, 1),
            "refuse": lambda: rig.peer.refuse(0x0302, "no"),
        }
        with caplog.at_level(logging.ERROR):
            steps[method]()
        assert rig.peer.closed and rig.transport.closing
        assert "failed" in caplog.text and "ZeroDivisionError" in caplog.text

    play(scene)


def test_who_is_gone_is_neither_admitted_nor_asked_to_leave(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.say(rig.initiator.login(0x87, "InitiatorName=iqn.a", "TargetName=t"))
        rig.peer.connection_lost(None)
        assert rig.peer.gone.is_set()
        rig.peer.admit(Admission(0, "m", "t"))
        rig.peer.refuse(0x0302, "no")
        rig.peer.ask_to_leave(3)
        assert rig.take() == [] and [heard[0] for heard in rig.house.heard][-1] == "left"

    play(scene)


def test_an_operating_system_is_asked_to_log_out(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        rig.peer.ask_to_leave(3)
        (message,) = rig.take()
        assert (message.opcode, message.raw[36]) == (0x32, 1) and not rig.peer.closed

    play(scene)


def test_commands_wait_while_too_much_is_being_read(play: Any) -> None:
    """Pings go on; what waits runs in its order when the workers have caught up."""

    def scene(rig: Rig) -> None:
        rig.enter()
        rig.bench.disk.cold = True
        limit = READING_LIMIT // (1 << 20)
        reads = [rig.initiator.read(0, 2048) for _ in range(limit + 3)]
        ping = rig.initiator.request(0x00, word20=0xFFFFFFFF)
        assert [pdu.opcode for pdu in rig.say(*reads, ping)] == [0x20]
        assert rig.peer.engine.session.reading == (limit + 1) << 20
        assert len(rig.bench.workers.jobs) == limit + 1 and rig.transport.reading
        abort = rig.initiator.request(0x02, 0x81, word20=rig.initiator.itt - 1, immediate=True)
        assert rig.say(abort) == []  # in its turn
        rig.bench.workers.work()
        answers = rig.take()
        assert [pdu.byte2 for pdu in answers if pdu.opcode == 0x22] == [0]
        done = [pdu.itt for pdu in answers if pdu.opcode == 0x25 and pdu.flags & 1]
        assert done == sorted(done) and len(done) == limit + 2  # but the one that was aborted
        assert rig.peer.engine.session.reading == 0 and not rig.peer.engine.session.tasks

    play(scene)


def test_who_sends_much_is_read_in_large_chunks_and_who_asks_much_in_small_ones(
    play: Any,
) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        assert len(rig.peer.get_buffer(-1)) == SMALL_ROOM
        data = rig.initiator.request(0x00, word20=0xFFFFFFFF, data=bytes(SMALL_ROOM - 48))
        rig.say(data)
        assert len(rig.peer.get_buffer(-1)) == 8 * SMALL_ROOM
        rig.say(data[:SMALL_ROOM])  # more of the same, and reads as many as may be under way
        rig.say(*(rig.initiator.read(0, 1) for _ in range(128)))
        assert len(rig.peer.get_buffer(-1)) == 8 * SMALL_ROOM
        ping = rig.initiator.request(0x00, word20=0xFFFFFFFF, immediate=True)
        assert len(rig.say(ping * 600)) == 600
        assert len(rig.peer.get_buffer(-1)) == SMALL_ROOM
        rig.say(ping * 4)
        assert len(rig.peer.get_buffer(-1)) == SMALL_ROOM

    play(scene)


def test_reading_stops_when_too_many_events_wait(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        rig.bench.disk.cold = True
        rig.say(*(rig.initiator.read(0, 2048) for _ in range(20)))
        abort = rig.initiator.request(0x02, 0x81, word20=7, immediate=True)
        rig.say(abort * (WAITING_LIMIT - 4))
        assert rig.transport.reading
        rig.say(abort)
        assert not rig.transport.reading
        rig.bench.workers.work()
        assert rig.transport.reading
        assert len([pdu for pdu in rig.take() if pdu.opcode == 0x22]) == WAITING_LIMIT - 3

    play(scene)


def test_garbage_closes(play: Any) -> None:
    def scene(rig: Rig) -> None:
        assert rig.say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3) == []
        assert rig.transport.closing

    play(scene)


def test_the_end_of_the_stream_closes_the_transport(play: Any) -> None:
    def scene(rig: Rig) -> None:
        assert not rig.peer.eof_received()

    play(scene)


def test_a_login_that_takes_too_long(bench: Any, initiator: Any, pdus: Any) -> None:
    async def main() -> None:
        rig = Rig(bench, initiator, pdus)
        assert rig.peer._timer is not None
        rig.peer._timer._run()  # type: ignore[attr-defined]
        assert rig.transport.closing
        rig.peer.connection_lost(None)
        assert rig.house.heard[-1] == ("left", "the login took too long")

    asyncio.run(main())


def test_what_comes_is_counted_for_those_who_keep_the_loop_awake(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        considered: list[int] = []
        spin = rig.house.reading.spin
        spin.consider = lambda: considered.append(spin.came)  # type: ignore[method-assign]
        before = spin.came
        for _ in range(2 * (EVERY + 1)):
            rig.say(rig.initiator.read(0, 1))
        assert spin.came == before + 2 * (EVERY + 1)
        assert len(considered) == 2

    play(scene)


def test_the_lane_is_free_again_behind_a_pdu_in_two_pieces(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        calls: list[int] = []
        run = rig.peer._lane.run
        counted = SimpleNamespace(run=lambda *args: calls.append(run(*args)) or calls[-1])
        rig.peer._lane = counted
        stream = b"".join(rig.initiator.write(8 * n, 1, bytes([n]) * 512) for n in range(4))
        assert len(rig.say(stream[:700])) == 1
        assert len(rig.say(stream[700:])) == 3
        assert calls == [560, 0, 0, 1120]
        assert bytes(rig.bench.disk.data[12288:12800]) == b"\3" * 512

    play(scene)


def test_a_breaths_tags_are_forgotten_with_the_next_one(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.enter()
        for _ in range(3):
            whole = rig.initiator.read(0, 1, itt=5), rig.initiator.read(1, 1, itt=6)
            first = rig.say(whole[0] + whole[1][:20])
            assert [pdu.opcode for pdu in first + rig.say(whole[1][20:])] == [0x25, 0x25]

    play(scene)


def test_answers_of_the_lane_go_straight_to_the_socket(play: Any) -> None:
    def scene(rig: Rig) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            rig.enter()
            rig.peer._outlet = Outlet(rig.transport, ours.fileno())
            for asked in range(2):  # by the transport's leave, then without asking it
                assert rig.peer._outlet.waits is not bool(asked)
                assert rig.say(rig.initiator.read(0, 8)) == []
                assert [pdu.opcode for pdu in rig.pdus(theirs.recv(8192))] == [0x25]

    play(scene)


def test_what_a_request_will_touch_is_known_when_the_session_begins(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nearby:
        def __init__(self, *objects: object) -> None:
            self.objects = objects

    monkeypatch.setattr("netboot.iscsi.server.Nearby", Nearby)

    def scene(rig: Rig) -> None:
        assert rig.peer._nearby is None  # nobody knows whose it is
        rig.enter()
        objects = rig.peer._nearby.objects  # type: ignore[union-attr]
        assert rig.peer in objects and rig.peer._outlet in objects and rig.peer.engine in objects
        assert rig.transport not in objects and rig.peer.edge not in objects  # not at the gate

    play(scene)


class Gate:
    """Notes who is read."""

    def __init__(self) -> None:
        self.read: dict[int, Peer] = {}

    def add(self, fd: int, peer: Peer) -> None:
        self.read[fd] = peer

    def remove(self, fd: int, peer: Peer) -> None:
        if self.read.get(fd) is peer:
            del self.read[fd]


def test_a_session_is_read_at_the_gate_and_a_login_by_the_loop(play: Any) -> None:
    def scene(rig: Rig) -> None:
        gate = rig.house.reading.gate = Gate()
        rig.peer._fd = 7
        assert rig.transport.reading and not gate.read
        rig.enter()
        assert gate.read == {7: rig.peer} and not rig.transport.reading
        rig.peer.pause_writing()
        assert not gate.read
        rig.peer.resume_writing()
        assert gate.read == {7: rig.peer} and not rig.transport.reading
        rig.peer.connection_lost(None)
        assert not gate.read

    play(scene)


@pytest.mark.parametrize("how", ["close", "hang_up"])
def test_who_is_closed_is_not_read_any_more(play: Any, how: str) -> None:
    def scene(rig: Rig) -> None:
        gate = rig.house.reading.gate = Gate()
        rig.enter()
        assert gate.read
        getattr(rig.peer, how)("enough")
        assert not gate.read

    play(scene)


@pytest.mark.parametrize(
    ("error", "why"),
    [(0, "closed by the initiator"), (errno.ETIMEDOUT, "[Errno 110] Connection timed out")],
)
def test_the_end_at_the_gate_is_seen_by_the_loop_and_told(play: Any, error: int, why: str) -> None:
    def scene(rig: Rig) -> None:
        gate = rig.house.reading.gate = Gate()
        rig.enter()
        gate.remove(-1, rig.peer)
        rig.peer.over(error)
        assert rig.transport.reading and not gate.read
        rig.peer.connection_lost(None)
        assert rig.house.heard[-1] == ("left", why)

    play(scene)


def test_a_discovery_is_read_by_the_loop(play: Any) -> None:
    def scene(rig: Rig) -> None:
        rig.house.reading.gate = Gate()
        rig.say(rig.initiator.login(0x87, "InitiatorName=iqn.a", "SessionType=Discovery"))
        rig.peer.admit(Admission(0, "", ""))
        rig.peer.establish(None, 1)
        assert rig.transport.reading and not rig.house.reading.gate.read

    play(scene)

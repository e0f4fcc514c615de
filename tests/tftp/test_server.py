"""The server on loopback, against a client written here packet by packet. With both rolls."""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ConfigError
from netboot.tftp import server as module
from netboot.tftp import wire
from netboot.tftp.link import send_segmented
from netboot.tftp.server import TftpEvent, TftpServer
from netboot.tftp.wire import Ack, Data, Error, ErrorCode, Opcode, OptionAck, Request

pytestmark = pytest.mark.usefixtures("used")

BIG = bytes(range(256)) * 400 + b"end"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small").write_bytes(b"hello\n")
    (tmp_path / "big").write_bytes(BIG)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.efi").write_bytes(b"x" * 512)
    return tmp_path


class Peer:
    """A client's port; all waiting is bounded by the socket's timeout."""

    def __init__(self, server: TftpServer) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(10)
        self.door = ("127.0.0.1", server.port)
        self.tid = self.door
        self.server = server

    def until(self, check: Callable[[TftpServer], object]) -> None:
        """Wait for what the server does with a packet that has no answer."""
        for _ in range(10_000):
            if check(self.server):
                return
            time.sleep(0.001)
        raise AssertionError("the server did not get there")

    def ask(self, name: str, mode: str = "octet", **options: int) -> wire.Packet:
        asked = {key: str(value) for key, value in options.items()}
        self.send(wire.encode(Request(Opcode.RRQ, name, mode, asked)), self.door)
        return self.hear()

    def send(self, data: bytes, where: tuple[str, int] | None = None) -> None:
        self.sock.sendto(data, where or self.tid)

    def ack(self, block: int) -> None:
        self.send(wire.encode(Ack(block)))

    def hear(self) -> wire.Packet:
        data, self.tid = self.sock.recvfrom(65535)
        return wire.parse(data)

    def fetch(self, name: str, mode: str = "octet", **options: int) -> bytes:
        packet = self.ask(name, mode, **options)
        size, window, got, last = 512, 1, bytearray(), 0
        if isinstance(packet, OptionAck):
            size = int(packet.options.get("blksize", 512))
            window = int(packet.options.get("windowsize", 1))
            self.ack(0)
            packet = self.hear()
        while True:
            assert isinstance(packet, Data), packet
            assert packet.block == (last + 1) & 0xFFFF
            last += 1
            got += packet.payload
            short = len(packet.payload) < size
            if short or last % window == 0:
                self.ack(last & 0xFFFF)
            if short:
                return bytes(got)
            packet = self.hear()


Talk = Callable[[Peer], Any]


def serve(
    folder: Path,
    talk: Talk,
    *,
    check: Callable[[TftpServer], object] | None = None,
    **settings: Any,
) -> tuple[Any, TftpServer, list[TftpEvent]]:
    """Run ``talk`` in a thread against a server; returns its result, the server, the events."""
    events: list[TftpEvent] = []

    async def main() -> tuple[Any, TftpServer]:
        server = TftpServer("127.0.0.1", [folder], events.append, port=0, **settings)
        await server.start()
        peer = Peer(server)
        try:
            result = await asyncio.to_thread(talk, peer)
            await settled(server, check or (lambda server: not server.counters.active))
        finally:
            peer.sock.close()
            await server.stop()
        return result, server

    result, server = asyncio.run(main())
    return result, server, events


async def settled(server: TftpServer, check: Callable[[TftpServer], object]) -> None:
    """Until the server has read what was sent last."""
    async with asyncio.timeout(10):
        while not check(server):
            await asyncio.sleep(0.001)


def kinds(events: list[TftpEvent]) -> list[str]:
    return [event.kind for event in events]


@pytest.fixture(params=[False, True], ids=["own-ports", "single-port"])
def single_port(request: pytest.FixtureRequest) -> Iterator[bool]:
    yield request.param


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blksize": 1468},
        {"tsize": 0},
        {"blksize": 8},
        {"windowsize": 16, "blksize": 1468},
        {"windowsize": 4},
        {"blksize": 65464, "windowsize": 64},
        {"timeout": 7, "tsize": 0, "blksize": 1432, "windowsize": 2},
    ],
    ids=str,
)
def test_the_file_whole(folder: Path, options: dict[str, int], single_port: bool) -> None:
    got, server, events = serve(
        folder, lambda peer: peer.fetch("big", **options), single_port=single_port
    )
    assert got == BIG
    assert events == [
        TftpEvent("127.0.0.1", "big", "start"),
        TftpEvent("127.0.0.1", "big", "done", len(BIG)),
    ]
    counters = server.counters
    assert (counters.requests, counters.done, counters.active) == (1, 1, 0)
    assert (counters.bytes, counters.resent, counters.garbage) == (len(BIG), 0, 0)


@pytest.mark.parametrize("name", ["/small", "\\small", "./small", "//small"])
def test_names_as_roms_write_them(folder: Path, name: str) -> None:
    assert serve(folder, lambda peer: peer.fetch(name, "OCTET"))[0] == b"hello\n"


def test_netascii(folder: Path) -> None:
    assert serve(folder, lambda peer: peer.fetch("small", "netascii"))[0] == b"hello\r\n"


def test_tsize_is_the_size(folder: Path) -> None:
    def talk(peer: Peer) -> wire.Packet:
        answer = peer.ask("big", tsize=0)
        peer.send(wire.encode(Error(8, "size known")))
        return answer

    answer, server, events = serve(folder, talk)
    assert answer == OptionAck({"tsize": str(len(BIG))})
    assert kinds(events) == ["probe"]
    assert (server.counters.probes, server.counters.failed) == (1, 0)


@pytest.mark.parametrize("name", ["nothing", "sub", "../secret", "sub/../../secret", "x" * 400])
def test_what_is_not_there(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"no")
    answer, server, events = serve(folder, lambda peer: peer.ask(name))
    assert answer == Error(ErrorCode.NOT_FOUND, "there is no such file")
    assert kinds(events) == ["missing"]
    assert server.counters.missing == 1


def test_what_cannot_be_opened_is_told_once_with_its_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("netboot.tftp.server.File", closed)
    answer, _, events = serve(folder, lambda peer: peer.ask("small"))
    assert answer == Error(ErrorCode.ACCESS_VIOLATION, "it cannot be opened")
    (event,) = events
    assert event.kind == "missing"
    assert event.detail == f"{folder / 'small'} cannot be opened: Permission denied"
    assert caplog.text == ""


def test_writing_is_refused_and_nothing_is_written(folder: Path) -> None:
    def talk(peer: Peer) -> wire.Packet:
        peer.send(wire.encode(Request(Opcode.WRQ, "new")), peer.door)
        return peer.hear()

    answer, server, events = serve(folder, talk)
    assert isinstance(answer, Error)
    assert answer.code == ErrorCode.ACCESS_VIOLATION
    assert not (folder / "new").exists()
    assert (server.counters.refused, events) == (1, [])


def test_garbage_is_counted_and_the_service_goes_on(folder: Path) -> None:
    def talk(peer: Peer) -> bytes:
        for data in (b"", b"\0", b"\0\1", b"\xff" * 1400, b"\0\5\0\0err\0", os.urandom(3)):
            peer.send(data, peer.door)
        return peer.fetch("small")

    got, server, _ = serve(folder, talk)
    assert got == b"hello\n"
    assert server.counters.garbage == 6


def test_an_ack_at_the_door_is_told_that_there_is_no_such_transfer(folder: Path) -> None:
    def talk(peer: Peer) -> wire.Packet:
        peer.send(wire.encode(Ack(1)), peer.door)
        return peer.hear()

    answer, _, _ = serve(folder, talk)
    assert isinstance(answer, Error)
    assert answer.code == ErrorCode.UNKNOWN_TID


def test_a_stranger_does_not_disturb_a_transfer(
    folder: Path, single_port: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def talk(peer: Peer) -> tuple[bytes, bytes]:
        first = peer.ask("big")
        assert isinstance(first, Data)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for data in (wire.encode(Ack(1)), wire.encode(Error(0, "stop")), b"junk"):
                stranger.sendto(data, peer.tid)
        peer.ack(1)
        second = peer.hear()
        assert isinstance(second, Data)
        peer.send(wire.encode(Error(0, "enough")))
        return first.payload, second.payload

    got, server, events = serve(folder, talk, single_port=single_port)
    assert got == (BIG[:512], BIG[512:1024])
    assert server.counters.failed == 1
    assert (kinds(events)[-1], "enough" in events[-1].detail) == ("failed", True)
    assert caplog.text == ""  # whoever hears the event knows the name of the machine


def test_a_repeated_request_has_one_transfer(folder: Path) -> None:
    def talk(peer: Peer) -> list[Any]:
        first = peer.ask("small", tsize=0)
        tid = peer.tid
        again = peer.ask("small", tsize=0)
        assert peer.tid == tid
        peer.ack(0)
        block = peer.hear()
        peer.ack(1)
        return [first, again, block]

    got, server, events = serve(folder, talk)
    assert got == [OptionAck({"tsize": "6"}), OptionAck({"tsize": "6"}), Data(1, b"hello\n")]
    assert kinds(events) == ["start", "done"]
    assert server.counters.requests == 2


def test_another_request_from_the_same_port_begins_anew(folder: Path, single_port: bool) -> None:
    """Some ROMs ask for every file from one port, also when the last ACK of one was lost."""

    def talk(peer: Peer) -> bytes:
        assert peer.ask("big") == Data(1, BIG[:512])
        return peer.fetch("small")

    got, _, events = serve(folder, talk, single_port=single_port)
    assert got == b"hello\n"
    assert kinds(events) == ["start", "failed", "start", "done"]
    assert events[1].detail == "the client began again"


def test_a_late_copy_of_the_request_does_not_disturb_a_lively_transfer(folder: Path) -> None:
    def talk(peer: Peer) -> None:
        peer.ask("big")
        peer.ack(1)
        assert peer.hear() == Data(2, BIG[512:1024])
        peer.send(wire.encode(Request(Opcode.RRQ, "big")), peer.door)
        peer.until(lambda server: server.counters.requests == 2)
        peer.ack(2)
        assert peer.hear() == Data(3, BIG[1024:1536])
        peer.send(wire.encode(Error(0, "enough")))

    _, server, events = serve(folder, talk)
    assert kinds(events) == ["start", "failed"]
    assert server.counters.requests == 2


def test_a_lost_ack_is_made_good_by_the_timer(folder: Path) -> None:
    def talk(peer: Peer) -> list[Any]:
        answer = peer.ask("small", timeout=1)
        peer.ack(0)
        blocks = [peer.hear(), peer.hear()]
        peer.ack(1)
        return [answer, *blocks]

    got, server, _ = serve(folder, talk)
    assert got == [OptionAck({"timeout": "1"}), Data(1, b"hello\n"), Data(1, b"hello\n")]
    assert server.counters.resent == 1


def test_a_client_that_closed_its_port_is_given_up_early(folder: Path) -> None:
    def talk(peer: Peer) -> None:
        peer.ask("big", timeout=1)
        peer.ack(0)
        peer.hear()
        peer.sock.close()

    _, _, events = serve(folder, talk)
    assert kinds(events) == ["start", "failed"]
    assert events[1].detail == "the client's port is closed"


def test_a_file_changed_under_way_is_an_error(folder: Path) -> None:
    def talk(peer: Peer) -> wire.Packet:
        packet = peer.ask("big", blksize=32768)
        os.truncate(folder / "big", 50_000)
        for block in range(3):
            peer.ack(block)
            packet = peer.hear()
            if isinstance(packet, Error):
                break
        return packet

    answer, _, events = serve(folder, talk)
    assert answer == Error(ErrorCode.UNDEFINED, "the file cannot be read")
    assert "changed" in events[-1].detail


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EIO, errno.EAGAIN])
def test_where_the_kernel_cannot_cut_windows_they_still_arrive(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """An old kernel says EINVAL, some devices EIO; a full buffer EAGAIN, and only once here."""
    refused = iter([error])

    def first_not(sock: socket.socket, packets: list[Any]) -> None:
        for code in refused:
            raise OSError(code, os.strerror(code))
        send_segmented(sock, packets)

    monkeypatch.setattr(module, "send_segmented", first_not)

    def talk(peer: Peer) -> bytes:
        return peer.fetch("big", windowsize=16, blksize=1468, timeout=1)

    got, server, _ = serve(folder, talk)
    assert got == BIG
    assert bool(server.counters.resent) == (error == errno.EAGAIN)


def test_the_largest_block_is_a_setting(folder: Path) -> None:
    answer, _, _ = serve(
        folder,
        lambda peer: peer.ask("small", blksize=8192),
        largest_block=1468,
        check=lambda server: server.counters.active,
    )
    assert answer == OptionAck({"blksize": "1468"})


def test_bounds_are_kept_with_silence(folder: Path) -> None:
    def talk(peer: Peer) -> wire.Packet:
        peer.ask("big")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
            second.sendto(wire.encode(Request(Opcode.RRQ, "small")), peer.door)
            peer.until(lambda server: server.counters.busy == 1)
            peer.ack(1)
            return peer.hear()

    for limit in ({"transfers": 1}, {"transfers_per_client": 1}):
        packet, server, events = serve(folder, talk, check=bool, **limit)
        assert packet == Data(2, BIG[512:1024])
        assert kinds(events) == ["start", "failed"]
        assert events[1].detail == "the service stopped"
        assert server.counters.active == 0


def test_fifty_at_once_each_whole_and_nothing_left_open(folder: Path, single_port: bool) -> None:
    before = len(os.listdir("/proc/self/fd"))

    async def main() -> TftpServer:
        server = TftpServer(
            "127.0.0.1", [folder], lambda event: None, port=0, single_port=single_port
        )
        await server.start()
        peers = [Peer(server) for _ in range(50)]
        try:
            jobs = [
                asyncio.to_thread(peer.fetch, "big", blksize=1024, windowsize=1 + i % 8)
                for i, peer in enumerate(peers)
            ]
            assert all(got == BIG for got in await asyncio.gather(*jobs))
            await settled(server, lambda server: not server.counters.active)
        finally:
            for peer in peers:
                peer.sock.close()
            await server.stop()
        return server

    server = asyncio.run(main())
    assert (server.counters.done, server.counters.bytes) == (50, 50 * len(BIG))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_receiver_of_events_that_fails_stops_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_event: TftpEvent) -> None:
        raise RuntimeError("broken")

    async def main() -> bytes:
        server = TftpServer("127.0.0.1", [folder], broken, port=0)
        await server.start()
        peer = Peer(server)
        try:
            return await asyncio.to_thread(peer.fetch, "small")
        finally:
            peer.sock.close()
            await server.stop()

    assert asyncio.run(main()) == b"hello\n"
    assert "broken" in caplog.text


def run_error(work: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        asyncio.run(work)
    return str(caught.value)


def test_a_port_in_use_is_one_line_with_the_way_out(folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        server = TftpServer("127.0.0.1", [folder], lambda event: None, port=port)
        text = run_error(server.start())
    assert f"127.0.0.1 port {port}" in text
    assert "ss -lunp" in text
    assert "\n" not in text


def test_an_address_that_is_not_ours_is_one_line(folder: Path) -> None:
    server = TftpServer("192.0.2.123", [folder], lambda event: None, port=0)
    assert "site.address" in run_error(server.start())


def test_stopping_twice_or_unstarted_is_nothing(folder: Path) -> None:
    async def main() -> None:
        server = TftpServer("127.0.0.1", [folder], lambda event: None, port=0)
        await server.stop()
        await server.start()
        await server.stop()
        await server.stop()

    asyncio.run(main())


def test_two_who_fetch_the_same_file_share_its_packets_and_a_changed_one_is_another(
    folder: Path,
) -> None:
    def talk(peer: Peer) -> tuple[bytes, bytes]:
        other = Peer(peer.server)
        try:
            first = other.ask("big")  # holds the shelf while the file is changed and fetched anew
            assert isinstance(first, Data)
            same = peer.fetch("big")
            assert len(peer.server._shelves) == 1
            (folder / "big").write_bytes(BIG[::-1])
            changed = peer.fetch("big")
            other.send(wire.encode(Error(0, "enough")))
            peer.until(lambda server: not server.counters.active)
        finally:
            other.sock.close()
        return same, changed

    (same, changed), server, _ = serve(folder, talk)
    assert (same, changed) == (BIG, BIG[::-1])
    assert not server._shelves

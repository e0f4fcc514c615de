"""The sockets, on a cable of their own: what scapy sends at one end and sees at it."""

import asyncio
import logging
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

import pytest
import uvloop
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from netboot.dhcp import keeper
from netboot.dhcp.engine import Engine
from netboot.dhcp.keeper import Record
from netboot.dhcp.server import DhcpServer
from netboot.errors import ConfigError, NetbootError
from netboot.events import BootEvent, Phase
from netboot.model import DhcpMode, Host, Lease, LeaseState, Overlay, OverlayMode

SERVER = IPv4Address("192.168.77.1")
A, B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"
EVERYBODY = "ff:ff:ff:ff:ff:ff"
PATIENCE = 20.0


def kind(frame: Any) -> int:
    return int(dict(o[:2] for o in frame[DHCP].options if isinstance(o, tuple))["message-type"])


@dataclass
class Bench:
    """A server at one end of a cable, a raw socket at the other."""

    lan: Any
    kit: Any
    engine: Engine
    far: socket.socket
    kept: list[Lease] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    told: list[BootEvent] = field(default_factory=list)

    def keep(self, leases: Sequence[Lease]) -> None:
        self.batches.append(len(leases))
        self.kept += leases

    def server(self, **options: Any) -> DhcpServer:
        """With ``persist`` and ``publish`` of this bench, unless ``options`` say otherwise."""
        parts = {"persist": self.keep, "publish": self.told.append, **options}
        return DhcpServer(self.engine, "srv0", SERVER, **parts)

    def run(self, story: Callable[[], Awaitable[None]], *servers: DhcpServer) -> None:
        async def main() -> None:
            with self.lan.inside(self.lan.server):
                for server in servers:
                    await server.start()
            try:
                await story()
            finally:
                for server in servers:
                    await server.stop()

        asyncio.run(main())

    def say(self, mac: str, message: str, *options: Any, port: int = 67, **fields: Any) -> None:
        self.put(mac, self.kit.datagram(mac, message, *options, **fields), port=port)

    def put(self, mac: str, data: bytes, port: int = 67, source: str = "0.0.0.0") -> None:
        frame = Ether(src=mac, dst=EVERYBODY) / IP(src=source, dst="255.255.255.255")
        self.far.send(bytes(frame / UDP(sport=68, dport=port) / data))

    async def hear(self) -> Any:
        """The next frame of the server's with a DHCP packet in it."""
        loop = asyncio.get_running_loop()
        for _ in range(1000):
            data = await asyncio.wait_for(loop.sock_recv(self.far, 4096), PATIENCE)
            frame = Ether(data)
            if UDP in frame and frame[UDP].sport == 4011:  # which scapy does not know
                frame[UDP].payload = BOOTP(bytes(frame[UDP].payload))
            if DHCP in frame and frame[BOOTP].op == 2:
                return frame
        raise AssertionError("nothing but noise")

    async def counted(self, name: str, number: int) -> None:
        for _ in range(2000):
            if self.engine.counters[name] >= number:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{name}: {self.engine.counters[name]}, not {number}")


@pytest.fixture
def bench(cable: Callable[[str], Any], kit: Any) -> Iterator[Bench]:
    lan = cable("192.168.77.1/24")
    with lan.inside(lan.client):
        far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        far.bind(("cli0", 0x0800))
    yield Bench(lan, kit, kit.lan().engine, far)
    far.close()


def test_a_whole_exchange(bench: Bench) -> None:
    async def story() -> None:
        bench.say(A, "discover", *bench.kit.BIOS)
        offer = await bench.hear()
        assert kind(offer) == 2
        assert (offer.dst, offer[IP].dst, offer[UDP].dport) == (A, "192.168.77.50", 68)
        assert (offer[IP].src, offer[UDP].sport) == ("192.168.77.1", 67)
        asks = (("server_id", str(SERVER)), ("requested_addr", offer[BOOTP].yiaddr))
        bench.say(A, "request", *asks, *bench.kit.BIOS)
        ack = await bench.hear()
        assert (kind(ack), ack[BOOTP].yiaddr) == (5, "192.168.77.50")
        assert [(lease.mac, str(lease.address)) for lease in bench.kept] == [(A, "192.168.77.50")]
        assert [event.phase for event in bench.told] == [Phase.SEEN, Phase.OFFERED]

    server = bench.server()
    bench.run(story, server)
    assert server.counters["acks"] == 1


def test_on_the_loop_of_the_service(bench: Bench) -> None:
    async def story() -> None:
        server = bench.server()
        with bench.lan.inside(bench.lan.server):
            await server.start()
        bench.say(A, "discover", *bench.kit.BIOS)
        assert kind(await bench.hear()) == 2
        await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


def test_the_broadcast_flag(bench: Bench) -> None:
    async def story() -> None:
        bench.say(A, "discover", *bench.kit.OS, flags="B")
        offer = await bench.hear()
        assert (offer.dst, offer[IP].dst) == (EVERYBODY, "255.255.255.255")
        assert offer[IP].src == "192.168.77.1"

    bench.run(story, bench.server())


def test_the_configured_address_is_the_source_though_another_is_the_first(bench: Bench) -> None:
    at_server = ["ip", "-n", bench.lan.server, "address"]
    subprocess.run([*at_server, "flush", "dev", "srv0"], check=True, timeout=20)
    for address in ("192.168.77.200/24", "192.168.77.1/24"):
        subprocess.run([*at_server, "add", address, "dev", "srv0"], check=True, timeout=20)

    async def story() -> None:
        bench.say(A, "discover", *bench.kit.OS, flags="B")
        assert (await bench.hear())[IP].src == "192.168.77.1"

    bench.run(story, bench.server())


def asked_for_acks(bench: Bench, number: int) -> list[str]:
    """Machines with a lease that reboot, all at once."""
    macs = [f"52:54:00:00:01:{index:02x}" for index in range(number)]
    for index, mac in enumerate(macs):
        bench.engine.leases.bind(mac, IPv4Address(f"192.168.77.{100 + index}"), 0, 10)
    for index, mac in enumerate(macs):
        bench.say(mac, "request", ("requested_addr", f"192.168.77.{100 + index}"), flags="B")
    return macs


def test_a_lease_is_durable_before_its_ack_leaves(bench: Bench) -> None:
    heard_before: list[bytes] = []

    def persist(leases: Sequence[Lease]) -> None:
        with suppress(BlockingIOError):
            while True:
                heard_before.append(bench.far.recv(4096))
        bench.keep(leases)

    async def story() -> None:
        asked_for_acks(bench, 1)
        assert kind(await bench.hear()) == 5
        assert len(bench.kept) == 1
        assert not [frame for frame in heard_before if DHCP in Ether(frame)]

    bench.run(story, bench.server(persist=persist))


def test_one_transaction_for_all_that_came_meanwhile(bench: Bench) -> None:
    async def story() -> None:
        macs = asked_for_acks(bench, 21)
        heard = [await bench.hear() for _ in macs]
        assert {kind(frame) for frame in heard} == {5}
        # All 21 are sent before the loop turns; a busy kernel may still deliver them in parts.
        assert [lease.mac for lease in bench.kept] == macs
        assert len(bench.batches) < 21

    bench.run(story, bench.server())


def test_a_slow_disk_delays_acks_and_nothing_else(bench: Bench) -> None:
    ready, begun = threading.Event(), threading.Event()

    def persist(leases: Sequence[Lease]) -> None:
        begun.set()
        assert ready.wait(PATIENCE)
        bench.keep(leases)

    async def story() -> None:
        (mac,) = asked_for_acks(bench, 1)
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        bench.say(A, "discover", *bench.kit.OS, xid=1)
        offer = await bench.hear()
        assert (kind(offer), offer.dst) == (2, A)
        # The machine whose ACK waits asks anew: its OFFER does not overtake the ACK.
        bench.say(mac, "discover", *bench.kit.OS, xid=2, flags="B")
        await bench.counted("received", 3)
        bench.say(A, "discover", *bench.kit.OS, xid=3)
        assert (await bench.hear())[BOOTP].xid == 3
        assert bench.kept == []
        ready.set()
        assert [kind(await bench.hear()) for _ in range(2)] == [5, 2]

    bench.run(story, bench.server(persist=persist))


def test_too_many_that_wait_for_the_disk_are_not_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "BACKLOG", 2)
    ready = threading.Event()

    def persist(leases: Sequence[Lease]) -> None:
        assert ready.wait(PATIENCE)
        bench.keep(leases)

    async def story() -> None:
        asked_for_acks(bench, 20)
        await bench.counted("received", 20)
        ready.set()
        lost = bench.engine.counters["unpersisted"]
        assert lost > 0
        assert [kind(await bench.hear()) for _ in range(20 - lost)] == [5] * (20 - lost)

    bench.run(story, bench.server(persist=persist))
    assert caplog.text.count("the disk is too slow") == 1


def test_a_stop_answers_those_whose_leases_are_written(bench: Bench) -> None:
    begun = threading.Event()

    def persist(leases: Sequence[Lease]) -> None:
        begun.set()
        bench.keep(leases)

    async def story() -> None:
        with bench.lan.inside(bench.lan.server):
            server = bench.server(persist=persist)
            await server.start()
        asked_for_acks(bench, 1)
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        await server.stop()
        assert kind(await bench.hear()) == 5

    bench.run(story)


def test_a_batch_that_fails_is_tried_one_by_one(bench: Bench) -> None:
    def no_batches(leases: Sequence[Lease]) -> None:
        if len(leases) > 1:
            raise RuntimeError("database is locked")
        bench.keep(leases)

    async def story() -> None:
        macs = asked_for_acks(bench, 5)
        for _ in macs:
            assert kind(await bench.hear()) == 5
        assert [lease.mac for lease in bench.kept] == macs

    bench.run(story, bench.server(persist=no_batches))


def disk_of(mac: str) -> Overlay:
    return Overlay(mac, "debian", 1, OverlayMode.EPHEMERAL, 7, "/overlays/a.ephemeral.qcow2")


def begins(mac: str) -> Overlay | None:
    """Only A has a disk that begins anew with each boot."""
    return disk_of(A) if mac == A else None


def test_a_boot_begins_on_its_new_disk_before_its_offer_leaves(bench: Bench) -> None:
    ready, begun = threading.Event(), threading.Event()
    kept: list[Record] = []

    def persist(records: Sequence[Record]) -> None:
        begun.set()
        assert ready.wait(PATIENCE)
        kept.extend(records)

    async def story() -> None:
        bench.say(A, "discover", *bench.kit.BIOS)
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        bench.say(B, "discover", *bench.kit.BIOS)  # a slow disk is in nobody else's way
        first = await bench.hear()
        assert (kind(first), first.dst) == (2, B)
        assert [event.mac for event in bench.told] == [B, B]
        ready.set()
        second = await bench.hear()
        assert (kind(second), second.dst) == (2, A)
        assert kept == [disk_of(A)]
        assert [event.phase for event in bench.told[2:]] == [Phase.SEEN, Phase.OFFERED]
        bench.say(A, "discover", *bench.kit.BIOS)  # said again: that boot has begun
        assert kind(await bench.hear()) == 2
        assert kept == [disk_of(A)]

    bench.run(story, bench.server(persist=persist, begins=begins))


def test_a_boot_that_finds_no_place_to_wait_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said again it would be no new boot, and on its old disk without a word."""
    monkeypatch.setattr(keeper, "BACKLOG", 0)

    async def story() -> None:
        bench.say(A, "discover", *bench.kit.BIOS)
        assert kind(await bench.hear()) == 2

    bench.run(story, bench.server(begins=begins))
    says = f"{A}: its new boot finds its old disk: the disk is too slow"
    assert says in caplog.messages
    assert bench.engine.counters["unpersisted"] == 0


def unkept(records: Sequence[Record]) -> None:
    raise OSError(28, "No space left on device")


def unknown(mac: str) -> Overlay | None:
    raise NetbootError("database is locked")


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"persist": unkept, "begins": begins}, "[Errno 28] No space left on device"),
        ({"begins": unknown}, "database is locked"),
    ],
)
def test_a_boot_that_cannot_begin_is_told_and_goes_on(
    bench: Bench, parts: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = bench.engine.site
    bench.engine.take_over(replace(site, hosts={A: Host(A, "ws2", "workstation")}))

    async def story() -> None:
        bench.say(A, "discover", *bench.kit.BIOS)
        assert kind(await bench.hear()) == 2

    bench.run(story, bench.server(**parts))
    assert f"ws2 ({A}): its new boot finds its old disk: {why}" in caplog.messages
    assert "Traceback" not in caplog.text
    assert [event.phase for event in bench.told] == [Phase.SEEN, Phase.OFFERED]
    assert bench.engine.counters["unpersisted"] == 0


def test_what_a_relay_forwards_is_asked_once(bench: Bench) -> None:
    """It comes from port 67, as what another server says does."""

    async def story() -> None:
        data = bench.kit.datagram(A, "discover", *bench.kit.OS, giaddr="192.168.77.2")
        frame = Ether(src=bench.lan.mac, dst=EVERYBODY)
        frame /= IP(src="192.168.77.2", dst=str(SERVER)) / UDP(sport=67, dport=67)
        for _ in range(3):
            bench.far.send(bytes(frame / data))
        await bench.counted("received", 3)
        # The link hears in order: with what it does take, all that came before is done.
        offer = BOOTP(op=2) / DHCP(options=[("message-type", "offer"), "end"])
        frame = Ether(src=B, dst=EVERYBODY) / IP(src="192.168.77.9", dst="255.255.255.255")
        bench.far.send(bytes(frame / UDP(sport=67, dport=68) / offer))
        await bench.counted("foreign", 1)
        assert bench.engine.counters["received"] == 4

    bench.run(story, bench.server())


def test_what_cannot_be_kept_is_not_acknowledged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    full = True

    def persist(leases: Sequence[Lease]) -> None:
        if full:
            raise OSError(28, "No space left on device")
        bench.keep(leases)

    async def story() -> None:
        nonlocal full
        asked_for_acks(bench, 1)
        await bench.counted("unpersisted", 1)
        bench.say(A, "discover", *bench.kit.OS)
        assert kind(await bench.hear()) == 2  # the first reply: an offer promises nothing yet
        full = False
        asked_for_acks(bench, 1)
        assert kind(await bench.hear()) == 5

    bench.run(story, bench.server(persist=persist))
    (line,) = [text for text in caplog.messages if "not acknowledged" in text]
    assert line.endswith("No space left on device")
    assert "Traceback" not in caplog.text


def test_an_address_that_answers_arp_is_not_offered(bench: Bench) -> None:
    """Somebody configured it by hand; the kernel at the far end answers."""
    command = ["ip", "-n", bench.lan.client, "address", "add", "192.168.77.50/24", "dev", "cli0"]
    subprocess.run(command, check=True, timeout=20)

    async def story() -> None:
        bench.say(A, "discover", *bench.kit.OS, flags="B")
        assert (await bench.hear())[BOOTP].yiaddr == "192.168.77.51"
        assert [lease.state for lease in bench.kept] == [LeaseState.DECLINED]

    bench.run(story, bench.server())


def test_the_machines_own_answer_to_a_probe_does_not_count(bench: Bench) -> None:
    """One of its programs left the address up, as a SAN boot does."""
    command = ["ip", "-n", bench.lan.client, "address", "add", "192.168.77.50/24", "dev", "cli0"]
    subprocess.run(command, check=True, timeout=20)

    async def story() -> None:
        bench.say(bench.lan.mac, "discover", *bench.kit.OS, flags="B")
        assert (await bench.hear())[BOOTP].yiaddr == "192.168.77.50"

    bench.run(story, bench.server())


def test_port_4011_answers_from_port_4011(bench: Bench) -> None:
    """To the address that the client has by then, and the port it asked from."""
    command = ["ip", "-n", bench.lan.client, "address", "add", "192.168.77.88/24", "dev", "cli0"]
    subprocess.run(command, check=True, timeout=20)

    async def story() -> None:
        data = bench.kit.datagram(A, "request", *bench.kit.UEFI, ciaddr="192.168.77.88")
        bench.put(A, data, port=4011, source="192.168.77.88")
        ack = await bench.hear()
        assert (kind(ack), ack[UDP].sport, ack[IP].src) == (5, 4011, "192.168.77.1")
        assert (ack[IP].dst, ack[UDP].dport) == ("192.168.77.88", 68)

    bench.run(story, bench.server())


def test_another_server_on_the_cable_is_noticed(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        offer = BOOTP(op=2, chaddr=bytes.fromhex("52540000000b"), yiaddr="192.168.77.201") / DHCP(
            options=[("message-type", "offer"), ("server_id", "192.168.77.9"), "end"]
        )
        frame = Ether(src=B, dst=EVERYBODY) / IP(src="192.168.77.9", dst="255.255.255.255")
        for _ in range(3):
            bench.far.send(bytes(frame / UDP(sport=67, dport=68) / offer))
        await bench.counted("foreign", 3)

    bench.run(story, bench.server())
    assert caplog.text.count("another DHCP server, 192.168.77.9") == 1


def test_garbage_and_our_own_bugs_stop_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    plan = bench.engine._plans._plan

    def broken(client: Any) -> Any:
        if client.mac == B:
            raise RuntimeError("a bug in the brain")
        return plan(client)

    bench.engine._plans._plan = broken

    def deaf(event: BootEvent) -> None:
        raise RuntimeError("a bug in a subscriber")

    async def story() -> None:
        for port in (67, 4011):
            for data in (b"", b"x", b"\xff" * 1400, bench.kit.datagram(B, "discover")[:239]):
                bench.put(B, data, port=port)
        bench.say(B, "discover", *bench.kit.OS)
        bench.say(A, "discover", *bench.kit.BIOS)
        assert kind(await bench.hear()) == 2

    bench.run(story, bench.server(publish=deaf))
    assert bench.engine.counters["garbage"] == 8
    assert bench.engine.counters["faults"] == 1
    assert caplog.text.count("broke the engine") == 1


def test_a_cable_that_is_out_stops_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def link(state: str) -> None:
        command = ["ip", "-n", bench.lan.server, "link", "set", "srv0", state]
        subprocess.run(command, check=True, timeout=20)

    async def story() -> None:
        bench.say(A, "discover", *bench.kit.OS, flags="B")
        await bench.counted("received", 1)
        link("down")
        await bench.counted("unsent", 1)
        link("up")
        bench.say(A, "discover", *bench.kit.OS, flags="B")
        assert kind(await bench.hear()) == 2

    bench.run(story, bench.server())
    assert caplog.text.count("was not sent") == 1


def test_without_raw_access_replies_are_broadcast(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("netboot.dhcp.server.Link", refused)

    async def story() -> None:
        bench.say(A, "discover", *bench.kit.BIOS)
        offer = await bench.hear()
        assert (offer.dst, offer[BOOTP].yiaddr) == (EVERYBODY, "192.168.77.50")

    bench.run(story, bench.server())
    assert "grant CAP_NET_RAW" in caplog.text


def test_a_school_in_one_burst(bench: Bench) -> None:
    macs = [f"52:54:00:00:02:{number:02x}" for number in range(140)]

    async def story() -> None:
        for number, mac in enumerate(macs):
            bench.say(mac, "discover", *bench.kit.BIOS, xid=number)
        offers = [await bench.hear() for _ in macs]
        assert len({frame[BOOTP].yiaddr for frame in offers}) == len(macs)
        for frame in offers:
            asks = (("server_id", str(SERVER)), ("requested_addr", frame[BOOTP].yiaddr))
            bench.say(frame.dst, "request", *asks, *bench.kit.BIOS, xid=frame[BOOTP].xid)
        acks = [await bench.hear() for _ in macs]
        assert {kind(frame) for frame in acks} == {5}
        assert {f.dst: f[BOOTP].yiaddr for f in acks} == {f.dst: f[BOOTP].yiaddr for f in offers}

    bench.run(story, bench.server())
    assert len(bench.kept) == len(macs)


def test_stop_gives_the_ports_back_and_start_takes_them_again(bench: Bench) -> None:
    async def story() -> None:
        for xid in range(2):
            server = bench.server()
            with bench.lan.inside(bench.lan.server):
                await server.start()
            bench.say(A, "discover", *bench.kit.OS, xid=xid, flags="B")
            assert (await bench.hear())[BOOTP].xid == xid
            await server.stop()
            await server.stop()

    bench.run(story)


def test_a_server_that_is_there_already_is_found_out(bench: Bench) -> None:
    async def story() -> None:
        says = r"UDP port 67 on srv0 is in use .* ss -ulnp"
        with bench.lan.inside(bench.lan.server), pytest.raises(ConfigError, match=says):
            await bench.server().start()

    bench.run(story, bench.server())


@pytest.mark.parametrize(
    ("interface", "address", "says"),
    [
        ("nosuch0", "192.168.77.1", r"site.interface = 'nosuch0': .* no such interface"),
        ("srv0", "192.168.77.2", r"192.168.77.2 is not an address of this machine; try: ip addr"),
    ],
)
def test_settings_that_this_machine_does_not_have(
    bench: Bench, interface: str, address: str, says: str
) -> None:
    async def story() -> None:
        server = DhcpServer(
            bench.engine, interface, IPv4Address(address), bench.keep, bench.told.append
        )
        with bench.lan.inside(bench.lan.server), pytest.raises(ConfigError, match=says):
            await server.start()

    bench.run(story)


def test_proxy_mode_over_the_cable(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.engine = bench.kit.lan(DhcpMode.PROXY).engine

    async def story() -> None:
        bench.say(A, "discover", *bench.kit.BIOS)
        offer = await bench.hear()
        assert (offer.dst, offer[BOOTP].yiaddr) == (EVERYBODY, "0.0.0.0")
        assert offer[BOOTP].file.rstrip(b"\0") == b"undionly.kpxe"

    bench.run(story, bench.server())
    assert "DHCP proxy on srv0" in caplog.text

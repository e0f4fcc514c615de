"""The sockets of DHCP: UDP 67 and 4011 on one interface, and the link below them.

It reads what waits in one wake-up and asks the engine about each packet. A reply that promises
nothing leaves at once; one with a lease, or to a boot that begins on a new disk, when that is
durable, which ``keeper`` sees to for all of a wake-up together. No packet, no slow or full disk
and no interface that went down ever stops it.
"""

import asyncio
import errno
import fcntl
import logging
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from itertools import groupby

from netboot.dhcp.effects import (
    LIMITED_BROADCAST,
    PXE_PORT,
    SERVER_PORT,
    Effect,
    How,
    Persist,
    Probe,
    Publish,
    Send,
)
from netboot.dhcp.engine import Engine
from netboot.dhcp.keeper import Keeper, Record, Waiting
from netboot.dhcp.link import Link
from netboot.errors import ConfigError, NetbootError
from netboot.events import BootEvent
from netboot.model import Overlay

log = logging.getLogger(__name__)

#: Some 5 ms of work, after which the rest of the loop has its turn, and finished leases theirs.
_PACKETS_A_WAKEUP = 64
#: linux/in.h; the socket module of Python 3.11 does not name it.
_IP_PKTINFO = 8
_NONE = bytes(4)
_RECEIVE_BUFFER = 1 << 20  #: a classroom that is switched on at once


class DhcpServer:
    """Carries packets between one interface and the engine."""

    def __init__(
        self,
        engine: Engine,
        interface: str,
        address: IPv4Address,
        persist: Callable[[Sequence[Record]], None],
        publish: Callable[[BootEvent], None],
        *,
        begins: Callable[[str], Overlay | None] = lambda mac: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``persist`` returns when all the records are durable and raises when none can be; it is
        called in a thread of its own, once at a time. ``begins`` says what the new boot of a
        machine makes of its disk, on the loop."""
        self._engine = engine
        self._interface = interface
        self._address = address
        # IP_PKTINFO makes our configured address the source, which clients compare with option
        # 54, also where the interface has several.
        info = struct.pack("@i4s4s", 0, address.packed, b"\0" * 4)
        self._control = [(socket.IPPROTO_IP, _IP_PKTINFO, info)]
        self._keeper = Keeper(persist, self._settled)
        self._publish = publish
        self._begins = begins
        self._clock = clock
        self._sockets: dict[int, socket.socket] = {}
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._warned: set[str] = set()

    @property
    def counters(self) -> Mapping[str, int]:
        """What came, what went, and what was wrong with it."""
        return dict(self._engine.counters)

    async def start(self) -> None:
        """Open everything; ``ConfigError`` says in one line why that is not possible."""
        self._check_address()
        loop = asyncio.get_running_loop()
        try:
            self._link = Link(self._interface, self._address)  # loads scapy: before anybody asks
        except OSError as error:
            log.warning(
                "no raw access to %s (%s): replies are broadcast and addresses not probed; "
                "grant CAP_NET_RAW",
                self._interface,
                error.strerror,
            )
        try:
            for port in (SERVER_PORT, PXE_PORT):
                self._sockets[port] = self._open(port)
        except ConfigError:
            await self.stop()
            raise
        self._keeper.start()
        for port, opened in self._sockets.items():
            loop.add_reader(opened.fileno(), self._readable, port)
        if self._link is not None:
            loop.add_reader(self._link.arp.fileno(), self._arp_readable)
            loop.add_reader(self._link.servers.fileno(), self._servers_readable)
        log.info("DHCP %s on %s", self._engine.site.dhcp_mode, self._interface)

    async def stop(self) -> None:
        """Hear no more, answer those whose leases are being written, close everything."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        for opened in self._sockets.values():
            loop.remove_reader(opened.fileno())
        if self._link is not None:
            loop.remove_reader(self._link.arp.fileno())
            loop.remove_reader(self._link.servers.fileno())
        await self._keeper.stop()
        if self._link is not None:
            self._link.close()
            self._link = None
        for opened in self._sockets.values():
            opened.close()
        self._sockets.clear()

    def _check_address(self) -> None:
        try:
            socket.if_nametoindex(self._interface)
        except OSError:
            raise ConfigError(
                f"site.interface = {self._interface!r}: this machine has no such interface; "
                "create it, or name another"
            ) from None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((str(self._address), 0))
            except OSError:
                raise ConfigError(
                    f"site.address: {self._address} is not an address of this machine; "
                    f"try: ip address add {self._engine.site.address} dev {self._interface}"
                ) from None

    def _open(self, port: int) -> socket.socket:
        """Bound to the interface before the port, and without SO_REUSEADDR.

        So another server on the same interface is found out now, and one on another interface
        (libvirt's dnsmasq) is not in the way.
        """
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            name = self._interface.encode() + b"\0"
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            opened.bind(("", port))
        except OSError as error:
            opened.close()
            raise ConfigError(_why_not(error, port, self._interface)) from None
        return opened

    # In

    def _readable(self, port: int) -> None:
        now, opened = self._clock(), self._sockets[port]
        for _ in range(_PACKETS_A_WAKEUP):
            try:
                data, peer = opened.recvfrom(65535)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._complain("read", "port %s cannot be read: %s", port, error.strerror)
                break
            self._carry(self._ask(data, peer, now, port))
            # Cheaper than to be told by an exception; for an empty one that waits, the loop calls.
            if fcntl.ioctl(opened, termios.FIONREAD, _NONE) == _NONE:
                break
        self._end()

    def _arp_readable(self) -> None:
        if self._link is None:
            return
        for address, mac in self._link.claims():
            # The machine itself answers too, where one of its programs left its address up.
            if self._engine.probing.get(address, mac) != mac:
                self._carry(self._engine.probed(address, True, self._clock()))
        self._end()

    def _servers_readable(self) -> None:
        if self._link is not None:
            for source, data in self._link.foreign():
                self._ask(data, (source, SERVER_PORT), self._clock(), SERVER_PORT)

    def _tick(self) -> None:
        self._timer = None
        for _, effects in groupby(self._engine.tick(self._clock()), _machine):
            self._carry(list(effects))
        self._end()

    def _ask(self, data: bytes, peer: tuple[str, int], now: float, port: int) -> list[Effect]:
        try:
            return self._engine.receive(data, peer, now, port)
        except Exception:
            self._engine.counters["faults"] += 1
            log.exception("a packet from %s broke the engine; it was dropped", peer[0])
            return []

    # Out

    def _carry(self, effects: Sequence[Effect]) -> None:
        """What one packet led to: at once, or when its leases are durable and what came before
        it from the same machine is done. A probe never waits: it is no promise, and is timed."""
        if not effects:
            return
        mac = _machine(effects[0])
        records = tuple(self._records(effects))
        if not records and not self._keeper.holds(mac):
            self._do(effects)
            return
        self._do(effect for effect in effects if isinstance(effect, Probe))
        rest = tuple(effect for effect in effects if not isinstance(effect, Persist | Probe))
        waiting = Waiting(mac, records, rest)
        if self._keeper.add(waiting):
            return
        if records and not waiting.promises:  # its boot is told of once, and would never begin
            self._settled(waiting, NetbootError("the disk is too slow"))
            return
        self._engine.counters["unpersisted"] += 1
        self._complain("disk", "the disk is too slow: %s and others are not answered", mac)

    def _records(self, effects: Iterable[Effect]) -> Iterator[Record]:
        for effect in effects:
            match effect:
                case Persist(lease=lease):
                    yield lease
                case Publish(event=BootEvent(fresh=True, mac=mac)):
                    try:
                        overlay = self._begins(mac)
                    except Exception as error:
                        self._old_disk(mac, error)
                    else:
                        if overlay is not None:
                            yield overlay

    def _end(self) -> None:
        """Of a wake-up: its leases go to the disk together."""
        self._keeper.go()
        self._arm()

    def _settled(self, waiting: Waiting, error: Exception | None) -> None:
        if error is None:
            self._do(waiting.effects)
        elif waiting.promises:
            self._engine.counters["unpersisted"] += 1
            text = "a lease of %s could not be written, and is not acknowledged: %s"
            _report(text, waiting.mac, error)
        else:
            self._old_disk(waiting.mac, error)
            self._do(waiting.effects)

    def _old_disk(self, mac: str, error: Exception) -> None:
        called = self._engine.site.called(mac)
        _report("%s: its new boot finds its old disk: %s", called, error)

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case Probe(address=address):
                    self._probe(address)
                case Publish(event=event):
                    try:
                        self._publish(event)
                    except Exception:
                        log.exception("nobody could be told of %s", event)

    def _send(self, send: Send) -> None:
        address = send.address
        try:
            if send.how is How.CHADDR:
                if self._link is not None:
                    self._link.send(send.mac, address, send.port, send.source_port, send.data)
                    return
                address = LIMITED_BROADCAST  # every client takes that as well
            opened = self._sockets.get(send.source_port)
            if opened is not None:
                opened.sendmsg([send.data], self._control, 0, (str(address), send.port))
        except OSError as error:
            self._engine.counters["unsent"] += 1
            self._complain("send", "a reply to %s was not sent: %s", send.mac, error.strerror)

    def _probe(self, address: IPv4Address) -> None:
        if self._link is not None:
            try:
                self._link.probe(address)
            except OSError as error:
                self._complain("probe", "%s was not probed: %s", address, error.strerror)

    def _arm(self) -> None:
        deadline = self._engine.deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None and self._sockets:
            delay = max(0.0, deadline - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _complain(self, what: str, text: str, *values: object) -> None:
        """Once for each kind: a cable that is out says so with every packet."""
        if what not in self._warned:
            self._warned.add(what)
            log.warning(text, *values)


def _report(text: str, who: str, error: Exception) -> None:
    expected = isinstance(error, (NetbootError, OSError))  # a full disk is no bug of ours
    log.error(text, who, error, exc_info=None if expected else error)


def _machine(effect: Effect) -> str:
    """Whom it concerns."""
    match effect:
        case Persist(lease=lease):
            return lease.mac
        case Publish(event=event):
            return event.mac
        case Send(mac=mac) | Probe(mac=mac):
            return mac


def _why_not(error: OSError, port: int, interface: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"UDP port {port} on {interface} is in use by another program (find it with: "
            f"ss -ulnp 'sport = :{port}'); stop it, or set dhcp.mode = \"off\""
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"UDP port {port} on {interface} needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW"
    return f"UDP port {port} on {interface} cannot be opened: {error.strerror}"

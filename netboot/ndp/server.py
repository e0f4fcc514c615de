"""The ICMPv6 socket of one interface: solicitations in, advertisements out.

Where the interface has no IPv6 there is no iPXE that waits for it either, so a start that finds
none only says so in the log. Needs CAP_NET_RAW, like DHCP's raw frames.
"""

import asyncio
import logging
import socket
import struct

from netboot.ndp.engine import Engine
from netboot.ndp.wire import ROUTER_SOLICITATION

log = logging.getLogger(__name__)

ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"
#: linux/icmpv6.h: ICMPV6_FILTER, a bit set for each type that is *blocked*.
ICMP6_FILTER = 1
BURST = 64


class RouterServer:
    """Answers router solicitations on ``interface`` as ``engine`` says."""

    def __init__(self, engine: Engine, interface: str) -> None:
        self._engine = engine
        self._interface = interface
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Listen; without IPv6 on the interface, say so and do nothing."""
        try:
            self._socket = self._open()
        except OSError as error:
            log.info(
                "no IPv6 on %s (%s): router solicitations go unanswered", self._interface, error
            )
            return
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    async def stop(self) -> None:
        """Close the socket. Twice is harmless."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        try:
            opened.setblocking(False)
            blocked = bytearray(b"\xff" * 32)
            blocked[ROUTER_SOLICITATION >> 3] ^= 1 << (ROUTER_SOLICITATION & 7)
            opened.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, _native_words(blocked))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            index = socket.if_nametoindex(self._interface)
            group = socket.inet_pton(socket.AF_INET6, ALL_ROUTERS) + struct.pack("@I", index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        except BaseException:
            opened.close()
            raise
        return opened

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(BURST):
            try:
                data, extra, _, _ = self._socket.recvmsg(1500, 64)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("router solicitation: %s", error)
                return
            hops = [
                struct.unpack("@i", value)[0]
                for level, kind, value in extra
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)
            ]
            answer = self._engine.receive(data, hops[0] if hops else 0)
            if answer is None:
                continue
            try:
                self._socket.sendto(answer, (ALL_NODES, 0))
            except OSError as error:  # e.g. our link-local address is still tentative
                self._engine.counters["unsent"] += 1
                log.debug("router advertisement: %s", error)


def _native_words(bits: bytearray) -> bytes:
    """The kernel counts the bits in 32-bit words of its own byte order."""
    return struct.pack("@8I", *struct.unpack("<8I", bits))


def hardware_address(interface: str) -> bytes:
    """The MAC of an interface; OSError when there is no such interface."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
        probe.bind((interface, 0))
        return bytes(probe.getsockname()[4])

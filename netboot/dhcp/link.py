"""The Ethernet below UDP: replies to a client that has no address yet, and ARP probes.

scapy builds and parses the frames of ARP. It is imported when a link opens, not before: it costs
0.2 s and the command line must answer sooner; and only what ARP needs, for the whole costs far
more. The link never promises delivery: without CAP_NET_RAW there is none, and the server
broadcasts instead.
"""

import ctypes
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

ETH_P_ARP, ETH_P_IP = 0x0806, 0x0800
_SO_ATTACH_FILTER = 26
_EVERYBODY = "ff:ff:ff:ff:ff:ff"
_FRAMES_A_WAKEUP = 256
#: Without its checksum's value and its addresses, which follow; and UDP's.
_IP_HEADER, _UDP_HEADER = struct.Struct("!BBHHHBBH"), struct.Struct("!HHHH")

#: Classic BPF for "IPv4, UDP, not a fragment, from port 67, op 2": how another DHCP server is
#: noticed without a copy of all that the interface receives. A relay's port is 67 too: without
#: the op, all that it forwards to us came here as well, and the engine was asked twice.
#: (code, jump if true, jump if false, operand)
_FROM_A_DHCP_SERVER = (
    (0x30, 0, 0, 23),  # protocol
    (0x15, 0, 8, 17),  # UDP, else drop
    (0x28, 0, 0, 20),  # flags and fragment offset
    (0x45, 6, 0, 0x1FFF),  # a later fragment: drop
    (0xB1, 0, 0, 14),  # X = length of the IP header
    (0x48, 0, 0, 14),  # source port
    (0x15, 0, 3, 67),
    (0x50, 0, 0, 22),  # op, the first byte after UDP's header
    (0x15, 0, 1, 2),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


class Frames:
    """Frames as bytes ⇄ what they say; no socket."""

    def __init__(self) -> None:
        from scapy.layers import l2

        self._l2: Any = l2

    def datagram(
        self,
        source: tuple[str, IPv4Address, int],
        target: tuple[str, IPv4Address, int],
        data: bytes,
    ) -> bytes:
        """One UDP datagram; an end is (MAC, address, port).

        By hand, as every reply to a machine without an address is one: scapy takes 0.5 to 1 ms,
        this 1 % of it. RFC 791 section 3.1 and RFC 768; scapy's frame is the test's.
        """
        ends = source[1].packed + target[1].packed
        length = _UDP_HEADER.size + len(data)
        header = _IP_HEADER.pack(0x45, 0, 20 + length, 1, 0, 64, socket.IPPROTO_UDP, 0)
        udp = _UDP_HEADER.pack(source[2], target[2], length, 0)
        pseudo = ends + struct.pack("!HH", socket.IPPROTO_UDP, length)
        check = _checksum(pseudo + udp + data) or 0xFFFF  # zero would say that there is none
        return b"".join(
            (
                bytes.fromhex(target[0].replace(":", "")),
                bytes.fromhex(source[0].replace(":", "")),
                ETH_P_IP.to_bytes(2, "big"),
                header[:10],
                _checksum(header + ends).to_bytes(2, "big"),
                ends,
                udp[:6],
                check.to_bytes(2, "big"),
                data,
            )
        )

    def probe(self, mac: str, address: IPv4Address) -> bytes:
        """RFC 5227 section 2.1.1: the sender's own address is zero, so no cache is changed."""
        frame = self._l2.Ether(src=mac, dst=_EVERYBODY) / self._l2.ARP(
            op="who-has", hwsrc=mac, psrc="0.0.0.0", hwdst="00:00:00:00:00:00", pdst=str(address)
        )
        return bytes(frame)

    def claim(self, frame: bytes) -> tuple[IPv4Address, str] | None:
        """The address that an ARP frame's sender says it has, and its MAC; None for none."""
        try:
            packet = self._l2.Ether(frame)
            arp = packet.getlayer(self._l2.ARP)
            if arp is None or arp.hwtype != 1 or arp.ptype != ETH_P_IP or arp.hwlen != 6:
                return None
            address = IPv4Address(arp.psrc)
            return (address, str(arp.hwsrc)) if int(address) else None
        except (struct.error, ValueError, IndexError, TypeError):
            return None


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): the number whose digits are the 16-bit words, modulo
    65535, is their sum with every carry brought round."""
    if len(data) % 2:
        data += b"\0"
    rest = int.from_bytes(data, "big") % 0xFFFF
    return (0xFFFF - rest) % 0xFFFF if rest else (0 if any(data) else 0xFFFF)


def payload(frame: bytes) -> tuple[str, bytes] | None:
    """Source address and UDP payload of a frame that passed the filter; None when it is cut."""
    if len(frame) < 14 + 20:
        return None
    udp = 14 + 4 * (frame[14] & 15)
    if len(frame) < udp + 8:
        return None
    length = int.from_bytes(frame[udp + 4 : udp + 6], "big")
    if length < 8 or len(frame) < udp + length:
        return None
    return str(IPv4Address(frame[26:30])), frame[udp + 8 : udp + length]


class Link:
    """Two packet sockets on one interface: ARP, and what other DHCP servers say."""

    def __init__(self, interface: str, address: IPv4Address) -> None:
        """``OSError`` where the interface is missing or CAP_NET_RAW is."""
        self.frames = Frames()
        self._address = address
        self.arp = _packet_socket(interface, ETH_P_ARP)
        try:
            self.servers = _packet_socket(interface, ETH_P_IP, _FROM_A_DHCP_SERVER)
        except OSError:
            self.arp.close()
            raise

    @property
    def mac(self) -> str:
        """Asked each time: a bridge takes another address when a machine is plugged in."""
        return str(self.arp.getsockname()[4][:6].hex(":"))

    def send(
        self, mac: str, address: IPv4Address, port: int, source_port: int, data: bytes
    ) -> None:
        """One datagram to a machine that does not answer ARP for ``address`` yet."""
        source = (self.mac, self._address, source_port)
        self.arp.send(self.frames.datagram(source, (mac, address, port), data))

    def probe(self, address: IPv4Address) -> None:
        """Ask everybody whose ``address`` is."""
        self.arp.send(self.frames.probe(self.mac, address))

    def claims(self) -> Iterator[tuple[IPv4Address, str]]:
        """What ARP brought since the last call."""
        for frame in _waiting(self.arp):
            claim = self.frames.claim(frame)
            if claim is not None and claim[1] != self.mac:
                yield claim

    def foreign(self) -> Iterator[tuple[str, bytes]]:
        """What other DHCP servers sent since the last call: source and payload."""
        for frame in _waiting(self.servers):
            found = payload(frame)
            if found is not None:
                yield found

    def close(self) -> None:
        """Both sockets."""
        self.arp.close()
        self.servers.close()


def _packet_socket(
    interface: str, protocol: int, program: tuple[tuple[int, int, int, int], ...] = ()
) -> socket.socket:
    """Protocol 0 until it is filtered and bound, so that nothing foreign is queued before."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        if program:
            code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
            buffer = ctypes.create_string_buffer(code, len(code))
            header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
            opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
        opened.bind((interface, protocol))
    except OSError:
        opened.close()
        raise
    return opened


def _waiting(opened: socket.socket) -> Iterator[bytes]:
    for _ in range(_FRAMES_A_WAKEUP):
        try:
            yield opened.recv(65535)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the interface went down; it says so once and may come back
            return

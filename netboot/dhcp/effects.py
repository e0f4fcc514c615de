"""What the engine asks of the world, as values, in the order in which it must happen.

And where a reply goes (RFC 2131 section 4.1). Nothing here does any of it: ``server`` does.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from typing import TypeAlias

from netboot.dhcp.wire import UNSPECIFIED, Packet
from netboot.events import BootEvent
from netboot.model import Lease

SERVER_PORT, CLIENT_PORT, PXE_PORT = 67, 68, 4011
LIMITED_BROADCAST = IPv4Address("255.255.255.255")


class How(StrEnum):
    """The way of a reply."""

    BROADCAST = "broadcast"
    CHADDR = "unicast to the hardware address"  #: the client has no address to be ARPed for
    RELAY = "relay"
    UNICAST = "unicast"


@dataclass(frozen=True, slots=True)
class Persist:
    """Make ``lease`` durable, before any Send and Publish that follows."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``data`` from our ``source_port`` to ``address``:``port``; ``mac`` is for CHADDR."""

    data: bytes
    address: IPv4Address
    port: int
    how: How
    mac: str
    source_port: int = SERVER_PORT


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask by ARP whether anybody but ``mac`` uses ``address`` (RFC 5227 section 2.1.1)."""

    address: IPv4Address
    mac: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell whoever wants to know."""

    event: BootEvent


Effect: TypeAlias = Persist | Send | Probe | Publish


def destination(reply: Packet, *, refused: bool = False) -> tuple[IPv4Address, int, How]:
    """Address, port and way for an ordinary reply (RFC 2131 section 4.1).

    ``reply`` carries the request's giaddr, ciaddr and flags. A NAK that does not go through a
    relay is always broadcast: the client's address is what is in doubt.
    """
    if reply.giaddr != UNSPECIFIED:
        return reply.giaddr, SERVER_PORT, How.RELAY
    if refused:
        return LIMITED_BROADCAST, CLIENT_PORT, How.BROADCAST
    if reply.ciaddr != UNSPECIFIED:
        return reply.ciaddr, CLIENT_PORT, How.UNICAST
    if reply.broadcast or reply.yiaddr == UNSPECIFIED:
        return LIMITED_BROADCAST, CLIENT_PORT, How.BROADCAST
    return reply.yiaddr, CLIENT_PORT, How.CHADDR

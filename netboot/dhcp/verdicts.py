"""What a REQUEST deserves: an ACK, a NAK, or silence (RFC 2131 section 4.3.2).

Pure: it asks the leases and changes nothing. It must never give an address that is somebody
else's, nor refuse one that another server may have given.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeAlias

from netboot.dhcp.leases import Leases
from netboot.dhcp.options import Option
from netboot.dhcp.wire import UNSPECIFIED, Packet


@dataclass(frozen=True, slots=True)
class Granted:
    """``address`` is to be leased; ``renewing``: the machine runs with it already."""

    address: IPv4Address
    renewing: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A NAK; ``text`` says why (option 56)."""

    text: str


@dataclass(frozen=True, slots=True)
class Nameless:
    """The REQUEST names no address: garbage."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Unknown but plausible: another server may know it."""


Verdict: TypeAlias = Granted | Refused | Nameless | Silence


def verdict(
    packet: Packet, mac: str, leases: Leases, reserved: IPv4Address | None, now: float
) -> Verdict:
    """By the three kinds of REQUEST: selecting, renewing, and asking for an old address again.

    One rule more: a renewing machine may be running from its disk over that very address,
    so it keeps it unless we know that the address is somebody else's.
    """
    selecting = Option.SERVER_ID.code in packet.options
    wanted = Option.REQUESTED_ADDRESS.get(packet.options, IPv4Address)
    renewing = not selecting and packet.ciaddr != UNSPECIFIED
    address = packet.ciaddr if renewing else wanted or packet.ciaddr
    if address == UNSPECIFIED:
        return Nameless()
    if leases.had(mac, address, now) and address in leases.network:
        return Granted(address, renewing)
    if selecting:
        return Refused(f"{address} is not what you were offered")
    if (renewing or reserved == address) and leases.may_have(mac, address, now):
        return Granted(address, renewing)
    if leases.denied(mac, address, now):
        return Refused(f"{address} is not yours on this network")
    if not renewing and leases.by_mac(mac) is not None:
        return Refused(f"{address} is not the address of your lease")
    return Silence()

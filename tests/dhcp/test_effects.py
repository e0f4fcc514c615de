"""Where a reply goes: RFC 2131 section 4.1, case by case."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from netboot.dhcp.effects import LIMITED_BROADCAST, How, destination
from netboot.dhcp.wire import BROADCAST, Packet

A = IPv4Address("192.168.77.50")
RELAY = IPv4Address("192.168.77.2")
REPLY = Packet(op=2, xid=1, hardware=bytes(6))


@pytest.mark.parametrize(
    ("fields", "refused", "where"),
    [
        # An address to be, and no broadcast flag: the frame goes to the hardware address.
        ({"yiaddr": A}, False, (A, 68, How.CHADDR)),
        ({"yiaddr": A, "flags": BROADCAST}, False, (LIMITED_BROADCAST, 68, How.BROADCAST)),
        # A renewal, or INFORM: it has the address already, whatever the flag says.
        ({"yiaddr": A, "ciaddr": A}, False, (A, 68, How.UNICAST)),
        ({"ciaddr": A, "flags": BROADCAST}, False, (A, 68, How.UNICAST)),
        # A proxy's offer has no address to go to.
        ({}, False, (LIMITED_BROADCAST, 68, How.BROADCAST)),
        # A relay gets everything, on the servers' port.
        ({"yiaddr": A, "giaddr": RELAY}, False, (RELAY, 67, How.RELAY)),
        ({"giaddr": RELAY, "ciaddr": A, "flags": BROADCAST}, True, (RELAY, 67, How.RELAY)),
        # A NAK is broadcast even to one that says it has an address.
        ({"ciaddr": A}, True, (LIMITED_BROADCAST, 68, How.BROADCAST)),
    ],
)
def test_destination(
    fields: dict[str, object], refused: bool, where: tuple[IPv4Address, int, How]
) -> None:
    assert destination(replace(REPLY, **fields), refused=refused) == where

"""Two ICMPv6 messages of RFC 4861: the solicitation we read, the advertisement we write.

    Router Solicitation, section 4.1      Router Advertisement, section 4.2
    | type 133 | code 0 | checksum  |     | type 134 | code 0 | checksum         |
    | reserved                      |     | hop limit | M O flags | lifetime (s) |
    | options ...                   |     | reachable time | retransmission timer |
                                          | options ...                          |

Both carry the sender's MAC in option 1 (section 4.6.1). Checksums are the kernel's business: it
checks and writes them on an ICMPv6 socket.
"""

from netboot.binary import U8, U16, U32, Octets6, pack, record, size, unpack
from netboot.errors import WireError

ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
SOURCE_LINK_LAYER_ADDRESS = 1


@record
class Solicitation:
    """Section 4.1."""

    type: U8
    code: U8
    checksum: U16
    reserved: U32


@record
class Advertisement:
    """Section 4.2. ``lifetime`` 0: not a default router."""

    type: U8
    code: U8
    checksum: U16
    hop_limit: U8
    flags: U8
    lifetime: U16
    reachable: U32
    retransmit: U32


@record
class LinkLayerAddress:
    """Section 4.6.1, for Ethernet: the length counts units of 8 bytes."""

    type: U8
    length: U8
    address: Octets6


def solicitation_mac(data: bytes) -> str | None:
    """The MAC that a solicitation names, or None where it names none.

    WireError for what section 6.1.1 tells a router to discard.
    """
    head = unpack(Solicitation, data)
    if (head.type, head.code) != (ROUTER_SOLICITATION, 0):
        raise WireError(f"type {head.type} code {head.code} is not a router solicitation")
    mac, at = None, size(Solicitation)
    while at < len(data):
        length = data[at + 1] * 8 if at + 1 < len(data) else 0
        if length == 0 or at + length > len(data):
            raise WireError("an option of a router solicitation has no sensible length")
        if data[at] == SOURCE_LINK_LAYER_ADDRESS and length == size(LinkLayerAddress):
            mac = unpack(LinkLayerAddress, data, at).address.hex(":")
        at += length
    return mac


def no_router(mac: bytes) -> bytes:
    """The advertisement that ends a client's wait and promises nothing; ``mac`` is ours."""
    head = Advertisement(
        type=ROUTER_ADVERTISEMENT,
        code=0,
        checksum=0,
        hop_limit=0,
        flags=0,
        lifetime=0,
        reachable=0,
        retransmit=0,
    )
    source = LinkLayerAddress(type=SOURCE_LINK_LAYER_ADDRESS, length=1, address=mac)
    return pack(head) + pack(source)

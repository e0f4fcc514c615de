"""DHCP packets: bytes ⇄ records.

Implements the format of RFC 2131 section 2 with the options area of RFC 2132, option overload
(RFC 2132 section 9.3) and long options in several pieces (RFC 3396). It knows no option but
those that shape the packet itself; what a value means is the business of ``options``. It never
reads past the data, and every fault of the data is a ``WireError``.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |     op        |   htype       |   hlen        |   hops        |
    |                              xid                              |
    |             secs              |             flags             |
    |                            ciaddr                             |
    |                            yiaddr                             |
    |                            siaddr                             |
    |                            giaddr                             |
    |                            chaddr  (16)                       |
    |                            sname   (64)                       |
    |                            file    (128)                      |
    |                      99.130.83.99, options                    |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from netboot.binary import (
    U8,
    U16,
    U32,
    Octets4,
    Octets16,
    Octets64,
    Octets128,
    packer,
    reader,
    record,
    size,
)
from netboot.errors import WireError

REQUEST, REPLY = 1, 2  #: op
ETHERNET = 1  #: htype
BROADCAST = 0x8000  #: the one flag (RFC 2131 section 2, figure 2)
UNSPECIFIED = IPv4Address(0)

MAGIC = bytes((99, 130, 83, 99))
PAD, OVERLOAD, RELAY_AGENT, END = 0, 52, 82, 255
SERVER_NAME, BOOT_FILE = 66, 67
_FILE_HOLDS_OPTIONS, _SNAME_HOLDS_OPTIONS = 1, 2

#: Relays and old ROMs throw shorter packets away (RFC 1542 section 2.1).
MINIMUM = 300
#: Every client must take an IP datagram of 576 bytes (RFC 2131 section 2): what is left of it.
IP_UDP_HEADERS = 28
DEFAULT_LIMIT = 576 - IP_UDP_HEADERS
_PIECE = 255


@record
class Header:
    """The fixed part (RFC 2131 section 2, figure 1)."""

    op: U8
    htype: U8
    hlen: U8
    hops: U8
    xid: U32
    secs: U16
    flags: U16
    ciaddr: Octets4
    yiaddr: Octets4
    siaddr: Octets4
    giaddr: Octets4
    chaddr: Octets16
    sname: Octets64
    file: Octets128


#: Every packet comes and goes as a tuple: a record more would cost as much as the options.
_read, _pack, _SIZE = reader(Header), packer(Header), size(Header)
_OPTIONS_AT = _SIZE + len(MAGIC)
_NO_ADDRESS = bytes(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One DHCP message; options are raw bytes, each code once, in the order they are sent."""

    op: int
    xid: int
    hardware: bytes  #: chaddr, as long as hlen says
    htype: int = ETHERNET
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = UNSPECIFIED
    yiaddr: IPv4Address = UNSPECIFIED
    siaddr: IPv4Address = UNSPECIFIED
    giaddr: IPv4Address = UNSPECIFIED
    sname: bytes = b""  #: up to its NUL
    file: bytes = b""  #: up to its NUL
    options: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def mac(self) -> str | None:
        """The sender's Ethernet address; None where there is none that one machine can have."""
        if self.htype != ETHERNET or len(self.hardware) != 6:
            return None
        if self.hardware[0] & 1 or not any(self.hardware):
            return None
        return self.hardware.hex(":")

    @property
    def broadcast(self) -> bool:
        """The client cannot take unicast before it has an address."""
        return bool(self.flags & BROADCAST)


def decode(data: bytes) -> Packet:
    """The packet in ``data``; ``WireError`` when it is not a DHCP packet.

    An options area may end without END: many clients leave it out. Pieces of one option are
    joined in the order options, file, sname (RFC 3396 section 7).
    """
    (
        op,
        htype,
        hlen,
        hops,
        xid,
        secs,
        flags,
        ciaddr,
        yiaddr,
        siaddr,
        giaddr,
        chaddr,
        sname,
        file,
    ) = _read(data)
    if op not in (REQUEST, REPLY):
        raise WireError(f"op {op} is neither request nor reply")
    if hlen > 16:
        raise WireError(f"a hardware address of {hlen} bytes does not fit in chaddr")
    if data[_SIZE:_OPTIONS_AT] != MAGIC:
        raise WireError("no DHCP magic cookie")
    found: dict[int, bytes] = {}
    _collect(data, found, _OPTIONS_AT)
    if OVERLOAD in found:
        overload = found.pop(OVERLOAD)
        if len(overload) != 1 or overload[0] > 3:
            raise WireError("option overload is not 1, 2 or 3")
        if overload[0] & _FILE_HOLDS_OPTIONS:
            _collect(file, found)
            file = b""
        if overload[0] & _SNAME_HOLDS_OPTIONS:
            _collect(sname, found)
            sname = b""
        found.pop(OVERLOAD, None)  # one inside an overloaded field has no meaning
    return Packet(
        op=op,
        htype=htype,
        hardware=chaddr[:hlen],
        hops=hops,
        xid=xid,
        secs=secs,
        flags=flags,
        ciaddr=_address(ciaddr),
        yiaddr=_address(yiaddr),
        siaddr=_address(siaddr),
        giaddr=_address(giaddr),
        sname=sname.partition(b"\0")[0],
        file=file.partition(b"\0")[0],
        options=found,
    )


def encode(packet: Packet, limit: int = DEFAULT_LIMIT) -> bytes:
    """The bytes of ``packet``, at most ``limit`` of them (without IP and UDP headers).

    What does not fit goes into sname, then also into file (their text moves to options 66 and
    67); a relay's option 82 stays last in the options area (RFC 3046 section 2.2).
    ``WireError`` when it does not fit even so.
    """
    sname, file, options = packet.sname, packet.file, dict(packet.options)
    if len(sname) > 63 or len(file) > 127:
        raise WireError("sname holds 63 bytes and file 127, besides their NUL")
    room = limit - _OPTIONS_AT
    area = _area(options)
    if len(area) > room:
        areas = None
        for overload in (_SNAME_HOLDS_OPTIONS, _SNAME_HOLDS_OPTIONS | _FILE_HOLDS_OPTIONS):
            moved = dict(options)
            if sname:
                moved.setdefault(SERVER_NAME, sname + b"\0")
            if file and overload & _FILE_HOLDS_OPTIONS:
                moved.setdefault(BOOT_FILE, file + b"\0")
            areas = _spread(moved, room, overload)
            if areas is not None:
                break
        if areas is None:
            raise WireError(f"{len(area)} bytes of options do not fit into {room}")
        area, sname = areas[0], areas[1]
        file = areas[2] if len(areas) > 2 else file
    fixed = _pack(
        packet.op,
        packet.htype,
        len(packet.hardware),
        packet.hops,
        packet.xid,
        packet.secs,
        packet.flags,
        _octets(packet.ciaddr),
        _octets(packet.yiaddr),
        _octets(packet.siaddr),
        _octets(packet.giaddr),
        packet.hardware,
        sname,
        file,
    )
    return (fixed + MAGIC + area).ljust(MINIMUM, b"\0")


def decode_tlvs(data: bytes) -> dict[int, bytes]:
    """The sub-options inside an encapsulating option (RFC 2132 section 8.4)."""
    found: dict[int, bytes] = {}
    _collect(data, found)
    return found


def encode_tlvs(values: Mapping[int, bytes]) -> bytes:
    """Sub-options for an encapsulating option, with the END that PXE ROMs look for."""
    return b"".join(_pieces(code, value) for code, value in values.items()) + bytes((END,))


def _collect(data: bytes, found: dict[int, bytes], at: int = 0) -> None:
    """Add the options in ``data`` to ``found``, joining pieces (RFC 3396 section 7)."""
    joined: dict[int, bytearray] = {}  # hardly ever any; not bytes, which a long one copies often
    while at < len(data):
        code = data[at]
        if code == PAD:
            at += 1
            continue
        if code == END:
            break
        if at + 1 >= len(data) or at + 2 + data[at + 1] > len(data):
            raise WireError(f"option {code} runs past the end")
        end = at + 2 + data[at + 1]
        piece = data[at + 2 : end]
        if code not in found:
            found[code] = piece
        elif code in joined:
            joined[code] += piece
        else:
            joined[code] = bytearray(found[code] + piece)
        at = end
    for code, pieces in joined.items():
        found[code] = bytes(pieces)


def _address(data: bytes) -> IPv4Address:
    """Most of a packet's four are not filled in."""
    return UNSPECIFIED if data == _NO_ADDRESS else IPv4Address(data)


def _octets(address: IPv4Address) -> bytes:
    return _NO_ADDRESS if address is UNSPECIFIED else address.packed


def _pieces(code: int, value: bytes) -> bytes:
    """One option, in pieces of at most 255 bytes (RFC 3396 section 8)."""
    if len(value) <= _PIECE:
        return bytes((code, len(value))) + value
    cuts: Iterable[int] = range(0, len(value), _PIECE)
    parts = (value[cut : cut + _PIECE] for cut in cuts)
    return b"".join(bytes((code, len(part))) + part for part in parts)


def _area(options: Mapping[int, bytes]) -> bytes:
    if RELAY_AGENT in options:
        options = dict(options)
        options[RELAY_AGENT] = options.pop(RELAY_AGENT)  # to the end
    parts = [
        bytes((code, len(value))) + value if len(value) <= _PIECE else _pieces(code, value)
        for code, value in options.items()
    ]
    return b"".join(parts) + bytes((END,))


def _spread(options: dict[int, bytes], room: int, overload: int) -> tuple[bytes, ...] | None:
    """Whole options laid into options, sname and file, first fit; None: they do not fit."""
    rest = {code: value for code, value in options.items() if code != RELAY_AGENT}
    relay = {code: value for code, value in options.items() if code == RELAY_AGENT}
    fixed = len(_area({OVERLOAD: bytes((overload,)), **relay}))
    if fixed > room:  # the relay's alone is too much
        return None
    rooms = [room - fixed, 63] + ([127] if overload & _FILE_HOLDS_OPTIONS else [])
    areas: list[dict[int, bytes]] = [{} for _ in rooms]
    for code, value in rest.items():
        need = len(_pieces(code, value))
        place = next((i for i, left in enumerate(rooms) if need <= left), None)
        if place is None:
            return None
        rooms[place] -= need
        areas[place][code] = value
    first = _area({OVERLOAD: bytes((overload,)), **areas[0], **relay})
    return (first, *(_area(area) for area in areas[1:]))

"""The text of one setting → its value, or a ValueError that says in words what is wrong.

Every function takes whatever TOML gave and answers with the value or raises ValueError; none
of them looks at another setting, a file, or the machine. Below them stand the types that fields
are declared with: a function and the words for what it allows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, ip_address
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias, TypeVar

from pydantic import PlainValidator

from netboot.model import DhcpMode, OverlayMode, Portal

_VARIABLE = re.compile(r"[a-z][a-z0-9_]*")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,9})([MGT])")
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")


class Duration(int):
    """Whole seconds that remember how people write them."""

    def __str__(self) -> str:
        for unit, seconds in reversed(_UNITS.items()):
            if self and self % seconds == 0:
                return f"{self // seconds}{unit}"
        return f"{int(self)}s"


class Size(int):
    """Whole bytes that remember how people write them."""

    def __str__(self) -> str:
        for unit, size in reversed(_SIZES.items()):
            if self and self % size == 0:
                return f"{self // size}{unit}"
        return str(int(self))


class Pool(NamedTuple):
    """A run of addresses, both ends included."""

    first: IPv4Address
    last: IPv4Address

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __contains__(self, address: object) -> bool:
        return isinstance(address, IPv4Address) and self.first <= address <= self.last


def text(value: object) -> str:
    """A string that is not empty and holds no control characters."""
    if not isinstance(value, str):
        raise ValueError("is not a string")
    if not value.strip():
        raise ValueError("is empty")
    if not value.isprintable():
        raise ValueError("holds control characters")
    return value


def switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def port(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a whole number")
    if not 1 <= value <= 65535:
        raise ValueError("is not a port number")
    return value


def address(value: object) -> IPv4Address:
    """One IPv4 address that a machine can have."""
    try:
        given = IPv4Address(text(value))
    except ValueError as error:
        raise ValueError(f"is not an IPv4 address ({error})") from None
    if given.is_multicast or given.is_unspecified or int(given) == 0xFFFFFFFF:
        raise ValueError("is not an address that one machine can have")
    return given


def interface_address(value: object) -> IPv4Interface:
    """An address with its prefix length; a network of one or two addresses holds no clients."""
    given = text(value)
    if "/" not in given:
        raise ValueError("has no prefix length")
    try:
        parsed = IPv4Interface(given)
    except ValueError as error:
        raise ValueError(f"is not an IPv4 address with a prefix length ({error})") from None
    address(str(parsed.ip))
    if parsed.network.prefixlen > 30:
        raise ValueError("is a network with no room for clients")
    if parsed.ip in (parsed.network.network_address, parsed.network.broadcast_address):
        raise ValueError(f"is the network's own or its broadcast address in {parsed.network}")
    return parsed


def pool(value: object) -> Pool:
    first, hyphen, last = text(value).partition("-")
    if not hyphen:
        raise ValueError("is not a range")
    found = Pool(address(first.strip()), address(last.strip()))
    if found.first > found.last:
        raise ValueError("ends before it begins")
    return found


def duration(value: object) -> Duration:
    """``90s``, ``90m``, ``1h``, ``1d`` as seconds; at least 30 s, at most 365 days."""
    if isinstance(value, Duration):
        return value
    match = _DURATION.fullmatch(text(value))
    if not match:
        raise ValueError("is not a number with a unit")
    seconds = Duration(int(match[1]) * _UNITS[match[2]])
    if not 30 <= seconds <= 365 * 86400:
        raise ValueError("is shorter than 30s or longer than 365d")
    return seconds


def size(value: object) -> Size:
    """``512M``, ``100G``, ``2T`` as bytes, by powers of 1024; at most 16 TiB."""
    if isinstance(value, Size):
        return value
    match = _SIZE.fullmatch(text(value))
    if not match:
        raise ValueError("is not a number with a unit")
    found = Size(int(match[1]) * _SIZES[match[2]])
    if not 1 << 20 <= found <= 16 << 40:
        raise ValueError("is smaller than 1M or larger than 16T")
    return found


def count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a whole number")
    if not 1 <= value <= 65535:
        raise ValueError("is below 1 or above 65535")
    return value


def processes(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a whole number")
    if not 1 <= value <= 64:
        raise ValueError("is below 1 or above 64")
    return value


def portal(value: object) -> Portal:
    """A portal that initiators can be sent to, in the spelling of SendTargets."""
    given = Portal.of(text(value))
    port(given.port)
    address = ip_address(given.address)
    if address.is_unspecified or address.is_multicast:
        raise ValueError("is not an address that initiators can connect to")
    if address.version == 6 and address.is_link_local:
        raise ValueError("is link-local, which means something else on each interface")
    return given


def portals(value: object) -> tuple[Portal, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("is not a list of portals")
    return tuple(portal(item) for item in value)


def endpoint(value: object) -> str:
    """A portal without its group, as in a login redirect (RFC 7143 section 13.8)."""
    if "," in text(value):
        raise ValueError("has a portal group tag, which a redirect must not have")
    return portal(value).endpoint


def folder(value: object) -> Path:
    path = Path(text(value))
    if not path.is_absolute():
        raise ValueError("is not an absolute path")
    return path


def folders(value: object) -> tuple[Path, ...]:
    if not isinstance(value, list):
        raise ValueError("is not a list of folders")
    return tuple(folder(item) for item in value)


def addresses(value: object) -> tuple[IPv4Address, ...]:
    if not isinstance(value, list):
        raise ValueError("is not a list of addresses")
    return tuple(address(item) for item in value)


def variables(value: object) -> dict[str, str]:
    """What templates may use; anything that TOML can say becomes its text."""
    if not isinstance(value, Mapping):
        raise ValueError("is not a table")
    for key, item in value.items():
        if not _VARIABLE.fullmatch(key):
            raise ValueError(f"has the name {key!r}, which is not lower case with underscores")
        text(item)
    return dict(value)


Word = TypeVar("Word", bound=StrEnum)


def one_of(words: type[Word], value: object) -> Word:
    for word in words:
        if value == word.value:
            return word
    raise ValueError("is not one of the words")


def overlay_mode(value: object) -> OverlayMode:
    return one_of(OverlayMode, value)


def dhcp_mode(value: object) -> DhcpMode:
    return one_of(DhcpMode, value)


def policy(value: object) -> str:
    if value != "ignore":
        raise ValueError("is no policy")
    return "ignore"


def database(value: object) -> str:
    """A SQLAlchemy URL; only its shape is looked at."""
    given = text(value)
    if not re.fullmatch(r"[a-z0-9+]+://\S*", given):
        raise ValueError("is not a database URL")
    return given


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a setting of this type may be, in words: for errors and for the documentation.

    ``hidden``: what it is in a file is nowhere repeated.
    """

    words: str
    hidden: bool = False


Text: TypeAlias = Annotated[str, PlainValidator(text), Allowed("text")]
Switch: TypeAlias = Annotated[bool, PlainValidator(switch), Allowed("true or false")]
Port: TypeAlias = Annotated[int, PlainValidator(port), Allowed("a number, 1 to 65535")]
Address: TypeAlias = Annotated[
    IPv4Address, PlainValidator(address), Allowed("an IPv4 address, as 192.168.77.21")
]
OwnAddress: TypeAlias = Annotated[
    IPv4Interface,
    PlainValidator(interface_address),
    Allowed("an IPv4 address and prefix length of at most 30, as 192.168.77.1/24"),
]
Range: TypeAlias = Annotated[
    Pool, PlainValidator(pool), Allowed("FIRST-LAST, two IPv4 addresses of the subnet")
]
Time: TypeAlias = Annotated[
    Duration,
    PlainValidator(duration),
    Allowed("a whole number and s, m, h or d, from 30s to 365d, as 90m"),
]
Bytes: TypeAlias = Annotated[
    Size, PlainValidator(size), Allowed("a whole number and M, G or T, from 1M to 16T, as 100G")
]
Count: TypeAlias = Annotated[int, PlainValidator(count), Allowed("a number, 1 to 65535")]
Processes: TypeAlias = Annotated[int, PlainValidator(processes), Allowed("a number, 1 to 64")]
Portals: TypeAlias = Annotated[
    tuple[Portal, ...],
    PlainValidator(portals),
    Allowed("a list of ADDRESS:PORT[,TAG], an IPv6 address in brackets, the tag 1 to 65535"),
]
Endpoint: TypeAlias = Annotated[
    str, PlainValidator(endpoint), Allowed("ADDRESS:PORT, an IPv6 address in brackets")
]
Folder: TypeAlias = Annotated[Path, PlainValidator(folder), Allowed("an absolute path")]
Folders: TypeAlias = Annotated[
    tuple[Path, ...], PlainValidator(folders), Allowed("a list of absolute paths")
]
Addresses: TypeAlias = Annotated[
    tuple[IPv4Address, ...], PlainValidator(addresses), Allowed("a list of IPv4 addresses")
]
Variables: TypeAlias = Annotated[
    dict[str, str],
    PlainValidator(variables),
    Allowed("a table of texts; names in lower case with underscores"),
]
Database: TypeAlias = Annotated[
    str, PlainValidator(database), Allowed("a SQLAlchemy URL, as sqlite:////srv/nb.sqlite")
]
Overlays: TypeAlias = Annotated[
    OverlayMode, PlainValidator(overlay_mode), Allowed("persistent or ephemeral")
]
Mode: TypeAlias = Annotated[DhcpMode, PlainValidator(dhcp_mode), Allowed("full, proxy or off")]
Policy: TypeAlias = Annotated[str, PlainValidator(policy), Allowed("ignore")]

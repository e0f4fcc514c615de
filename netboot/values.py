"""The text of one setting → its value, or a ValueError that says in words what is wrong.

Every function takes whatever TOML gave and answers with the value or raises ValueError; none
of them looks at another setting, a file, or the machine. Below them stand the types that fields
are declared with: a function and the words for what it allows.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias, TypeVar

from pydantic import PlainValidator

from netboot.model import DhcpMode, OverlayMode, canonical_mac

#: RFC 1123 section 2.1: letters, digits and hyphens, no hyphen at either end, at most 63.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: RFC 7143 section 4.2.7.4: a year and a month in which the domain was the operator's.
_IQN = re.compile(r"iqn\.\d{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[a-z0-9.:-]+)?")
_EUI = re.compile(r"eui\.[0-9A-F]{16}|naa\.([0-9A-F]{16}|[0-9A-F]{32})")
#: RFC 7143 section 4.2.7.1, in bytes.
ISCSI_NAME_LIMIT = 223
#: What ``Site.initiator_name`` adds to the prefix at most.
_IQN_SUFFIX = len(":client.00-00-00-00-00-00")
_FILE_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_VARIABLE = re.compile(r"[a-z][a-z0-9_]*")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
#: IFNAMSIZ of Linux, without its NUL.
_INTERFACE_LIMIT = 15


class Duration(int):
    """Whole seconds that remember how people write them."""

    def __str__(self) -> str:
        for unit, seconds in reversed(_UNITS.items()):
            if self and self % seconds == 0:
                return f"{self // seconds}{unit}"
        return f"{int(self)}s"


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


def mac(value: object) -> str:
    """Canonical spelling; a group address (the low bit of the first octet) names no machine."""
    address = canonical_mac(text(value))
    if int(address[:2], 16) & 1:
        raise ValueError("is a multicast or broadcast address, not one machine's")
    if address == "00:00:00:00:00:00":
        raise ValueError("is the address of no machine")
    return address


def label(value: object) -> str:
    """One DNS label, in lower case."""
    name = text(value).lower()
    if not _LABEL.fullmatch(name):
        raise ValueError("is not a DNS label")
    return name


def domain(value: object) -> str:
    """Dotted DNS labels, in lower case, without the final dot."""
    name = text(value).lower().removesuffix(".")
    wrong = [part for part in name.split(".") if not _LABEL.fullmatch(part)]
    if wrong:
        raise ValueError(f"is not a domain: {wrong[0]!r} is not a DNS label")
    if len(name) > 200:  # RFC 1035 section 2.3.4 gives 255 in all; hosts' labels need theirs
        raise ValueError("is longer than 200 characters")
    return name


def name(value: object) -> str:
    """The name of a profile or image: also a folder name, so no slash and no leading dot."""
    given = text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", given):
        raise ValueError("is not a plain name")
    return given


def image(value: object) -> str:
    """The name of a golden image, as the library takes it."""
    given = text(value)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", given):
        raise ValueError("cannot be the name of an image")
    return given


def interface(value: object) -> str:
    given = text(value)
    if len(given) > _INTERFACE_LIMIT or "/" in given or " " in given or given in (".", ".."):
        raise ValueError("cannot be the name of a network interface")
    return given


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


def iqn(value: object) -> str:
    """The prefix of our iSCSI names (RFC 7143 section 4.2.7.4)."""
    given = text(value)
    if given != given.lower():
        raise ValueError("has capital letters, which iSCSI names do not")
    if not _IQN.fullmatch(given) or ".." in given:
        raise ValueError("is not an iSCSI qualified name")
    if len(given) > ISCSI_NAME_LIMIT - _IQN_SUFFIX:
        raise ValueError(f"is longer than {ISCSI_NAME_LIMIT - _IQN_SUFFIX} characters")
    return given


def initiator(value: object) -> str:
    """A machine's own iSCSI name, of any of the three types (RFC 7143 section 4.2.7)."""
    given = text(value)
    if not (_IQN.fullmatch(given) or _EUI.fullmatch(given)) or len(given) > ISCSI_NAME_LIMIT:
        raise ValueError("is not an iSCSI name")
    return given


def file_name(value: object) -> str:
    """A name below one of our folders: no leading slash, no ``..``."""
    given = text(value)
    if not _FILE_NAME.fullmatch(given) or ".." in given.split("/"):
        raise ValueError("is not the name of a file below our folders")
    return given


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


def _one_of(words: type[Word], value: object) -> Word:
    for word in words:
        if value == word.value:
            return word
    raise ValueError("is not one of the words")


def overlay_mode(value: object) -> OverlayMode:
    return _one_of(OverlayMode, value)


def dhcp_mode(value: object) -> DhcpMode:
    return _one_of(DhcpMode, value)


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
    """What a setting of this type may be, in words: for errors and for the documentation."""

    words: str


Text: TypeAlias = Annotated[str, PlainValidator(text), Allowed("text")]
Switch: TypeAlias = Annotated[bool, PlainValidator(switch), Allowed("true or false")]
Port: TypeAlias = Annotated[int, PlainValidator(port), Allowed("a number, 1 to 65535")]
Mac: TypeAlias = Annotated[
    str, PlainValidator(mac), Allowed("one machine's MAC address, as 52:54:00:12:34:56")
]
Label: TypeAlias = Annotated[
    str,
    PlainValidator(label),
    Allowed("1 to 63 letters, digits and hyphens, no hyphen at either end"),
]
Domain: TypeAlias = Annotated[
    str, PlainValidator(domain), Allowed("labels with dots between them, as lab.netboot")
]
Name: TypeAlias = Annotated[
    str,
    PlainValidator(name),
    Allowed("1 to 64 letters, digits, dots, hyphens and underscores, the first a letter or digit"),
]
ImageName: TypeAlias = Annotated[
    str,
    PlainValidator(image),
    Allowed("1 to 63 lower-case letters, digits, dots, hyphens and underscores"),
]
Interface: TypeAlias = Annotated[
    str,
    PlainValidator(interface),
    Allowed("the name of a network interface, at most 15 characters, as `ip link` shows it"),
]
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
Iqn: TypeAlias = Annotated[
    str,
    PlainValidator(iqn),
    Allowed("iqn.YEAR-MONTH.DOMAIN-REVERSED, lower case (RFC 7143), as iqn.2026-11.lab.netboot"),
]
Initiator: TypeAlias = Annotated[
    str, PlainValidator(initiator), Allowed("an iSCSI name, as iqn.2010-04.org.ipxe:ws1")
]
FileName: TypeAlias = Annotated[
    str, PlainValidator(file_name), Allowed("the name of a file below our folders, as efi/ipxe.efi")
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

"""The names of things, as a settings file spells them: machines, networks, images, iSCSI nodes.

Like ``values``: a function takes whatever TOML gave and answers with the name, or raises a
ValueError that says in words what is wrong; below them stand the types for fields.
"""

import re
from typing import Annotated, TypeAlias

from pydantic import PlainValidator

from netboot.model import canonical_mac
from netboot.values import Allowed, text

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
#: IFNAMSIZ of Linux, without its NUL.
_INTERFACE_LIMIT = 15


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

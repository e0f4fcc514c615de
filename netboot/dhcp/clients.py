"""A packet → the Client it speaks for: which machine, and which of its programs.

Firmware, iPXE and the operating system of one machine all ask for an address, one after the
other, and each needs another answer. Nothing here decides the answer.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from uuid import UUID

from netboot.dhcp.options import Option
from netboot.dhcp.wire import Packet
from netboot.model import Client, Stage

PXE_CLIENT, HTTP_CLIENT = "PXEClient", "HTTPClient"
#: What says "I run scripts and root paths": iPXE, its ancestor, and xCAT's child of that.
_CHAINED = (b"iPXE", b"gPXE", b"xNBA")
_ARCH = re.compile(r":Arch:(\d{5})")
#: iPXE's markers of compiled-in features (``src/include/ipxe/features.h``); commands and
#: parameters in the same space lie outside.
_FEATURES = range(16, 80)
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def identify(packet: Packet) -> Client | None:
    """Who sent ``packet``; None when it carries no Ethernet address of one machine.

    Options that are malformed count as absent: a ROM with a bug in one of them still boots.
    """
    mac = packet.mac
    if mac is None:
        return None
    options = packet.options
    said = _said(*map(options.get, _OF_A_MODEL))
    name = Option.HOST_NAME.get(options, str) or ""
    return Client(
        mac,
        said.stage,
        said.arch,
        said.http,
        Option.MACHINE_ID.get(options, UUID),
        said.vendor_class,
        said.user_class,
        name if name and _HOST_NAME.fullmatch(name) else "",
        said.wants,
        said.features,
    )


#: The options in which one program of many machines of one model says the same.
_OF_A_MODEL = tuple(
    option.code
    for option in (
        Option.VENDOR_CLASS,
        Option.USER_CLASS,
        Option.IPXE,
        Option.ARCHITECTURE,
        Option.PARAMETERS,
    )
)


@lru_cache(maxsize=256)
def _said(*values: bytes | None) -> Client:
    """What these say, of a client without a MAC: a classroom's machines are asked once."""
    options = {
        code: value for code, value in zip(_OF_A_MODEL, values, strict=True) if value is not None
    }
    vendor = Option.VENDOR_CLASS.get(options, str) or ""
    user = options.get(Option.USER_CLASS.code, b"")
    inside: dict[int, bytes] = Option.IPXE.get(options, dict) or {}
    return Client(
        mac="",
        stage=_stage(vendor, user, Option.IPXE.code in options),
        arch=_architectures(options, vendor),
        http=vendor.startswith(HTTP_CLIENT),
        vendor_class=_printable(vendor),
        user_class=_printable(b" ".join(user_classes(user)).decode("utf-8", "replace")),
        wants=frozenset(Option.PARAMETERS.get(options, tuple) or ()),
        features=frozenset(code for code in inside if code in _FEATURES),
    )


def user_classes(data: bytes) -> list[bytes]:
    """The classes in option 77.

    RFC 3004 puts a length before each. iPXE sends the four letters alone (its issue 1374), and
    ``i`` read as a length runs past the end: so whatever does not parse is one class, raw.
    """
    found, at = [], 0
    while at < len(data):
        end = at + 1 + data[at]
        if data[at] == 0 or end > len(data):
            return [data]
        found.append(data[at + 1 : end])
        at = end
    return found


def _stage(vendor: str, user: bytes, encapsulated: bool) -> Stage:
    """Option 175 is as good a proof of iPXE as the user class, which ``set user-class`` changes.

    Getting this wrong means a loop: iPXE offered iPXE fetches itself for ever (danderson/netboot
    issue 77).
    """
    if encapsulated or any(name in _CHAINED for name in user_classes(user)):
        return Stage.IPXE
    if vendor.startswith((PXE_CLIENT, HTTP_CLIENT)):
        return Stage.FIRMWARE
    return Stage.OS


def _architectures(options: Mapping[int, bytes], vendor: str) -> tuple[int, ...]:
    """Option 93 may be a list (RFC 4578 section 2.1); some firmware says it only in option 60."""
    listed: tuple[int, ...] | None = Option.ARCHITECTURE.get(options, tuple)
    if listed:
        return listed
    told = _ARCH.search(vendor)
    return (int(told[1]),) if told else ()


def _printable(text: str) -> str:
    """Fit for a log line: what the network sent never moves the cursor."""
    if text.isprintable():
        return text[:128]
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:128]

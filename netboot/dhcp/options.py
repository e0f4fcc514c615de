"""The table of DHCP options: code · name · type · reference.

A row drives decoding, encoding, the documentation and the tests; the codecs are the few *types*,
not the options. The sub-options inside 43 (PXE) and 175 (iPXE) are tables of the same shape.
Nothing here decides who is sent what: that is ``replies``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import Any, TypeVar
from uuid import UUID

from netboot.dhcp.wire import decode_tlvs, encode_tlvs
from netboot.errors import WireError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Type:
    """How a value lies in bytes. ``decode`` raises ``WireError`` for what is not one."""

    name: str
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def _exactly(length: int, data: bytes) -> bytes:
    if len(data) != length:
        raise WireError(f"{len(data)} bytes where {length} belong")
    return data


def _items(length: int, data: bytes) -> list[bytes]:
    if not data or len(data) % length:
        raise WireError(f"{len(data)} bytes are not a list of {length} bytes each")
    return [data[at : at + length] for at in range(0, len(data), length)]


def _number(length: int) -> Type:
    return Type(
        f"uint{8 * length}",
        lambda data: int.from_bytes(_exactly(length, data), "big"),
        lambda value: int(value).to_bytes(length, "big"),
    )


def _numbers(length: int) -> Type:
    return Type(
        f"uint{8 * length} list",
        lambda data: tuple(int.from_bytes(item, "big") for item in _items(length, data)),
        lambda value: b"".join(int(item).to_bytes(length, "big") for item in value),
    )


def _text(data: bytes) -> str:
    """Without the NUL that RFC 2132 section 2 allows at the end; foreign bytes as U+FFFD."""
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _machine(data: bytes) -> UUID:
    """Type 0, then a UUID whose first three fields are little-endian, as in SMBIOS.

    RFC 4578 section 2.3 names no byte order. iPXE and EDK2 copy the SMBIOS bytes as they lie.
    """
    if _exactly(17, data)[0] != 0:
        raise WireError(f"machine identifier of type {data[0]}")
    return UUID(bytes_le=data[1:])


U8, U16, U32 = _number(1), _number(2), _number(4)
U8S, U16S = _numbers(1), _numbers(2)
ADDRESS = Type("address", lambda data: IPv4Address(_exactly(4, data)), lambda value: value.packed)
ADDRESSES = Type(
    "address list",
    lambda data: tuple(IPv4Address(item) for item in _items(4, data)),
    lambda value: b"".join(item.packed for item in value),
)
TEXT = Type("text", _text, lambda value: value.encode())
#: Always NUL-terminated by us: some BIOS ROMs want it, and EDK2 (PxeBcDhcp4.c, HttpBootDhcp4.c)
#: otherwise writes its own NUL over the code of whatever option follows.
TEXT_NUL = Type("text, NUL", _text, lambda value: value.encode() + b"\0")
BYTES = Type("bytes", bytes, bytes)
MACHINE = Type("machine id", _machine, lambda value: b"\0" + value.bytes_le)
TLVS = Type("sub-options", decode_tlvs, encode_tlvs)


class Row(Enum):
    """What every table of options has in common."""

    code: int
    label: str
    kind: Type
    reference: str

    def __init__(self, code: int, label: str, kind: Type, reference: str) -> None:
        self.code, self.label, self.kind, self.reference = code, label, kind, reference

    def decode(self, data: bytes) -> Any:
        """The value in ``data``; ``WireError`` names the option."""
        try:
            return self.kind.decode(data)
        except WireError as error:
            raise WireError(f"option {self.code} ({self.label}): {error}") from None

    def encode(self, value: Any) -> bytes:
        """The bytes of ``value``."""
        return self.kind.encode(value)

    def get(self, options: Mapping[int, bytes], type_: type[T]) -> T | None:
        """The option's value in ``options``; None where it is absent or malformed."""
        data = options.get(self.code)
        if data is None:
            return None
        try:
            value = self.decode(data)
        except WireError:
            return None
        return value if isinstance(value, type_) else None


class Option(Row):
    """The options of a DHCP packet that we read or write."""

    SUBNET_MASK = 1, "subnet-mask", ADDRESS, "RFC 2132 3.3"
    ROUTERS = 3, "routers", ADDRESSES, "RFC 2132 3.5"
    DNS_SERVERS = 6, "dns-servers", ADDRESSES, "RFC 2132 3.8"
    HOST_NAME = 12, "host-name", TEXT, "RFC 2132 3.14"
    DOMAIN_NAME = 15, "domain-name", TEXT, "RFC 2132 3.17"
    ROOT_PATH = 17, "root-path", TEXT, "RFC 2132 3.19, RFC 4173"
    BROADCAST_ADDRESS = 28, "broadcast-address", ADDRESS, "RFC 2132 5.3"
    VENDOR = 43, "vendor-specific", TLVS, "RFC 2132 8.4, PXE 2.1"
    REQUESTED_ADDRESS = 50, "requested-address", ADDRESS, "RFC 2132 9.1"
    LEASE_TIME = 51, "lease-time", U32, "RFC 2132 9.2"
    MESSAGE_TYPE = 53, "message-type", U8, "RFC 2132 9.6"
    SERVER_ID = 54, "server-id", ADDRESS, "RFC 2132 9.7"
    PARAMETERS = 55, "parameter-list", U8S, "RFC 2132 9.8"
    MESSAGE = 56, "message", TEXT, "RFC 2132 9.9"
    MAXIMUM_SIZE = 57, "maximum-size", U16, "RFC 2132 9.10"
    RENEWAL_TIME = 58, "renewal-time", U32, "RFC 2132 9.11"
    REBINDING_TIME = 59, "rebinding-time", U32, "RFC 2132 9.12"
    VENDOR_CLASS = 60, "vendor-class", TEXT, "RFC 2132 9.13"
    CLIENT_ID = 61, "client-id", BYTES, "RFC 2132 9.14, RFC 6842"
    SERVER_NAME = 66, "tftp-server-name", TEXT_NUL, "RFC 2132 9.4"
    BOOT_FILE = 67, "boot-file", TEXT_NUL, "RFC 2132 9.5"
    USER_CLASS = 77, "user-class", BYTES, "RFC 3004"
    RELAY_AGENT = 82, "relay-agent", TLVS, "RFC 3046"
    ARCHITECTURE = 93, "architecture", U16S, "RFC 4578 2.1"
    INTERFACE_ID = 94, "network-interface", BYTES, "RFC 4578 2.2"
    MACHINE_ID = 97, "machine-id", MACHINE, "RFC 4578 2.3"
    SUBNET = 118, "subnet-selection", ADDRESS, "RFC 3011"
    IPXE = 175, "ipxe-encapsulated", TLVS, "ipxe.org"
    ISCSI_INITIATOR = 203, "iscsi-initiator-name", TEXT, "ipxe.org"


class Pxe(Row):
    """Inside option 43, with vendor class ``PXEClient`` (PXE 2.1 table 2-1)."""

    DISCOVERY_CONTROL = 6, "discovery-control", U8, "PXE 2.1"
    BOOT_ITEM = 71, "boot-item", BYTES, "PXE 2.1"


class Ipxe(Row):
    """Inside option 175 (iPXE ``src/include/ipxe/dhcp.h``)."""

    PRIORITY = 1, "priority", U8, "ipxe.org"
    NO_PROXY_DHCP = 176, "no-pxedhcp", U8, "ipxe.org"
    USERNAME = 190, "username", TEXT, "ipxe.org"
    PASSWORD = 191, "password", TEXT, "ipxe.org"
    REVERSE_USERNAME = 192, "reverse-username", TEXT, "ipxe.org"
    REVERSE_PASSWORD = 193, "reverse-password", TEXT, "ipxe.org"


class RelayAgent(Row):
    """Inside option 82 (RFC 3046)."""

    LINK_SELECTION = 5, "link-selection", ADDRESS, "RFC 3527"

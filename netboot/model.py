"""The nouns of the product: frozen values that the parts hand one another.

What a packet says (Client), what the operator says (Host, Profile, Unknown, Site), what we
remember (Lease, Version, Overlay), what we decide (BootPlan, Admission, DiskSpec). None of them
knows how it is sent, stored or drawn; nothing here reads a clock or a file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from uuid import UUID

_MAC = re.compile(r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
_MAC_PUNCTUATION = re.compile(r"[-.:]")


def canonical_mac(text: str) -> str:
    """``52:54:00:12:34:56`` for any usual spelling; ValueError for anything else."""
    digits = _MAC_PUNCTUATION.sub("", text.strip().lower())
    mac = ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    if not _MAC.match(mac):
        raise ValueError(f"{text!r} is not a MAC address such as 52:54:00:12:34:56")
    return mac


def hyphenated(mac: str) -> str:
    """``52-54-00-12-34-56``: the spelling for file names and iSCSI names."""
    return mac.replace(":", "-")


class Stage(StrEnum):
    """Which program of the machine is speaking."""

    FIRMWARE = "firmware"  #: BIOS PXE ROM, UEFI PXE or UEFI HTTP boot
    IPXE = "ipxe"
    OS = "os"


@dataclass(frozen=True, slots=True)
class Client:
    """What one packet says of its sender. Never stored."""

    mac: str
    stage: Stage
    arch: tuple[int, ...] = ()  #: option 93 (RFC 4578), or ``Arch:`` of option 60; may be a list
    http: bool = False  #: vendor class begins with ``HTTPClient``
    uuid: UUID | None = None
    vendor_class: str = ""
    user_class: str = ""
    hostname: str = ""
    wants: frozenset[int] = frozenset()  #: option 55
    features: frozenset[int] = frozenset()  #: iPXE feature markers inside option 175
    address: IPv4Address | None = None  #: the source address, where one is known (TFTP, HTTP)


class ChapDigest(StrEnum):
    """What may answer a challenge, in the order of its CHAP_A numbers; member names in small
    letters are hashlib's."""

    MD5 = "MD5"
    SHA1 = "SHA1"
    SHA256 = "SHA256"
    SHA3_256 = "SHA3-256"

    @property
    def number(self) -> int:
        """CHAP_A (IANA, "PPP Authentication Algorithms"): 5 to 8."""
        return 5 + list(ChapDigest).index(self)


#: The user name by which we prove ourselves; that of every target here.
MUTUAL_NAME = "netboot"


@dataclass(frozen=True, slots=True)
class Chap:
    """What an initiator must prove at login (RFC 7143 section 12.1.3), and we to it."""

    name: str
    secret: str = field(repr=False)
    mutual_name: str = ""
    mutual_secret: str = field(default="", repr=False)
    algorithms: tuple[int, ...] = (5, 6, 7, 8)  #: CHAP_A numbers that we accept
    mark: str = field(default="", repr=False)  #: hex; makes our challenges known to us again


@dataclass(frozen=True, slots=True)
class Secrets:
    """A machine's generated secrets: what it proves at a login, and what we prove to it."""

    mac: str
    secret: str = field(repr=False)
    reverse: str = field(repr=False)
    made: float  #: seconds since the epoch


class OverlayMode(StrEnum):
    """What becomes of a client's writes at its next boot."""

    PERSISTENT = "persistent"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of machine boots. ``loader`` and ``script`` replace the built-in choice."""

    name: str
    image: str
    overlay: OverlayMode = OverlayMode.PERSISTENT
    loader: str | None = None  #: file name below the loaders' root
    script: str | None = None  #: template name below ``ipxe/``: HTTP script instead of root path
    variables: Mapping[str, str] = field(default_factory=dict)
    disk: int | None = None  #: bytes that a fresh overlay has at least


@dataclass(frozen=True, slots=True)
class Host:
    """One machine that the operator named."""

    mac: str
    name: str
    profile: str
    address: IPv4Address | None = None  #: reservation
    initiator: str | None = None  #: iSCSI name, where the machine brings its own
    chap_name: str | None = None  #: of its own secret; None: as we would name it
    chap_secret: str | None = field(default=None, repr=False)  #: where it brings its own
    chap_mutual_secret: str | None = field(default=None, repr=False)
    variables: Mapping[str, str] = field(default_factory=dict)


class DhcpMode(StrEnum):
    """How much of DHCP is ours."""

    FULL = "full"
    PROXY = "proxy"
    OFF = "off"


class ChapMode(StrEnum):
    """What a machine must prove when it logs in to its disk (RFC 7143 section 12.1.3)."""

    OFF = "off"
    CHAP = "chap"  #: that it knows its secret
    MUTUAL = "mutual"  #: the same, and we prove that we know ours to whoever asks


@dataclass(frozen=True, slots=True)
class Site:
    """What the brain needs to know of where it runs; made from the settings by ``config``."""

    interface: str
    address: IPv4Interface  #: ours, with its prefix
    domain: str
    dhcp_mode: DhcpMode = DhcpMode.FULL
    http_port: int = 8080
    iscsi_port: int = 3260
    iqn: str = "iqn.2026-11.lab.netboot"
    router: IPv4Address | None = None  #: option 3; None: none is offered
    profiles: Mapping[str, Profile] = field(default_factory=dict)  #: by name
    hosts: Mapping[str, Host] = field(default_factory=dict)  #: by canonical MAC
    unknown_profile: str | None = None  #: None: machines nobody named are ignored
    chap: ChapMode = ChapMode.OFF  #: of machines that bring no secret of their own
    algorithms: tuple[int, ...] = (5, 6, 7, 8)  #: CHAP_A numbers that we accept
    discovery: Chap | None = None  #: what discovery sessions must prove
    redirect: str | None = None  #: ``address:port`` that every login to a disk is sent to

    def called(self, mac: str) -> str:
        """A machine, for people: ``ws1 (52:54:00:12:34:56)``; its MAC where nobody named it."""
        host = self.hosts.get(mac)
        return f"{host.name} ({mac})" if host else mac

    def target_name(self, mac: str) -> str:
        """The iSCSI name of a client's own target."""
        return f"{self.iqn}:{hyphenated(mac)}"

    def initiator_name(self, mac: str) -> str:
        """The iSCSI name we tell a client to use (DHCP option 203)."""
        return f"{self.iqn}:client.{hyphenated(mac)}"


class LeaseState(StrEnum):
    """The life of an address (RFC 2131 section 3)."""

    OFFERED = "offered"
    BOUND = "bound"
    RELEASED = "released"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that belongs to a MAC until ``expires`` (seconds since the epoch).

    A DECLINED lease belongs to nobody: ``mac`` is whoever complained, and the address stays
    out of use until it expires.
    """

    mac: str
    address: IPv4Address
    expires: float
    state: LeaseState
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class BootPlan:
    """The decision for this client at this stage, with the reasons in words.

    Exactly one of ``loader``, ``script_url`` and ``root_path`` is set when there is something
    to boot; an operating system gets none of them, only its names and addresses.
    """

    client: Client
    name: str  #: host name to hand out
    profile: Profile
    loader: str | None = None  #: file name for TFTP
    loader_url: str | None = None  #: the same by HTTP, for UEFI HTTP boot
    script_url: str | None = None
    root_path: str | None = None  #: RFC 4173
    initiator: str | None = None
    reserved: IPv4Address | None = None
    starts_boot: bool = False  #: a firmware packet: a new boot begins with it
    why: tuple[str, ...] = ()  #: for ``explain``


@dataclass(frozen=True, slots=True)
class Version:
    """Immutable raw bytes of an image."""

    image: str
    number: int
    path: str  #: absolute path of the raw file
    size: int  #: bytes
    digest: str  #: ``sha256:<hex>`` of the raw bytes
    created: float
    origin: str = ""  #: from what it was made
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class Overlay:
    """One client's writes over one version."""

    mac: str
    image: str
    version: int
    mode: OverlayMode
    generation: int  #: counts the firmware boots of an ephemeral client; 0 for persistent
    path: str  #: absolute path of the ``.qcow2``
    trouble: str = ""  #: what last went wrong with it, for people; gone with a fresh one
    troubled: float | None = None  #: when; seconds since the epoch


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """All that a disk process needs to open one LUN; plain data, it crosses a socket as JSON.

    ``overlay`` None means the golden bytes themselves, read-only. An overlay on disk of an
    older ``generation`` is thrown away and begun afresh.
    """

    golden: str  #: absolute path of the raw golden file
    size: int  #: bytes of the golden file
    digest: str  #: identity of the golden version
    overlay: str | None = None  #: absolute path of ``<client>.qcow2``
    generation: int = 0
    ephemeral: bool = False  #: flushes need not reach the disk
    read_only: bool = False
    #: Bytes that a fresh overlay has at least; one that is there keeps its own size, so that it
    #: makes no other disk of it.
    room: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Lun:
    """A logical unit of a target: number, disk, and the identity that initiators see."""

    number: int
    disk: DiskSpec
    serial: str  #: VPD 80; stable per client and across golden updates
    thin: bool = True  #: UNMAP and its like are offered
    removable: bool = False  #: the medium can be taken out
    physical_block_exponent: int = 3  #: logical blocks per physical one, as a power of two


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to "may this initiator log in to this target, and what is behind it".

    ``status`` is the iSCSI login status (class << 8 | detail, RFC 7143 section 11.13.5), 0 for
    welcome. ``mac`` names the client for events and counters.
    """

    status: int
    mac: str = ""
    target: str = ""
    luns: tuple[Lun, ...] = ()
    detail: str = ""  #: for the log: why it was refused
    chap: Chap | None = None  #: None: the initiator need not prove anything
    redirect: str = ""  #: ``address:port`` to go to instead, with status 0101


@dataclass(frozen=True, slots=True)
class Portal:
    """An address that initiators reach our targets at, and the portal group it belongs to.

    The group's tag names the SCSI target port too, which is never 0 (RFC 7143 section 4.4.2).
    """

    address: str  #: IPv4 or IPv6, without brackets
    port: int
    group: int = 1

    @classmethod
    def of(cls, text: str) -> "Portal":
        """From ``ADDRESS:PORT[,TAG]``, an IPv6 address in brackets (RFC 7143 section 13.8)."""
        endpoint, comma, tag = text.partition(",")
        host, _, port = endpoint.rpartition(":")
        try:
            if host.startswith("[") and host.endswith("]"):
                address = str(IPv6Address(host[1:-1]))
            else:
                address = str(IPv4Address(host))
        except ValueError:
            raise ValueError("is not ADDRESS:PORT[,TAG], an IPv6 address in brackets") from None
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise ValueError("has no port number behind the address")
        group = tag if comma else "1"
        if not (group.isascii() and group.isdecimal() and 1 <= int(group) <= 65535):
            raise ValueError("has a portal group tag that is not from 1 to 65535")
        return cls(address, int(port), int(group))

    @property
    def endpoint(self) -> str:
        """``address:port``, an IPv6 address in brackets."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.endpoint},{self.group}"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions there may be: at all targets together, and at one client's."""

    sessions: int = 2048
    client: int = 16


@dataclass(frozen=True, slots=True)
class DiskProcess:
    """One of the disk processes at the moment."""

    number: int  #: from 0
    pid: int | None = None  #: None while it is away
    sessions: int = 0
    restarts: int = 0  #: since the control process started: it died, and was replaced


@dataclass(frozen=True, slots=True)
class Knock:
    """An initiator at the door: what a disk process asks about."""

    initiator: str
    target: str  #: empty for a discovery session
    address: str  #: peer address, text
    isid: str = ""  #: hex
    discovery: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """What one client's disk has done since its disk process first opened it."""

    mac: str
    sessions: int = 0
    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    write_bytes: int = 0
    flushes: int = 0
    errors: int = 0

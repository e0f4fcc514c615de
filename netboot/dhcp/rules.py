"""Who is told what: one table from options to the programs that need them.

A rule says which programs get an option always (they need it and do not all ask) and which only
when their parameter list asks. Nothing here decides what a machine boots (the plan says so) nor
whether it gets an answer at all; ``replies`` makes packets of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Any

from netboot.dhcp.clients import HTTP_CLIENT, PXE_CLIENT
from netboot.dhcp.options import Ipxe, Option, Pxe
from netboot.dhcp.wire import UNSPECIFIED, Packet
from netboot.model import BootPlan, Chap, Client, Site, Stage

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)

#: ``skip discovery, use the boot file you were told``: without it a BIOS ROM looks for boot
#: servers by broadcast first.
_USE_BOOT_FILE = 8
#: An offer that says nothing of priority has 0, and iPXE takes the highest.
_PRIORITY = 1
_BIOS_ARCHITECTURES = (0, 0x14)


class Audience(StrEnum):
    """The programs that ask, as far as answers differ."""

    BIOS = "BIOS PXE"
    UEFI = "UEFI PXE"
    HTTP = "UEFI HTTP"
    IPXE = "iPXE"
    OS = "OS"


def audience(client: Client) -> Audience:
    """Which column of the table ``client`` reads."""
    if client.stage is Stage.OS:
        return Audience.OS
    if client.stage is Stage.IPXE:
        return Audience.IPXE
    if client.http:
        return Audience.HTTP
    legacy = all(arch in _BIOS_ARCHITECTURES for arch in client.arch)
    return Audience.BIOS if legacy else Audience.UEFI


def program(plan: BootPlan) -> str | None:
    """The one thing that ``plan`` boots; None when there is nothing to boot."""
    return plan.loader or plan.loader_url or plan.script_url or plan.root_path


@dataclass(frozen=True, slots=True)
class Common:
    """What every machine that is leased an address is told alike: made once, not for each."""

    ours: IPv4Address
    name: str  #: the same as text
    options: Mapping[int, bytes]  #: of ``SHARED``, those that the site has


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that one reply is made from."""

    request: Packet
    client: Client
    plan: BootPlan | None  #: None for a NAK, which says no more than no
    site: Site
    message: int  #: OFFER, ACK or NAK
    address: IPv4Address = UNSPECIFIED  #: yiaddr
    seconds: int | None = None  #: of the lease; None: this reply leases nothing
    dns: tuple[IPv4Address, ...] = ()
    proxy: bool = False  #: another server gives the addresses
    boot_service: bool = False  #: the reply leaves from port 4011
    text: str = ""  #: why not, in a NAK
    chap: Chap | None = field(default=None, repr=False)  #: what this iPXE is told to prove
    common: Common | None = field(default=None, repr=False)  #: of this site and these seconds

    @property
    def ours(self) -> IPv4Address:
        return self.site.address.ip if self.common is None else self.common.ours

    @property
    def name(self) -> str:
        return str(self.ours) if self.common is None else self.common.name

    @property
    def boot_file(self) -> str | None:
        """What belongs in option 67: a TFTP name, or a URL.

        EDK2 asks port 4011 whenever a proxy's offer has no option 43, and takes the file from
        there; dnsmasq and Pixiecore, which UEFI machines boot from, leave it out of the offer.
        """
        if self.plan is None:
            return None
        if self.proxy and not self.boot_service and audience(self.client) is Audience.UEFI:
            return None
        if self.proxy and self.plan.root_path:
            # iPXE takes a proxy's reply only with siaddr and a boot file (dhcp.c,
            # dhcp_has_pxeopts), and ignores an empty one when it boots (autoboot.c): a lone NUL.
            return ""
        return self.plan.loader or self.plan.loader_url or self.plan.script_url

    @property
    def bootable(self) -> bool:
        return self.plan is not None and program(self.plan) is not None


def confides(facts: Facts) -> bool:
    """Whether this reply may say a secret: only to iPXE with something to boot, and only where it
    takes it from.

    That is the ACK of a lease (it forgets what an offer said), so that no more than a pool's
    worth of made-up machines are told anything; or a proxy's offer, which is all that it has of
    a proxy, and which cannot but be broadcast.
    """
    if facts.client.stage is not Stage.IPXE or not facts.bootable or facts.boot_service:
        return False
    return facts.proxy or (facts.message == ACK and facts.seconds is not None)


def _vendor(facts: Facts) -> dict[int, bytes] | None:
    """Option 43.

    A full offer with 60 but without 43 is what EDK2 calls BINL (PxeBcDhcp4.c): it would go on to
    ask port 4011. A proxy's offer to UEFI must be just that, for the same file drops a proxy's
    offer that has 43: its counter is looked at before it is first raised.
    """
    if not facts.bootable:
        return None
    asked: dict[int, bytes] = Option.VENDOR.get(facts.request.options, dict) or {}
    found: dict[int, bytes] = {}
    if not facts.proxy or audience(facts.client) is Audience.BIOS:
        found[Pxe.DISCOVERY_CONTROL.code] = Pxe.DISCOVERY_CONTROL.encode(_USE_BOOT_FILE)
    if facts.boot_service and Pxe.BOOT_ITEM.code in asked:
        found[Pxe.BOOT_ITEM.code] = asked[Pxe.BOOT_ITEM.code]
    return found or None


def _vendor_class(facts: Facts) -> str | None:
    """In full mode iPXE takes an offer with ``PXEClient`` for a proxy's too, and asks 4011."""
    if not facts.bootable or (facts.client.stage is Stage.IPXE and not facts.proxy):
        return None
    return HTTP_CLIENT if facts.client.http else PXE_CLIENT


def _ipxe(facts: Facts) -> dict[int, bytes]:
    found = {Ipxe.PRIORITY.code: Ipxe.PRIORITY.encode(_PRIORITY)}
    if not facts.proxy:
        found[Ipxe.NO_PROXY_DHCP.code] = Ipxe.NO_PROXY_DHCP.encode(1)
    chap = facts.chap
    if chap is not None:
        found[Ipxe.USERNAME.code] = Ipxe.USERNAME.encode(chap.name)
        found[Ipxe.PASSWORD.code] = Ipxe.PASSWORD.encode(chap.secret)
        # With these two iPXE offers nothing but CHAP, and asks for our proof (iscsi.c).
        if chap.mutual_secret:
            found[Ipxe.REVERSE_USERNAME.code] = Ipxe.REVERSE_USERNAME.encode(chap.mutual_name)
            found[Ipxe.REVERSE_PASSWORD.code] = Ipxe.REVERSE_PASSWORD.encode(chap.mutual_secret)
    return found


def _timer(eighths: int) -> Callable[[Facts], int | None]:
    return lambda facts: None if facts.seconds is None else facts.seconds * eighths // 8


def _echo(option: Option) -> Callable[[Facts], Any]:
    def value(facts: Facts) -> Any:
        raw = facts.request.options.get(option.code)
        return None if raw is None else Raw(raw)

    return value


class Raw(bytes):
    """Already in the form of the wire: what is echoed is echoed to the bit."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One option: who gets it always, who when asking, from what, and why."""

    option: Option
    value: Callable[[Facts], Any]  #: None: not in this reply
    why: str
    always: frozenset[Audience] = frozenset()
    asked: frozenset[Audience] = frozenset()
    proxy: bool = False  #: also in proxy mode and from port 4011
    refusal: bool = False  #: also in a NAK (RFC 2131 table 3)


_B, _U, _H, _I, _O = Audience
_ALL = frozenset(Audience)
_PXE = frozenset({_B, _U})
_FIRMWARE = frozenset({_B, _U, _H})
_BOOTING = frozenset({_B, _U, _H, _I})
_ONLY_IPXE = frozenset({_I})
_ONLY_OS = frozenset({_O})

#: In the order in which they are sent; when a reply is too long, the last go first.
RULES: tuple[Rule, ...] = (
    Rule(
        Option.MESSAGE_TYPE,
        lambda facts: facts.message,
        "what this packet is",
        always=_ALL,
        proxy=True,
        refusal=True,
    ),
    Rule(
        Option.SERVER_ID,
        lambda facts: facts.ours,
        "EDK2 drops an offer without it, and asks it on port 4011",
        always=_ALL,
        proxy=True,
        refusal=True,
    ),
    Rule(
        Option.RELAY_AGENT,
        _echo(Option.RELAY_AGENT),
        "the relay finds its way back by it; echoed to the bit, last",
        always=_ALL,
        proxy=True,
        refusal=True,
    ),
    Rule(
        Option.CLIENT_ID,
        _echo(Option.CLIENT_ID),
        "RFC 6842: clients behind one hardware address tell their answers apart",
        always=_ALL,
        proxy=True,
        refusal=True,
    ),
    Rule(
        Option.MESSAGE,
        lambda facts: facts.text or None,
        "a NAK says why",
        always=_ALL,
        refusal=True,
    ),
    Rule(
        Option.LEASE_TIME,
        lambda facts: facts.seconds,
        "not in the answer to INFORM",
        always=_ALL,
    ),
    Rule(
        Option.SUBNET_MASK,
        lambda facts: facts.site.address.netmask,
        "ROMs forget to ask; before the routers (RFC 2132 3.3)",
        always=_ALL,
    ),
    Rule(
        Option.ROUTERS,
        lambda facts: (facts.site.router,) if facts.site.router else None,
        "only where the site has one",
        always=_BOOTING,
        asked=_ONLY_OS,
    ),
    Rule(
        Option.VENDOR_CLASS,
        _vendor_class,
        "`PXEClient` or `HTTPClient`, as asked: firmware ignores other boot offers; to iPXE only "
        "as a proxy",
        always=_BOOTING,
        proxy=True,
    ),
    Rule(
        Option.VENDOR,
        _vendor,
        "`06 01 08`: use the boot file, look for no boot servers; not in a proxy's offer to UEFI",
        always=_PXE,
        proxy=True,
    ),
    Rule(
        Option.MACHINE_ID,
        _echo(Option.MACHINE_ID),
        "PXE 2.1 wants it back",
        always=_BOOTING,
        proxy=True,
    ),
    Rule(
        Option.BOOT_FILE,
        lambda facts: facts.boot_file,
        "a TFTP name, a URL for UEFI HTTP, a script for iPXE; also in `file`",
        always=_BOOTING,
        proxy=True,
    ),
    Rule(
        Option.SERVER_NAME,
        lambda facts: facts.name if facts.boot_file else None,
        "our address as text; also in `siaddr` and `sname`: ROMs differ in where they look",
        always=_PXE,
        proxy=True,
    ),
    Rule(
        Option.ROOT_PATH,
        lambda facts: facts.plan.root_path if facts.plan else None,
        "`iscsi:` and what RFC 4173 says; never together with a script",
        always=_ONLY_IPXE,
        proxy=True,
    ),
    Rule(
        Option.ISCSI_INITIATOR,
        lambda facts: facts.plan.initiator if facts.plan else None,
        "else iPXE makes a name of option 12, and the target would not know it",
        always=_ONLY_IPXE,
        proxy=True,
    ),
    Rule(
        Option.IPXE,
        _ipxe,
        "priority 1 over other servers; `no-pxedhcp` saves 2 s of waiting for a proxy (not sent "
        "by one); with CHAP, in the ACK and from a proxy, the machine's name and secrets",
        always=_ONLY_IPXE,
        proxy=True,
    ),
    Rule(
        Option.DNS_SERVERS,
        lambda facts: facts.dns or None,
        "our own DNS; a URL with a name needs it",
        always=_BOOTING,
        asked=_ONLY_OS,
    ),
    Rule(
        Option.HOST_NAME,
        lambda facts: facts.plan.name or None if facts.plan else None,
        "iPXE puts it into the iBFT",
        always=_ONLY_IPXE,
        asked=_FIRMWARE | _ONLY_OS,
    ),
    Rule(
        Option.DOMAIN_NAME,
        lambda facts: facts.site.domain or None,
        "the names that our DNS answers",
        asked=_ALL,
    ),
    Rule(
        Option.BROADCAST_ADDRESS,
        lambda facts: facts.site.address.network.broadcast_address,
        "for those who do not compute it",
        asked=_ALL,
    ),
    Rule(Option.RENEWAL_TIME, _timer(4), "half of the lease", asked=_ALL),
    Rule(Option.REBINDING_TIME, _timer(7), "seven eighths of the lease", asked=_ALL),
)

#: Whose value is the same for every machine of a site that is leased an address.
SHARED = frozenset(
    {
        Option.SERVER_ID,
        Option.LEASE_TIME,
        Option.SUBNET_MASK,
        Option.ROUTERS,
        Option.DNS_SERVERS,
        Option.DOMAIN_NAME,
        Option.BROADCAST_ADDRESS,
        Option.RENEWAL_TIME,
        Option.REBINDING_TIME,
    }
)

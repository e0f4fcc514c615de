"""The settings: one TOML file, read and checked as a whole before anything is opened.

Each field is declared once, with its help, what is allowed and an example; errors, the example
file and the table in the documentation all come from that. Nothing here looks at the machine:
whether an interface exists or a port is free is for ``preflight`` to say. Keys stay stable: a
file that once worked keeps working.
"""

import tomllib
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netboot import model
from netboot.errors import ConfigError
from netboot.mistakes import Mistake, Where, draft, path, within
from netboot.model import DhcpMode, OverlayMode
from netboot.values import (
    Address,
    Addresses,
    Database,
    Domain,
    Duration,
    FileName,
    Folder,
    Folders,
    ImageName,
    Initiator,
    Interface,
    Iqn,
    Label,
    Mac,
    Mode,
    Name,
    Overlays,
    OwnAddress,
    Policy,
    Port,
    Range,
    Switch,
    Time,
    Variables,
)

DEFAULT_FILE = Path("/etc/netboot/netboot.toml")
DEFAULT_STATE = Path("/var/lib/netboot")


class Section(BaseModel):
    """A table of the file: frozen, and no key that we do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class SiteSection(Section):
    """Where the service runs."""

    interface: Interface = Field(
        description="The network interface that the clients are on.", examples=["br0"]
    )
    address: OwnAddress = Field(
        description="Our own address on that interface, with its prefix length.",
        examples=["192.168.77.1/24"],
    )
    domain: Domain = Field(
        default="netboot.internal",
        description="The domain under which DNS names the clients and the server.",
        examples=["lab.netboot"],
    )
    state: Folder = Field(
        default=DEFAULT_STATE,
        description="The folder of images, overlays, loaders and the database.",
        examples=[str(DEFAULT_STATE)],
    )
    database: Database | None = Field(
        default=None,
        description="Where the state is kept; `netboot.sqlite` in the state folder by default.",
        examples=[f"sqlite:///{DEFAULT_STATE}/netboot.sqlite"],
    )

    @property
    def url(self) -> str:
        return self.database or f"sqlite:///{self.state}/netboot.sqlite"


class DhcpSection(Section):
    """How much of DHCP is ours."""

    mode: Mode = Field(
        default=DhcpMode.FULL,
        description="full: we give addresses; proxy: another server does, we say what to boot; "
        "off: no DHCP at all.",
        examples=["full"],
    )
    pool: Range | None = Field(
        default=None,
        description="The addresses for machines without a reservation; needed in mode full.",
        examples=["192.168.77.50-192.168.77.199"],
    )
    lease: Time = Field(
        default=Duration(3600), description="How long an address is given for.", examples=["1h"]
    )
    router: Address | None = Field(
        default=None,
        description="The default gateway that clients are told; none by default.",
        examples=["192.168.77.254"],
    )
    dns: Addresses | None = Field(
        default=None,
        description="The name servers that clients are told; by default ourselves, unless [dns] "
        "is off.",
        examples=[["192.168.77.1"]],
    )


class IscsiSection(Section):
    """The disks."""

    port: Port = Field(
        default=3260, description="The TCP port of the iSCSI target.", examples=[3260]
    )
    iqn: Iqn = Field(
        default="iqn.2026-11.lab.netboot",
        description="What every iSCSI name of ours begins with; a client's target is this, a "
        "colon and its MAC address with hyphens.",
        examples=["iqn.2026-11.lab.netboot"],
    )


class HttpSection(Section):
    """Boot scripts, boot programs and the API."""

    port: Port = Field(default=8080, description="The TCP port of the web server.", examples=[8080])
    templates: Folder | None = Field(
        default=None,
        description="A folder of your own templates, searched before the ones that come along.",
        examples=["/etc/netboot/templates"],
    )


class TftpSection(Section):
    """The boot programs that firmware fetches."""

    port: Port = Field(
        default=69, description="The UDP port; firmware only ever asks 69.", examples=[69]
    )
    loaders: Folders = Field(
        default=(Path("/usr/lib/ipxe"),),
        description="Folders of boot programs, searched in order after `loaders` in the state "
        "folder; TFTP and HTTP serve them.",
        examples=[["/usr/lib/ipxe"]],
    )


class DnsSection(Section):
    """Names for the clients."""

    enabled: Switch = Field(default=True, description="Whether we answer DNS.", examples=[True])
    port: Port = Field(
        default=53, description="The UDP and TCP port; clients only ask 53.", examples=[53]
    )
    upstreams: Addresses | None = Field(
        default=None,
        description="Who answers for all other names; by default the system's resolvers, with "
        "an empty list nobody.",
        examples=[["9.9.9.9"]],
    )


class ProfileSection(Section):
    """What a kind of machine boots; one table for each profile."""

    name: Name = Field(description="What clients call this profile.", examples=["workstation"])
    image: ImageName = Field(
        description="The golden image, as `netboot image list` names it.", examples=["debian"]
    )
    overlay: Overlays = Field(
        default=OverlayMode.PERSISTENT,
        description="persistent: a client keeps its writes; ephemeral: each boot begins fresh.",
        examples=["persistent"],
    )
    loader: FileName | None = Field(
        default=None,
        description="A boot program instead of the one that suits the firmware.",
        examples=["ipxe.efi"],
    )
    script: FileName | None = Field(
        default=None,
        description="An iPXE script template to boot with, instead of straight from the disk.",
        examples=["boot.ipxe"],
    )
    variables: Variables = Field(
        default={}, description="Values for the script's template.", examples=[{"room": "b12"}]
    )


class ClientSection(Section):
    """One machine; one table for each."""

    mac: Mac = Field(description="The address of its network card.", examples=["52:54:00:12:34:56"])
    name: Label = Field(description="Its host name.", examples=["ws1"])
    profile: Name = Field(description="What it boots.", examples=["workstation"])
    address: Address | None = Field(
        default=None, description="An address kept for it alone.", examples=["192.168.77.21"]
    )
    initiator: Initiator | None = Field(
        default=None,
        description="Its iSCSI name, where it brings its own instead of taking ours.",
        examples=["iqn.2010-04.org.ipxe:ws1"],
    )
    variables: Variables = Field(
        default={},
        description="Values for the script's template, over the profile's.",
        examples=[{}],
    )


class UnknownSection(Section):
    """What becomes of machines that no [[client]] names; one of the two."""

    profile: Name | None = Field(
        default=None, description="Boot them with this profile.", examples=["workstation"]
    )
    policy: Policy | None = Field(
        default=None,
        description="`ignore`: no answer; so it is without this section.",
        examples=["ignore"],
    )


class Settings(Section):
    """The whole file."""

    site: SiteSection
    dhcp: DhcpSection = DhcpSection()
    iscsi: IscsiSection = IscsiSection()
    http: HttpSection = HttpSection()
    tftp: TftpSection = TftpSection()
    dns: DnsSection = DnsSection()
    profile: tuple[ProfileSection, ...] = ()
    client: tuple[ClientSection, ...] = ()
    unknown: UnknownSection = UnknownSection()

    @property
    def loaders(self) -> tuple[Path, ...]:
        """Where boot programs are looked for, in order."""
        return (self.site.state / "loaders", *self.tftp.loaders)

    @property
    def name_servers(self) -> tuple[IPv4Address, ...]:
        """Option 6: what clients are told."""
        if self.dhcp.dns is not None:
            return self.dhcp.dns
        return (self.site.address.ip,) if self.dns.enabled else ()

    def to_site(self) -> model.Site:
        """What the brain needs of all this."""
        # A row's fields are the noun's fields, name by name.
        profiles = {row.name: model.Profile(**dict(row)) for row in self.profile}
        hosts = {row.mac: model.Host(**dict(row)) for row in self.client}
        return model.Site(
            interface=self.site.interface,
            address=self.site.address,
            domain=self.site.domain,
            dhcp_mode=self.dhcp.mode,
            http_port=self.http.port,
            iscsi_port=self.iscsi.port,
            iqn=self.iscsi.iqn,
            router=self.dhcp.router,
            profiles=profiles,
            hosts=hosts,
            unknown_profile=self.unknown.profile,
        )


def parse(text: str, source: str) -> Settings:
    """Settings from the text of a file; ConfigError with one line for every mistake in it."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: is not TOML: {error}") from None
    settings: Settings | None = None
    found: list[Mistake] = []
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        found = within(error, Settings)
    blamed = {mistake.where for mistake in found}
    rules = (_addresses, _ports, _profiles, _clients, _unknown)
    together = settings or draft(Settings, data)
    found += [m for rule in rules for m in rule(together) if not blamed & m.above()]
    if settings is None or found:
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in found))
    return settings


def load(path: Path) -> Settings:
    """Settings from a file; ConfigError when it cannot be read or anything in it is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; `netboot config show --example > {path}` writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse(text, str(path))


def _usable(network: IPv4Network) -> str:
    return f"an address from {network[1]} to {network[-2]}"


def _hosts(network: IPv4Network, address: IPv4Address) -> bool:
    return network[0] < address < network[-1]


def _addresses(settings: Settings) -> Iterator[Mistake]:
    """The pool and the router lie in the subnet; mode full has a pool."""
    site, dhcp = settings.site, settings.dhcp
    if dhcp.mode == DhcpMode.FULL and dhcp.pool is None:
        yield Mistake(("dhcp", "pool"), "is missing: mode full gives addresses from it")
    if not site.address:  # only in a draft
        return
    network = site.address.network
    if dhcp.pool and not all(_hosts(network, end) for end in dhcp.pool):
        yield Mistake(
            ("dhcp", "pool"), f"is not inside {network}", str(dhcp.pool), _usable(network)
        )
    if dhcp.pool and dhcp.pool.first == dhcp.pool.last == site.address.ip:
        yield Mistake(("dhcp", "pool"), "holds only our own address", str(dhcp.pool))
    if dhcp.router and not _hosts(network, dhcp.router):
        yield Mistake(
            ("dhcp", "router"), f"is not inside {network}", str(dhcp.router), _usable(network)
        )


def _ports(settings: Settings) -> Iterator[Mistake]:
    """No two of our TCP services, nor of our UDP services, on one port."""
    taken: dict[tuple[str, int], str] = {}
    dns = settings.dns.port if settings.dns.enabled else None
    for section, kind, port in (
        ("iscsi", "tcp", settings.iscsi.port),
        ("http", "tcp", settings.http.port),
        ("dns", "tcp", dns),
        ("tftp", "udp", settings.tftp.port),
        ("dns", "udp", dns),
    ):
        other = taken.setdefault((kind, port), section) if port else section
        if other != section:
            yield Mistake((section, "port"), f"is also {other}.port", port)


def _profiles(settings: Settings) -> Iterator[Mistake]:
    yield from _unique("profile", "name", [row.name for row in settings.profile])


def _clients(settings: Settings) -> Iterator[Mistake]:
    """No two clients share what must be theirs alone; what they name exists."""
    rows = settings.client
    for key in ("mac", "name", "address", "initiator"):
        yield from _unique("client", key, [getattr(row, key) for row in rows])
    names = {row.name for row in settings.profile}
    own = settings.site.address
    for index, row in enumerate(rows):
        if row.profile is not None and row.profile not in names:
            yield _no_profile(("client", index, "profile"), row.profile, names)
        if own is None or row.address is None:
            continue
        where = ("client", index, "address")
        if row.address == own.ip:
            yield Mistake(where, "is our own address (site.address)", str(row.address))
        elif not _hosts(own.network, row.address):
            problem = f"is not inside {own.network}"
            yield Mistake(where, problem, str(row.address), _usable(own.network))


def _unknown(settings: Settings) -> Iterator[Mistake]:
    unknown, names = settings.unknown, {row.name for row in settings.profile}
    if unknown.profile and unknown.policy:
        yield Mistake(("unknown", "policy"), "cannot stand beside profile", unknown.policy)
    if unknown.profile and unknown.profile not in names:
        yield _no_profile(("unknown", "profile"), unknown.profile, names)


def _unique(table: str, key: str, column: Sequence[object]) -> Iterator[Mistake]:
    first: dict[object, int] = {}
    for index, value in enumerate(column):
        if value is not None and first.setdefault(value, index) != index:
            problem = f"is already {path((table, first[value], key))}"
            yield Mistake((table, index, key), problem, str(value))


def _no_profile(where: Where, name: str, names: set[str]) -> Mistake:
    allowed = ", ".join(sorted(filter(None, names))) or "none: there is no [[profile]]"
    return Mistake(where, "is no profile", name, allowed)

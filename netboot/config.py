"""The settings: one TOML file, read and checked as a whole before anything is opened.

``sections`` declares its tables, this module puts them together and checks what must hold between
them. Nothing here looks at the machine: whether an interface exists or a port is free is for
``preflight`` to say.
"""

import tomllib
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pydantic import ValidationError

from netboot import model
from netboot.errors import ConfigError
from netboot.mistakes import Mistake, Where, draft, path, within
from netboot.model import DhcpMode
from netboot.sections import (
    ClientSection,
    DhcpSection,
    DnsSection,
    HttpSection,
    IscsiSection,
    ProfileSection,
    Section,
    SiteSection,
    TftpSection,
    UnknownSection,
)

DEFAULT_FILE = Path("/etc/netboot/netboot.toml")


#: What a reload takes over, the others have sockets and pools behind them: whole tables, and
#: single settings of a table.
_TABLES = {"profile", "client", "unknown"}
_SINGLE = {"iscsi": ("redirect", "sessions", "client_sessions")}


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

    @property
    def portals(self) -> tuple[model.Portal, ...]:
        """Where initiators reach the disks."""
        return self.iscsi.portals or (model.Portal(str(self.site.address.ip), self.iscsi.port),)

    @property
    def limits(self) -> model.SessionLimits:
        """How many sessions there may be."""
        return model.SessionLimits(self.iscsi.sessions, self.iscsi.client_sessions)

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
            chap=self.iscsi.chap,
            algorithms=self.iscsi.algorithms,
            discovery=self._discovery(),
            redirect=self.iscsi.redirect,
        )

    def _discovery(self) -> model.Chap | None:
        iscsi = self.iscsi
        if iscsi.discovery_secret is None:
            return None
        return model.Chap(
            name=iscsi.discovery_name,
            secret=iscsi.discovery_secret,
            mutual_name=model.MUTUAL_NAME if iscsi.discovery_mutual_secret else "",
            mutual_secret=iscsi.discovery_mutual_secret or "",
            algorithms=iscsi.algorithms,
        )


def reloaded(old: Settings, fresh: Settings) -> tuple[Settings, list[str]]:
    """``old`` with what a reload takes over of ``fresh``; and the tables of which more is new,
    which takes a restart."""
    made: dict[str, object] = {name: getattr(fresh, name) for name in _TABLES}
    for name, keys in _SINGLE.items():
        live = {key: getattr(getattr(fresh, name), key) for key in keys}
        made[name] = getattr(old, name).model_copy(update=live)
    settings = old.model_copy(update=made)
    return settings, sorted(name for name, table in settings if table != getattr(fresh, name))


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
    rules = (_addresses, _ports, _portals, _profiles, _clients, _unknown, _secrets)
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


def _portals(settings: Settings) -> Iterator[Mistake]:
    """Each portal is there once, also the one that machines are sent to; a redirect leads away."""
    iscsi, own, where = settings.iscsi, settings.site.address, ("iscsi", "portals")
    ours = {(portal.address, portal.port) for portal in iscsi.portals or ()}
    if iscsi.portals and len(ours) < len(iscsi.portals):
        yield Mistake(where, "has an address and port twice", [str(row) for row in iscsi.portals])
    if not own or not iscsi.port:  # only in a draft
        return
    main = (str(own.ip), iscsi.port)
    if ours and main not in ours:
        problem = f"lacks {main[0]}:{main[1]} (site.address, iscsi.port), where machines are sent"
        yield Mistake(where, problem, [str(row) for row in iscsi.portals or ()])
    for section, port in (("http", settings.http.port), ("dns", settings.dns.port)):
        if (main[0], port) in ours - {main} and (section == "http" or settings.dns.enabled):
            yield Mistake(where, f"has {section}.port on site.address", port)
    if iscsi.redirect:
        there = model.Portal.of(iscsi.redirect)
        if (there.address, there.port) in ours | {main}:
            yield Mistake(("iscsi", "redirect"), "leads to ourselves", iscsi.redirect)


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


def _secrets(settings: Settings) -> Iterator[Mistake]:
    """No secret serves twice: who knows one must not be able to play another part with it
    (RFC 7143 section 9.2.1)."""
    tables: list[tuple[Where, str, Section]] = [(("iscsi",), "discovery", settings.iscsi)]
    tables += [(("client", at), "chap", row) for at, row in enumerate(settings.client)]
    first: dict[str, Where] = {}
    for where, prefix, table in tables:
        keys = f"{prefix}_secret", f"{prefix}_mutual_secret"
        own, mutual = (getattr(table, key) for key in keys)
        if own is None and mutual is not None:
            yield Mistake((*where, keys[1]), f"is of use only beside {keys[0]}")
        if own is None and isinstance(table, ClientSection) and table.chap_name is not None:
            yield Mistake((*where, "chap_name"), f"is of use only beside {keys[0]}")
        for key, value in zip(keys, (own, mutual), strict=True):
            there = (*where, key)
            if value is not None and first.setdefault(value, there) != there:
                yield Mistake(there, f"is the same as {path(first[value])}")


def _unique(table: str, key: str, column: Sequence[object]) -> Iterator[Mistake]:
    first: dict[object, int] = {}
    for index, value in enumerate(column):
        if value is not None and first.setdefault(value, index) != index:
            problem = f"is already {path((table, first[value], key))}"
            yield Mistake((table, index, key), problem, str(value))


def _no_profile(where: Where, name: str, names: set[str]) -> Mistake:
    allowed = ", ".join(sorted(filter(None, names))) or "none: there is no [[profile]]"
    return Mistake(where, "is no profile", name, allowed)

"""The file of the README works; everything else is told at once, with path, value and reason."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot import config
from netboot.errors import ConfigError
from netboot.mistakes import nested
from netboot.model import DhcpMode, Host, OverlayMode, Portal, Profile, SessionLimits

README = """
[site]
interface = "br0"
address   = "192.168.77.1/24"      # ours, on that interface
domain    = "lab.netboot"
state     = "/var/lib/netboot"
[dhcp]
mode  = "full"                     # full | proxy | off
pool  = "192.168.77.50-192.168.77.199"
lease = "1h"
[iscsi]
port = 3260
iqn  = "iqn.2026-11.lab.netboot"
[http]
port = 8080
[[profile]]
name    = "workstation"
image   = "debian"
overlay = "persistent"             # persistent | ephemeral
[[client]]
mac     = "52:54:00:12:34:56"
name    = "ws1"
profile = "workstation"
address = "192.168.77.21"          # optional reservation
[unknown]
profile = "workstation"            # or policy = "ignore"
"""

SMALLEST = """
[site]
interface = "br0"
address = "192.168.77.1/24"
[dhcp]
pool = "192.168.77.50-192.168.77.60"
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "f")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("f: ") for line in lines)
    return [line.removeprefix("f: ") for line in lines]


def changed(old: str, new: str) -> str:
    assert old in README
    return README.replace(old, new)


def test_the_file_of_the_readme_means_what_it_says() -> None:
    settings = config.parse(README, "netboot.toml")
    site = settings.to_site()
    assert site.interface == "br0"
    assert site.address == IPv4Interface("192.168.77.1/24")
    assert (site.domain, site.dhcp_mode) == ("lab.netboot", DhcpMode.FULL)
    assert (site.http_port, site.iscsi_port) == (8080, 3260)
    assert site.iqn == "iqn.2026-11.lab.netboot"
    assert site.router is None
    assert site.profiles == {
        "workstation": Profile("workstation", "debian", OverlayMode.PERSISTENT)
    }
    assert site.hosts == {
        "52:54:00:12:34:56": Host(
            "52:54:00:12:34:56", "ws1", "workstation", IPv4Address("192.168.77.21")
        )
    }
    assert site.unknown_profile == "workstation"
    assert str(settings.dhcp.pool) == "192.168.77.50-192.168.77.199"
    assert settings.dhcp.lease == 3600
    assert settings.site.url == "sqlite:////var/lib/netboot/netboot.sqlite"
    assert settings.loaders == (Path("/var/lib/netboot/loaders"), Path("/usr/lib/ipxe"))
    assert settings.name_servers == (IPv4Address("192.168.77.1"),)


def test_what_may_stay_out_has_a_default() -> None:
    settings = config.parse(SMALLEST, "f")
    assert (settings.tftp.port, settings.dns.port, settings.dns.enabled) == (69, 53, True)
    assert settings.dns.upstreams is None
    assert settings.to_site().unknown_profile is None
    assert settings.to_site().profiles == {}


def test_every_field_reaches_the_brain() -> None:
    text = changed(
        'overlay = "persistent"',
        'overlay = "ephemeral"\ndisk = "1T"\nloader = "ipxe.efi"\n'
        'script = "boot.ipxe"\nvariables = { a = "1" }',
    ).replace(
        "[unknown]",
        'initiator = "iqn.2010-04.org.ipxe:ws1"\nvariables = { a = "2" }\n[unknown]',
    )
    site = config.parse(text.replace('lease = "1h"', 'router = "192.168.77.254"'), "f").to_site()
    assert site.profiles["workstation"] == Profile(
        *("workstation", "debian"),
        *(OverlayMode.EPHEMERAL, "ipxe.efi", "boot.ipxe", {"a": "1"}, 1 << 40),
    )
    host = site.hosts["52:54:00:12:34:56"]
    assert (host.initiator, host.variables) == ("iqn.2010-04.org.ipxe:ws1", {"a": "2"})
    assert site.router == IPv4Address("192.168.77.254")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [("", ["192.168.77.1"]), ("[dns]\nenabled = false", []), ('dns = ["9.9.9.9"]', ["9.9.9.9"])],
)
def test_clients_are_told_of_us_or_of_others(lines: str, expected: list[str]) -> None:
    settings = config.parse(SMALLEST + lines, "f")
    assert [str(server) for server in settings.name_servers] == expected


def test_a_database_may_be_elsewhere() -> None:
    url = "postgresql://netboot@db/netboot"
    settings = config.parse(changed("[dhcp]", f'database = "{url}"\n[dhcp]'), "f")
    assert settings.site.url == url


#: One mistake each: what to change in the file above, and all that people are told.
ONE_MISTAKE: list[tuple[str, str, str]] = [
    ('interface = "br0"', "", "site.interface: is missing (The network interface"),
    ('"192.168.77.1/24"', '"192.168.77.1"', 'site.address = "192.168.77.1": has no prefix length;'),
    ('"lab.netboot"\nst', '"lab_netboot"\nst', 'site.domain = "lab_netboot": is not a domain'),
    ('"/var/lib/netboot"', '"netboot"', 'site.state = "netboot": is not an absolute path'),
    ("domain ", "domian ", "site.domian: there is no such setting; did you mean domain?; allowed:"),
    ("[http]", "[htpp]", "htpp: there is no such setting; did you mean http?; allowed: site, dhcp"),
    (
        '"full" ',
        '"ful" ',
        'dhcp.mode = "ful": is not one of the words; allowed: full, proxy or off',
    ),
    (
        'pool  = "192.168.77.50-192.168.77.199"',
        "",
        "dhcp.pool: is missing: mode full gives addresses from it",
    ),
    (
        "192.168.77.50-192.168.77.199",
        "192.168.77.199-192.168.77.50",
        'dhcp.pool = "192.168.77.199-192.168.77.50": ends before it begins; allowed: FIRST-LAST',
    ),
    (
        "192.168.77.50-192.168.77.199",
        "192.168.77.50-192.168.78.199",
        'dhcp.pool = "192.168.77.50-192.168.78.199": is not inside 192.168.77.0/24; allowed: '
        "an address from 192.168.77.1 to 192.168.77.254",
    ),
    (
        "192.168.77.50-192.168.77.199",
        "192.168.77.50-192.168.77.255",
        'dhcp.pool = "192.168.77.50-192.168.77.255": is not inside 192.168.77.0/24',
    ),
    (
        "192.168.77.50-192.168.77.199",
        "192.168.77.1-192.168.77.1",
        'dhcp.pool = "192.168.77.1-192.168.77.1": holds only our own address',
    ),
    ('lease = "1h"', "lease = 3600", "dhcp.lease = 3600: is not a string; allowed: a whole number"),
    ('lease = "1h"', 'lease = "5s"', 'dhcp.lease = "5s": is shorter than 30s'),
    (
        'lease = "1h"',
        'router = "10.0.0.1"',
        'dhcp.router = "10.0.0.1": is not inside 192.168.77.0/24; allowed: an address from',
    ),
    ("port = 3260", "port = 0", "iscsi.port = 0: is not a port number; allowed: a number, 1 to"),
    ("port = 3260", "port = 8080", "http.port = 8080: is also iscsi.port"),
    *(
        ("port = 3260", f"port = 3260\n{line}", f"iscsi.{problem}")
        for line, problem in (
            ('portals = "192.168.77.1:3260"', "portals = "),
            ("portals = []", "portals = []: is not a list of portals; allowed: a list of ADDR"),
            ('portals = ["192.168.77.1"]', 'portals = ["192.168.77.1"]: is not ADDRESS:PORT[,TAG]'),
            ('portals = ["192.168.77.1:0"]', 'portals = ["192.168.77.1:0"]: is not a port number'),
            ('portals = ["0.0.0.0:3260"]', 'portals = ["0.0.0.0:3260"]: is not an address that'),
            ('portals = ["[fe80::1]:3260"]', 'portals = ["[fe80::1]:3260"]: is link-local'),
            (
                'portals = ["192.168.77.2:3260"]',
                'portals = ["192.168.77.2:3260,1"]: lacks 192.168.77.1:3260 (site.address, iscsi',
            ),
            (
                'portals = ["192.168.77.1:3260,1", "192.168.77.1:3260,2"]',
                'portals = ["192.168.77.1:3260,1", "192.168.77.1:3260,2"]: has an address and po',
            ),
            (
                'portals = ["192.168.77.1:3260", "192.168.77.1:8080"]',
                "portals = 8080: has http.port on site.address",
            ),
            (
                'portals = ["192.168.77.1:3260", "192.168.77.1:53"]',
                "portals = 53: has dns.port on site.address",
            ),
            ('redirect = "192.168.77.1:3260"', 'redirect = "192.168.77.1:3260": leads to ours'),
            ('redirect = "192.168.77.2:3260,1"', 'redirect = "192.168.77.2:3260,1": has a portal'),
            ('redirect = "disks.lab:3260"', 'redirect = "disks.lab:3260": is not ADDRESS:PORT'),
            ("sessions = 0", "sessions = 0: is below 1 or above 65535; allowed: a number"),
            ("client_sessions = true", "client_sessions = true: is not a whole number"),
            ("processes = 0", "processes = 0: is below 1 or above 64; allowed: a number, 1 to 64"),
            ("processes = 65", "processes = 65: is below 1 or above 64"),
            ("processes = true", "processes = true: is not a whole number"),
        )
    ),
    ("iqn.2026-11", "iqn.2026", 'iscsi.iqn = "iqn.2026.lab.netboot": is not an iSCSI qualified'),
    ("port = 8080", "port = 53", "dns.port = 53: is also http.port"),
    ('image   = "debian"', "", "profile#1.image: is missing (The golden image, as `netboot image"),
    (
        '"persistent"  ',
        '"kept"  ',
        'profile#1.overlay = "kept": is not one of the words; allowed: persistent or ephemeral',
    ),
    (
        "[[client]]",
        '[[profile]]\nname = "workstation"\nimage = "x"\n[[client]]',
        'profile#2.name = "workstation": is already profile#1.name',
    ),
    ('"52:54:00:12:34:56"', '"52:54"', 'client#1.mac = "52:54": '),
    ('name    = "ws1"', 'name = "ws_1"', 'client#1.name = "ws_1": is not a DNS label'),
    (
        'profile = "workstation"\naddress',
        'profile = "laptop"\naddress',
        'client#1.profile = "laptop": is no profile; allowed: workstation',
    ),
    ("192.168.77.21", "192.168.77.1", 'client#1.address = "192.168.77.1": is our own address (sit'),
    (
        "192.168.77.21",
        "10.9.9.9",
        'client#1.address = "10.9.9.9": is not inside 192.168.77.0/24; allowed: an address from',
    ),
    ("192.168.77.21", "192.168.77.0", 'client#1.address = "192.168.77.0": is not inside'),
    (
        "[unknown]",
        '[[client]]\nmac = "52-54-00-12-34-56"\nname = "b"\nprofile = "workstation"\n[unknown]',
        'client#2.mac = "52:54:00:12:34:56": is already client#1.mac',
    ),
    (
        "[unknown]",
        '[[client]]\nmac = "52:54:00:12:34:57"\nname = "WS1"\nprofile = "workstation"\n[unknown]',
        'client#2.name = "ws1": is already client#1.name',
    ),
    (
        "[unknown]",
        '[[client]]\nmac = "52:54:00:12:34:57"\nname = "b"\nprofile = "workstation"\n'
        'address = "192.168.77.21"\n[unknown]',
        'client#2.address = "192.168.77.21": is already client#1.address',
    ),
    (
        'profile = "workstation"            #',
        'profile = "x" #',
        'unknown.profile = "x": is no profile; allowed: workstation',
    ),
    (
        'profile = "workstation"            #',
        'profile = "workstation"\npolicy = "ignore" #',
        'unknown.policy = "ignore": cannot stand beside profile',
    ),
    (
        'profile = "workstation"            #',
        'policy = "boot" #',
        'unknown.policy = "boot": is no policy; allowed: ignore',
    ),
]


@pytest.mark.parametrize(("old", "new", "told"), ONE_MISTAKE)
def test_one_mistake_is_one_line(old: str, new: str, told: str) -> None:
    (line,) = mistakes(changed(old, new))
    assert line.startswith(told)


def test_all_mistakes_are_told_at_once() -> None:
    text = README
    for old, new in (
        ('"br0"', '"a/b"'),
        ('lease = "1h"', 'lease = "1"'),
        ("192.168.77.50-", "192.168.1.50-"),
        ("port = 8080", "prt = 8080"),
        ('name    = "ws1"', 'name = "ws_1"'),
        ("192.168.77.21", "192.168.77.1"),
        ('profile = "workstation"            #', 'profile = "x" #'),
    ):
        text = text.replace(old, new)
    assert [line.split(" ")[0].rstrip(":") for line in mistakes(text)] == [
        "site.interface",
        "dhcp.lease",
        "http.prt",
        "client#1.name",
        "dhcp.pool",
        "client#1.address",
        "unknown.profile",
    ]


def test_a_wrong_field_is_blamed_once() -> None:
    """No check of one field against another speaks of a field that is wrong by itself."""
    text = changed('"192.168.77.50-192.168.77.199"', '"nonsense"')
    assert [line.split(" ")[0] for line in mistakes(text)] == ["dhcp.pool"]
    text = changed('"192.168.77.1/24"', '"nonsense"')
    assert [line.split(" ")[0] for line in mistakes(text)] == ["site.address"]


@pytest.mark.parametrize("mode", ["proxy", "off"])
def test_only_mode_full_needs_a_pool(mode: str) -> None:
    text = changed('"full" ', f'"{mode}" ').replace('pool  = "192.168.77.50-192.168.77.199"', "")
    assert config.parse(text, "f").dhcp.pool is None


def test_ports_of_udp_and_tcp_do_not_meet() -> None:
    config.parse(SMALLEST + "[http]\nport = 69\n[iscsi]\nport = 67\n", "f")
    config.parse(SMALLEST + "[http]\nport = 53\n[dns]\nenabled = false\n", "f")
    assert mistakes(SMALLEST + "[tftp]\nport = 53\n") == ["dns.port = 53: is also tftp.port"]


@pytest.mark.parametrize("text", ["", "x = 1", "site = 1", "profile = 1", "client = [1, {}]"])
def test_hardly_a_file_at_all(text: str) -> None:
    assert mistakes(text)


def test_what_is_not_toml_has_its_line() -> None:
    (line,) = mistakes("[site]\ninterface = br0\n")
    assert line.startswith("is not TOML: ") and "line 2" in line


TOML_VALUES = st.recursive(
    st.booleans() | st.integers(-9, 70000) | st.text("ab/.:-1", max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=4,
)
FIELDS = [
    (name, key)
    for name, field in config.Settings.model_fields.items()
    for model in [nested(field)]
    if model
    for key in model.model_fields
]


@given(st.lists(st.tuples(st.sampled_from(FIELDS), TOML_VALUES), max_size=6))
def test_whatever_the_file_says_the_answer_is_settings_or_lines(
    changes: list[tuple[tuple[str, str], object]],
) -> None:
    from netboot.cli.settings_text import toml

    tables: dict[str, dict[str, object]] = {}
    for (section, key), value in changes:
        tables.setdefault(section, {})[key] = value
    text = ""
    for section, table in tables.items():
        many = section in ("profile", "client")
        text += f"[[{section}]]\n" if many else f"[{section}]\n"
        text += "".join(f'"{key}" = {quoted(value, toml)}\n' for key, value in table.items())
    try:
        config.parse(text, "f")
    except ConfigError as error:
        assert "not TOML" not in str(error)
        assert all(line.startswith("f: ") for line in str(error).splitlines())


def quoted(value: object, toml: Callable[[object], str]) -> str:
    """TOML with every key in quotes: generated keys may be empty."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}" = {quoted(v, toml)}' for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(quoted(item, toml) for item in value) + "]"
    return toml(value)


# Files.


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "netboot.toml").write_text(README)
    assert config.load(tmp_path / "netboot.toml") == config.parse(README, "x")


def test_no_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; `netboot config show --example > "):
        config.load(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "netboot.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(path)


# The declaration itself.


def test_portals() -> None:
    settings = config.parse(README, "f")
    assert settings.portals == (Portal("192.168.77.1", 3260, 1),)
    given = 'portals = ["[fd00:77::1]:3260,2", "192.168.77.1:860"]\nredirect = "[fd00::2]:3260"'
    settings = config.parse(changed("port = 3260", f"port = 860\n{given}"), "f")
    assert settings.portals == (Portal("fd00:77::1", 3260, 2), Portal("192.168.77.1", 860, 1))
    assert settings.to_site().redirect == "[fd00::2]:3260"


def test_what_a_reload_takes_over_and_what_takes_a_restart() -> None:
    old = config.parse(README, "f")
    fresh = config.parse(
        changed(
            "port = 3260", 'redirect = "192.168.77.2:3260"\nsessions = 9\nclient_sessions = 2'
        ).replace('name    = "ws1"', 'name = "ws9"'),
        "f",
    )
    settings, late = config.reloaded(old, fresh)
    assert late == [] and settings == fresh
    assert settings.limits == SessionLimits(9, 2)
    other = config.parse(changed("port = 3260", "port = 3261\nsessions = 9"), "f")
    settings, late = config.reloaded(old, other)
    assert late == ["iscsi"]
    assert (settings.iscsi.port, settings.iscsi.sessions) == (3260, 9)

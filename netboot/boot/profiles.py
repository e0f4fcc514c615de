"""Whose machine is this: the Host and Profile that the operator's settings give a MAC.

Order of the rules: a machine the operator named; else the profile for unknown machines; else it
is not ours and is ignored. The name of an unknown machine is made of its MAC, or is its own host
name where that can do no harm. Nothing here ever trusts a host name from a packet further than
that.
"""

import re
from dataclasses import dataclass

from netboot.model import Client, Host, Profile, Site

#: RFC 1123 section 2.1: one label of letters, digits and inner hyphens, at most 63.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

#: Names that clients look up on their own (WPAD, ISATAP: whoever holds the name is believed),
#: that mean ourselves, or that every fresh installation has and that so name nobody.
RESERVED_NAMES = frozenset(
    {"wpad", "isatap", "localhost", "netboot", "gateway", "router", "server", "dns", "ns", "www"}
    | {"debian", "ubuntu", "fedora", "linux", "raspberrypi", "live", "pxe", "client"}
)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the settings say of a MAC; ``rule`` is that in words. No profile: not our machine."""

    host: Host | None
    profile: Profile | None
    rule: str


def assign(mac: str, site: Site) -> Assignment:
    """The settings' answer for a canonical MAC."""
    host = site.hosts.get(mac)
    if host is not None:
        profile = site.profiles.get(host.profile)
        if profile is None:
            return Assignment(
                host, None, f"client {host.name} has profile {host.profile!r}, which does not exist"
            )
        return Assignment(host, profile, f"client {host.name} is named with profile {profile.name}")
    if site.unknown_profile is None:
        return Assignment(None, None, "no client has this MAC, and unknown machines are ignored")
    profile = site.profiles.get(site.unknown_profile)
    if profile is None:
        return Assignment(
            None, None, f"unknown machines have profile {site.unknown_profile!r}: no such profile"
        )
    return Assignment(
        None, profile, f"no client has this MAC: unknown machines have profile {profile.name}"
    )


def made_name(mac: str) -> str:
    """``client-525400123456``: the name of a machine that brings none of use."""
    return "client-" + mac.replace(":", "")


def harmless_name(hostname: str, site: Site) -> str | None:
    """``hostname`` as a DNS label that an unknown machine may have, or None.

    A domain behind it is cut off. Refused: what is no label, names that others would believe
    in, names of machines that the operator named, names made of somebody's MAC, and the names
    of images: all machines of one golden image bring its host name, so it tells none apart.
    """
    label = hostname.strip().lower().partition(".")[0]
    if not _LABEL.fullmatch(label) or label in RESERVED_NAMES or label.startswith("client-"):
        return None
    if any(label == host.name.lower() for host in site.hosts.values()):
        return None
    if any(label == profile.image.lower() for profile in site.profiles.values()):
        return None
    return label


def name_of(client: Client, host: Host | None, site: Site) -> str:
    """The name that this machine has in DHCP and DNS, one DNS label."""
    if host is not None:
        return host.name
    return harmless_name(client.hostname, site) or made_name(client.mac)


def variables_of(host: Host | None, profile: Profile) -> dict[str, str]:
    """The variables for templates: the profile's, and above them the machine's own."""
    return {**profile.variables, **(host.variables if host else {})}

"""The door of the disks: may this initiator log in, what must it prove, what is behind its target.

A client reaches its own target only: by the initiator name that we gave it, and by the address
that we leased or reserved for it. Where the addresses are not ours to give (``proxy`` and ``off``)
the name alone must do. What it must prove besides (CHAP) is said here, and seen to by the disk
process. Nothing is opened or created here; ``overlay_of`` is asked last, when the initiator is
welcome, so that a stranger cannot make us create anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from netboot.boot import chap, profiles
from netboot.errors import ImageError, NetbootError
from netboot.model import (
    Admission,
    ChapMode,
    DhcpMode,
    DiskSpec,
    Knock,
    Lease,
    LeaseState,
    Lun,
    Overlay,
    OverlayMode,
    Profile,
    Site,
    Version,
    canonical_mac,
    hyphenated,
)

#: Login status, class << 8 | detail (RFC 7143 section 11.13.5).
WELCOME = 0x0000
MOVED = 0x0101
NOT_AUTHORIZED = 0x0202
NOT_FOUND = 0x0203
#: Class 3 is retried by every initiator, class 2 ends a machine's boot for good: whatever can be
#: mended on our side (an image still being built) is this one.
UNAVAILABLE = 0x0301


@dataclass(frozen=True, slots=True)
class Records:
    """What the door asks of the state; canonical MACs.

    ``version_at`` finds the version that an older overlay stands on; without it such an overlay
    is refused. ``overlay_of`` makes the overlay when there is none yet.
    """

    lease_of: Callable[[str], Lease | None]
    version_of: Callable[[str], Version | None]
    overlay_of: Callable[[str, str, OverlayMode], Overlay]
    version_at: Callable[[str, int], Version | None] | None = None
    mac_of: Callable[[str], str | None] | None = None


def admit(
    knock: Knock,
    site: Site,
    *,
    lease_of: Callable[[str], Lease | None],
    version_of: Callable[[str], Version | None],
    overlay_of: Callable[[str, str, OverlayMode], Overlay],
    secrets_of: chap.SecretsOf,
    version_at: Callable[[str, int], Version | None] | None = None,
    mac_of: Callable[[str], str | None] | None = None,
    mark: str = "",
) -> Admission:
    """The answer to ``knock``; never raises for anything that the initiator sent.

    ``mac_of`` finds the client that holds an address, for discovery by a machine whose
    initiator name is not the one we gave it; it opens no disk. ``mark``: hex, random, the same
    for every login, for the challenges.
    """
    records = Records(lease_of, version_of, overlay_of, version_at, mac_of)
    if knock.discovery:
        return _discover(knock, site, records, mark)
    mac = mac_of_target(knock.target, site)
    if mac is None:
        return _refuse(NOT_FOUND, knock, "", "no target of ours has this name")
    assigned = profiles.assign(mac, site)
    if assigned.profile is None:
        return _refuse(NOT_FOUND, knock, mac, assigned.rule)
    problem = _stranger(knock, site, mac, records)
    if problem:
        return _refuse(NOT_AUTHORIZED, knock, mac, problem)
    if site.redirect:  # whoever proves something proves it there
        detail = f"{mac} is sent to {site.redirect} (iscsi.redirect)"
        return Admission(MOVED, mac, knock.target, detail=detail, redirect=site.redirect)
    try:
        proof = chap.demanded(mac, site, secrets_of)
        luns = (Lun(0, _disk(mac, assigned.profile, records), serial(mac)),)
    except NetbootError as error:
        return _refuse(UNAVAILABLE, knock, mac, str(error))
    proof = replace(proof, mark=mark) if proof else None
    return Admission(WELCOME, mac, site.target_name(mac), luns, chap=proof)


def serial(mac: str) -> str:
    """VPD page 80: of the MAC alone, so that a new golden version is the same disk to a guest."""
    return "NB" + mac.replace(":", "").upper()


def mac_of_target(target: str, site: Site) -> str | None:
    """The client whose own target this is; capital letters are the same letters (RFC 3722)."""
    return _mac_behind(f"{site.iqn}:", target)


def _mac_behind(prefix: str, name: str) -> str | None:
    lower = name.lower()
    rest = lower.removeprefix(prefix)
    if rest == lower:
        return None
    try:
        mac = canonical_mac(rest)
    except ValueError:
        return None
    return mac if rest == hyphenated(mac) else None


def _initiators(mac: str, site: Site) -> str:
    host = site.hosts.get(mac)
    return (host and host.initiator) or site.initiator_name(mac)


def _stranger(knock: Knock, site: Site, mac: str, records: Records) -> str:
    """Why this initiator is not the client ``mac``; empty when it is."""
    expected = _initiators(mac, site)
    if knock.initiator.lower() != expected.lower():
        return f"this target belongs to initiator {expected}"
    if site.dhcp_mode is not DhcpMode.FULL:
        return ""
    ours = _addresses(mac, site, records)
    if _address(knock.address) in ours:
        return ""
    if ":" in knock.address and _proves(mac, site):
        return ""  # we give no IPv6 addresses, and anybody can make one out of a MAC
    if not ours:
        return f"{mac} has no address from us, so nobody can be it"
    listed = " or ".join(str(address) for address in ours)
    hint = "; over IPv6 it must prove itself (iscsi.chap)" if ":" in knock.address else ""
    return f"{mac} has the address {listed} from us, this is {knock.address}{hint}"


def _proves(mac: str, site: Site) -> bool:
    """Whether the client must prove who it is, which says more than an address."""
    host = site.hosts.get(mac)
    return site.chap is not ChapMode.OFF or bool(host and host.chap_secret)


def _addresses(mac: str, site: Site, records: Records) -> tuple[IPv4Address, ...]:
    """What we gave this client. A lease that it released is still its own until somebody else
    gets the address: an operating system releases it while its disk is still in use."""
    host, lease = site.hosts.get(mac), records.lease_of(mac)
    found = [host.address] if host and host.address else []
    if lease is not None and lease.state is not LeaseState.DECLINED:
        found.append(lease.address)
    return tuple(dict.fromkeys(found))


def _address(text: str) -> IPv4Address | None:
    """The peer as IPv4, also where a socket for both families calls it ``::ffff:192.0.2.1``."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped if isinstance(address, IPv6Address) else address


def _disk(mac: str, profile: Profile, records: Records) -> DiskSpec:
    """The client's overlay over the version that it stands on; ImageError says what lacks."""
    current = records.version_of(profile.image)
    if current is None:
        raise ImageError(
            f"image {profile.image!r} of profile {profile.name!r} is not there yet: build it with "
            f"`netboot image build {profile.image}`, or see `netboot image list`"
        )
    overlay = records.overlay_of(mac, profile.image, profile.overlay)
    golden: Version | None = current
    if overlay.version != current.number:
        golden = records.version_at(profile.image, overlay.version) if records.version_at else None
    if golden is None:
        raise ImageError(
            f"the overlay of {mac} stands on version {overlay.version} of image {profile.image!r}, "
            "which is gone: bring that version back, or throw the overlay away with "
            f"`netboot overlay reset {mac}`"
        )
    return DiskSpec(
        golden=golden.path,
        size=golden.size,
        digest=golden.digest,
        overlay=overlay.path,
        generation=overlay.generation,
        ephemeral=overlay.mode is OverlayMode.EPHEMERAL,
        room=profile.disk or 0,
    )


def _discover(knock: Knock, site: Site, records: Records, mark: str) -> Admission:
    """Discovery shows the asker its own target, or nothing; it is open to everyone, unless the
    operator has set a secret for it."""
    proof = replace(site.discovery, mark=mark) if site.discovery else None
    for mac in _askers(knock, site, records):
        if profiles.assign(mac, site).profile is not None:
            return Admission(WELCOME, mac, site.target_name(mac), chap=proof)
    return Admission(WELCOME, detail="discovery by somebody who has no target here", chap=proof)


def _askers(knock: Knock, site: Site, records: Records) -> list[str]:
    """Who may be asking, the most certain first: by name, then by address."""
    found = []
    name = knock.initiator.lower()
    named = _mac_behind(f"{site.iqn}:client.", name)
    owners = [host.mac for host in site.hosts.values() if (host.initiator or "").lower() == name]
    for mac in ([named] if named else []) + (owners if name else []):
        if not _stranger(knock, site, mac, records):
            found.append(mac)
    address = _address(knock.address)
    if address is None:
        return found
    holder = records.mac_of(str(address)) if records.mac_of else None
    found += [holder] if holder else []
    if site.dhcp_mode is DhcpMode.FULL:
        found += [host.mac for host in site.hosts.values() if host.address == address]
    return found


def _refuse(status: int, knock: Knock, mac: str, detail: str) -> Admission:
    who = f"{knock.initiator or 'nobody'} from {knock.address} to {knock.target or 'no target'}"
    return Admission(status, mac, knock.target, detail=f"{who}: {detail}")

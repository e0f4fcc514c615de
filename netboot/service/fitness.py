"""Do the settings fit this machine and its images: asked before anything is opened.

What the settings mean for the machine is put together here; how a single thing is looked at is
``preflight``'s. Every refusal is one line that says what to do.
"""

import logging
from pathlib import Path

from netboot.boot import firmware
from netboot.config import Settings
from netboot.dhcp.effects import PXE_PORT, SERVER_PORT
from netboot.errors import ImageError
from netboot.model import DhcpMode, Site
from netboot.service import preflight
from netboot.service.ledger import Ledger

log = logging.getLogger(__name__)

#: Disk processes by default: more serve more, but what the others of this machine need is theirs.
_PROCESSES = 4

#: What a booted machine of each kind must find here: rows of the firmware table, by code.
_COMMON_FIRMWARE = (0x00, 0x07)


def check_machine(settings: Settings, site: Site) -> None:
    """Everything that can be looked at before anything is opened."""
    own, off = str(site.address.ip), site.dhcp_mode is DhcpMode.OFF
    preflight.interface(site.interface, site.address)
    if not off:
        check_loaders(settings, site)
        for number in (SERVER_PORT, PXE_PORT):
            preflight.dhcp_port(site.interface, number)
    preflight.port("udp", own, settings.tftp.port, "another tftp.port")
    preflight.port("tcp", own, settings.http.port, "another http.port")
    if settings.dns.enabled:
        for kind in ("udp", "tcp"):
            preflight.port(kind, own, settings.dns.port, "dns.enabled = false")


def disk_processes(settings: Settings) -> int:
    """How many there are to be: as the settings say, or one for each core that we may use."""
    return settings.iscsi.processes or min(_PROCESSES, preflight.cores())


def check_loaders(settings: Settings, site: Site) -> None:
    """The boot programs that BIOS and UEFI machines get, and those that profiles name."""
    rows = [firmware.BY_CODE[code] for code in _COMMON_FIRMWARE]
    wanted = [(row.loader, f"{row.name} machines") for row in rows if row.loader]
    named = [(p.loader, f"profile {p.name}") for p in site.profiles.values() if p.loader]
    preflight.loaders(settings.loaders, [*wanted, *named])


def check_images(site: Site, found: Ledger) -> None:
    """Every profile's image is there."""
    for profile in site.profiles.values():
        version = found.version_of(profile.image)
        if version is None:
            raise ImageError(
                f"profile {profile.name}: there is no image {profile.image}: "
                f"netboot image build {profile.image}, or netboot image add FILE"
            )
        if not Path(version.path).is_file():
            raise ImageError(
                f"profile {profile.name}: {version.path} of image {profile.image} is gone: bring "
                f"it back, or netboot image build {profile.image}"
            )


def warn_of_readers(path: Path, settings: Settings) -> None:
    """Secrets in a settings file that others may read are none; but it is the operator's file."""
    held = [settings.iscsi.discovery_secret, *(row.chap_secret for row in settings.client)]
    try:
        open_to_others = path.stat().st_mode & 0o077
    except OSError:
        return
    if any(held) and open_to_others:
        log.warning("%s holds secrets and others may read it: chmod 600 %s", path, path)


def resolvers(settings: Settings, system: Path = Path("/etc/resolv.conf")) -> list[str]:
    """Whom to ask for other names: the settings' upstreams, else this system's name servers."""
    if settings.dns.upstreams is not None:
        return [str(address) for address in settings.dns.upstreams]
    try:
        lines = system.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    found = [w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and "%" not in w[1]]
    return [address for address in found if address != str(settings.site.address.ip)]

"""What a machine proves when it logs in to its disk (CHAP), and which of it we tell whom.

A machine that brings its own secret (``chap_secret`` of its [[client]]) is told nothing: it has it
already. All others, where the site wants CHAP, have secrets that we made, and are told them when
their iPXE asks: by DHCP, or in their script. Nothing here may ever put a secret into words.
"""

from collections.abc import Callable
from typing import TypeAlias

from netboot.model import MUTUAL_NAME, Chap, ChapMode, Host, Secrets, Site, hyphenated

#: Canonical MAC → the machine's secrets, made if there are none yet.
SecretsOf: TypeAlias = Callable[[str], Secrets]


def user(mac: str) -> str:
    """The user name of a machine, where it does not bring its own."""
    return hyphenated(mac)


def demanded(mac: str, site: Site, secrets_of: SecretsOf) -> Chap | None:
    """What a machine must prove at its login; None: nothing. Errors are those of ``secrets_of``."""
    return _own(site.hosts.get(mac), site) or told(mac, site, secrets_of)


def told(mac: str, site: Site, secrets_of: SecretsOf) -> Chap | None:
    """What its iPXE is told; None: nothing. Errors are those of ``secrets_of``."""
    if _own(site.hosts.get(mac), site) is not None or site.chap is ChapMode.OFF:
        return None
    made = secrets_of(mac)
    mutual = site.chap is ChapMode.MUTUAL
    return Chap(
        name=user(mac),
        secret=made.secret,
        mutual_name=MUTUAL_NAME if mutual else "",
        mutual_secret=made.reverse if mutual else "",
        algorithms=site.algorithms,
    )


def in_words(mac: str, site: Site) -> str:
    """For ``explain``: what is demanded, and how the machine knows it."""
    own = _own(site.hosts.get(mac), site)
    if own is not None:
        kind = "mutual CHAP" if own.mutual_secret else "CHAP"
        return f"{kind} as user {own.name}, with the machine's own secret: iPXE is told none"
    if site.chap is ChapMode.OFF:
        return "none: its name and its address must do"
    kind = "mutual CHAP" if site.chap is ChapMode.MUTUAL else "CHAP"
    return f"{kind} as user {user(mac)}: iPXE is told the secret with its address, or in its script"


def _own(host: Host | None, site: Site) -> Chap | None:
    if host is None or host.chap_secret is None:
        return None
    return Chap(
        name=host.chap_name or user(host.mac),
        secret=host.chap_secret,
        mutual_name=MUTUAL_NAME if host.chap_mutual_secret else "",
        mutual_secret=host.chap_mutual_secret or "",
        algorithms=site.algorithms,
    )

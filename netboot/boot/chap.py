"""What a machine proves when it logs in to its disk (CHAP), and which of it we tell whom.

A machine that brings its own secret (``chap_secret`` of its [[client]]) is told nothing: it has it
already. All others, where the site wants CHAP, have secrets that we made, and are told them when
their iPXE asks: by DHCP, or in their script. Nothing here may ever put a secret into words.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from netboot.model import MUTUAL_NAME, Chap, ChapMode, Secrets, Site, hyphenated

#: Canonical MAC → the machine's secrets, made if there are none yet.
SecretsOf: TypeAlias = Callable[[str], Secrets]


def user(mac: str) -> str:
    """The user name of a machine, where it does not bring its own."""
    return hyphenated(mac)


def demanded(mac: str, site: Site, secrets_of: SecretsOf) -> Chap | None:
    """What a machine must prove at its login; None: nothing. Errors are those of ``secrets_of``."""
    return own(mac, site) or told(mac, site, secrets_of)


def told(mac: str, site: Site, secrets_of: SecretsOf) -> Chap | None:
    """What its iPXE is told; None: nothing. Errors are those of ``secrets_of``."""
    if own(mac, site) is not None or site.chap is ChapMode.OFF:
        return None
    made = of_secrets(secrets_of(mac), site)
    if site.chap is ChapMode.MUTUAL:
        return made
    return replace(made, mutual_name="", mutual_secret="")


def of_secrets(made: Secrets, site: Site) -> Chap:
    """Both directions of a machine's generated secrets."""
    return Chap(user(made.mac), made.secret, MUTUAL_NAME, made.reverse, site.algorithms)


def own(mac: str, site: Site) -> Chap | None:
    """What a machine proves that brings its own secret; None: it brings none."""
    host = site.hosts.get(mac)
    if host is None or host.chap_secret is None:
        return None
    return Chap(
        name=host.chap_name or user(mac),
        secret=host.chap_secret,
        mutual_name=MUTUAL_NAME if host.chap_mutual_secret else "",
        mutual_secret=host.chap_mutual_secret or "",
        algorithms=site.algorithms,
    )


def in_words(mac: str, site: Site) -> str:
    """For ``explain``: what is demanded, and how the machine knows it."""
    brought = own(mac, site)
    if brought is not None:
        kind = "mutual CHAP" if brought.mutual_secret else "CHAP"
        return f"{kind} as user {brought.name}, with the machine's own secret: iPXE is told none"
    if site.chap is ChapMode.OFF:
        return "none: its name and its address must do"
    kind = "mutual CHAP" if site.chap is ChapMode.MUTUAL else "CHAP"
    return f"{kind} as user {user(mac)}: iPXE is told the secret with its address, or in its script"

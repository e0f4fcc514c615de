"""The machines' secrets: drawn when first wanted, kept, and renewed by the operator.

16 characters of an alphabet of 64 are the 96 random bits that RFC 7143 section 9.2.1 wants, and
the most that EDK2 and Windows take. Nothing here is ever logged but the name of a machine.
"""

import logging
import secrets
import string
from collections.abc import Callable

from netboot.boot import chap
from netboot.errors import ConfigError, NetbootError
from netboot.model import Chap, Secrets, Site
from netboot.service import ledger
from netboot.state.store import Store

log = logging.getLogger(__name__)

#: None of them means anything to iPXE, where a word may begin with any but a hyphen.
ALPHABET = string.ascii_letters + string.digits + "._"
LENGTH = 16


def draw() -> str:
    """A fresh secret."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


class Vault:
    """``site`` is asked anew each time; ``draw`` is called once for each secret."""

    def __init__(
        self,
        store: Store,
        site: Callable[[], Site],
        clock: Callable[[], float],
        draw: Callable[[], str] = draw,
    ) -> None:
        self._store = store
        self._site = site
        self._clock = clock
        self._draw = draw

    def secrets_of(self, mac: str) -> Secrets:
        """A machine's, made now if there are none yet. NetbootError as the store's."""
        return self._store.secrets(mac) or self._store.add_secrets(self._fresh(mac))

    def renew(self, mac: str, *, force: bool = False) -> Secrets:
        """Others in their place. ConfigError for a machine that brings its own, and, without
        ``force``, while it is logged in: it runs with the old ones, and could not come back."""
        host = self._site().hosts.get(mac)
        if host is not None and host.chap_secret is not None:
            raise ConfigError(f"{host.name} brings its own secret: change its chap_secret")
        if not force and any(ledger.in_use(overlay) for overlay in self._store.overlays(mac)):
            raise ConfigError(
                f"{mac} is logged in, or was until half a minute ago: it could not log in again "
                f"before it boots anew; switch it off and wait, or use --force"
            )
        fresh = self._fresh(mac)
        self._store.replace_secrets(fresh)
        return fresh

    def shown(self, mac: str, *, make: bool) -> Chap | None:
        """What the operator may want to type into firmware, both directions of it; None: there
        is nothing yet, and it is not to be made."""
        site = self._site()
        brought = chap.own(mac, site)
        if brought is not None or (not make and self._store.secrets(mac) is None):
            return brought
        return chap.of_secrets(self.secrets_of(mac), site)

    def told(self, mac: str) -> Chap | None:
        """What the machine's iPXE is told. Without a database it boots without: and says why."""
        try:
            return chap.told(mac, self._site(), self.secrets_of)
        except NetbootError as error:
            log.error("%s is told no secret, and will not get at its disk: %s", mac, error)
            return None

    def _fresh(self, mac: str) -> Secrets:
        secret = reverse = self._draw()
        while reverse == secret:  # RFC 7143 section 9.2.1: never one for both directions
            reverse = self._draw()
        return Secrets(mac, secret, reverse, self._clock())

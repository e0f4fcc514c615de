"""What the command line asks of the running service, through ``control``: one verb a method.

Only what cannot be done beside a running service. While a machine's disk is thrown away or
grows, nobody is let in to it: ``busy`` says so to who decides on logins.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from netboot.errors import ConfigError
from netboot.http.views import jsonable
from netboot.model import Counters, Site, canonical_mac
from netboot.service import growth, ledger
from netboot.service.control import Handler
from netboot.service.vault import Vault
from netboot.state.store import Store


class Disks(Protocol):
    """What the disk process does for us."""

    async def forget(self, mac: str) -> None: ...

    async def resize(self, mac: str, path: str, size: int) -> bool: ...

    async def refresh(self) -> Mapping[str, Counters]: ...


class Errands:
    """The verbs; ``site`` is asked each time, for a reload changes it."""

    def __init__(self, store: Store, vault: Vault, disks: Disks, site: Callable[[], Site]) -> None:
        self._store = store
        self._vault = vault
        self._disks = disks
        self._site = site
        self.busy: set[str] = set()  #: MACs of machines whose disk is being reset, or grows

    def handlers(self) -> dict[str, Handler]:
        """The verbs by the words that ask for them."""
        return {
            "reset": self.reset,
            "resize": self.resize,
            "renew": self.renew,
            "counters": self.counters,
            "profiles": self.profiles,
        }

    async def counters(self, _asked: Mapping[str, Any]) -> object:
        """What every client's disk has done, as of now."""
        return jsonable(await self._disks.refresh())

    async def profiles(self, _asked: Mapping[str, Any]) -> object:
        """The image of each profile, as we serve them now."""
        return {profile.name: profile.image for profile in self._site().profiles.values()}

    async def reset(self, asked: Mapping[str, Any]) -> object:
        """End a machine's sessions and throw its overlays away, whatever it does meanwhile."""
        mac = _machine(asked)
        with self._alone(mac):
            await self._disks.forget(mac)
            found = self._store.overlays(mac)
            return [ledger.discard(self._store, overlay) for overlay in found]

    async def resize(self, asked: Mapping[str, Any]) -> object:
        """Let a machine's disk grow, whether it is in use or not."""
        mac, image, size = _machine(asked), asked.get("image"), asked.get("size")
        if type(size) is not int or not isinstance(image, str | None):
            raise ConfigError("a disk grows to a number of bytes, over an image that has a name")
        with self._alone(mac):
            return await growth.beside(self._store, self._disks.resize, mac, image, size)

    async def renew(self, asked: Mapping[str, Any]) -> object:
        """Other secrets for a machine; its sessions end, and nobody remembers the old ones."""
        mac = _machine(asked)
        self._vault.renew(mac, force=bool(asked.get("force")))
        await self._disks.forget(mac)
        return None

    @contextlib.contextmanager
    def _alone(self, mac: str) -> Iterator[None]:
        if mac in self.busy:
            raise ConfigError(f"{mac}: its disk is being reset or grows just now; ask again")
        self.busy.add(mac)
        try:
            yield
        finally:
            self.busy.discard(mac)


def _machine(asked: Mapping[str, Any]) -> str:
    try:
        return canonical_mac(str(asked.get("mac")))
    except ValueError as error:
        raise ConfigError(str(error)) from None

"""Which version and which overlay a client has: the decisions between the brain and the store.

A persistent overlay stays on the version it was begun on until somebody resets it. An ephemeral
one is begun afresh, on the latest version, with each boot: its generation counts them, and a
disk of an older generation is thrown away by whoever opens it. No file is touched here but by
``discard``, and that one never touches a disk that somebody has open.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from netboot.boot import profiles
from netboot.boot.explain import Explanation, explain
from netboot.boot.script import Scripts
from netboot.errors import ImageError, NetbootError
from netboot.model import Lease, Overlay, OverlayMode, Site, Version, hyphenated
from netboot.state.store import Store
from netboot.storage import locks
from netboot.storage.parts import InUse, usage
from netboot.storage.parts import discard as discard_files

log = logging.getLogger(__name__)

#: Seconds after which the same trouble is written down again.
AGAIN = 60.0
#: The folder of all overlays, in the state folder.
FOLDER = "overlays"


class Ledger:
    """Answers for the door of the disks and for the beginning of a boot.

    >>> ledger = Ledger(store, Path("/var/lib/netboot"))
    >>> ledger.overlay_of(mac, "debian", OverlayMode.EPHEMERAL).generation
    0
    >>> ledger.begins(mac, "debian", OverlayMode.EPHEMERAL).generation
    1
    """

    def __init__(self, store: Store, state: Path) -> None:
        self._store = store
        self._folder = state / FOLDER
        self._told: dict[str, tuple[str, float]] = {}  #: MAC → its last trouble

    def version_of(self, image: str) -> Version | None:
        """What a client with no overlay yet gets of an image."""
        return self._store.latest(image)

    def version_at(self, image: str, number: int) -> Version | None:
        """The version that an older overlay stands on."""
        return self._store.version(image, number)

    def golden_of(self, mac: str, image: str, mode: OverlayMode) -> str | None:
        """The golden file that a client is about to boot from; None when there is none."""
        kept = mode is OverlayMode.PERSISTENT
        overlay = self._store.overlay(mac, image, mode) if kept else None
        version = self._store.version(image, overlay.version) if overlay else None
        version = version or self._store.latest(image)
        return version.path if version else None

    def overlay_of(self, mac: str, image: str, mode: OverlayMode) -> Overlay:
        """A client's overlay; when it has none, one over the latest version, remembered.

        Raises ImageError when the image has no version.
        """
        return self._store.overlay(mac, image, mode) or self._begin(mac, image, mode)

    def begins(self, mac: str, image: str, mode: OverlayMode) -> Overlay | None:
        """What a new boot makes of an ephemeral overlay: its next generation, over the latest
        version; ``Store.keep`` makes it true. None when there is nothing to decide, or no version
        to decide on.

        Who never logged in has none yet, and gets none by this: anybody can invent MACs.
        """
        if mode is not OverlayMode.EPHEMERAL:
            return None
        before = self._store.overlay(mac, image, mode)
        version = self._store.latest(image) if before else None
        if before is None or version is None:
            return None
        return replace(_anew(before, version), path=str(self.path_of(mac, image, mode)))

    def trouble(self, mac: str, text: str, at: float) -> None:
        """Remember, for ``overlay list``, what went wrong with a client's disk.

        Which one it was: the one that the text names, else the one that is open. The same is
        written once a minute at most: a machine may fail as often as it tries to write.
        """
        if self._told.get(mac, ("", 0.0))[0] == text and at < self._told[mac][1] + AGAIN:
            return
        self._told[mac] = text, at
        try:
            mine = self._store.overlays(mac)
            named = [each for each in mine if each.path in text]
            for each in named or [each for each in mine if in_use(each)]:
                plain = text.removeprefix(f"{each.path}: ")
                self._store.note_trouble(each.path, plain, at)
        except NetbootError as error:
            log.error("the trouble of %s cannot be remembered: %s", mac, error)

    def _begin(self, mac: str, image: str, mode: OverlayMode) -> Overlay:
        version = self._store.latest(image)
        if version is None:
            raise ImageError(
                f"image {image} is not there: build it with `netboot image build {image}`, or see "
                f"`netboot image list`"
            )
        path = str(self.path_of(mac, image, mode))
        made = Overlay(mac, image, version.number, mode, 0, path)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._store.save_overlay(made)
        return made

    def explain(
        self, mac: str, site: Site, scripts: Scripts, lease_of: Callable[[str], Lease | None]
    ) -> Explanation:
        """What the machine would get, and why; nothing is made or changed."""
        profile = profiles.assign(mac, site).profile

        def existing(owner: str, image: str) -> Overlay | None:
            return self._store.overlay(owner, image, profile.overlay) if profile else None

        return explain(
            mac,
            site,
            scripts,
            lease_of=lease_of,
            version_of=self.version_of,
            version_at=self.version_at,
            existing_overlay=existing,
        )

    def path_of(self, mac: str, image: str, mode: OverlayMode) -> Path:
        """``52-54-00-12-34-56.debian.qcow2``; an ephemeral one is called so."""
        kind = ".ephemeral" if mode is OverlayMode.EPHEMERAL else ""
        return self._folder / f"{hyphenated(mac)}.{image}{kind}.qcow2"


def discard(store: Store, overlay: Overlay) -> int:
    """Throw a client's writes away; bytes of disk given back.

    ImageError while somebody has it open. The next boot begins a new one on the latest version;
    an ephemeral overlay keeps its count of boots.
    """
    try:
        # The files first: after a crash in between, the record still says what to reset again.
        freed = discard_files(overlay.path)
    except InUse:
        raise ImageError(
            f"the overlay of {overlay.mac} over {overlay.image} is in use: its machine is "
            f"logged in, or was until half a minute ago; switch it off and wait, or end its "
            f"sessions with --force"
        ) from None
    latest = store.latest(overlay.image)
    if overlay.mode is OverlayMode.EPHEMERAL and latest is not None:
        store.save_overlay(_anew(overlay, latest))
    else:
        store.delete_overlay(overlay)
    return freed


def _anew(before: Overlay, version: Version) -> Overlay:
    return replace(
        before,
        generation=before.generation + 1,
        version=version.number,
        trouble="",
        troubled=None,
    )


def allocated(overlay: Overlay) -> int:
    """The bytes that an overlay takes on our disk."""
    return usage(overlay.path)


def in_use(overlay: Overlay) -> bool:
    """Whether anybody has an overlay open: its machine is logged in."""
    try:
        handle = os.open(overlay.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return locks.in_use(handle)
    finally:
        os.close(handle)

"""A client's disk becomes larger: in the disk process where it is open, else right here.

Nothing that is on it is touched, and a machine that runs need not stop: its sessions are told
that the capacity has changed (2A/09), and its operating system reads it when it is asked to.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from netboot.errors import ImageError
from netboot.model import DiskSpec, Overlay, OverlayMode
from netboot.state.store import Store
from netboot.storage.attach import attach
from netboot.storage.files import size_of

#: (MAC, path of the overlay, bytes) → whether it is open there, and so large now.
Live: TypeAlias = Callable[[str, str, int], Awaitable[bool]]
#: One overlay that has grown, as JSON has it.
Grown: TypeAlias = dict[str, Any]


def alone(store: Store, mac: str, image: str | None, size: int) -> list[Grown]:
    """Let a client's disk, which nobody has open, grow to ``size`` bytes; ImageError."""
    done = []
    for overlay, before in _chosen(store, mac, image):
        _grow(store, overlay, size)
        done.append(_grown(overlay, before, size))
    return done


async def beside(store: Store, live: Live, mac: str, image: str | None, size: int) -> list[Grown]:
    """The same while a service runs, whose disk process may have it open; NetbootError.

    Nobody may log in to it meanwhile: who calls sees to that.
    """
    done = []
    for overlay, before in _chosen(store, mac, image):
        if not await live(mac, overlay.path, size):
            await asyncio.to_thread(_grow, store, overlay, size)
        done.append(_grown(overlay, before, size))
    return done


def _chosen(store: Store, mac: str, image: str | None) -> list[tuple[Overlay, int]]:
    """The overlays that are meant, with their sizes; ImageError when that is not clear."""
    found = [each for each in store.overlays(mac) if image in (None, each.image)]
    if not found:
        over = f" over {image}" if image else ""
        raise ImageError(f"{mac} has no overlay{over}: netboot overlay list shows who has")
    images = sorted({each.image for each in found})
    if len(images) > 1:
        raise ImageError(f"{mac} has overlays over {', '.join(images)}: say which with --image")
    begun = [(each, before) for each in found if (before := size_of(each.path)) is not None]
    if not begun:
        raise ImageError(
            f"{mac} has not begun its overlay over {images[0]} yet: its first login does, as large "
            "as `disk` of its [[profile]] says"
        )
    return begun


def _grow(store: Store, overlay: Overlay, size: int) -> None:
    version = store.version(overlay.image, overlay.version)
    if version is None:
        raise ImageError(
            f"the overlay of {overlay.mac} stands on version {overlay.version} of image "
            f"{overlay.image!r}, which is gone: bring that version back"
        )
    disk = attach(
        DiskSpec(
            *(version.path, version.size, version.digest, overlay.path, overlay.generation),
            ephemeral=overlay.mode is OverlayMode.EPHEMERAL,
        )
    )
    try:
        disk.resize(size)
    finally:
        disk.close()


def _grown(overlay: Overlay, before: int, size: int) -> Grown:
    return {"image": overlay.image, "path": overlay.path, "before": before, "size": size}

"""Whose disk grows, where, and what is said when it cannot."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from netboot.errors import ImageError, NetbootError
from netboot.model import DiskSpec, Overlay, OverlayMode, Version
from netboot.service import growth
from netboot.service.ledger import Ledger
from netboot.state.store import Store
from netboot.storage.attach import attach
from netboot.storage.disk import Disk
from netboot.storage.files import size_of

MAC = "52:54:00:00:00:01"
KEPT, FRESH = OverlayMode.PERSISTENT, OverlayMode.EPHEMERAL
BEFORE, AFTER = 1 << 20, 5 << 30


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/db")
    for image in ("debian", "arch"):
        path = tmp_path / f"{image}.raw"
        path.write_bytes(image[:1].encode() * BEFORE)
        made.add_version(Version(image, 1, str(path), BEFORE, f"sha256:{image}", 1.0))
    yield made
    made.close()


@pytest.fixture
def book(store: Store, tmp_path: Path) -> Ledger:
    return Ledger(store, tmp_path)


def opened(store: Store, overlay: Overlay) -> Disk:
    version = store.version(overlay.image, overlay.version)
    assert version
    return attach(
        DiskSpec(
            *(version.path, version.size, version.digest, overlay.path, overlay.generation),
            ephemeral=overlay.mode is FRESH,
        )
    )


def begun(store: Store, book: Ledger, image: str, mode: OverlayMode) -> Overlay:
    """An overlay with something written to it."""
    overlay = book.overlay_of(MAC, image, mode)
    disk = opened(store, overlay)
    disk.write(4096, b"w" * 4096)
    disk.close()
    return overlay


@pytest.mark.parametrize("mode", [KEPT, FRESH])
def test_alone(store: Store, book: Ledger, mode: OverlayMode) -> None:
    overlay = begun(store, book, "debian", mode)
    grown = {"image": "debian", "path": overlay.path, "before": BEFORE, "size": AFTER}
    assert growth.alone(store, MAC, None, AFTER) == [grown]
    disk = opened(store, overlay)
    assert disk.size == AFTER
    assert b"".join(disk.read(0, 12288)) == b"d" * 4096 + b"w" * 4096 + b"d" * 4096
    disk.close()


def test_a_machine_with_several(store: Store, book: Ledger) -> None:
    kept, other = begun(store, book, "debian", KEPT), begun(store, book, "arch", KEPT)
    fresh = begun(store, book, "debian", FRESH)
    with pytest.raises(ImageError, match="overlays over arch, debian: say which with --image"):
        growth.alone(store, MAC, None, AFTER)
    growth.alone(store, MAC, "debian", AFTER)
    sizes = [size_of(each.path) for each in (kept, fresh, other)]
    assert sizes == [AFTER, AFTER, BEFORE]


def test_what_cannot_grow(store: Store, book: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has no overlay: netboot overlay list"):
        growth.alone(store, MAC, None, AFTER)
    overlay = book.overlay_of(MAC, "debian", KEPT)
    with pytest.raises(ImageError, match="has no overlay over arch"):
        growth.alone(store, MAC, "arch", AFTER)
    with pytest.raises(ImageError, match="has not begun its overlay over debian yet"):
        growth.alone(store, MAC, None, AFTER)
    disk = opened(store, overlay)
    with pytest.raises(ImageError, match="in use by another program"):
        growth.alone(store, MAC, None, AFTER)
    disk.close()
    growth.alone(store, MAC, None, AFTER)
    with pytest.raises(ImageError, match="never becomes smaller"):
        growth.alone(store, MAC, None, AFTER - 512)
    (tmp_path / "debian.raw").unlink()
    with pytest.raises(ImageError, match="the golden image is gone"):
        growth.alone(store, MAC, None, 2 * AFTER)
    assert size_of(overlay.path) == AFTER


def test_beside_a_service_that_has_it_open(store: Store, book: Ledger) -> None:
    overlay = begun(store, book, "debian", KEPT)
    disk, asked = opened(store, overlay), []

    async def live(*words: object) -> bool:
        asked.append(words)
        return True

    (grown,) = asyncio.run(growth.beside(store, live, MAC, "debian", AFTER))
    assert asked == [(MAC, overlay.path, AFTER)] and grown["before"] == BEFORE
    assert disk.size == BEFORE  # that was the other process's to do
    disk.close()


def test_beside_a_service_that_has_it_not_open(store: Store, book: Ledger) -> None:
    overlay = begun(store, book, "debian", KEPT)

    async def live(*words: object) -> bool:
        return False

    asyncio.run(growth.beside(store, live, MAC, None, AFTER))
    assert size_of(overlay.path) == AFTER


def test_beside_a_service_that_cannot(store: Store, book: Ledger) -> None:
    overlay = begun(store, book, "debian", KEPT)

    async def live(*words: object) -> bool:
        raise NetbootError("no room")

    with pytest.raises(NetbootError, match="no room"):
        asyncio.run(growth.beside(store, live, MAC, None, AFTER))
    assert size_of(overlay.path) == BEFORE


def test_a_version_that_is_gone(
    store: Store, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = begun(store, book, "debian", KEPT)
    monkeypatch.setattr(store, "version", lambda image, number: None)
    with pytest.raises(ImageError, match="version 1 of image 'debian', which is gone"):
        growth.alone(store, MAC, None, AFTER)
    assert size_of(overlay.path) == BEFORE


def test_the_size_of_what_is_none(tmp_path: Path) -> None:
    assert size_of(str(tmp_path / "none.qcow2")) is None
    (tmp_path / "x.qcow2").write_bytes(b"rubbish")
    assert size_of(str(tmp_path / "x.qcow2")) is None

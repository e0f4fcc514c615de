"""Numbers are used once, versions stay while they are stood on, overlays are kept apart."""

from dataclasses import replace

import pytest

from netboot.errors import ImageError
from netboot.model import Overlay, OverlayMode, Version
from netboot.state.store import Store

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))


def golden(number: int, image: str = "debian") -> Version:
    return Version(
        image=image,
        number=number,
        path=f"/golden/{image}/{number}.raw",
        size=3 << 40,
        digest=f"sha256:{number:064x}",
        created=1.25 * number,
        origin="recipe",
        parent=number - 1 or None,
    )


def over(mac: str, version: int = 1, image: str = "debian") -> Overlay:
    return Overlay(mac, image, version, OverlayMode.PERSISTENT, 0, f"/overlays/{image}/{mac}.qcow2")


KEPT, FRESH = OverlayMode.PERSISTENT, OverlayMode.EPHEMERAL


def test_versions_come_back_as_they_were(store: Store) -> None:
    for version in (golden(1), golden(2), golden(1, "arch")):
        store.add_version(version)
    assert store.versions() == [golden(1, "arch"), golden(1), golden(2)]
    assert store.versions("debian") == [golden(1), golden(2)]
    assert store.latest("debian") == golden(2)
    assert store.version("debian", 1) == golden(1)
    assert store.version("debian", 3) is None
    assert store.latest("windows") is None


def test_a_number_is_never_used_twice(store: Store) -> None:
    assert store.next_number("debian") == 1
    store.add_version(golden(1))
    store.add_version(golden(2))
    store.remove_version("debian", 2)
    assert store.latest("debian") == golden(1)
    assert store.next_number("debian") == 3
    with pytest.raises(ImageError, match="the number is taken; the next one is 3"):
        store.add_version(golden(2))
    store.add_version(golden(3))


def test_a_version_in_use_is_not_removed(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    store.save_overlay(over(B))
    with pytest.raises(ImageError, match=f"debian version 1 is in use by {A}, {B}"):
        store.remove_version("debian", 1)
    assert store.versions() == [golden(1)]
    store.delete_overlay(over(A))
    store.delete_overlay(over(B))
    store.remove_version("debian", 1)
    assert store.versions() == []


def test_what_is_not_there_cannot_be_removed(store: Store) -> None:
    with pytest.raises(ImageError, match="image debian has no version 7"):
        store.remove_version("debian", 7)


def test_overlays_come_back_as_they_were(store: Store) -> None:
    for version in (golden(1), golden(2), golden(1, "arch")):
        store.add_version(version)
    saved = [over(A, 1, "arch"), over(A, 2), over(B, 1)]
    for overlay in reversed(saved):
        store.save_overlay(overlay)
    assert store.overlays() == saved
    assert store.overlays(A) == saved[:2]
    assert store.overlay(A, "debian", KEPT) == over(A, 2)
    assert store.overlay(C, "debian", KEPT) is None
    assert store.overlays_of("debian") == [over(A, 2), over(B, 1)]
    assert store.overlays_of("debian", 1) == [over(B, 1)]
    assert store.delete_overlay(over(A, 1, "arch"))
    assert not store.delete_overlay(over(A, 1, "arch"))


def test_a_client_keeps_its_version_when_a_new_one_is_added(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    store.add_version(golden(2))
    kept = store.overlay(A, "debian", KEPT)
    assert kept and kept.version == 1


def test_an_overlay_takes_the_place_of_the_one_before(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    later = replace(over(A), generation=7, path="/elsewhere")
    store.save_overlay(later)
    assert store.overlays() == [later]


def test_what_was_written_in_one_mode_waits_while_the_other_is_tried(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    fresh = replace(over(A), mode=FRESH, generation=7, path="/fresh")
    store.save_overlay(fresh)
    assert store.overlay(A, "debian", KEPT) == over(A)
    assert store.overlay(A, "debian", FRESH) == fresh
    assert store.overlays() == [fresh, over(A)]
    with pytest.raises(ImageError, match=f"in use by {A};"):
        store.remove_version("debian", 1)
    store.delete_overlay(fresh)
    assert store.overlays() == [over(A)]


def test_an_overlay_of_no_version_is_refused_and_the_old_one_stays(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    with pytest.raises(ImageError, match=f"debian has no version 9 for the overlay of {A}"):
        store.save_overlay(over(A, 9))
    assert store.overlays() == [over(A)]


def test_trouble_is_kept_with_the_overlay_until_a_fresh_one(store: Store) -> None:
    store.add_version(golden(1))
    store.save_overlay(over(A))
    store.save_overlay(over(B))
    store.note_trouble(over(A).path, "No space left on device", 7.5)
    store.note_trouble("/no/such.qcow2", "x", 8.5)
    noted = replace(over(A), trouble="No space left on device", troubled=7.5)
    assert store.overlays() == [noted, over(B)]
    assert store.overlay(A, "debian", KEPT) == noted
    store.save_overlay(over(A))
    assert store.overlays() == [over(A), over(B)]


def test_an_overlay_that_begins_anew_leaves_its_trouble_behind(store: Store) -> None:
    store.add_version(golden(1))
    store.add_version(golden(2))
    for overlay in (over(A), replace(over(A), mode=FRESH), replace(over(B), mode=FRESH)):
        store.save_overlay(overlay)
        store.note_trouble(overlay.path, "No space left on device", 7.5)
    begun = replace(over(A, 2), mode=FRESH, generation=1, path="/elsewhere")
    store.keep([begun])
    assert store.overlay(A, "debian", FRESH) == begun
    for mac, mode in ((A, KEPT), (B, FRESH)):
        left = store.overlay(mac, "debian", mode)
        assert left and (left.version, left.generation, left.troubled) == (1, 0, 7.5)


def test_one_that_was_thrown_away_meanwhile_stays_away(store: Store) -> None:
    store.add_version(golden(1))
    store.keep([over(A)])
    assert store.overlays() == []

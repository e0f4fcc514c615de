"""Who stands on which version, what a new boot changes, and what may be thrown away."""

import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from netboot.boot.script import Scripts
from netboot.errors import ImageError, NetbootError
from netboot.model import (
    DiskSpec,
    Host,
    Lease,
    LeaseState,
    Overlay,
    OverlayMode,
    Profile,
    Site,
    Version,
)
from netboot.service import ledger
from netboot.service.ledger import Ledger, discard
from netboot.state.store import Store
from netboot.storage import parts
from netboot.storage.attach import attach

A, B = "52:54:00:00:00:01", "52:54:00:00:00:02"
KEPT, FRESH = OverlayMode.PERSISTENT, OverlayMode.EPHEMERAL


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/db")
    yield made
    made.close()


@pytest.fixture
def book(store: Store, tmp_path: Path) -> Ledger:
    return Ledger(store, tmp_path)


def golden(store: Store, folder: Path, number: int = 1) -> Version:
    """A golden image of a mebibyte, in the catalogue."""
    path = folder / f"{number}.raw"
    path.write_bytes(bytes([number]) * (1 << 20))
    version = Version("debian", number, str(path), 1 << 20, f"sha256:{number}", 1.0)
    store.add_version(version)
    return version


# Versions and overlays.


def boot(store: Store, book: Ledger) -> Overlay | None:
    """As the service does it, when A's firmware asks for the first time."""
    begun = book.begins(A, "debian", FRESH)
    assert begun is None or store.overlay(A, "debian", FRESH) != begun, "nothing is true yet"
    store.keep([begun] if begun else [])
    return begun


def test_the_first_login_begins_an_overlay_over_the_latest_version(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    golden(store, tmp_path)
    golden(store, tmp_path, 2)
    made = book.overlay_of(A, "debian", KEPT)
    assert (made.version, made.generation, made.mode) == (2, 0, KEPT)
    assert made.path == str(tmp_path / "overlays" / "52-54-00-00-00-01.debian.qcow2")
    assert book.overlay_of(A, "debian", KEPT) == made
    assert store.overlays() == [made]


def test_nobody_else_may_look_into_the_overlays(store: Store, book: Ledger, tmp_path: Path) -> None:
    golden(store, tmp_path)
    book.overlay_of(A, "debian", KEPT)
    assert (tmp_path / "overlays").stat().st_mode & 0o077 == 0


def test_a_persistent_client_keeps_its_version(store: Store, book: Ledger, tmp_path: Path) -> None:
    golden(store, tmp_path)
    before = book.overlay_of(A, "debian", KEPT)
    golden(store, tmp_path, 2)
    assert book.begins(A, "debian", KEPT) is None
    assert book.overlay_of(A, "debian", KEPT) == before
    assert book.overlay_of(B, "debian", KEPT).version == 2
    found = book.version_at("debian", 1)
    assert found and found.number == 1
    latest = book.version_of("debian")
    assert latest and latest.number == 2


def test_what_a_client_is_about_to_boot_from(store: Store, book: Ledger, tmp_path: Path) -> None:
    assert book.golden_of(A, "debian", KEPT) is None
    first = golden(store, tmp_path)
    assert book.golden_of(A, "debian", KEPT) == first.path
    assert store.overlays() == []  # who asks begins none
    book.overlay_of(A, "debian", KEPT)
    second = golden(store, tmp_path, 2)
    assert book.golden_of(A, "debian", KEPT) == first.path
    assert book.golden_of(B, "debian", KEPT) == second.path


def test_a_fresh_disk_is_about_to_be_the_latest(store: Store, book: Ledger, tmp_path: Path) -> None:
    golden(store, tmp_path)
    book.overlay_of(A, "debian", FRESH)
    second = golden(store, tmp_path, 2)
    assert book.golden_of(A, "debian", FRESH) == second.path


def test_an_ephemeral_client_is_fresh_and_up_to_date_at_each_boot(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    golden(store, tmp_path)
    seen = []
    for number in range(3):
        if number == 2:
            golden(store, tmp_path, 2)
        begun = boot(store, book)
        assert (begun is None) == (number == 0), "a machine that never logged in costs nothing"
        assert store.overlays() == ([begun] if begun else [])
        # A second login within one boot finds the same disk.
        for _ in range(2):
            found = book.overlay_of(A, "debian", FRESH)
            seen.append((found.generation, found.version))
    assert seen == [(0, 1), (0, 1), (1, 1), (1, 1), (2, 2), (2, 2)]
    assert "ephemeral" in book.overlay_of(A, "debian", FRESH).path


def test_an_ephemeral_login_without_a_boot_of_ours_has_a_disk_all_the_same(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    """DHCP is somebody else's: nobody tells us that a boot begins."""
    golden(store, tmp_path)
    assert book.overlay_of(A, "debian", FRESH).generation == 0


def test_trying_the_other_mode_leaves_what_was_written(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    golden(store, tmp_path)
    kept = book.overlay_of(A, "debian", KEPT)
    boot(store, book)
    assert book.overlay_of(A, "debian", FRESH).path != kept.path
    assert book.overlay_of(A, "debian", KEPT) == kept


def test_an_image_that_is_not_there_is_one_line(book: Ledger) -> None:
    assert book.begins(A, "debian", FRESH) is None
    with pytest.raises(ImageError, match="image debian is not there: build it with `netboot ima"):
        book.overlay_of(A, "debian", KEPT)


# Throwing away.


def write(store: Store, book: Ledger, mode: OverlayMode, version: Version) -> bytes:
    """Attach, write, close: the overlay has files. What a new attach reads there."""
    overlay = book.overlay_of(A, "debian", mode)
    spec = DiskSpec(
        version.path,
        version.size,
        version.digest,
        overlay.path,
        overlay.generation,
        mode is FRESH,
    )
    disk = attach(spec)
    disk.write(0, b"x" * 4096)
    disk.flush()
    disk.close()
    disk = attach(spec)
    found = b"".join(bytes(part) for part in disk.read(0, 512))
    disk.close()
    return found


@pytest.mark.parametrize("mode", [KEPT, FRESH])
def test_what_is_thrown_away_is_gone_and_the_next_disk_is_golden(
    store: Store, book: Ledger, tmp_path: Path, mode: OverlayMode
) -> None:
    version = golden(store, tmp_path)
    assert write(store, book, mode, version) == b"x" * 512
    before = book.overlay_of(A, "debian", mode)
    assert ledger.allocated(before) > 0
    assert discard(store, before) > 0
    assert ledger.allocated(before) == 0
    assert list((tmp_path / "overlays").iterdir()) == []
    after = book.overlay_of(A, "debian", mode)
    assert after.generation == (before.generation + 1 if mode is FRESH else 0)
    disk = attach(
        DiskSpec(version.path, version.size, version.digest, after.path, after.generation)
    )
    assert b"".join(bytes(part) for part in disk.read(0, 512)) == b"\x01" * 512
    disk.close()


def test_what_was_thrown_away_begins_on_the_latest_version(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    write(store, book, KEPT, golden(store, tmp_path))
    golden(store, tmp_path, 2)
    discard(store, book.overlay_of(A, "debian", KEPT))
    assert book.overlay_of(A, "debian", KEPT).version == 2
    assert store.overlays_of("debian", 1) == []


def test_an_overlay_in_use_is_not_touched(store: Store, book: Ledger, tmp_path: Path) -> None:
    version = golden(store, tmp_path)
    overlay = book.overlay_of(A, "debian", KEPT)
    assert not ledger.in_use(overlay)
    disk = attach(DiskSpec(version.path, version.size, version.digest, overlay.path))
    disk.write(0, b"y" * 512)
    assert ledger.in_use(overlay)
    with pytest.raises(ImageError, match=r"in use: its machine is logged in.*--force"):
        discard(store, overlay)
    assert b"".join(bytes(part) for part in disk.read(0, 512)) == b"y" * 512
    disk.close()
    assert not ledger.in_use(overlay)
    assert store.overlays() == [overlay]
    discard(store, overlay)


def test_an_overlay_that_was_never_opened_has_no_files(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    golden(store, tmp_path)
    overlay = book.overlay_of(A, "debian", KEPT)
    assert ledger.allocated(overlay) == 0
    assert not ledger.in_use(overlay)
    assert discard(store, overlay) == 0
    assert store.overlays() == []
    assert discard(store, overlay) == 0


def test_a_crash_while_throwing_away_leaves_something_to_throw_away_again(
    store: Store, book: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, book, KEPT, golden(store, tmp_path))
    overlay = book.overlay_of(A, "debian", KEPT)
    unlink = os.unlink

    def dies(path: str) -> None:
        if str(path).endswith(".data"):
            raise KeyboardInterrupt
        unlink(path)

    monkeypatch.setattr(os, "unlink", dies)
    with pytest.raises(KeyboardInterrupt):
        discard(store, overlay)
    monkeypatch.undo()
    assert store.overlays() == [overlay]
    discard(store, overlay)
    assert store.overlays() == []
    assert list((tmp_path / "overlays").iterdir()) == []


def test_what_is_thrown_away_stays_away_after_a_power_cut(
    store: Store, book: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, book, KEPT, golden(store, tmp_path))
    seen: list[tuple[list[Path], int]] = []

    def sync(path: str) -> None:
        seen.append((list(Path(path).parent.iterdir()), len(store.overlays())))

    monkeypatch.setattr(parts, "sync_folder", sync)
    discard(store, book.overlay_of(A, "debian", KEPT))
    # The files are gone, and durably, while there is a record of them still.
    assert seen[-1] == ([], 1)
    assert store.overlays() == []


def test_nobody_can_open_what_is_being_thrown_away(
    store: Store, book: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, book, KEPT, golden(store, tmp_path))
    overlay = book.overlay_of(A, "debian", KEPT)
    held: list[bool] = []
    version = store.latest("debian")
    assert version is not None
    spec = DiskSpec(version.path, version.size, version.digest, overlay.path)
    unlink = os.unlink

    def looks(path: str) -> None:
        with pytest.raises(ImageError, match=r"in use|being replaced"):
            attach(spec)
        held.append(True)
        unlink(path)

    monkeypatch.setattr(os, "unlink", looks)
    discard(store, overlay)
    assert len(held) >= 3


# Explaining.


def troubles(store: Store) -> list[tuple[OverlayMode, str, float | None]]:
    return [(each.mode, each.trouble, each.troubled) for each in store.overlays()]


def test_trouble_is_noted_at_the_overlay_that_it_names(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    golden(store, tmp_path)
    book.overlay_of(A, "debian", FRESH)
    kept = book.overlay_of(A, "debian", KEPT)
    book.trouble(A, f"{kept.path}: No space left on device", 5.0)
    assert troubles(store) == [(FRESH, "", None), (KEPT, "No space left on device", 5.0)]
    assert book.overlay_of(A, "debian", KEPT).trouble == "No space left on device"


def test_trouble_without_a_name_is_that_of_the_open_disk(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    version = golden(store, tmp_path)
    kept, fresh = book.overlay_of(A, "debian", KEPT), book.overlay_of(A, "debian", FRESH)
    book.trouble(A, "the golden image is gone", 5.0)
    assert troubles(store) == [(FRESH, "", None), (KEPT, "", None)]
    disk = attach(DiskSpec(version.path, version.size, version.digest, fresh.path))
    book.trouble(A, f"{version.path}: Input/output error", 6.0)
    disk.close()
    assert troubles(store)[0] == (FRESH, f"{version.path}: Input/output error", 6.0)
    assert troubles(store)[1] == (KEPT, "", None)
    assert kept.trouble == ""


def test_the_same_trouble_is_written_once_a_minute(
    store: Store, book: Ledger, tmp_path: Path
) -> None:
    golden(store, tmp_path)
    path = book.overlay_of(A, "debian", KEPT).path
    for at in (5.0, 6.0, 5.0 + ledger.AGAIN - 1):
        book.trouble(A, f"{path}: full", at)
    assert troubles(store) == [(KEPT, "full", 5.0)]
    book.trouble(A, f"{path}: sync failed", 7.0)
    assert troubles(store) == [(KEPT, "sync failed", 7.0)]
    book.trouble(A, f"{path}: sync failed", 7.0 + ledger.AGAIN)
    assert troubles(store) == [(KEPT, "sync failed", 7.0 + ledger.AGAIN)]


def test_a_fresh_disk_has_no_trouble(store: Store, book: Ledger, tmp_path: Path) -> None:
    golden(store, tmp_path)
    fresh = book.overlay_of(A, "debian", FRESH)
    book.trouble(A, f"{fresh.path}: full", 5.0)
    discard(store, book.overlay_of(A, "debian", FRESH))
    assert troubles(store) == [(FRESH, "", None)]
    book.trouble(A, f"{fresh.path}: full", 500.0)
    boot(store, book)
    assert troubles(store) == [(FRESH, "", None)]


def test_a_database_that_is_away_costs_only_the_note(
    store: Store, book: Ledger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(mac: str) -> None:
        raise NetbootError("database is locked")

    monkeypatch.setattr(store, "overlays", away)
    book.trouble(A, "full", 5.0)
    assert "cannot be remembered: database is locked" in caplog.text


def test_explaining_makes_nothing(store: Store, book: Ledger, tmp_path: Path) -> None:
    golden(store, tmp_path)
    site = Site(
        interface="br0",
        address=IPv4Interface("192.168.77.1/24"),
        domain="lab.netboot",
        profiles={"p": Profile("p", "debian", FRESH)},
        hosts={A: Host(A, "ws1", "p")},
    )
    lease = Lease(A, IPv4Address("192.168.77.9"), 1.0, LeaseState.BOUND)
    told = book.explain(A, site, Scripts(), lambda _mac: lease)
    assert told.name == "ws1"
    assert told.address == "192.168.77.9 (bound)"
    assert told.disk and told.disk.version == 1 and told.disk.overlay is None
    assert store.overlays() == []
    book.overlay_of(A, "debian", FRESH)
    boot(store, book)
    told = book.explain(A, site, Scripts(), lambda _mac: None)
    assert told.disk and told.disk.generation == 1 and told.disk.overlay
    assert book.explain(B, site, Scripts(), lambda _mac: None).profile is None

"""``netboot overlay``: listed with the room they take; thrown away only when nobody uses them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from netboot import config
from netboot.cli.entry import group
from netboot.cli.output import when
from netboot.errors import ConfigError, ImageError
from netboot.model import DiskSpec, Overlay, OverlayMode, Version
from netboot.service.ledger import Ledger
from netboot.state.store import Store
from netboot.storage.attach import attach
from netboot.storage.disk import Disk

MAC = "52:54:00:00:00:01"
KEPT, FRESH = OverlayMode.PERSISTENT, OverlayMode.EPHEMERAL


@pytest.fixture(autouse=True)
def no_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "none.toml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/netboot.sqlite")
    golden = tmp_path / "1.raw"
    golden.write_bytes(bytes(1 << 20))
    made.add_version(Version("debian", 1, str(golden), 1 << 20, "sha256:1", 1.0))
    yield made
    made.close()


def opened(store: Store, overlay: Overlay) -> Disk:
    version = store.version("debian", 1)
    assert version
    disk = attach(DiskSpec(version.path, version.size, version.digest, overlay.path))
    disk.write(0, b"x" * 4096)
    return disk


def run(tmp_path: Path, *words: object) -> Result:
    return CliRunner().invoke(group, ["overlay", *map(str, words), "--state", str(tmp_path)])


def works(tmp_path: Path, *words: object) -> str:
    done = run(tmp_path, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_no_overlays_say_where_they_come_from(tmp_path: Path, store: Store) -> None:
    done = run(tmp_path, "list")
    assert "no client has an overlay yet: its first login makes one" in done.stderr
    assert json.loads(works(tmp_path, "list", "--json")) == []


def test_what_went_wrong_is_in_the_list_until_a_reset(tmp_path: Path, store: Store) -> None:
    book = Ledger(store, tmp_path)
    mine = book.overlay_of(MAC, "debian", KEPT)
    book.trouble(MAC, f"{mine.path}: No space left on device", 86400.0)
    lines = works(tmp_path, "list").splitlines()
    assert lines[0].endswith("TROUBLE")
    assert lines[1].endswith(f"{when(86400.0)} No space left on device")
    (told,) = json.loads(works(tmp_path, "list", "--json"))
    assert (told["trouble"], told["troubled"]) == ("No space left on device", 86400.0)
    works(tmp_path, "reset", MAC)
    book.overlay_of(MAC, "debian", KEPT)
    assert works(tmp_path, "list").splitlines()[1].endswith("-")


def test_overlays_are_listed_with_who_uses_them(tmp_path: Path, store: Store) -> None:
    book = Ledger(store, tmp_path)
    book.overlay_of(MAC, "debian", FRESH)
    begun = book.begins(MAC, "debian", FRESH)
    assert begun
    store.keep([begun])
    disk = opened(store, book.overlay_of(MAC, "debian", KEPT))
    disk.flush()
    lines = works(tmp_path, "list").splitlines()
    assert lines[0].split()[:5] == ["MAC", "IMAGE", "VERSION", "MODE", "GENERATION"]
    assert lines[1].split() == [MAC, "debian", "1", "ephemeral", "1", "-", "0", "B", "no", "-"]
    assert lines[2].split()[:7] == [MAC, "debian", "1", "persistent", "0", "1.0", "MiB"]
    assert lines[2].split()[-2:] == ["yes", "-"]
    told = json.loads(works(tmp_path, "list", "--json"))
    assert [(row["mode"], row["in_use"]) for row in told] == [
        ("ephemeral", False),
        ("persistent", True),
    ]
    assert told[1]["allocated"] >= 4096
    assert [row["disk"] for row in told] == [None, 1 << 20]
    disk.close()


def test_what_a_machine_wrote_is_thrown_away(tmp_path: Path, store: Store) -> None:
    overlay = Ledger(store, tmp_path).overlay_of(MAC, "debian", KEPT)
    opened(store, overlay).close()
    told = works(tmp_path, "reset", MAC.upper().replace(":", "-"))
    assert told.startswith(f"{MAC}: 1 overlay(s) thrown away, ")
    assert store.overlays() == []
    assert not Path(overlay.path).exists()


def test_reset_in_json(tmp_path: Path, store: Store) -> None:
    overlay = Ledger(store, tmp_path).overlay_of(MAC, "debian", KEPT)
    told = json.loads(works(tmp_path, "reset", MAC, "--json"))
    assert (told["mac"], told["freed"]) == (MAC, 0)
    assert told["reset"][0]["path"] == overlay.path


def test_a_logged_in_machine_keeps_all_it_has(tmp_path: Path, store: Store) -> None:
    book = Ledger(store, tmp_path)
    other = book.overlay_of(MAC, "debian", FRESH)
    opened(store, other).close()
    disk = opened(store, book.overlay_of(MAC, "debian", KEPT))
    before = store.overlays()
    for words in ((), ("--force",)):  # there is no service that could end its sessions
        done = run(tmp_path, "reset", MAC, *words)
        assert isinstance(done.exception, ImageError)
        assert "is in use: its machine is logged in" in str(done.exception)
        assert store.overlays() == before
        assert Path(other.path).exists()
    disk.close()
    works(tmp_path, "reset", MAC)


def test_force_goes_through_the_running_service(
    tmp_path: Path, store: Store, beside_a_service: Any
) -> None:
    Ledger(store, tmp_path).overlay_of(MAC, "debian", KEPT)
    done: list[str] = []
    asked = beside_a_service(
        *(tmp_path, "reset", [1024, 1024]),
        lambda: done.append(works(tmp_path, "reset", MAC, "--force")),
    )
    assert asked == [{"do": "reset", "mac": MAC}]
    assert done == [f"{MAC}: 1 overlay(s) thrown away, 2.0 KiB given back\n"]


def test_a_disk_grows_while_nothing_runs(tmp_path: Path, store: Store) -> None:
    overlay = Ledger(store, tmp_path).overlay_of(MAC, "debian", KEPT)
    opened(store, overlay).close()
    told = works(tmp_path, "resize", MAC.upper(), "100G")
    assert told == f"{MAC}: its disk over debian has 100.0 GiB now, it had 1.0 MiB\n"
    told = json.loads(works(tmp_path, "resize", MAC, "1T", "--json", "--image", "debian"))
    grown = {"image": "debian", "path": overlay.path, "before": 100 << 30, "size": 1 << 40}
    assert told == {"mac": MAC, "resized": [grown]}
    assert json.loads(works(tmp_path, "list", "--json"))[0]["disk"] == 1 << 40
    disk = opened(store, overlay)
    assert disk.size == 1 << 40
    disk.close()


def test_a_size_that_cannot_be_is_one_line(tmp_path: Path, store: Store) -> None:
    opened(store, Ledger(store, tmp_path).overlay_of(MAC, "debian", KEPT)).close()
    for words, error in (
        ((MAC, "100"), "SIZE 100 is not a number with a unit: write a number and M, G or T"),
        ((MAC, "17T"), "SIZE 17T is smaller than 1M or larger than 16T"),
        (("52:54:00:00:00:09", "1G"), "52:54:00:00:00:09 has no overlay: netboot overlay list"),
    ):
        done = run(tmp_path, "resize", *words)
        assert error in str(done.exception)
    works(tmp_path, "resize", MAC, "2G")
    done = run(tmp_path, "resize", MAC, "1G")
    assert isinstance(done.exception, ImageError)
    assert "never becomes smaller" in str(done.exception)


def test_a_disk_grows_by_the_running_service(
    tmp_path: Path, store: Store, beside_a_service: Any
) -> None:
    done: list[str] = []
    row = {"image": "debian", "path": "/o.qcow2", "before": 1 << 30, "size": 5 << 30}
    asked = beside_a_service(
        *(tmp_path, "resize", [row]),
        lambda: done.append(works(tmp_path, "resize", MAC, "5G")),
    )
    assert asked == [{"do": "resize", "mac": MAC, "image": None, "size": 5 << 30}]
    assert done == [f"{MAC}: its disk over debian has 5.0 GiB now, it had 1.0 GiB\n"]


def test_a_machine_without_overlay_is_one_line(tmp_path: Path, store: Store) -> None:
    done = run(tmp_path, "reset", MAC)
    assert isinstance(done.exception, ImageError)
    assert str(done.exception) == f"{MAC} has no overlay: netboot overlay list shows who has"
    done = run(tmp_path, "reset", "ws1")
    assert isinstance(done.exception, ConfigError)

"""Secrets: one pair a machine, the first one stays, and no machine with a disk loses its own."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from netboot.model import Overlay, OverlayMode, Secrets, Version
from netboot.state.store import Store

A, B, C, D = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3, 4))


def drawn(mac: str, number: int = 1, made: float = 1.5) -> Secrets:
    return Secrets(mac, f"secret number {number:02}", f"reverse numb. {number:02}", made)


def test_what_is_added_is_found_by_every_process(store: Store, url: str) -> None:
    assert store.secrets(A) is None
    assert store.add_secrets(drawn(A)) == drawn(A)
    other = Store(url)
    assert other.secrets(A) == drawn(A)
    assert other.secrets(B) is None
    other.close()


def test_the_first_one_stays(store: Store) -> None:
    """The service and the command line may both find none, and draw."""
    store.add_secrets(drawn(A, 1))
    assert store.add_secrets(drawn(A, 2)) == drawn(A, 1)
    assert store.secrets(A) == drawn(A, 1)


def test_many_at_once_agree_on_one(url: str) -> None:
    found: list[Secrets] = []

    def add(number: int) -> None:
        store = Store(url)
        found.append(store.add_secrets(drawn(A, number)))
        store.close()

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_renewed_ones_replace_the_old(store: Store) -> None:
    store.replace_secrets(drawn(A, 1))
    store.replace_secrets(drawn(A, 2))
    store.replace_secrets(drawn(B, 3))
    assert store.secrets(A) == drawn(A, 2)
    assert store.secrets(B) == drawn(B, 3)


def test_machines_without_a_disk_are_forgotten_the_oldest_first(store: Store) -> None:
    for at, mac in enumerate((A, B, C, D)):
        store.add_secrets(drawn(mac, made=float(at)))
    store.add_version(Version("debian", 1, "/golden/1.raw", 512, "sha256:0", 1.0))
    store.save_overlay(Overlay(A, "debian", 1, OverlayMode.PERSISTENT, 0, "/overlays/a.qcow2"))
    assert store.prune_secrets(3) == 0
    assert store.prune_secrets(1) == 2
    assert [mac for mac in (A, B, C, D) if store.secrets(mac)] == [A, D]
    assert store.prune_secrets(0) == 1
    assert [mac for mac in (A, B, C, D) if store.secrets(mac)] == [A]


def test_the_database_is_the_owners_alone(store: Store, tmp_path: Path) -> None:
    store.add_secrets(drawn(A))
    files = sorted(path.name for path in tmp_path.glob("netboot.sqlite*"))
    assert files == ["netboot.sqlite", "netboot.sqlite-shm", "netboot.sqlite-wal"]
    for name in files:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600, name


@pytest.mark.parametrize("show", [repr, str])
def test_no_secret_is_ever_written_by_accident(show: object) -> None:
    text = show(replace(drawn(A), secret="hush", reverse="husher"))  # type: ignore[operator]
    assert "hush" not in text
    assert A in text

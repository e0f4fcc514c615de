"""Secrets are drawn once, long and unlike, and who cannot be told one boots on without."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from netboot.errors import ConfigError, NetbootError
from netboot.model import Chap, ChapMode, Host, Overlay, OverlayMode, Secrets, Site, Version
from netboot.proofs import secret
from netboot.service import vault
from netboot.service.vault import Vault
from netboot.state.store import Store
from netboot.storage import locks

A, B = "52:54:00:00:00:01", "52:54:00:00:00:02"
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    hosts={B: Host(B, "ws2", "work", chap_secret="its-own-secret")},
    chap=ChapMode.CHAP,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/netboot.sqlite")
    yield made
    made.close()


def of(store: Store, site: Site = SITE, draws: str = "") -> Vault:
    if not draws:
        return Vault(store, lambda: site, lambda: 7.0)
    letters = iter(draws)
    return Vault(store, lambda: site, lambda: 7.0, lambda: next(letters) * 16)


def test_a_secret_is_96_bits_in_16_characters_that_everybody_takes() -> None:
    drawn = {vault.draw() for _ in range(200)}
    assert len(drawn) == 200
    assert len(set(vault.ALPHABET)) == 64
    for one in drawn:
        assert len(one) == vault.LENGTH == 16
        assert set(one) <= set(vault.ALPHABET)
        assert secret(one) == one
        assert not one.startswith(("-", "#"))


def test_drawn_once_and_kept(store: Store) -> None:
    made = of(store, draws="ab").secrets_of(A)
    assert made == Secrets(A, "a" * 16, "b" * 16, 7.0)
    assert of(store).secrets_of(A) == made
    assert store.secrets(A) == made


def test_both_directions_differ(store: Store) -> None:
    made = of(store, draws="aaab").secrets_of(A)
    assert (made.secret, made.reverse) == ("a" * 16, "b" * 16)


def test_every_machine_has_its_own(store: Store) -> None:
    machines = of(store)
    one, other = machines.secrets_of(A), machines.secrets_of(B)
    assert len({one.secret, one.reverse, other.secret, other.reverse}) == 4


def test_renewed(store: Store) -> None:
    machines = of(store, draws="abcd")
    machines.secrets_of(A)
    assert machines.renew(A) == Secrets(A, "c" * 16, "d" * 16, 7.0)
    assert machines.secrets_of(A).secret == "c" * 16


def test_its_own_is_not_renewed_here(store: Store) -> None:
    with pytest.raises(ConfigError, match="ws2 brings its own secret: change its chap_secret"):
        of(store).renew(B, force=True)


def test_nothing_is_renewed_under_a_running_machine(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    store.add_version(Version("debian", 1, "/golden/1.raw", 512, "sha256:0", 1.0))
    store.save_overlay(Overlay(A, "debian", 1, OverlayMode.PERSISTENT, 0, str(path)))
    machines = of(store, draws="abcdef")
    before = machines.secrets_of(A)
    with path.open("w+") as held:
        assert locks.own(held.fileno())
        with pytest.raises(ConfigError, match=r"is logged in, .* or use --force"):
            machines.renew(A)
        assert machines.secrets_of(A) == before
        assert machines.renew(A, force=True).secret == "c" * 16
    assert machines.renew(A).secret == "e" * 16


def test_what_the_operator_is_shown(store: Store) -> None:
    """Both directions, whatever the site wants: it may want more tomorrow."""
    machines = of(store, replace(SITE, chap=ChapMode.OFF), draws="ab")
    assert machines.shown(A, make=False) is None
    made = Chap("52-54-00-00-00-01", "a" * 16, "netboot", "b" * 16)
    assert machines.shown(A, make=True) == made
    assert machines.shown(A, make=False) == made
    brought = Chap("52-54-00-00-00-02", "its-own-secret")
    assert machines.shown(B, make=False) == machines.shown(B, make=True) == brought


def test_what_a_machine_is_told(store: Store) -> None:
    assert of(store, draws="ab").told(A) == Chap("52-54-00-00-00-01", "a" * 16)
    assert of(store).told(B) is None, "it brings its own"
    assert of(store, replace(SITE, chap=ChapMode.OFF)).told(A) is None


def test_without_a_database_it_is_told_nothing_and_we_say_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(_mac: str) -> None:
        raise NetbootError("the database is locked")

    monkeypatch.setattr(store, "secrets", locked)
    with caplog.at_level(logging.ERROR):
        assert of(store).told(A) is None
    (line,) = caplog.messages
    assert line == f"{A} is told no secret, and will not get at its disk: the database is locked"

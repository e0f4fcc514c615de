"""Secrets are drawn once, long and unlike, and who cannot be told one boots on without."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from netboot.errors import NetbootError
from netboot.model import Chap, ChapMode, Host, Secrets, Site
from netboot.proofs import secret
from netboot.service import vault
from netboot.service.vault import Vault
from netboot.state.store import Store

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

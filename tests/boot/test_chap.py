"""What is demanded of whom, who is told what, and that no secret gets into words."""

from dataclasses import replace
from ipaddress import IPv4Interface

import pytest

from netboot.boot import chap
from netboot.model import Chap, ChapMode, Host, Secrets, Site

WS1, WS2 = "52:54:00:12:34:56", "52:54:00:00:00:02"
OWN = Host(WS2, "ws2", "work", chap_secret="its-own-secret", chap_mutual_secret="ours-for-it")
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    hosts={WS1: Host(WS1, "ws1", "work"), WS2: OWN},
)


def secrets_of(mac: str) -> Secrets:
    assert mac != WS2, "nothing is made for a machine that brings its own"
    return Secrets(mac, f"secret-of-{mac}", f"ours-for-{mac}", 1.0)


def at(mode: ChapMode) -> Site:
    return replace(SITE, chap=mode)


@pytest.mark.parametrize("mac", [WS1, "52:54:00:00:00:99"], ids=["named", "unknown"])
def test_one_way(mac: str) -> None:
    expected = Chap(mac.replace(":", "-"), f"secret-of-{mac}")
    assert chap.demanded(mac, at(ChapMode.CHAP), secrets_of) == expected
    assert chap.told(mac, at(ChapMode.CHAP), secrets_of) == expected


def test_mutual() -> None:
    expected = Chap("52-54-00-12-34-56", f"secret-of-{WS1}", "netboot", f"ours-for-{WS1}")
    assert chap.demanded(WS1, at(ChapMode.MUTUAL), secrets_of) == expected
    assert chap.told(WS1, at(ChapMode.MUTUAL), secrets_of) == expected


def test_off() -> None:
    assert chap.demanded(WS1, SITE, secrets_of) is None
    assert chap.told(WS1, SITE, secrets_of) is None


@pytest.mark.parametrize("mode", ChapMode)
def test_its_own_is_demanded_and_told_to_nobody(mode: ChapMode) -> None:
    expected = Chap("52-54-00-00-00-02", "its-own-secret", "netboot", "ours-for-it")
    assert chap.demanded(WS2, at(mode), secrets_of) == expected
    assert chap.told(WS2, at(mode), secrets_of) is None


def test_its_own_name_and_one_way() -> None:
    host = replace(OWN, chap_name="me", chap_mutual_secret=None)
    site = replace(SITE, hosts={WS2: host}, algorithms=(5,))
    expected = Chap("me", "its-own-secret", algorithms=(5,))
    assert chap.demanded(WS2, site, secrets_of) == expected


@pytest.mark.parametrize(
    ("mac", "mode", "words"),
    [
        (WS1, ChapMode.OFF, "none: its name and its address must do"),
        (WS1, ChapMode.CHAP, "CHAP as user 52-54-00-12-34-56: iPXE is told"),
        (WS1, ChapMode.MUTUAL, "mutual CHAP as user 52-54-00-12-34-56: iPXE is told"),
        (WS2, ChapMode.OFF, "mutual CHAP as user 52-54-00-00-00-02, with the machine's own"),
    ],
)
def test_in_words(mac: str, mode: ChapMode, words: str) -> None:
    said = chap.in_words(mac, at(mode))
    assert said.startswith(words)
    for secret in ("its-own-secret", "ours-for", "secret-of"):
        assert secret not in said


def test_no_repr_shows_a_secret() -> None:
    for value in (chap.demanded(WS1, at(ChapMode.MUTUAL), secrets_of), OWN, at(ChapMode.MUTUAL)):
        assert "secret-of" not in repr(value)
        assert "ours-for" not in repr(value)
        assert "its-own-secret" not in repr(value)

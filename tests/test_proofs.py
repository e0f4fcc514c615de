"""Modes, digests, names and secrets as a file spells them; a secret is never said again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot import config, proofs
from netboot.cli import settings_text
from netboot.errors import ConfigError
from netboot.model import Chap, ChapDigest, ChapMode

BASE = """
[site]
interface = "br0"
address = "192.168.77.1/24"
[dhcp]
pool = "192.168.77.50-192.168.77.60"
[[profile]]
name = "p"
image = "debian"
"""
ONE, TWO, THREE = "first-secret-1", "other-secret-2", "third-secret-3"


def client(last: int, more: str = "") -> str:
    head = f'[[client]]\nmac = "52:54:00:00:00:0{last}"\nname = "ws{last}"\nprofile = "p"\n'
    return head + more


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(BASE + text, "f")
    return [line.removeprefix("f: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(("text", "mode"), [(mode.value, mode) for mode in ChapMode])
def test_modes(text: str, mode: ChapMode) -> None:
    assert proofs.chap_mode(text) is mode
    site = config.parse(BASE + f'[iscsi]\nchap = "{text}"\n', "f").to_site()
    assert site.chap is mode


@pytest.mark.parametrize("wrong", ["on", "", True, 1, None, ["chap"]])
def test_what_is_no_mode(wrong: object) -> None:
    with pytest.raises(ValueError, match="is not one of the words"):
        proofs.chap_mode(wrong)


def test_digests_become_the_numbers_of_the_wire() -> None:
    assert config.parse(BASE, "f").to_site().algorithms == (5, 6, 7, 8)
    text = BASE + '[iscsi]\nchap_digests = ["SHA3-256", "SHA256", "SHA256"]\n'
    assert config.parse(text, "f").to_site().algorithms == (8, 7)
    assert [digest.number for digest in ChapDigest] == [5, 6, 7, 8]


@pytest.mark.parametrize("wrong", ["MD5", [], ["md5"], ["MD4"], [5], None])
def test_what_are_no_digests(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"is not a list|which is none of them"):
        proofs.digests(wrong)


@pytest.mark.parametrize("given", ["a", "ws1", "iqn.2010-04.org.ipxe:ws1", "0x1234", "x" * 126])
def test_names(given: str) -> None:
    assert proofs.chap_name(given) == given


@pytest.mark.parametrize("wrong", ["", " ", "two words", "é", "tab\t", "x" * 127, 7])
def test_what_is_no_name(wrong: object) -> None:
    with pytest.raises(ValueError):
        proofs.chap_name(wrong)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=255))
def test_secrets(given: str) -> None:
    assert proofs.secret(given) == given


@pytest.mark.parametrize(
    "wrong", ["", "eleven-char", "x" * 256, "with spaces in it", "ümlaut-secret"]
)
def test_what_is_no_secret_is_not_repeated(wrong: str) -> None:
    (line,) = mistakes(client(1, f'chap_secret = "{wrong}"\n'))
    assert line.startswith("client#1.chap_secret: ")
    assert "allowed: 12 to 255 ASCII characters" in line
    assert not wrong or wrong not in line


def test_eleven_bytes_are_too_few_twelve_will_do() -> None:
    (line,) = mistakes(client(1, 'chap_secret = "12345678901"\n'))
    assert "has 11 characters, and 12 are the least" in line
    config.parse(BASE + client(1, 'chap_secret = "123456789012"\n'), "f")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            client(1, f'chap_secret = "{ONE}"\nchap_mutual_secret = "{ONE}"\n'),
            "client#1.chap_mutual_secret: is the same as client#1.chap_secret",
        ),
        (
            client(1, f'chap_secret = "{ONE}"\n') + client(2, f'chap_secret = "{ONE}"\n'),
            "client#2.chap_secret: is the same as client#1.chap_secret",
        ),
        (
            f'[iscsi]\ndiscovery_secret = "{ONE}"\n' + client(1, f'chap_secret = "{ONE}"\n'),
            "client#1.chap_secret: is the same as iscsi.discovery_secret",
        ),
        (
            client(1, f'chap_mutual_secret = "{ONE}"\n'),
            "client#1.chap_mutual_secret: is of use only beside chap_secret",
        ),
        (
            client(1, 'chap_name = "ws1"\n'),
            "client#1.chap_name: is of use only beside chap_secret",
        ),
        (
            f'[iscsi]\ndiscovery_mutual_secret = "{ONE}"\n',
            "iscsi.discovery_mutual_secret: is of use only beside discovery_secret",
        ),
    ],
)
def test_what_does_not_go_together(text: str, line: str) -> None:
    found = mistakes(text)
    assert [each for each in found if line in each], found
    assert not any(ONE in each for each in found)


def test_discovery_and_a_clients_own_reach_the_brain() -> None:
    text = f'[iscsi]\ndiscovery_secret = "{ONE}"\ndiscovery_mutual_secret = "{TWO}"\n'
    text += 'chap_digests = ["SHA256"]\n'
    text += client(1, f'chap_name = "me"\nchap_secret = "{THREE}"\n')
    site = config.parse(BASE + text, "f").to_site()
    assert site.discovery == Chap("discovery", ONE, "netboot", TWO, (7,))
    host = site.hosts["52:54:00:00:00:01"]
    assert (host.chap_name, host.chap_secret, host.chap_mutual_secret) == ("me", THREE, None)
    alone = config.parse(BASE + f'[iscsi]\ndiscovery_secret = "{ONE}"\n', "f").to_site()
    assert alone.discovery == Chap("discovery", ONE)
    assert config.parse(BASE, "f").to_site().discovery is None


def test_settings_are_shown_without_their_secrets() -> None:
    text = f'[iscsi]\ndiscovery_secret = "{ONE}"\n'
    text += client(1, f'chap_secret = "{TWO}"\nchap_mutual_secret = "{THREE}"\n')
    settings = config.parse(BASE + text, "f")
    shown = settings_text.in_force(settings)
    plain = str(settings_text.plain(settings))
    for everything in (shown, plain, repr(settings), repr(settings.to_site())):
        for secret in (ONE, TWO, THREE):
            assert secret not in everything
    assert "# chap_secret is set, and not shown" in shown
    assert plain.count("set, and not shown") == 3
    assert config.parse(shown, "again").client[0].name == "ws1"

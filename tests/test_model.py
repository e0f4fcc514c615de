"""The nouns: spellings of a MAC and the names made from it."""

from ipaddress import IPv4Interface

import pytest

from netboot.model import Site, canonical_mac, hyphenated


@pytest.mark.parametrize(
    "text",
    ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01", "5254.00ab.cd01", "525400abcd01", " 525400ABCD01\n"],
)
def test_every_usual_spelling_is_one_mac(text: str) -> None:
    assert canonical_mac(text) == "52:54:00:ab:cd:01"


@pytest.mark.parametrize(
    "text", ["", "52:54:00:ab:cd", "52:54:00:ab:cd:0g", "52:54:00:ab:cd:01:02"]
)
def test_anything_else_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a MAC address"):
        canonical_mac(text)


def test_names_of_a_client() -> None:
    site = Site("br0", IPv4Interface("192.168.77.1/24"), "lab.netboot")
    mac = "52:54:00:ab:cd:01"
    assert hyphenated(mac) == "52-54-00-ab-cd-01"
    assert site.target_name(mac) == "iqn.2026-11.lab.netboot:52-54-00-ab-cd-01"
    assert site.initiator_name(mac) == "iqn.2026-11.lab.netboot:client.52-54-00-ab-cd-01"

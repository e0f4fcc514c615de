"""The nouns: spellings of a MAC and the names made from it."""

from dataclasses import replace
from ipaddress import IPv4Interface

import pytest

from netboot.model import Host, Portal, Site, canonical_mac, hyphenated


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


@pytest.mark.parametrize(
    ("text", "portal", "again"),
    [
        ("192.168.77.1:3260", Portal("192.168.77.1", 3260, 1), "192.168.77.1:3260,1"),
        ("192.168.77.1:3260,65535", Portal("192.168.77.1", 3260, 65535), None),
        ("[fd00::1]:860,2", Portal("fd00::1", 860, 2), None),
        ("[FD00:0::0:1]:860,2", Portal("fd00::1", 860, 2), "[fd00::1]:860,2"),
    ],
)
def test_a_portal_there_and_back(text: str, portal: Portal, again: str | None) -> None:
    """iPXE needs the port: without one its parser swaps the default twice."""
    assert Portal.of(text) == portal and str(portal) == (again or text)
    assert str(portal) == f"{portal.endpoint},{portal.group}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not ADDRESS:PORT"),
        ("192.168.77.1", "is not ADDRESS:PORT"),
        ("fd00::1:3260", "is not ADDRESS:PORT"),
        ("[192.168.77.1]:3260", "is not ADDRESS:PORT"),
        ("disks.lab:3260", "is not ADDRESS:PORT"),
        ("192.168.77.1:", "no port number"),
        ("192.168.77.1:65536", "no port number"),
        ("192.168.77.1:-1", "no port number"),
        ("192.168.77.1:3260,", "portal group tag"),
        ("192.168.77.1:3260,0", "portal group tag"),
        ("192.168.77.1:3260,65536", "portal group tag"),
        ("192.168.77.1:3260,1,2", "portal group tag"),
    ],
)
def test_what_is_no_portal(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Portal.of(text)


def test_names_of_a_client() -> None:
    site = Site("br0", IPv4Interface("192.168.77.1/24"), "lab.netboot")
    mac = "52:54:00:ab:cd:01"
    assert hyphenated(mac) == "52-54-00-ab-cd-01"
    assert site.target_name(mac) == "iqn.2026-11.lab.netboot:52-54-00-ab-cd-01"
    assert site.initiator_name(mac) == "iqn.2026-11.lab.netboot:client.52-54-00-ab-cd-01"
    assert site.called(mac) == mac
    named = replace(site, hosts={mac: Host(mac, "ws1", "p")})
    assert named.called(mac) == f"ws1 ({mac})"

"""Whose machine it is, and how it may be called."""

from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.boot.profiles import (
    RESERVED_NAMES,
    Assignment,
    assign,
    harmless_name,
    made_name,
    name_of,
    variables_of,
)
from netboot.model import Client, Host, Profile, Site, Stage

WS1 = "52:54:00:12:34:56"
OTHER = "52:54:00:00:00:99"
WORK = Profile("workstation", "debian", variables={"a": "profile", "b": "profile"})
KIOSK = Profile("kiosk", "kiosk-image")
HOST = Host(WS1, "ws1", "workstation", IPv4Address("192.168.77.21"), variables={"b": "host"})


def site(*hosts: Host, unknown: str | None = None) -> Site:
    return Site(
        interface="br0",
        address=IPv4Interface("192.168.77.1/24"),
        domain="lab.netboot",
        profiles={"workstation": WORK, "kiosk": KIOSK},
        hosts={host.mac: host for host in hosts},
        unknown_profile=unknown,
    )


@pytest.mark.parametrize(
    ("mac", "unknown", "answer"),
    [
        (WS1, None, Assignment(HOST, WORK, "client ws1 is named with profile workstation")),
        (WS1, "kiosk", Assignment(HOST, WORK, "client ws1 is named with profile workstation")),
        (
            OTHER,
            None,
            Assignment(None, None, "no client has this MAC, and unknown machines are ignored"),
        ),
        (
            OTHER,
            "kiosk",
            Assignment(None, KIOSK, "no client has this MAC: unknown machines have profile kiosk"),
        ),
        (
            OTHER,
            "gone",
            Assignment(None, None, "unknown machines have profile 'gone': no such profile"),
        ),
    ],
)
def test_rules_in_their_order(mac: str, unknown: str | None, answer: Assignment) -> None:
    assert assign(mac, site(HOST, unknown=unknown)) == answer


def test_a_host_with_a_profile_that_is_gone_is_not_taken_for_unknown() -> None:
    lost = Host(WS1, "ws1", "gone")
    assert assign(WS1, site(lost, unknown="kiosk")) == Assignment(
        lost, None, "client ws1 has profile 'gone', which does not exist"
    )


def test_made_name() -> None:
    assert made_name(WS1) == "client-525400123456"


@pytest.mark.parametrize(
    ("hostname", "label"),
    [
        ("fritz", "fritz"),
        (" Fritz ", "fritz"),
        ("fritz.example.org", "fritz"),
        ("a", "a"),
        ("7", "7"),
        ("a-b-c9", "a-b-c9"),
        ("x" * 63, "x" * 63),
        ("x" * 64, None),
        ("", None),
        (".", None),
        ("-a", None),
        ("a-", None),
        ("a_b", None),
        ("a b", None),
        ("a\nb", None),
        ("fritz\n", "fritz"),
        ("${net0/mac}", None),
        ("a&&b", None),
        ("größe", None),
        ("\u0661\u0662", None),  # digits, but not those of DNS
        ("ws1", None),  # named by the operator for another machine
        ("WS1", None),
        ("debian", None),  # the image's own name
        ("kiosk-image", None),
        ("client-525400000001", None),  # somebody else's made name
        ("wpad", None),
        ("localhost.localdomain", None),
    ],
)
def test_which_own_names_are_harmless(hostname: str, label: str | None) -> None:
    assert harmless_name(hostname, site(HOST)) == label


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_reserved_names(name: str) -> None:
    assert harmless_name(name.upper(), site()) is None


@given(st.text())
def test_any_text_gives_one_label_or_nothing(hostname: str) -> None:
    label = harmless_name(hostname, site(HOST))
    if label is not None:
        assert label.isascii()
        assert len(label) <= 63
        assert label == label.lower()
        assert not set(label) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("host", "hostname", "name"),
    [
        (HOST, "other", "ws1"),
        (HOST, "", "ws1"),
        (None, "fritz", "fritz"),
        (None, "", "client-525400123456"),
        (None, "$(reboot)", "client-525400123456"),
    ],
)
def test_the_name_of_a_machine(host: Host | None, hostname: str, name: str) -> None:
    packet = Client(WS1, Stage.OS, hostname=hostname)
    assert name_of(packet, host, site()) == name


def test_variables_of_the_machine_go_above_those_of_its_profile() -> None:
    assert variables_of(HOST, WORK) == {"a": "profile", "b": "host"}
    assert variables_of(None, WORK) == {"a": "profile", "b": "profile"}
    assert variables_of(None, KIOSK) == {}

"""What names mean: our domain, our subnet, and who may call himself what."""

from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.dns.zone import Node, Zone

SERVER = IPv4Address("192.168.77.1")
WS1 = IPv4Address("192.168.77.21")
WS2 = IPv4Address("192.168.77.50")
REVERSE = "77.168.192.in-addr.arpa"


def zone(*names: tuple[str, IPv4Address], server: str = "192.168.77.1/24") -> Zone:
    return Zone("lab.netboot", IPv4Interface(server), lambda: names)


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("lab.netboot", Node("lab.netboot", True, (SERVER,), is_apex=True)),
        ("LAB.Netboot.", Node("lab.netboot", True, (SERVER,), is_apex=True)),
        ("netboot.lab.netboot.", Node("lab.netboot", True, (SERVER,))),
        ("ws1.lab.netboot.", Node("lab.netboot", True, (WS1,))),
        ("WS1.LAB.NETBOOT", Node("lab.netboot", True, (WS1,))),
        ("ws3.lab.netboot.", Node("lab.netboot", False)),
        ("a.ws1.lab.netboot.", Node("lab.netboot", False)),
        ("xlab.netboot.", None),
        ("netboot.", None),
        (".", None),
        ("", None),
        ("example.org.", None),
        (f"1.{REVERSE}.", Node(REVERSE, True, pointer="netboot.lab.netboot")),
        (f"21.{REVERSE}", Node(REVERSE, True, pointer="ws1.lab.netboot")),
        (f"22.{REVERSE}", Node(REVERSE, False)),
        (REVERSE, Node(REVERSE, True, is_apex=True)),
        ("21.78.168.192.in-addr.arpa", None),
        ("168.192.in-addr.arpa", None),
        ("in-addr.arpa", None),
        (f"256.{REVERSE}", None),
        (f"021.{REVERSE}", None),
        (f"x.{REVERSE}", None),
        (f"5.21.{REVERSE}", None),
    ],
)
def test_lookup(name: str, node: Node | None) -> None:
    assert zone(("ws1", WS1), ("ws2", WS2)).lookup(name) == node


@pytest.mark.parametrize(
    ("server", "inside", "outside", "apex"),
    [
        ("10.1.2.3/8", "9.9.9.10", "1.1.1.11", "10.in-addr.arpa"),
        ("172.16.9.1/20", "77.15.16.172", "1.16.16.172", "16.172.in-addr.arpa"),
        ("192.168.5.129/25", "130.5.168.192", "1.5.168.192", "5.168.192.in-addr.arpa"),
    ],
)
def test_subnets_that_are_not_a_24(server: str, inside: str, outside: str, apex: str) -> None:
    here = zone(server=server)
    assert here.lookup(f"{inside}.in-addr.arpa") == Node(apex, False)
    assert here.lookup(f"{outside}.in-addr.arpa") is None


def test_names_between_the_apex_and_the_hosts_exist_but_are_empty() -> None:
    here = zone(server="10.1.2.3/8")
    assert here.lookup("10.in-addr.arpa") == Node("10.in-addr.arpa", True, is_apex=True)
    assert here.lookup("7.10.in-addr.arpa") == Node("10.in-addr.arpa", True)
    assert here.lookup("7.7.10.in-addr.arpa") == Node("10.in-addr.arpa", True)


def test_a_lease_has_its_name_at_once_and_loses_it_at_once() -> None:
    names: list[tuple[str, IPv4Address]] = []
    here = Zone("lab.netboot", IPv4Interface("192.168.77.1/24"), lambda: names)
    assert here.lookup("ws1.lab.netboot") == Node("lab.netboot", False)
    names.append(("ws1", WS1))
    assert here.lookup("ws1.lab.netboot") == Node("lab.netboot", True, (WS1,))
    names.clear()
    assert here.lookup(f"21.{REVERSE}") == Node(REVERSE, False)


def test_the_first_name_wins_and_the_servers_own_is_safe() -> None:
    here = zone(("ws1", WS1), ("ws1", WS2), ("netboot", WS2), ("late", WS1))
    assert here.lookup("ws1.lab.netboot") == Node("lab.netboot", True, (WS1,))
    assert here.lookup("netboot.lab.netboot") == Node("lab.netboot", True, (SERVER,))
    assert here.lookup(f"21.{REVERSE}") == Node(REVERSE, True, pointer="ws1.lab.netboot")
    assert here.lookup(f"50.{REVERSE}") == Node(REVERSE, False)


@pytest.mark.parametrize("name", ["ws1", "WS1", "ws1.lab.netboot", "ws1.lab.netboot.", "Ws1."])
def test_spellings_of_a_host_name(name: str) -> None:
    assert zone((name, WS1)).lookup("ws1.lab.netboot") == Node("lab.netboot", True, (WS1,))


@pytest.mark.parametrize(
    "name", ["", ".", "-x", "x-", "a b", "a.b", "ws1.example.org", "x" * 64, "caf\xe9", "a\0b", "*"]
)
def test_what_can_be_no_host_name_is_left_out(name: str) -> None:
    here = zone((name, WS1))
    assert here.lookup(f"21.{REVERSE}") == Node(REVERSE, False)
    assert here.lookup(f"{name}.lab.netboot") in (
        Node("lab.netboot", False),
        None,
        Node("lab.netboot", True, (SERVER,), is_apex=True),
    )


@given(st.text(max_size=60), st.lists(st.tuples(st.text(max_size=20), st.just(WS1)), max_size=4))
def test_no_name_raises(asked: str, names: list[tuple[str, IPv4Address]]) -> None:
    here = zone(*names)
    for name in (asked, f"{asked}.lab.netboot", f"{asked}.{REVERSE}", f"{asked}.in-addr.arpa"):
        node = here.lookup(name)
        assert node is None or node.apex in ("lab.netboot", REVERSE)

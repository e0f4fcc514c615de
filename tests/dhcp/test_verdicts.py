"""Every kind of REQUEST against every state of its address."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.dhcp.leases import Leases
from netboot.dhcp.verdicts import Granted, Nameless, Refused, Silence, Verdict, verdict
from netboot.dhcp.wire import decode
from netboot.model import Lease, LeaseState

A, B, C = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"
NOW = 1000.0


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"192.168.77.{last}")


def the_leases() -> Leases:
    """A has .50 and is offered .51; B has .60; .121 is reserved for C; the pool is .50 to .99."""
    leases = Leases(
        IPv4Network("192.168.77.0/24"),
        (ip(50), ip(99)),
        excluded=[ip(1)],
        reserved={C: ip(121)},
        leases=[
            Lease(A, ip(50), NOW + 60, LeaseState.BOUND),
            Lease(B, ip(60), NOW + 60, LeaseState.BOUND),
            Lease("02:00:00:00:00:01", ip(70), NOW + 60, LeaseState.DECLINED),
        ],
    )
    leases.offer(A, ip(51), NOW)
    return leases


def judged(
    kit: Any,
    mac: str,
    *,
    selecting: bool = False,
    wanted: str | None = None,
    ciaddr: str = "0.0.0.0",
    reserved: IPv4Address | None = None,
    now: float = NOW,
) -> Verdict:
    options: list[tuple[str, str]] = [("server_id", kit.SERVER)] if selecting else []
    options += [("requested_addr", wanted)] if wanted else []
    packet = decode(kit.datagram(mac, "request", *options, ciaddr=ciaddr))
    return verdict(packet, mac, the_leases(), reserved, now)


def test_selecting_takes_what_was_offered_or_had(kit: Any) -> None:
    def selects(mac: str, last: int, now: float = NOW) -> Verdict:
        return judged(kit, mac, selecting=True, wanted=f"192.168.77.{last}", now=now)

    assert selects(A, 51) == Granted(ip(51), renewing=False)
    assert selects(A, 50) == Granted(ip(50), renewing=False)
    for mac, last in ((A, 60), (A, 52), (B, 51), (C, 70)):
        assert selects(mac, last) == Refused(f"192.168.77.{last} is not what you were offered")
    assert selects(A, 51, NOW + 61) == Refused("192.168.77.51 is not what you were offered")


def test_renewing_keeps_the_address_unless_it_is_anothers(kit: Any) -> None:
    assert judged(kit, A, ciaddr="192.168.77.50") == Granted(ip(50), renewing=True)
    assert judged(kit, A, ciaddr="192.168.77.52") == Granted(ip(52), renewing=True)
    for address in ("192.168.77.60", "192.168.77.1", "192.168.77.70", "10.0.0.5"):
        refused = Refused(f"{address} is not yours on this network")
        assert judged(kit, A, ciaddr=address) == refused


def test_renewing_a_foreign_but_plausible_address_is_met_with_silence(kit: Any) -> None:
    """Outside the pool and inside the network nobody's address may be another server's."""
    assert judged(kit, B, ciaddr="192.168.77.200") == Silence()


@pytest.mark.parametrize(
    ("mac", "wanted", "expected"),
    [
        (A, "192.168.77.50", Granted(ip(50), renewing=False)),
        (A, "192.168.77.52", Refused("192.168.77.52 is not the address of your lease")),
        (A, "192.168.77.60", Refused("192.168.77.60 is not yours on this network")),
        (C, "192.168.77.121", Silence()),
    ],
)
def test_asking_for_an_old_address_again(
    kit: Any, mac: str, wanted: str, expected: Verdict
) -> None:
    assert judged(kit, mac, wanted=wanted) == expected


def test_a_reservation_is_granted_to_who_never_had_it(kit: Any) -> None:
    found = judged(kit, C, wanted="192.168.77.121", reserved=ip(121))
    assert found == Granted(ip(121), renewing=False)
    assert isinstance(judged(kit, A, wanted="192.168.77.121", reserved=ip(121)), Refused)


def test_no_address_is_garbage(kit: Any) -> None:
    assert judged(kit, A) == Nameless()
    assert judged(kit, A, selecting=True) == Nameless()


@given(
    st.sampled_from([A, B, C]),
    st.booleans(),
    st.none() | st.integers(0, 255),
    st.none() | st.integers(0, 255),
)
def test_what_is_somebody_elses_is_never_granted(
    kit: Any, mac: str, selecting: bool, wanted: int | None, ciaddr: int | None
) -> None:
    found = judged(
        kit,
        mac,
        selecting=selecting,
        wanted=None if wanted is None else str(ip(wanted)),
        ciaddr="0.0.0.0" if ciaddr is None else str(ip(ciaddr)),
    )
    if isinstance(found, Granted):
        taken = {ip(50): A, ip(51): A, ip(60): B, ip(121): C, ip(70): None, ip(1): None}
        assert taken.get(found.address, mac) == mac

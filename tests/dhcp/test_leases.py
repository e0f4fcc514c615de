"""The pool: one address a machine, never one that is somebody else's."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.dhcp.leases import DECLINED_HOLD, OFFER_HOLD, YIELDS_AFTER, Leases
from netboot.model import Lease, LeaseState

NETWORK = IPv4Network("192.168.77.0/24")
A, B, C = (f"52:54:00:00:00:0{letter}" for letter in "abc")


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"192.168.77.{last}")


def pool(first: int = 50, last: int = 53, **options: object) -> Leases:
    return Leases(NETWORK, (ip(first), ip(last)), **options)  # type: ignore[arg-type]


def test_addresses_in_order_and_back_to_their_owner() -> None:
    leases = pool()
    assert leases.choose(A, 0) == ip(50)
    [bound] = leases.bind(A, ip(50), 0, 3600, "ws1")
    assert bound == Lease(A, ip(50), 3600, LeaseState.BOUND, "ws1")
    assert leases.choose(B, 0) == ip(51)
    assert leases.choose(A, 10) == ip(50)
    assert leases.choose(A, 99999) == ip(50)
    assert leases.by_mac(A) == leases.by_address(ip(50)) == bound
    assert leases.by_mac(B) is None and leases.by_address(ip(51)) is None


def test_an_offer_keeps_its_address_for_a_while() -> None:
    leases = pool()
    offer = leases.offer(A, ip(50), 0, "ws1")
    assert offer == Lease(A, ip(50), OFFER_HOLD, LeaseState.OFFERED, "ws1")
    assert leases.by_mac(A) == leases.by_address(ip(50)) == offer
    assert leases.choose(B, 1) == ip(51)
    assert leases.choose(A, 1) == ip(50)
    assert leases.had(A, ip(50), 1) and not leases.had(A, ip(50), OFFER_HOLD)
    leases.withdraw(A)
    leases.withdraw(A)
    assert leases.by_mac(A) is None
    assert leases.all() == ()


def test_a_wanted_address_if_it_is_free_and_ours() -> None:
    leases = pool(excluded=[ip(52)])
    assert leases.choose(A, 0, wanted=ip(53)) == ip(53)
    for wanted in (ip(52), ip(49), ip(54), ip(255), IPv4Address("10.0.0.1")):
        assert leases.choose(A, 0, wanted=wanted) == ip(50)
    leases.bind(B, ip(53), 0, 3600)
    assert leases.choose(A, 0, wanted=ip(53)) == ip(50)


def test_the_excluded_the_reserved_and_the_networks_own_are_never_chosen() -> None:
    leases = Leases(
        IPv4Network("192.168.77.0/29"),
        (ip(0), ip(7)),
        excluded=[ip(1), ip(2)],
        reserved={A: ip(3)},
    )
    for number in range(20):
        mac = f"52:54:00:00:01:{number:02x}"
        chosen = leases.choose(mac, 0)
        if chosen is not None:
            leases.bind(mac, chosen, 0, 3600)
    assert [int(lease.address) & 7 for lease in leases.all()] == [4, 5, 6]
    assert leases.choose(A, 0) == ip(3)


def test_a_reservation_may_lie_outside_the_pool() -> None:
    assert pool(reserved={A: ip(21)}).choose(A, 0) == ip(21)
    assert pool().choose(A, 0, reserved=ip(21)) == ip(21)


def test_a_reservation_outside_the_network_is_not_given() -> None:
    assert pool().choose(A, 0, reserved=IPv4Address("10.0.0.1")) == ip(50)


def test_a_reservation_that_another_machine_still_holds() -> None:
    """The operator reserves B's address for A while B runs from its disk over it."""
    leases = pool(reserved={A: ip(50)}, leases=[Lease(B, ip(50), 100, LeaseState.BOUND)])
    assert leases.choose(A, 0) == ip(51)  # A does without, for now
    assert leases.choose(B, 0, running=True) == ip(50)  # B's OS keeps it
    assert leases.choose(B, 0) == ip(51)  # B's next boot does not
    assert leases.choose(A, 100) == ip(50)  # and when it has expired, A gets it


def test_a_new_reservation_waits_for_the_next_boot() -> None:
    leases = pool(reserved={A: ip(21)}, leases=[Lease(A, ip(50), 100, LeaseState.BOUND)])
    assert leases.choose(A, 0, running=True) == ip(50)
    assert leases.choose(A, 0) == ip(21)
    assert leases.choose(A, 100, running=True) == ip(21)  # it had expired anyway


def test_other_reservations_count_from_now_on() -> None:
    leases = pool(reserved={A: ip(50), B: ip(51)})
    assert leases.choose(C, 0) == ip(52)
    leases.reserve({B: ip(53)})
    assert leases.choose(B, 0) == ip(53)
    assert leases.choose(C, 0, wanted=ip(53)) != ip(53)
    assert not leases.may_have(C, ip(53), 0)
    assert leases.choose(A, 0) == ip(52)  # its reservation is gone: one that nobody had
    leases.bind(A, ip(52), 0, 60)
    taken = set()
    for mac in (C, "52:54:00:00:00:0d"):
        address = leases.choose(mac, 0)
        assert address is not None
        leases.bind(mac, address, 0, 60)
        taken.add(address)
    assert taken == {ip(50), ip(51)}  # what was reserved before is the pool's again
    assert leases.choose("52:54:00:00:00:0e", 0) is None


def test_moving_frees_the_old_address_and_tells_the_store_so() -> None:
    leases = pool()
    leases.bind(A, ip(50), 0, 3600)
    released, bound = leases.bind(A, ip(53), 10, 3600)
    assert released == Lease(A, ip(50), 10, LeaseState.RELEASED)
    assert bound == Lease(A, ip(53), 3610, LeaseState.BOUND)
    assert leases.by_address(ip(50)) is None
    assert [leases.choose(mac, 11) for mac in (A, B)] == [ip(53), ip(50)]


def test_exhaustion_and_the_longest_unused_first() -> None:
    leases = pool(50, 52)
    for last, expires in ((50, 300), (51, 100), (52, 200)):
        leases.bind(f"52:54:00:00:02:{last}", ip(last), 0, expires)
    assert leases.choose(A, 99) is None
    assert leases.choose(A, 100) == ip(51)
    assert leases.choose(A, 300) == ip(51)
    leases.bind(A, ip(51), 300, 3600)
    assert leases.by_mac("52:54:00:00:02:51") is None
    assert leases.choose(B, 300) == ip(52)


def test_offers_that_nobody_took_come_back() -> None:
    leases = pool(50, 51)
    for mac in (A, B):
        chosen = leases.choose(mac, 0)
        assert chosen is not None
        leases.offer(mac, chosen, 0)
    assert leases.choose(C, 1) is None
    leases.withdraw(A)
    assert leases.choose(C, 1) == ip(50)
    assert leases.choose(C, OFFER_HOLD) is not None


def flooded(**options: object) -> Leases:
    """Four addresses, offered at the seconds 0 to 3 to machines that nobody named."""
    leases = pool(**options)
    for second in range(4):
        mac = f"66:00:00:00:00:0{second}"
        address = leases.choose(mac, second)
        assert address == ip(50 + second)
        leases.offer(mac, address, second)
    return leases


def test_the_oldest_offer_to_a_stranger_gives_way_to_a_named_machine() -> None:
    leases = flooded()
    assert leases.choose(A, 4) is None
    assert leases.choose(A, 4, named=[A, B]) == ip(50)
    leases.offer(A, ip(50), 4)
    assert not leases.had("66:00:00:00:00:00", ip(50), 4)
    assert leases.choose(B, 4, named=[A, B]) == ip(51)


def test_it_gives_way_to_a_machine_that_had_a_lease() -> None:
    leases = flooded(leases=[Lease(A, ip(200), -1, LeaseState.RELEASED)])  # of an older pool
    assert leases.choose(A, 4) == ip(50)


def test_it_gives_way_to_a_stranger_once_it_is_plainly_not_wanted() -> None:
    leases = flooded()
    assert leases.choose(A, YIELDS_AFTER - 0.1) is None
    assert leases.choose(A, YIELDS_AFTER) == ip(50)


def test_offers_to_named_and_known_machines_and_leases_never_give_way() -> None:
    leases = pool(last=52, leases=[Lease(B, ip(200), -1, LeaseState.RELEASED)])
    leases.offer(A, ip(50), 0)
    leases.offer(B, ip(51), 0)
    leases.bind("66:00:00:00:00:01", ip(52), 0, 3600)
    assert leases.choose(C, 30, named=[A, C]) is None
    assert leases.choose(C, 30, named=[C]) == ip(50)


def test_a_stranger_with_a_lease_keeps_it_though_it_was_offered_another_address() -> None:
    leases = pool(last=50)
    leases.bind("66:00:00:00:00:01", ip(50), 0, 3600)
    leases.offer("66:00:00:00:00:01", ip(50), 1)  # it asks again, with its lease running
    assert leases.choose(C, 2, named=[C]) is None


def test_a_reserved_address_comes_back_from_a_stranger_at_once() -> None:
    leases = flooded()
    assert leases.choose(A, 4, reserved=ip(52), named=[A]) == ip(52)
    leases.bind("66:00:00:00:00:03", ip(53), 4, 3600)
    assert leases.choose(B, 4, reserved=ip(53), named=[A, B]) == ip(50)


def test_an_address_that_was_chosen_and_not_used_is_not_lost() -> None:
    leases = pool(50, 50)
    assert leases.choose(A, 0) == ip(50)
    assert leases.choose(B, 0) == ip(50)


def test_release_and_again() -> None:
    leases = pool()
    leases.bind(A, ip(50), 0, 3600, "ws1")
    assert leases.release(A, ip(51), 5) == []
    assert leases.release(B, ip(50), 5) == []
    [released] = leases.release(A, ip(50), 5)
    assert released == Lease(A, ip(50), 5, LeaseState.RELEASED, "ws1")
    assert leases.release(A, ip(50), 6) == []
    assert leases.choose(B, 6) == ip(51)  # unused ones first: A may come back
    assert leases.choose(A, 6) == ip(50)


def test_declined_is_out_of_use_for_everybody_until_it_expires() -> None:
    leases = pool(50, 51)
    leases.bind(A, ip(50), 0, 3600)
    [declined] = leases.decline(A, ip(50), 5)
    assert declined == Lease(A, ip(50), 5 + DECLINED_HOLD, LeaseState.DECLINED)
    assert leases.by_address(ip(50)) == declined
    assert leases.by_mac(A) is None
    assert leases.choose(A, 6, wanted=ip(50)) == ip(51)
    leases.bind(A, ip(51), 6, 99999)
    assert leases.choose(B, 7) is None
    assert leases.choose(B, 5 + DECLINED_HOLD) == ip(50)
    leases.bind(B, ip(50), 5 + DECLINED_HOLD, 3600)
    assert leases.by_address(ip(50)) == leases.by_mac(B)


def test_nobody_declines_what_is_not_theirs() -> None:
    leases = pool()
    leases.bind(A, ip(50), 0, 3600)
    assert leases.decline(B, ip(50), 5) == []
    assert leases.decline(B, ip(51), 5) == []
    assert leases.had(A, ip(50), 5)


def test_an_offered_address_can_be_declined() -> None:
    leases = pool()
    leases.offer(A, ip(50), 0)
    assert leases.decline(A, ip(50), 1)[0].state is LeaseState.DECLINED
    assert leases.by_mac(A) is None


@pytest.mark.parametrize(
    ("address", "denied"),
    [
        (IPv4Address("10.0.0.1"), True),  # wrong network
        (ip(1), True),  # ours
        (ip(0), True),
        (ip(255), True),
        (ip(21), True),  # reserved for C
        (ip(51), True),  # B's
        (ip(52), False),
        (ip(200), False),  # not in the pool: another server's, perhaps
    ],
)
def test_what_we_know_to_be_wrong(address: IPv4Address, denied: bool) -> None:
    leases = pool(excluded=[ip(1)], reserved={C: ip(21)})
    leases.bind(B, ip(51), 0, 3600)
    assert leases.denied(A, address, 1) is denied


def test_restored_from_before() -> None:
    before = [
        Lease(A, ip(50), 500, LeaseState.BOUND, "ws1"),
        Lease(B, ip(51), 100, LeaseState.RELEASED),
        Lease(C, ip(52), 900, LeaseState.DECLINED),
        Lease(C, ip(53), 60, LeaseState.OFFERED),
    ]
    leases = pool(50, 54, leases=before)
    assert leases.all() == tuple(before[:3])
    assert leases.choose(A, 0) == ip(50)
    assert leases.choose(B, 0) == ip(51)
    assert leases.choose(C, 0) == ip(53)


def test_of_two_rows_for_one_address_or_machine_the_later_counts() -> None:
    before = [
        Lease(A, ip(51), 900, LeaseState.BOUND),
        Lease(A, ip(50), 500, LeaseState.BOUND),
        Lease(B, ip(51), 100, LeaseState.BOUND),
    ]
    leases = pool(leases=before)
    assert leases.all() == (before[0],)


def test_a_lease_from_an_older_pool_is_kept_while_it_runs() -> None:
    leases = pool(leases=[Lease(A, ip(200), 100, LeaseState.BOUND)])
    assert leases.choose(A, 0, running=True) == ip(200)
    assert leases.choose(A, 0) == ip(50)


verbs = st.sampled_from(["choose", "offer", "bind", "release", "decline", "withdraw"])
steps = st.lists(st.tuples(verbs, st.integers(0, 5), st.integers(0, 200)), max_size=60)


@settings(max_examples=150)
@given(steps)
def test_no_address_ever_has_two_holders(story: list[tuple[str, int, int]]) -> None:
    macs = [f"52:54:00:00:03:0{number}" for number in range(6)]
    leases = pool(50, 53, excluded=[ip(51)], reserved={macs[0]: ip(52)})
    now = 0.0
    for verb, who, seconds in story:
        mac, now = macs[who], now + seconds
        chosen = leases.choose(mac, now)
        held = leases.by_mac(mac)
        if chosen is not None:
            assert chosen != ip(51)
            assert (chosen == ip(52)) <= (who == 0)
            if not leases.may_have(mac, chosen, now):  # then nothing but an offer gives way
                taken = leases.by_address(chosen)
                assert taken is not None and taken.state is LeaseState.OFFERED
                assert leases.by_mac(taken.mac) == taken  # to one that never had a lease
        if verb == "offer" and chosen is not None:
            leases.offer(mac, chosen, now)
        elif verb == "bind" and chosen is not None:
            assert leases.bind(mac, chosen, now, 300)[-1].address == chosen
            assert leases.had(mac, chosen, now)
        elif verb == "release" and held is not None:
            leases.release(mac, held.address, now)
        elif verb == "decline" and held is not None:
            leases.decline(mac, held.address, now)
        elif verb == "withdraw":
            leases.withdraw(mac)
        held_now = [lease for lease in leases.all() if lease.expires > now]
        assert len({lease.address for lease in held_now}) == len(held_now)
        for lease in leases.all():
            found = leases.by_address(lease.address)
            assert found is not None

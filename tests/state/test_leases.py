"""An address has one machine and a machine one address, whatever is saved."""

import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.model import Lease, LeaseState
from netboot.state.store import Store

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))


def lease(mac: str, last: int, state: LeaseState = LeaseState.BOUND, expires: float = 9.5) -> Lease:
    return Lease(mac, IPv4Address(f"10.0.0.{last}"), expires, state, f"host-{last}")


def test_leases_come_back_as_they_were(store: Store, url: str) -> None:
    saved = [lease(A, 5), lease(B, 10, LeaseState.OFFERED), lease(C, 11, LeaseState.RELEASED)]
    store.keep(reversed(saved))
    assert store.leases() == saved
    other = Store(url)
    assert other.leases() == saved
    other.close()


def test_leases_are_in_order_of_address_not_of_text(store: Store) -> None:
    store.keep([lease(A, 100), lease(B, 20), lease(C, 3)])
    assert [str(found.address) for found in store.leases()] == [
        "10.0.0.3",
        "10.0.0.20",
        "10.0.0.100",
    ]


def test_a_mac_has_one_address(store: Store) -> None:
    store.keep([lease(A, 5)])
    store.keep([lease(A, 6)])
    assert store.leases() == [lease(A, 6)]
    assert store.lease_of(A) == lease(A, 6)
    assert store.lease_of(B) is None


def test_an_address_has_one_mac(store: Store) -> None:
    store.keep([lease(A, 5)])
    store.keep([lease(B, 5)])
    assert store.leases() == [lease(B, 5)]
    assert store.lease_of(A) is None


def test_a_lease_again(store: Store) -> None:
    store.keep([lease(A, 5), lease(B, 6)])
    store.keep([lease(A, 5, LeaseState.RELEASED, 20.0)])
    assert store.leases() == [lease(A, 5, LeaseState.RELEASED, 20.0), lease(B, 6)]


def test_an_address_that_its_machine_declined_and_takes_after_all(store: Store) -> None:
    store.keep([lease(A, 5, LeaseState.DECLINED), lease(A, 6)])
    store.keep([lease(A, 5)])
    assert store.leases() == [lease(A, 5)]


def test_the_last_of_a_batch_counts(store: Store) -> None:
    store.keep([lease(A, 9)])
    store.keep([lease(A, 5), lease(B, 5), lease(B, 6), lease(C, 6), lease(B, 7)])
    assert store.leases() == [lease(C, 6), lease(B, 7)]


def test_a_declined_address_takes_nobodys_lease(store: Store) -> None:
    store.keep([lease(A, 5), lease(A, 7, LeaseState.DECLINED)])
    store.keep([lease(A, 8, LeaseState.DECLINED)])
    assert [(str(x.address), x.state) for x in store.leases()] == [
        ("10.0.0.5", LeaseState.BOUND),
        ("10.0.0.7", LeaseState.DECLINED),
        ("10.0.0.8", LeaseState.DECLINED),
    ]
    assert store.lease_of(A) == lease(A, 5)
    store.keep([lease(A, 6)])
    assert len(store.leases()) == 3


def test_forgotten_addresses_are_free(store: Store) -> None:
    store.keep([lease(A, 5), lease(B, 6)])
    store.forget_leases([IPv4Address("10.0.0.5"), IPv4Address("10.0.0.99")])
    assert store.leases() == [lease(B, 6)]


def test_leases_are_saved_all_or_none(store: Store) -> None:
    store.keep([lease(A, 5)])

    def broken() -> Iterator[Lease]:
        yield lease(B, 6)
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        store.keep(broken())
    assert store.leases() == [lease(A, 5)]


ACKNOWLEDGE = """
import sys
from ipaddress import IPv4Address
from netboot.model import Lease, LeaseState
from netboot.state.store import Store

store = Store(sys.argv[1])
for n in range(1, 21):
    mac = f"52:54:00:00:00:{n:02x}"
    store.keep([Lease(mac, IPv4Address(f"10.0.0.{n}"), 1.0, LeaseState.BOUND)])
    print(n, flush=True)
sys.stdin.read()
"""


def test_what_was_acknowledged_survives_a_kill(url: str) -> None:
    words = [sys.executable, "-c", ACKNOWLEDGE, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
    store = Store(url)
    assert [int(found.address) & 255 for found in store.leases()] == acknowledged
    store.close()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B, C]),
            st.integers(1, 6),
            st.sampled_from(LeaseState),
            st.floats(0, 1e10),
        ),
        max_size=12,
    )
)
def test_whatever_is_saved_nobody_has_two_and_nothing_is_shared(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, LeaseState, float]]
) -> None:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('db')}/db")
    for mac, last, state, expires in rows:
        latest = lease(mac, last, state, expires)
        store.keep([latest])
        assert latest in store.leases()
    held = [found for found in store.leases() if found.state != LeaseState.DECLINED]
    assert len({found.mac for found in held}) == len(held)
    assert len({found.address for found in store.leases()}) == len(store.leases())
    store.close()

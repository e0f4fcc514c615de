"""Events come back in order, and old ones go while the machines stay known."""

from netboot.events import BootEvent, Phase
from netboot.state.store import Store

A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))


def test_events_come_back_oldest_first(store: Store) -> None:
    happened = [BootEvent(A, float(n), Phase.SEEN, f"n{n}", n == 0) for n in range(5)]
    store.add_events(happened[:3])
    store.add_events([])
    store.add_events([*happened[3:], BootEvent(B, 9.0, Phase.READY)])
    assert store.events(A) == happened
    assert store.events(A, 2) == happened[3:]
    assert store.events(limit=2) == [happened[4], BootEvent(B, 9.0, Phase.READY)]


def test_clients_are_known_by_their_events(store: Store) -> None:
    store.add_events([BootEvent(A, 5.0, Phase.SEEN, fresh=True), BootEvent(A, 7.0, Phase.OFFERED)])
    store.add_events([BootEvent(A, 9.0, Phase.SEEN, fresh=True), BootEvent(B, 6.0, Phase.OS)])
    first, second = store.seen()
    assert (first.mac, first.first_seen, first.last_seen, first.boots) == (A, 5.0, 9.0, 2)
    assert first.phase == Phase.SEEN
    assert (second.mac, second.boots, second.phase) == (B, 0, Phase.OS)


def test_old_events_go_and_clients_stay(store: Store) -> None:
    store.add_events([BootEvent(A, float(n), Phase.SEEN) for n in range(10)])
    assert store.prune_events(before=3.0, keep=100) == 3
    assert store.prune_events(before=0.0, keep=4) == 3
    assert [event.at for event in store.events()] == [6.0, 7.0, 8.0, 9.0]
    assert store.prune_events(before=0.0, keep=4) == 0
    assert [client.mac for client in store.seen()] == [A]


def test_of_all_who_ever_asked_the_last_are_remembered(store: Store) -> None:
    macs = [f"52:54:00:00:00:{n:02x}" for n in range(10)]
    store.add_events([BootEvent(mac, float(n), Phase.SEEN) for n, mac in enumerate(macs)])
    assert store.prune_clients(keep=10) == 0
    assert store.prune_clients(keep=4) == 6
    assert [client.mac for client in store.seen()] == macs[6:]
    assert store.prune_clients(keep=4) == 0

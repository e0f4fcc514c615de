"""The order of the phases, and the bus."""

from netboot.events import BootEvent, Bus, Phase


def test_phases_are_in_the_order_of_a_boot() -> None:
    labels = [phase.label for phase in sorted(Phase)]
    assert labels == ["seen", "offered", "loader", "script", "login", "reading", "os", "ready"]


def test_every_subscriber_gets_every_event_until_it_leaves() -> None:
    bus, first, second = Bus(), [], []
    leave = bus.subscribe(first.append)
    bus.subscribe(second.append)
    one, two = (BootEvent("52:54:00:00:00:01", at, Phase.SEEN) for at in (1.0, 2.0))
    bus.publish(one)
    leave()
    bus.publish(two)
    assert first == [one]
    assert second == [one, two]


def test_a_subscriber_may_leave_while_it_is_told() -> None:
    bus, told = Bus(), []

    def once(event: BootEvent) -> None:
        told.append(event)
        leave()

    leave = bus.subscribe(once)
    bus.subscribe(told.append)
    bus.publish(BootEvent("52:54:00:00:00:01", 1.0, Phase.OS))
    assert len(told) == 2

"""What happens to a machine on its way up, as values; and the bus that carries them.

The phases are ordered: a timeline never goes back within one boot. Nothing here knows a
protocol; whoever sees something happen publishes it, whoever wants to know subscribes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class Phase(IntEnum):
    """The stations of one boot, in order."""

    SEEN = 1  #: first firmware DISCOVER, or the first packet at all
    OFFERED = 2  #: an address and a plan were offered
    LOADER = 3  #: a boot program was fetched by TFTP or HTTP
    SCRIPT = 4  #: an iPXE script was fetched
    LOGIN = 5  #: the first iSCSI login succeeded
    READING = 6  #: the first block was read
    OS = 7  #: the operating system's own DHCP or its own login
    READY = 8  #: the guest said that it is up

    @property
    def label(self) -> str:
        """The name people read: lower case."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class BootEvent:
    """One thing that happened to one machine.

    ``at`` is seconds since the epoch; ``detail`` is a short text for people; ``fresh`` marks
    the event that begins a new boot (a firmware DISCOVER), where a timeline starts over.
    """

    mac: str
    at: float
    phase: Phase
    detail: str = ""
    fresh: bool = False


class Bus:
    """Hands each event to every subscriber, in the order they subscribed, synchronously."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[BootEvent], None]] = []

    def subscribe(self, receiver: Callable[[BootEvent], None]) -> Callable[[], None]:
        """Call ``receiver`` for each event from now on; returns what ends that."""
        self._subscribers.append(receiver)
        return lambda: self._subscribers.remove(receiver)

    def publish(self, event: BootEvent) -> None:
        """Tell every subscriber of ``event``."""
        for receiver in tuple(self._subscribers):
            receiver(event)

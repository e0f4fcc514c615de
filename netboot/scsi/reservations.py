"""Who may touch a logical unit: RESERVE(6) and persistent reservations as plain state.

``Reservations`` knows keys, holders and types, never a CDB; each change returns whom to tell
and of what. Registrations belong to an initiator port's name and outlive its sessions, and
(``persists``, see ``kept``) a power cut. SPC-4 section 5.13; RESERVE(6) is SPC-2 section 5.5.1.
"""

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TypeAlias

from netboot.scsi.sense import Code

#: Registrations one unit holds: iPXE takes a new ISID each connection, and none ever expires.
MAX_REGISTRATIONS = 64


class Access(IntEnum):
    """How much a command touches: the more, the sooner somebody else's reservation stops it.

    A nexus has a ceiling; a command above it ends in RESERVATION CONFLICT (SPC-4 table 66,
    SBC-3 table 13).
    """

    ANSWERS = 0  #: INQUIRY, REPORT LUNS, REQUEST SENSE: never in conflict, nor stopped by a UA
    RELEASES = 1  #: the ceiling under another's RESERVE(6): RELEASE(6) does nothing
    ASKS = 2  #: the ceiling under another's Exclusive Access
    READS = 3  #: the ceiling under another's Write Exclusive
    CHANGES = 4  #: no ceiling


class Kind(IntEnum):
    """Persistent reservation types (SPC-4 table 65)."""

    WRITE_EXCLUSIVE = 1
    EXCLUSIVE_ACCESS = 3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8

    @property
    def lets_others_read(self) -> bool:
        """Write Exclusive of any sort."""
        return self in (1, 5, 7)

    @property
    def for_registrants(self) -> bool:
        """Whether every registered nexus may do everything."""
        return self >= 5

    @property
    def held_by_all(self) -> bool:
        """Whether every registered nexus is a holder."""
        return self >= 7


#: Whom to tell (an initiator port's name) of what.
Notices: TypeAlias = list[tuple[str, Code]]


@dataclass(slots=True)
class Reservations:
    """The reservations of one logical unit."""

    keys: dict[str, int] = field(default_factory=dict)  #: initiator port name → key
    generation: int = 0  #: PRGENERATION
    kind: Kind | None = None
    holder: str = ""  #: port name; meaningless for the All Registrants types
    legacy: object | None = None  #: the nexus that did RESERVE(6); lost with it
    persists: bool = False  #: the last APTPL bit: a power cut changes nothing of this

    def copy(self) -> "Reservations":
        """The same, to be changed apart."""
        return replace(self, keys=dict(self.keys))

    def become(self, other: "Reservations") -> None:
        """Take over all of ``other`` but RESERVE(6)."""
        self.keys, self.generation = other.keys, other.generation
        self.kind, self.holder, self.persists = other.kind, other.holder, other.persists

    def holds(self, port: str) -> bool:
        """Whether ``port`` is a holder of the persistent reservation."""
        if self.kind is None:
            return False
        return port in self.keys if self.kind.held_by_all else port == self.holder

    def ceiling(self, port: str, nexus: object) -> Access:
        """How far the reservations in effect let this nexus go."""
        if self.legacy is not None:
            return Access.CHANGES if self.legacy is nexus else Access.RELEASES
        if self.kind is None or self.holds(port):
            return Access.CHANGES
        if self.kind.for_registrants and port in self.keys:
            return Access.CHANGES
        return Access.READS if self.kind.lets_others_read else Access.ASKS

    def _others(self, port: str, code: Code) -> Notices:
        return [(name, code) for name in self.keys if name != port]

    def _drop(self) -> None:
        self.kind, self.holder = None, ""

    def register(self, port: str, key: int) -> Notices:
        """Register, change the key, or (key 0) unregister; a holder that leaves lets go."""
        if not key and port not in self.keys:
            return []
        self.generation = (self.generation + 1) & 0xFFFFFFFF
        if key:
            self.keys[port] = key
            return []
        held, kind = self.holds(port), self.kind
        del self.keys[port]
        if not held or kind is None or (kind.held_by_all and self.keys):
            return []
        self._drop()
        return self._others(port, Code.RESERVATIONS_RELEASED) if kind.for_registrants else []

    def reserve(self, port: str, kind: Kind) -> bool:
        """Take the reservation; False is a conflict. Taking what one holds changes nothing."""
        if self.kind is None:
            self.kind, self.holder = kind, port
            return True
        return self.kind is kind and self.holds(port)

    def release(self, port: str) -> Notices:
        """Let go of what ``port`` holds; the caller has compared the types."""
        kind = self.kind
        if kind is None or not self.holds(port):
            return []
        self._drop()
        return self._others(port, Code.RESERVATIONS_RELEASED) if kind.for_registrants else []

    def clear(self, port: str) -> Notices:
        """Forget the reservation and every registration."""
        notices = self._others(port, Code.RESERVATIONS_PREEMPTED)
        self.keys.clear()
        self._drop()
        self.generation = (self.generation + 1) & 0xFFFFFFFF
        return notices

    def preempts_nothing(self, victim: int) -> bool:
        """Whether no registration has the key ``victim``: PREEMPT is then a conflict."""
        if not victim:
            return self.kind is None or not self.kind.held_by_all
        return victim not in self.keys.values()

    def preempt(self, port: str, victim: int, kind: Kind) -> Notices:
        """Remove the registrations of key ``victim``, and take over what they held.

        ``victim`` 0 means all others, and is only for the All Registrants types. One's own
        registration is kept when one takes over, else it goes with those of its key
        (SPC-4 sections 5.13.11.2.4.3 and 5.13.11.2.5).
        """
        before = self.kind
        everyone = before is not None and before.held_by_all
        if before is not None and everyone:
            takes = not victim
        else:
            takes = before is not None and self.keys.get(self.holder) == victim
        gone = [
            name
            for name, key in self.keys.items()
            if (key == victim or (everyone and not victim)) and not (takes and name == port)
        ]
        for name in gone:
            del self.keys[name]
        notices = [(name, Code.REGISTRATIONS_PREEMPTED) for name in gone if name != port]
        if takes:
            self.kind, self.holder = kind, port
            if before is not kind:
                notices += self._others(port, Code.RESERVATIONS_RELEASED)
        elif not self.keys:
            self._drop()
        self.generation = (self.generation + 1) & 0xFFFFFFFF
        return notices

"""What a unit keeps through a power cut, as one text: reservations, and a sanitize operation.

JSON, so that an operator can read it. Where the text lies, and that it lies there safely, is the
storage's business. PRGENERATION is not in it: it is 0 after a power on, whatever APTPL said
(SPC-4 section 6.15.2). SPC-4 section 5.13.5, SBC-4 section 4.11. Pure.
"""

import json
from dataclasses import dataclass
from typing import Any

from netboot.scsi.reservations import MAX_REGISTRATIONS, Kind, Reservations


@dataclass(slots=True)
class Operation:
    """A sanitize operation that is under way, or has failed."""

    passes: int  #: 0: the blocks are deallocated
    pattern: bytes = b""  #: one logical block
    invert: bool = False  #: every second pass is the complement
    ause: bool = False  #: EXIT FAILURE MODE is allowed after a failure
    failed: bool = False

    @property
    def patterns(self) -> tuple[bytes, ...]:
        """What each pass writes; the last one writes the pattern itself (SBC-4 section 5.30.2)."""
        other = bytes(byte ^ 0xFF for byte in self.pattern) if self.invert else self.pattern
        return tuple(other if left % 2 else self.pattern for left in range(self.passes - 1, -1, -1))


def encode(reservations: Reservations, operation: Operation | None) -> bytes:
    """The text; empty when there is nothing to keep."""
    said: dict[str, Any] = {}
    if reservations.persists:
        said["registrations"] = [[port, key] for port, key in reservations.keys.items()]
        if reservations.kind is not None:
            said["reservation"] = {"type": int(reservations.kind), "holder": reservations.holder}
    if operation is not None:
        said["sanitize"] = {
            "passes": operation.passes,
            "pattern": operation.pattern.hex(),
            "invert": operation.invert,
            "ause": operation.ause,
            "failed": operation.failed,
        }
    return json.dumps(said, indent=1).encode() + b"\n" if said else b""


def decode(text: bytes) -> tuple[Reservations, Operation | None]:
    """The opposite; ValueError for what ``encode`` does not make."""
    try:
        said = json.loads(text) if text else {}
        return _reservations(said), _operation(said.get("sanitize"))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"what was kept of a unit cannot be read: {problem}") from problem


def _reservations(said: dict[str, Any]) -> Reservations:
    made = Reservations(persists="registrations" in said)
    for port, key in said.get("registrations", ()):
        if not isinstance(port, str) or type(key) is not int or not 0 < key < 1 << 64:
            raise ValueError("a registration is a name and a key")
        made.keys[port] = key
    if len(made.keys) > MAX_REGISTRATIONS:
        raise ValueError("too many registrations")
    held = said.get("reservation")
    if held is not None:
        made.kind, made.holder = Kind(held["type"]), held["holder"]
        if made.holder not in made.keys and not (made.kind.held_by_all and made.keys):
            raise ValueError("the reservation is nobody's")
    return made


def _operation(said: dict[str, Any] | None) -> Operation | None:
    if said is None:
        return None
    made = Operation(
        said["passes"],
        bytes.fromhex(said["pattern"]),
        *(said["invert"] is True, said["ause"] is True, said["failed"] is True),
    )
    if type(made.passes) is not int or not 0 <= made.passes < 32:
        raise ValueError("an overwrite has up to 31 passes")
    if bool(made.passes) is not bool(made.pattern):
        raise ValueError("passes want a pattern")
    return made

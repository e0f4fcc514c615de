"""Text requests in full-feature phase: SendTargets and late declarations (RFC 7143 11.10).

A request may be spread over several PDUs (C bit), an answer too, when the initiator takes only
short ones; a Target Transfer Tag holds the pieces together. An initiator is told of its own
target only. Must never answer more than one exchange at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from netboot.errors import WireError
from netboot.iscsi import keys, wire
from netboot.iscsi.keys import KEYS, Rule, Use
from netboot.iscsi.session import Session
from netboot.iscsi.wire import CONTINUE, FINAL, NO_TAG, Reason

#: Bytes of one request's text.
TEXT_LIMIT: Final = 65536
_TAG: Final = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """A Text Response: flags of byte 1, Target Transfer Tag, and text."""

    flags: int
    tag: int
    data: bytes


@dataclass(slots=True)
class Texts:
    """One connection's text exchange."""

    portals: Sequence[str]  #: TargetAddress of each of our portals
    _asked: bytearray = field(default_factory=bytearray)
    _answer: bytes = b""  #: what could not be sent yet
    _final: bool = True  #: the initiator has nothing to add

    def receive(
        self, session: Session, targets: Iterable[str], flags: int, tag: int, data: bytes, room: int
    ) -> Piece | Reason:
        """Answer one Text Request with at most ``room`` bytes, or say why it is rejected.

        ``targets`` are the names that this initiator may know of.
        """
        if tag != NO_TAG and tag != _TAG:
            return Reason.PROTOCOL
        if tag == NO_TAG:  # a new exchange; the old one, if any, is given up
            self._asked.clear()
            self._answer = b""
        self._final = bool(flags & FINAL)
        if self._answer:
            return self._piece(room)
        self._asked += data
        if len(self._asked) > TEXT_LIMIT or (flags & FINAL and flags & CONTINUE):
            self._asked.clear()
            return Reason.PROTOCOL
        if flags & CONTINUE:
            return Piece(0, _TAG, b"")
        asked, self._asked = bytes(self._asked), bytearray()
        try:
            pairs = wire.read_text(asked)
        except WireError:
            return Reason.PROTOCOL
        if len({name for name, _ in pairs}) < len(pairs):  # section 6.2: a key comes once
            return Reason.PROTOCOL
        answers: list[tuple[str, str]] = []
        for name, value in pairs:
            answers += self._key(session, list(targets), name, value)
        self._answer = wire.write_text(answers)
        return self._piece(room)

    def _piece(self, room: int) -> Piece:
        now, self._answer = self._answer[:room], self._answer[room:]
        if self._answer:
            return Piece(CONTINUE, _TAG, now)
        # F answers F only (section 11.11.1): who left it out may go on, with our tag.
        return Piece(FINAL, NO_TAG, now) if self._final else Piece(0, _TAG, now)

    def _key(
        self, session: Session, targets: list[str], name: str, value: str
    ) -> list[tuple[str, str]]:
        if name == "SendTargets":
            if value == "All" and not session.discovery:
                return [(name, "Reject")]
            if value not in ("All", ""):
                targets = [target for target in targets if target == value]
            addresses = [("TargetAddress", portal) for portal in self.portals]
            return [pair for target in targets for pair in (("TargetName", target), *addresses)]
        row = KEYS.get(name)
        if row is None:
            return [(name, "NotUnderstood")]
        if row.use is not Use.ANY or row.rule is not Rule.DECLARED:
            return [(name, "Reject")]
        outcome = keys.negotiate(name, value)
        if outcome.answer is not None:
            return [(name, outcome.answer)]
        keys.apply(session.parameters, [(name, value)])
        if name == "MaxRecvDataSegmentLength":
            return [(name, str(keys.OUR_SEGMENT))]
        return []

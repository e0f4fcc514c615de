"""What has come by one connection: to the express lane, and what does not take it the long way.

It is all that is done for most wake-ups, and so it is there twice: here, and in ``intake.pyx`` in
C's terms, for machines that can build; one set of tests holds both. Must never read a PDU itself,
nor let a mistake reach the loop, which would end the connection without a word.
"""

from typing import TYPE_CHECKING

from netboot.iscsi.engine import Connection, Event
from netboot.iscsi.outlet import Outlet
from netboot.iscsi.spin import EVERY, Spin

if TYPE_CHECKING:
    from netboot.iscsi.express import Lane
    from netboot.iscsi.server import Nearby


class Inlet:
    """Of one connection; ``room`` is the receive buffer, which all connections share.

    Who is one has an ``engine`` and an ``_outlet`` before anything comes, and says what else
    there is to do: ``_long_way``, ``send``, and ``_failed``.
    """

    engine: Connection
    _outlet: Outlet

    def __init__(self, spin: Spin, room: memoryview) -> None:
        self._spin = spin  #: counts what comes
        self._room = room
        self._lane: Lane | None = None
        self._nearby: Nearby | None = None  #: what the next request will touch
        self._tags: set[int] = set()  #: of the commands of one breath
        self._backlog: list[Event] = []  #: events that wait for the initiator or for workers
        self._full = False  #: the initiator does not take its answers
        self.closed = False

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come."""
        try:
            spin, room, at, tags = self._spin, self._room, 0, self._tags
            spin.came += 1
            if not spin.came & EVERY:
                spin.consider()
            if tags:
                tags.clear()
            lane = self._lane
            while at < nbytes and not self.closed:
                end = nbytes
                if lane is not None and not (self._full or self._backlog):
                    took = lane.run(room[at:] if at else room, nbytes - at, tags)
                    if took:
                        at += took
                        if self._outlet.waits:
                            self.send()
                        else:
                            self._outlet.write(self.engine.answers.take())
                        continue
                    # The rest of a PDU that had begun; behind it the lane may be free again.
                    missing = self.engine.missing
                    end = min(at + missing, nbytes) if missing else nbytes
                self._long_way(room[at:end], tags, nbytes)
                at = end
        except Exception:
            self._failed()

    def _long_way(self, view: memoryview, tags: set[int], nbytes: int) -> None:
        """What did not take the lane, of ``nbytes``; ``tags`` are of what did."""

    def send(self) -> None:
        """Send what there is, whatever waits."""

    def _failed(self) -> None:
        """An exception is being handled: end the connection."""

    def over(self, error: int) -> None:
        """A ``Gate`` reads no more: the end of the stream has come (0), or an errno."""

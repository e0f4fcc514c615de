"""How connections are read: one buffer, one gate for all sessions, a look before the loop sleeps.

Nothing here is any one connection's. Must never hold more of a connection than its number, nor
keep the loop from anything else for longer than a look takes.
"""

import asyncio
from time import monotonic
from typing import Final

from netboot.iscsi.spin import Spin

try:
    from netboot.iscsi.gate import Gate as Gate
except ImportError:  # nobody built it here: the loop reads, a little slower
    Gate = None  # type: ignore[assignment, misc]

#: Bytes of the receive buffer, and of its beginning, which is all that is used for who sends many
#: small requests in one breath: so all others wait some 15 ms for it, and not 100.
RECEIVE_BUFFER: Final = 512 << 10
SMALL_ROOM: Final = 64 << 10


class Reading:
    """For all connections of one event loop."""

    def __init__(self) -> None:
        self.room = memoryview(bytearray(RECEIVE_BUFFER))
        self.small = self.room[:SMALL_ROOM]
        self.spin = Spin(lambda look: asyncio.get_running_loop().call_soon(look), monotonic)
        self._gate: Gate | None = None

    @property
    def gate(self) -> "Gate | None":
        """Reads for all sessions, from the first one on; None where nobody could build it."""
        if self._gate is None and Gate is not None:
            self._gate = Gate()
            asyncio.get_running_loop().add_reader(self._gate.fd, self._gate.turn)
            self.spin.look = self._gate.look
        return self._gate

    def close(self) -> None:
        """Read no more; harmless when nothing was."""
        if self._gate is not None and self._gate.fd >= 0:
            asyncio.get_running_loop().remove_reader(self._gate.fd)
            self._gate.close()

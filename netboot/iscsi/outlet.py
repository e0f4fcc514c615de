"""Where the answers of one connection leave: straight to the socket, half the way of the loop's.

What the socket does not take at once, and whatever it has to say, is the transport's affair. Must
never write before what waits there, nor to a number that may be another connection's by now.
"""

import asyncio
import os
from typing import Final

from netboot.iscsi.session import Buffer

#: Up to so many bytes are sent as one buffer: to copy them costs less than to pass on many, and
#: the kernel's own copy is faster for it, since its pages then begin where ours do.
JOIN: Final = 1 << 20


class Outlet:
    """Of ``transport``, whose socket has the number ``fd``."""

    __slots__ = ("_transport", "fd", "waits")

    def __init__(self, transport: asyncio.Transport, fd: int) -> None:
        self._transport = transport
        self.fd = fd
        self.waits = True  #: the transport may have something to send still

    def put(self, out: list[Buffer]) -> None:
        """Send, as is right whenever it is called."""
        transport = self._transport
        if self.fd < 0 or transport.get_write_buffer_size() or transport.is_closing():
            self.waits = True
            transport.writelines(out)
        else:
            self.waits = False
            self.write(out)

    def write(self, out: list[Buffer]) -> None:
        """Send while nothing ``waits`` and the socket is surely open: something has just come."""
        data = out[0]
        if len(out) > 1:
            if sum(map(len, out)) > JOIN:
                self.waits = True
                self._transport.writelines(out)
                return
            data = b"".join(out)
        try:
            sent = os.write(self.fd, data)
        except OSError:
            sent = 0
        if sent != len(data):
            self.rest(data, sent)

    def rest(self, data: Buffer, sent: int) -> None:
        """Send what the socket has not taken: all but ``sent`` bytes."""
        self.waits = True
        self._transport.writelines([memoryview(data)[sent:]])

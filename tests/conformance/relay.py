"""Between an initiator and a target: writes down every PDU, and can meddle with it.

What is held back waits until something else was seen; what is changed goes on as it was changed,
and is written down as it came. Everything is on 127.0.0.1; digests are not expected.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

COMMAND, MANAGEMENT, LOGOUT = 0x01, 0x02, 0x06
RESPONSE, MANAGEMENT_RESPONSE, DATA_IN, LOGOUT_RESPONSE = 0x21, 0x22, 0x25, 0x26


@dataclass(frozen=True, slots=True)
class Seen:
    """One PDU; connections are counted from 0."""

    connection: int
    pdu: bytes

    @property
    def opcode(self) -> int:
        return self.pdu[0] & 0x3F

    @property
    def answer(self) -> bool:
        """Whether it is the target's."""
        return bool(self.pdu[0] & 0x20)

    @property
    def itt(self) -> int:
        return self.word(16)

    @property
    def cdb(self) -> bytes:
        return self.pdu[32:48]

    @property
    def data(self) -> bytes:
        start = 48 + self.pdu[4] * 4
        return self.pdu[start : start + int.from_bytes(self.pdu[5:8], "big")]

    def word(self, at: int) -> int:
        """The 32 bits at an offset of the header."""
        return int.from_bytes(self.pdu[at : at + 4], "big")


Held: TypeAlias = Callable[[Seen, list[Seen]], bool]
Change: TypeAlias = Callable[[Seen, list[Seen]], bytes]


@dataclass(slots=True)
class Relay:
    """``held`` and ``change`` are asked for each PDU, with those that went on before it."""

    to: int  #: the target's port
    held: Held
    change: Change
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of an initiator."""
        number, self._connections = self._connections, self._connections + 1
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        await asyncio.gather(self._pass(number, reader, back), self._pass(number, there, writer))

    async def _pass(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                head = await reader.readexactly(48)
                length = head[4] * 4 + (int.from_bytes(head[5:8], "big") + 3 & ~3)
                seen = Seen(number, head + await reader.readexactly(length))
                async with self._changed:
                    while self.held(seen, self.seen):
                        await self._changed.wait()
                    pdu = self.change(seen, self.seen)
                    self.seen.append(seen)
                    self._changed.notify_all()
                writer.write(pdu)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def of(self, opcode: int) -> list[Seen]:
        """All PDUs of an opcode, in order."""
        return [seen for seen in self.seen if seen.opcode == opcode]


@asynccontextmanager
async def relay(
    to: int,
    held: Held = lambda seen, before: False,
    change: Change = lambda seen, before: seen.pdu,
) -> AsyncIterator[Relay]:
    """A relay to the target at port ``to``, for as long as the block lasts."""
    made = Relay(to, held, change)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()

"""What a read-only TFTP server answers: pure, without sockets, files or clocks.

``admit`` judges the packet that opens a conversation; a ``Transfer`` is one file on its way to
one client. It sends in windows (RFC 7440; a window of one is the lock-step of RFC 1350), takes
``now`` as an argument and never raises on what a peer sends.

No Sorcerer's Apprentice (RFC 1123 section 4.2.3.1): in lock-step a repeated ACK is never
answered. With windows a repeated ACK can mean that the first block of a window was lost, so it
is answered once; but not when the window before was itself sent twice, because then the second
copy explains the second ACK, and answering would double every window to the end of the file.

``Transfer.ready`` is a short cut through lock-step: the one ACK that is expected, answered by a
packet that is ready. It answers what ``receive`` would, byte for byte, or leaves it to that.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from netboot.errors import WireError
from netboot.tftp import wire
from netboot.tftp.options import Terms
from netboot.tftp.ready import Ready, Shelf
from netboot.tftp.wire import ErrorCode, Opcode, Request

#: One datagram as head and body, for a gathered send without a copy.
Packet: TypeAlias = tuple[bytes, bytes | memoryview]

#: ``read(offset, length)``: that many bytes, fewer only at the end; ``OSError`` when it fails.
Read: TypeAlias = Callable[[int, int], bytes | memoryview]

#: How often one packet is sent again without an answer, before the client is given up.
RETRIES = 6
#: Back-off ends here, in seconds.
LONGEST_WAIT = 8.0
#: Bytes of a file that are made packets beforehand in lock-step; at least one packet is.
AHEAD = 64 * 1024

MODES = ("octet", "netascii")

_NOTHING: list[Packet] = []


class Outcome(StrEnum):
    """How a transfer ended."""

    DONE = "done"
    FAILED = "failed"
    #: The client asked for the size, or did not like the options, and left before any data:
    #: PXE ROMs do that before each download, and ask again. Nobody should be alarmed.
    PROBE = "probe"


def admit(data: bytes) -> Request | bytes | None:
    """A read request to serve, an error to send back, or None for what deserves silence.

    An ERROR is never answered, or two servers could keep each other busy for ever; garbage
    neither. Anything else that is no request belongs to no transfer (RFC 1350 section 4).
    """
    try:
        packet = wire.parse(data)
    except WireError:
        return None
    match packet:
        case Request(opcode=Opcode.RRQ):
            if packet.mode not in MODES:
                return refusal(ErrorCode.ILLEGAL_OPERATION, "the mode must be octet or netascii")
            return packet
        case Request():
            return refusal(ErrorCode.ACCESS_VIOLATION, "this server is read-only")
        case wire.Error():
            return None
    return refusal(ErrorCode.UNKNOWN_TID, "there is no such transfer")


def refusal(code: ErrorCode, message: str) -> bytes:
    """An ERROR packet."""
    return wire.encode(wire.Error(code, message))


class Transfer:
    """One file on its way to one client.

    ``start`` gives the first packets, ``receive`` the answer to a datagram; whenever ``now``
    passes ``deadline``, call ``tick``. When ``outcome`` is set it is over, and ``detail`` says
    why. Blocks are counted from 1 without limit; only the wire sees them modulo 65536, and the
    one after 65535 is 0, as all clients of our time expect. Who has ``ready`` answer a datagram
    need not tell: what is known of the transfer is then looked up there.
    """

    __slots__ = (
        "_acked",
        "_again",
        "_copies",
        "_count",
        "_deadline",
        "_first",
        "_greeting",
        "_heard",
        "_last",
        "_piece",
        "_read",
        "_sent",
        "_shelf",
        "_size",
        "_terms",
        "_total",
        "_tries",
        "_wary",
        "detail",
        "ignored",
        "outcome",
        "ready",
        "resent",
    )

    def __init__(
        self, read: Read, terms: Terms, shelf: Shelf | None = None, ready: Ready | None = None
    ) -> None:
        self.ready = ready if ready is not None else Ready()
        self._read = read
        self._shelf = shelf
        self._terms = terms
        self._size = terms.blksize
        self._count = terms.window
        self._greeting: bytes | None = None  # the OACK, until ACK 0 has come
        if terms.granted:
            self._greeting = wire.encode(wire.OptionAck(terms.granted))
        self._acked = 0  # all blocks up to this one have arrived
        self._sent = 0  # the highest block of the present window
        self._last: int | None = None  # the final block, once it was read
        self._total = 0  # bytes in the blocks up to ``_last``, once it was read
        self._tries = 0  # retransmissions since the last progress
        self._copies = False  # the present window was sent more than once
        self._wary = False  # a repeated ACK of ``_acked`` has an explanation
        self._again = False  # the greeting was sent more than once
        self._piece: tuple[bytes, ...] = ()  # lock-step: some blocks, among them ``_sent``
        self._first = 0  # lock-step: the block before them
        self._deadline: float | None = None
        self._heard = 0.0
        self.outcome: Outcome | None = None
        self.detail = ""
        self.resent = 0  #: packets sent more than once
        self.ignored = 0  #: datagrams that meant nothing

    @property
    def deadline(self) -> float | None:
        """When ``tick`` has something to do; None: never."""
        self._follow()
        return self._deadline

    @property
    def heard(self) -> float:
        """When the client last said something."""
        self._follow()
        return self._heard

    @property
    def started(self) -> bool:
        """Whether data has been sent: false while an OACK waits for its answer."""
        return self._sent > 0

    @property
    def progressed(self) -> bool:
        """Whether the client has answered anything yet."""
        self._follow()
        return self._acked > 0 or (bool(self._terms.granted) and self._greeting is None)

    @property
    def delivered(self) -> int:
        """Bytes that the client has acknowledged."""
        self._follow()
        if self._acked == self._last:
            return self._total
        return self._acked * self._size

    def start(self, now: float) -> list[Packet]:
        """The OACK, or the first window."""
        self._heard = now
        return self._present(now)

    def receive(self, data: bytes, now: float) -> list[Packet]:
        """The packets that answer ``data``, a datagram from this transfer's client."""
        if self.outcome is not None:
            return _NOTHING
        self._follow()
        self._heard = now
        number = wire.ack_number(data)
        if number < 0:
            return self._other(data)
        if self._greeting is not None:
            if number:
                self.ignored += 1
                return _NOTHING
            self._greeting = None
            self._tries = 0
            self._wary = self._again
            return self._window(now)
        ahead = (number - self._acked) & 0xFFFF
        if ahead == 0:
            return self._repeated(now)
        if ahead > self._sent - self._acked:  # late, or never sent
            self.ignored += 1
            return _NOTHING
        self._acked += ahead
        self._tries = 0
        if self._acked == self._last:
            return self._end(Outcome.DONE, "")
        # An ACK inside the window says that the rest of it is lost, and may be said twice.
        self._wary = self._copies or self._acked < self._sent
        self._copies = False
        return self._window(now)

    def repeat(self, now: float) -> list[Packet]:
        """The first packets again, for a client that repeats its request; else nothing."""
        if self.outcome is not None or self.progressed:
            return _NOTHING
        return self._resend(now)

    def tick(self, now: float) -> list[Packet]:
        """What has to be sent again when ``deadline`` has passed; nothing before that."""
        deadline = self.deadline
        if self.outcome is not None or deadline is None or now < deadline:
            return _NOTHING
        self._tries += 1
        if self._tries > RETRIES:
            return self.abandon("the client does not answer")
        return self._resend(now)

    def abandon(self, reason: str) -> list[Packet]:
        """End it from outside. With only the last window in doubt it counts as done.

        Many clients leave as soon as they hold the last block: then nobody is left to repeat
        an ACK that was lost, and some ROMs never send it. ``detail`` tells of the doubt.
        """
        if self.progressed and self._sent == self._last:
            return self._end(Outcome.DONE, "the last window was not acknowledged")
        return self._end(Outcome.FAILED, reason)

    def _follow(self) -> None:
        """Learn what ``ready`` has answered meanwhile: one block for each ACK."""
        taken = self.ready.taken()
        if taken:
            self._acked += taken
            self._sent += taken
            self._heard = self.ready.heard
            self._deadline = self._heard + self._terms.timeout

    def _present(self, now: float) -> list[Packet]:
        if self._greeting is None:
            return self._window(now)
        self._wait(now)
        return [(self._greeting, b"")]

    def _resend(self, now: float) -> list[Packet]:
        self._again = self._copies = self._wary = True
        self.ready.stop()  # the answer to this has more to change than the next one's
        packets = self._present(now)
        self.resent += len(packets)
        return packets

    def _repeated(self, now: float) -> list[Packet]:
        if self._count == 1 or self._wary:
            self.ignored += 1
            return _NOTHING
        return self._resend(now)

    def _window(self, now: float) -> list[Packet]:
        """The blocks after the last acknowledged one."""
        if self._count == 1:
            return self._block(now)
        size, count, first = self._size, self._count, self._acked
        try:
            body = self._read(first * size, count * size)
        except OSError as error:
            return self._stop(f"the file cannot be read: {error}")
        view = memoryview(body)
        whole = len(view) == count * size
        if not whole:
            count = len(view) // size + 1
        self._sent = first + count
        if not whole:
            self._last = self._sent
            self._total = first * size + len(view)
        self._wait(now)
        return [
            (wire.data_header(first + 1 + i), view[i * size : (i + 1) * size]) for i in range(count)
        ]

    def _block(self, now: float) -> list[Packet]:
        """A window of one: the block after the last acknowledged one."""
        if self._acked == self._sent:
            if self._sent == self._first + len(self._piece):
                try:
                    self._prepare()
                except OSError as error:
                    return self._stop(f"the file cannot be read: {error}")
            self._sent += 1
            self.ready.load(self._piece, self._sent - self._first)
        self._wait(now)
        return [(self._piece[self._sent - self._first - 1], b"")]

    def _prepare(self) -> None:
        """Make the blocks after ``_sent`` packets, a few at a time."""
        size, first = self._size, self._sent
        count = max(1, AHEAD // size)
        piece = self._shelf.get(first) if self._shelf is not None else None
        if piece is None:
            body = self._read(first * size, count * size)
            blocks = min(count, len(body) // size + 1)
            piece = tuple(wire.data_packets(first + 1, body, size, blocks)), len(body)
            if self._shelf is not None:
                self._shelf.put(first, *piece)
        self._piece, self._first = piece[0], first
        if piece[1] < count * size:
            self._last = first + len(piece[0])
            self._total = first * size + piece[1]

    def _wait(self, now: float) -> None:
        wait = self._terms.timeout
        if self._tries and not self._terms.fixed_timeout:
            wait = min(wait * 2**self._tries, LONGEST_WAIT)
        self._deadline = now + wait

    def _other(self, data: bytes) -> list[Packet]:
        try:
            packet = wire.parse(data)
        except WireError:
            self.ignored += 1
            return _NOTHING
        if not isinstance(packet, wire.Error):
            self.ignored += 1
            return _NOTHING
        words = f"the client stopped: error {packet.code} {packet.message}".rstrip()
        early = not self._acked and packet.code in (
            ErrorCode.UNDEFINED,
            ErrorCode.OPTIONS_REFUSED,
        )
        return self._end(Outcome.PROBE if early else Outcome.FAILED, words)

    def _stop(self, words: str) -> list[Packet]:
        self._end(Outcome.FAILED, words)
        return [(refusal(ErrorCode.UNDEFINED, "the file cannot be read"), b"")]

    def _end(self, outcome: Outcome, detail: str) -> list[Packet]:
        self.outcome = outcome
        self.detail = detail
        self._deadline = None
        self.ready.stop()
        return _NOTHING

"""TFTP options as a table: what may be asked, and what is granted (RFC 2347).

One row an option. A value outside its range is left out of the answer, as if we did not know
the option: a client must then go on without it (RFC 2347), while an error would end the boot.
Unknown options (``multicast`` of iPXE) are left out the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

#: What RFC 1350 has when nothing was negotiated.
DEFAULT_BLKSIZE = 512
DEFAULT_TIMEOUT = 1.0

#: DATA header, UDP header and IPv4 header: what a block costs beyond its payload.
OVERHEAD = 4 + 8 + 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server is ready to grant in one transfer."""

    blksize: int = 65464  #: so that no packet is cut into fragments: MTU - OVERHEAD
    window: int = 64  #: blocks
    window_bytes: int = 128 * 1024  #: a whole window should fit the client's socket buffer
    size: int | None = None  #: bytes of the file as sent; None: not known beforehand


@dataclass(frozen=True, slots=True)
class Terms:
    """How one transfer runs. ``granted`` is what the OACK says; empty means no OACK."""

    blksize: int = DEFAULT_BLKSIZE
    window: int = 1
    timeout: float = DEFAULT_TIMEOUT  #: seconds until the first retransmission
    fixed_timeout: bool = False  #: the client chose it: no back-off
    granted: Mapping[str, str] = field(default_factory=dict)


Grant = Callable[[int, Terms, Limits], tuple[Terms, int] | None]


@dataclass(frozen=True, slots=True)
class Option:
    """A row: ``grant`` gives the new terms and the number to answer, or None to leave it out."""

    name: str
    low: int
    high: int
    rule: str
    reference: str
    grant: Grant


def _blksize(asked: int, terms: Terms, limits: Limits) -> tuple[Terms, int]:
    size = max(8, min(asked, limits.blksize))
    return replace(terms, blksize=size), size


def _tsize(_asked: int, terms: Terms, limits: Limits) -> tuple[Terms, int] | None:
    return None if limits.size is None else (terms, limits.size)


def _timeout(asked: int, terms: Terms, _limits: Limits) -> tuple[Terms, int]:
    return replace(terms, timeout=float(asked), fixed_timeout=True), asked


def _windowsize(asked: int, terms: Terms, limits: Limits) -> tuple[Terms, int]:
    window = max(1, min(asked, limits.window, limits.window_bytes // terms.blksize))
    return replace(terms, window=window), window


#: In the order in which they are decided: the window depends on the block size.
OPTIONS: tuple[Option, ...] = (
    Option(
        "blksize", 8, 65464, "at most what was asked and what the MTU holds", "RFC 2348", _blksize
    ),
    Option("tsize", 0, 2**63, "the size of the file; not in netascii", "RFC 2349", _tsize),
    Option("timeout", 1, 255, "exactly what was asked, in seconds", "RFC 2349", _timeout),
    Option(
        "windowsize", 1, 65535, "at most what was asked and our limits", "RFC 7440", _windowsize
    ),
)


def negotiate(asked: Mapping[str, str], limits: Limits) -> Terms:
    """The terms for a request with these options (names in lower case)."""
    terms = Terms()
    granted: dict[str, str] = {}
    for option in OPTIONS:
        value = _number(asked.get(option.name, ""))
        if value is None or not option.low <= value <= option.high:
            continue
        decision = option.grant(value, terms, limits)
        if decision is not None:
            terms, answer = decision
            granted[option.name] = str(answer)
    return replace(terms, granted=granted)


def _number(text: str) -> int | None:
    """A decimal number of at most 19 digits; anything else is None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None

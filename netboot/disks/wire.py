"""The messages between control and disk processes: values on one side, JSON lines on the other.

A line is one JSON object; its ``type`` names the row of ``MESSAGES`` it belongs to and the other
members are that dataclass's fields, nested values as objects and tuples as arrays. The two
processes may be of different releases (a disk process outlives an upgrade of the control
process), so unknown members are skipped, missing ones take their defaults, and a message of an
unknown type decodes to None. Must never raise anything but WireError.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from enum import StrEnum
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from netboot.errors import WireError
from netboot.model import Admission, Counters, Knock, Portal, SessionLimits

#: Raised when a message changes so that an older process would misunderstand it.
PROTOCOL = 1

#: A line longer than this is not one of ours.
LINE_LIMIT = 1 << 20


class Kind(StrEnum):
    """What a disk process saw happen to one client."""

    LOGIN = "login"  #: a session reached its full-feature phase
    READING = "reading"  #: the first block of a session was read
    LOGOUT = "logout"  #: a session ended, politely or not
    ERROR = "error"  #: its disk could not be opened, or failed
    REFUSED = "refused"  #: an initiator did not prove that it is this client


@dataclass(frozen=True, slots=True)
class DiskEvent:
    """One thing that happened to one client's disk; ``at`` is seconds since the epoch."""

    mac: str
    kind: Kind
    at: float
    initiator: str = ""
    address: str = ""  #: the peer's address, text
    detail: str = ""  #: a short text for people
    isid: str = ""  #: of the session, hex


# From the disk process to the control process.


@dataclass(frozen=True, slots=True)
class Hello:
    """The first line of a disk process: who it is, so that it can be adopted or replaced."""

    pid: int
    protocol: int
    address: str  #: where it listens for iSCSI
    port: int
    release: str = ""
    sessions: int = 0
    portals: tuple[Portal, ...] = ()  #: all of them; the first is ``address`` and ``port``
    number: int = 0  #: which of the ``processes`` it is
    processes: int = 1

    @property
    def listening(self) -> tuple[Portal, ...]:
        """Where it listens; a process of an older release names one portal only."""
        return self.portals or (Portal(self.address, self.port),)

    def fits(self, number: int, processes: int, wanted: Sequence[Portal]) -> bool:
        """Whether this is the process that is wanted, and can be talked to."""
        same = (self.protocol, self.number, self.processes) == (PROTOCOL, number, processes)
        return same and self.listens_at(wanted)

    def listens_at(self, wanted: Sequence[Portal]) -> bool:
        """Whether these are its portals; port 0 is any port."""
        pairs = zip(wanted, self.listening, strict=False)
        same = all(replace(here, port=here.port or there.port) == there for here, there in pairs)
        return same and len(wanted) == len(self.listening)


@dataclass(frozen=True, slots=True)
class Asked:
    """An initiator is at the door; answer with Admitted and the same ``number``."""

    number: int
    knock: Knock


@dataclass(frozen=True, slots=True)
class Happened:
    """A DiskEvent."""

    event: DiskEvent


@dataclass(frozen=True, slots=True)
class Counted:
    """Counters of clients whose disks this process has opened."""

    counters: tuple[Counters, ...] = ()
    more: bool = False  #: this does not end an answer to Count


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The answer to Forget or Close: the sessions have ended and the disk is closed."""

    number: int


@dataclass(frozen=True, slots=True)
class Resized:
    """The answer to Resize: done, not ``open`` here, or why not in words."""

    number: int
    open: bool = True
    error: str = ""


@dataclass(frozen=True, slots=True)
class Logged:
    """A warning or an error of the disk process, for the control process's log."""

    level: int
    name: str
    text: str


# From one disk process to another; each is a datagram.


@dataclass(frozen=True, slots=True)
class Passed:
    """A connection that is yours, which comes along. It came in by ``portal``; behind the line
    is all that was heard of it, which was answered as far as it could be.

    With the same ``number`` it is the same one again, whose Taken has not come.
    """

    number: int
    portal: Portal


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to Passed: it is mine now. Until then a connection is whose it was."""

    number: int


@dataclass(frozen=True, slots=True)
class Needed:
    """Somebody has sessions: live on, although you have none."""


@dataclass(frozen=True, slots=True)
class Deaf:
    """I stop, and listen no more: if you stop too, so do you."""


# From the control process to the disk process.


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer to Asked."""

    number: int
    admission: Admission


@dataclass(frozen=True, slots=True)
class Forget:
    """End ``mac``'s sessions, close its disk, and (``memory``) forget who it was.

    Where it is not forgotten it may come back, and its operating system is asked to log out.
    """

    number: int
    mac: str
    memory: bool = True


@dataclass(frozen=True, slots=True)
class Limit:
    """How many sessions there may be from now on."""

    limits: SessionLimits


@dataclass(frozen=True, slots=True)
class Resize:
    """Let ``mac``'s disk whose overlay is at ``path`` grow to ``size`` bytes, if it is open."""

    number: int
    mac: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Count:
    """Send Counted now."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Flush everything, close, and end."""


Message: TypeAlias = (
    Hello
    | Asked
    | Happened
    | Counted
    | Forgotten
    | Resized
    | Logged
    | Passed
    | Taken
    | Needed
    | Deaf
    | Admitted
    | Forget
    | Resize
    | Limit
    | Count
    | Stop
)

#: Every message under the name it has on the wire.
MESSAGES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "hello": Hello,
        "asked": Asked,
        "happened": Happened,
        "counted": Counted,
        "forgotten": Forgotten,
        "resized": Resized,
        "logged": Logged,
        "passed": Passed,
        "taken": Taken,
        "needed": Needed,
        "deaf": Deaf,
        "admitted": Admitted,
        "forget": Forget,
        "resize": Resize,
        "limit": Limit,
        "count": Count,
        "stop": Stop,
    }
)
_NAMES: Mapping[type[Any], str] = MappingProxyType({cls: name for name, cls in MESSAGES.items()})


def encode(message: Message) -> bytes:
    """``message`` as one JSON line, newline included."""
    body = {"type": _NAMES[type(message)], **_members(message)}
    return json.dumps(body, separators=(",", ":"), default=_members).encode() + b"\n"


def decode(line: bytes | bytearray) -> Message | None:
    """The message in ``line``; None when a newer process sent a type we do not know.

    Raises WireError when it is not JSON or lacks a member that has no default.
    """
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a JSON line: {error}") from None
    if not isinstance(body, dict):
        raise WireError("a message is a JSON object")
    cls = MESSAGES.get(str(body.get("type")))
    if cls is None:
        return None
    message: Message = _value(cls, body, str(body.get("type")))
    return message


def _members(record: Any) -> dict[str, Any]:
    """The members of a record; its own records are JSON's to ask for (``asdict`` copies all it
    finds, and the counters of a thousand clients are a thousand records each second)."""
    return {name: getattr(record, name) for name in _names(type(record))}  # type: ignore[arg-type]


@cache
def _names(cls: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(hint: Any, value: Any, path: str) -> Any:
    """``value`` from JSON as the type that ``hint`` names."""
    if is_dataclass(hint) and isinstance(hint, type):
        return _record(hint, value, path)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise WireError(f"{path}: an array is expected")
        return tuple(_value(arguments[0], item, path) for item in value)
    if origin is not None:  # X | None is the only other shape in the table
        if value is None and NoneType in arguments:
            return None
        return _value(next(a for a in arguments if a is not NoneType), value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise WireError(f"{path}: the number is too large") from None
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            raise WireError(f"{path}: {value!r} is not known") from None
    if type(value) is not hint:
        raise WireError(f"{path}: {hint.__name__} is expected")
    return value


def _record(cls: type[Any], value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise WireError(f"{path}: an object is expected")
    hints = _hints(cls)  # type: ignore[arg-type]
    members: dict[str, Any] = {}
    for field in fields(cls):
        if field.name in value:
            name = f"{path}.{field.name}"
            members[field.name] = _value(hints[field.name], value[field.name], name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise WireError(f"{path}: {field.name} is missing")
    return cls(**members)

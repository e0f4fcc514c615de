"""What the HTTP server is given: a handful of callables, and the shapes they answer with.

The server knows neither the state nor the brain; ``app`` fills ``Views`` and keeps it. Every
callable is called in the event loop and must answer at once, from memory or SQLite. Nothing in
here does anything but turn values into what ``json`` understands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface
from pathlib import PurePath
from typing import TYPE_CHECKING
from uuid import UUID

from netboot.events import BootEvent, Phase
from netboot.model import Counters

if TYPE_CHECKING:
    from netboot.http.metrics import Figures


@dataclass(frozen=True, slots=True)
class StepView:
    """One phase of a boot: when (seconds since the epoch) and how long after the first packet."""

    phase: Phase
    at: float
    after: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OverlayView:
    """One client's overlay; ``allocated`` is the bytes it takes on our disk."""

    path: str
    mode: str
    generation: int
    allocated: int
    mac: str = ""
    image: str = ""
    version: int = 0
    trouble: str = ""  #: what last went wrong with it
    troubled: float | None = None  #: when; seconds since the epoch


@dataclass(frozen=True, slots=True)
class ImageView:
    """One version of a golden image, and which clients' overlays stand on it."""

    name: str
    version: int
    size: int
    digest: str
    created: float
    origin: str = ""
    current: bool = True
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientView:
    """One machine as people and programs want to see it."""

    mac: str
    name: str
    address: str | None = None
    profile: str | None = None
    image: str | None = None
    version: int | None = None
    phase: Phase | None = None
    timeline: Sequence[StepView] = ()
    counters: Counters | None = None
    overlay: OverlayView | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """``parts`` says of each part of the service, in words, how it is."""

    ok: bool
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Views:
    """All that the HTTP server wants of the rest of the program.

    ``script_for`` may raise ``ConfigError`` (the template is wrong): the machine gets a 500 with
    its text. To anybody but the machine itself the script says no secret. ``ready`` says that the
    guest with this MAC is up: whoever fills it publishes ``Phase.READY``. ``publish`` takes the
    events that the server itself sees: LOADER and SCRIPT.
    """

    clients: Callable[[], Sequence[ClientView]]
    images: Callable[[], Sequence[ImageView]]
    overlays: Callable[[], Sequence[OverlayView]]
    health: Callable[[], Health]
    mac_of: Callable[[str], str | None]  #: the client that holds this address (text), or None
    subscribe: Callable[[Callable[[BootEvent], None]], Callable[[], None]]
    publish: Callable[[BootEvent], None]
    #: Canonical MAC, and whether the machine itself is asking → iPXE script; None: unknown here.
    script_for: Callable[[str, bool], str | None]
    explain: Callable[[str], object]  #: canonical MAC → anything ``jsonable`` takes
    ready: Callable[[str], None]
    metrics: Callable[[], "Figures"]


def jsonable(value: object) -> object:
    """``value`` as dicts, lists, strings and numbers; phases by their label, enums by value.

    What a value hides from its ``repr``, a secret, stays hidden here.
    TypeError for anything that has no plain form: that is a bug of ours, not of the asker.
    """
    if isinstance(value, Phase):
        return value.label
    if isinstance(value, Enum):
        return jsonable(value.value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, IPv4Address | IPv4Interface | PurePath | UUID):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: jsonable(getattr(value, item.name)) for item in fields(value) if item.repr
        }
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((jsonable(item) for item in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [jsonable(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no plain form")


def event_dict(event: BootEvent) -> dict[str, object]:
    """The shape of one event in ``/api/v1/events``."""
    return {
        "mac": event.mac,
        "at": event.at,
        "phase": event.phase.label,
        "detail": event.detail,
        "fresh": event.fresh,
    }

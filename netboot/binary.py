"""Fixed binary layouts: declared like a drawing, run like ``struct``.

A record is a slotted dataclass whose annotations are the widths below; ``@record`` compiles
them to one big-endian ``struct.Struct``. It never allocates more than the record itself and
never reads past its size. Variable-length parts are the business of the ``wire`` module that
uses the record.

    @record
    class Header:
        opcode: U8
        length: U16

    header = unpack(Header, data)          # WireError when data is short
    data = pack(header)
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Annotated, Any, TypeAlias, TypeVar, dataclass_transform, get_type_hints

from netboot.errors import WireError

U8: TypeAlias = Annotated[int, "B"]
U16: TypeAlias = Annotated[int, "H"]
U32: TypeAlias = Annotated[int, "I"]
U64: TypeAlias = Annotated[int, "Q"]
Octets4: TypeAlias = Annotated[bytes, "4s"]
Octets6: TypeAlias = Annotated[bytes, "6s"]
Octets8: TypeAlias = Annotated[bytes, "8s"]
Octets16: TypeAlias = Annotated[bytes, "16s"]
Octets64: TypeAlias = Annotated[bytes, "64s"]
Octets128: TypeAlias = Annotated[bytes, "128s"]

T = TypeVar("T")
Data: TypeAlias = bytes | bytearray | memoryview
#: Takes bytes, and the offset of the record in them (0).
Reader: TypeAlias = Callable[..., tuple[Any, ...]]


@dataclass_transform(kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """Make ``cls`` a keyword-only slotted dataclass with a compiled layout in ``LAYOUT``."""
    made = dataclass(slots=True, kw_only=True)(cls)
    hints = get_type_hints(made, include_extras=True)
    codes = "".join(hints[field.name].__metadata__[0] for field in fields(made))  # type: ignore[arg-type]
    layout = struct.Struct(">" + codes)
    made.LAYOUT = layout  # type: ignore[attr-defined]
    made.READ = staticmethod(_reader(cls.__name__, layout))  # type: ignore[attr-defined]
    names = tuple(field.name for field in fields(made))  # type: ignore[arg-type]
    made.NAMES = names  # type: ignore[attr-defined]
    # dataclasses.astuple copies each value deeply, which took longer than all the rest.
    made.VALUES = staticmethod(_values(names))  # type: ignore[attr-defined]
    return made


def size(cls: type[Any]) -> int:
    """Bytes that one record of ``cls`` takes."""
    return int(cls.LAYOUT.size)


def unpack(cls: type[T], data: Data, offset: int = 0) -> T:
    """Read a record at ``offset``; ``WireError`` when fewer bytes are there than it needs."""
    names: tuple[str, ...] = cls.NAMES  # type: ignore[attr-defined]
    return cls(**dict(zip(names, reader(cls)(data, offset), strict=True)))


def reader(cls: type[Any]) -> Reader:
    """What reads a record as a tuple, in the order of its fields, with the same error: for who
    reads so many that a record would cost too much, and asks for it once."""
    read: Reader = cls.READ
    return read


def pack(value: Any) -> bytes:
    """The bytes of a record; ``struct.error`` when a number does not fit, which is our bug."""
    return packer(value)(*value.VALUES(value))


def packer(cls: Any) -> Callable[..., bytes]:
    """What packs the values of a record's fields, in their order: ``reader`` the other way."""
    layout: struct.Struct = cls.LAYOUT
    return layout.pack


def _reader(name: str, layout: struct.Struct) -> Reader:
    read = layout.unpack_from

    def checked(data: Data, offset: int = 0) -> tuple[Any, ...]:
        try:
            return read(data, offset)
        except struct.error:
            there = max(0, len(data) - offset)
            raise WireError(f"{name} needs {layout.size} bytes, {there} are there") from None

    return checked


def _values(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """A record's values in their order."""
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)

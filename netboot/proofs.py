"""Who proves what at an iSCSI login, as a settings file spells it: modes, digests, names, secrets.

Like ``values``: a function takes whatever TOML gave and answers with the value, or raises a
ValueError that says in words what is wrong; and it never repeats a secret in them.
"""

from typing import Annotated, TypeAlias

from pydantic import PlainValidator

from netboot.model import ChapDigest, ChapMode
from netboot.values import Allowed, one_of, text

#: Bytes. RFC 7143 section 9.2.1: 96 bits at least; EDK2 and Windows take at most 16.
SHORTEST_SECRET = 12
LONGEST_SECRET = 255
#: EDK2 keeps 126 bytes of a name.
_NAME_LIMIT = 126


def chap_mode(value: object) -> ChapMode:
    return one_of(ChapMode, value)


def chap_name(value: object) -> str:
    """A user name; it need not be an iSCSI name (RFC 7143 section 12.1.3)."""
    given = text(value)
    if not given.isascii() or " " in given:
        raise ValueError("holds spaces or letters that firmware cannot type")
    if len(given) > _NAME_LIMIT:
        raise ValueError(f"is longer than {_NAME_LIMIT} characters")
    return given


def secret(value: object) -> str:
    """A secret; RFC 7143 wants 96 random bits of one."""
    given = text(value)
    if not given.isascii() or " " in given:
        raise ValueError("holds spaces or letters that firmware cannot type")
    if len(given) < SHORTEST_SECRET:
        raise ValueError(f"has {len(given)} characters, and {SHORTEST_SECRET} are the least")
    if len(given) > LONGEST_SECRET:
        raise ValueError(f"is longer than {LONGEST_SECRET} characters")
    return given


def digests(value: object) -> tuple[ChapDigest, ...]:
    """The digests that may answer a challenge, each once."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("is not a list of digests")
    wrong = [item for item in value if item not in list(ChapDigest)]
    if wrong:
        raise ValueError(f"holds {wrong[0]!r}, which is none of them")
    return tuple(dict.fromkeys(ChapDigest(item) for item in value))


ChapModes: TypeAlias = Annotated[
    ChapMode, PlainValidator(chap_mode), Allowed("off, chap or mutual")
]
ChapName: TypeAlias = Annotated[
    str, PlainValidator(chap_name), Allowed("1 to 126 ASCII characters without spaces")
]
Secret: TypeAlias = Annotated[
    str,
    PlainValidator(secret),
    Allowed("12 to 255 ASCII characters without spaces; firmware and Windows: 16 at most", True),
]
Digests: TypeAlias = Annotated[
    tuple[ChapDigest, ...],
    PlainValidator(digests),
    Allowed("a list of MD5, SHA1, SHA256, SHA3-256"),
]

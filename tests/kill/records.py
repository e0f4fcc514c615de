"""The records of killtest: their text, their judge, and the order of the blows. Pure.

A record is 512 bytes and a function of its number alone: 14 digits, 61 times eight hex digits that
are a hash of the number, a CRC-32 of all that. ``writer.pl`` writes the same in the guest.
"""

import itertools
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

LENGTH = 512
SLOTS = 61
SLOT = 4096
#: The file of unsynced blocks: this many, of this many bytes.
LOOSE, LOOSE_BLOCK = 16, 65536


class Kind(StrEnum):
    """Who is killed."""

    DISK = "disk process"
    CONTROL = "control process"
    BOTH = "both"


class Moment(StrEnum):
    """When."""

    ANY = "at any time"
    FLUSH = "while the guest flushes"
    AGAIN = "while it comes back"  #: a machine connects and logs in again after about 3 s


@dataclass(frozen=True, slots=True)
class Blow:
    """``wait`` seconds until it falls; the control process stays away for ``away`` seconds."""

    kind: Kind
    moment: Moment
    wait: float
    away: float


def plan(seed: int, disk: int, control: int, both: int) -> list[Blow]:
    """So many of each, shuffled."""
    dice = random.Random(seed)
    kinds = [Kind.DISK] * disk + [Kind.CONTROL] * control + [Kind.BOTH] * both
    dice.shuffle(kinds)
    moments = {
        Moment.ANY: lambda: dice.uniform(0.2, 2.5),
        Moment.FLUSH: lambda: dice.uniform(0.0, 0.03),
        Moment.AGAIN: lambda: dice.uniform(0.0, 4.0),
    }
    blows: list[Blow] = []
    for kind in kinds:
        moment = dice.choice(list(moments)) if blows else Moment.ANY
        blows.append(Blow(kind, moment, moments[moment](), dice.uniform(0.0, 1.5)))
    return blows


def record(number: int) -> bytes:
    """The 512 bytes of a record."""
    body = b"%014d" % number + (b"%08x" % (number * 2654435761 & 0xFFFFFFFF)) * 61
    return b"%s %08x\n" % (body, zlib.crc32(body))


def loose(number: int) -> bytes:
    """A block that is written and never synced: ``yes "loose N"``, cut off."""
    line = b"loose %d\n" % number
    return (line * (LOOSE_BLOCK // len(line) + 1))[:LOOSE_BLOCK]


def judge(records: bytes, slots: bytes, acknowledged: int) -> list[str]:
    """What is wrong with the two files of the guest, each in a line.

    Of what was not acknowledged, all may be there, or nothing, or some.
    """
    wrong = [
        f"record {number} is wrong"
        for number in range(1, acknowledged + 1)
        if records[(number - 1) * LENGTH : number * LENGTH] != record(number)
    ]
    for number in range(max(1, acknowledged - SLOTS + 1), acknowledged + 1):
        begin = number % SLOTS * SLOT
        held = slots[begin : begin + SLOT]
        now = int(held[:14]) if held[:14].isdigit() else 0
        newer = now > acknowledged and now % SLOTS == number % SLOTS
        if not (now == number or newer) or held != record(now) * 8:
            wrong.append(f"the slot of record {number} is wrong")
    return wrong


def judge_loose(content: bytes, last: Mapping[int, int]) -> list[str]:
    """Each block that was written, and answered with GOOD, is there; ``last`` by slot."""
    return [
        f"unsynced block {slot} is not write {number}"
        for slot, number in last.items()
        if content[slot * LOOSE_BLOCK : (slot + 1) * LOOSE_BLOCK] != loose(number)
    ]


def pauses(
    acknowledged: Sequence[float], fallen: Sequence[tuple[float, Kind]]
) -> dict[Kind, list[float]]:
    """For each kind of blow, the longest time between two acknowledgments after each of them.

    A blow's are those that it fell into, and those that were over when the next one fell: an
    acknowledgment may have been on its way.
    """
    found: dict[Kind, list[float]] = {}
    gaps = list(itertools.pairwise(acknowledged))
    nexts = [at for at, _ in fallen[1:]] + [float("inf")]
    for (at, kind), until in zip(fallen, nexts, strict=True):
        mine = [b - a for a, b in gaps if b > at and (a <= at or b <= until)]
        found.setdefault(kind, []).append(max(mine, default=0.0))
    return found

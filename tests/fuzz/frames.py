"""An input of every fuzz target: frames, each with its length before it; and their mutation.

    2 bytes length | bytes | 2 bytes length | bytes | ...

A frame is one message (a PDU, a packet, a CDB with its data), so that a mutation can repeat,
drop or swap whole messages of a conversation as well as damage one. What a fuzzer makes of the
lengths is harmless: a frame that is cut short is just shorter.
"""

import random
from collections.abc import Callable, Sequence

#: No input has more frames, nor is one longer: a run must be bounded.
MOST_FRAMES = 24
LONGEST = 20000
ROOM = 32768  #: for a whole input: neighbours of neighbours only ever grow

#: Numbers at which code that counts goes wrong.
EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255, 256, 511, 512)
EDGES_WIDE = (0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
EDGES_LONG = (1 << 48, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)

Tweak = Callable[[bytearray, random.Random], None]


def split(data: bytes) -> list[bytes]:
    """The frames of an input."""
    frames = []
    at = 0
    while at + 2 <= len(data) and len(frames) < MOST_FRAMES:
        length = int.from_bytes(data[at : at + 2], "big")
        frames.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return frames


def join(frames: Sequence[bytes]) -> bytes:
    """The inverse of ``split``, for frames of up to 65535 bytes."""
    return b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames)


def havoc(frame: bytearray, rng: random.Random) -> None:
    """One damage that knows nothing of the format."""
    at = rng.randrange(len(frame) + 1)
    kind = rng.randrange(9)
    if kind == 0 and frame:
        frame[at % len(frame)] ^= 1 << rng.randrange(8)
    elif kind == 1 and frame:
        frame[at % len(frame)] = rng.choice((rng.randrange(256), 0, 255))
    elif kind == 2:  # a number of 1 to 8 bytes, as lengths and offsets are
        width = rng.choice((1, 2, 3, 4, 8))
        number = rng.choice((*EDGES, *EDGES_WIDE, *EDGES_LONG)) - rng.randrange(2)
        frame[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "big")
    elif kind == 3:  # a number that is there, a little more or less
        width = rng.choice((1, 2, 4))
        number = int.from_bytes(frame[at : at + width], "big") + rng.choice((-4, -1, 1, 4))
        frame[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "big")
    elif kind == 4:
        del frame[at : at + rng.choice((1, 2, 4, 16, 1 << 16))]
    elif kind == 5:
        frame[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
    elif kind == 6:  # a part of it once more, perhaps many times
        part = frame[at : at + rng.randrange(1, 64)]
        frame[at:at] = part * rng.choice((1, 1, 2, 8, 200))
    elif kind == 7 and frame:
        other = rng.randrange(len(frame))
        frame[at : at + 4] = frame[other : other + 4]
    elif kind == 8:
        frame[at:at] = bytes([rng.choice((0, 0x30, 0x39, 0x3D, 0x41, 0xFF))]) * rng.choice(
            (1, 8, 64, 255, 5000)
        )
    del frame[LONGEST:]


def mutate(data: bytes, rng: random.Random, seeds: Sequence[bytes], tweak: Tweak) -> bytes:
    """A neighbour of ``data``; ``tweak`` damages one frame as one who knows the format."""
    frames = split(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        kind = rng.randrange(12)
        if not frames or kind == 0:
            other = split(rng.choice(seeds))
            frames.insert(rng.randrange(len(frames) + 1), rng.choice(other) if other else b"")
        elif kind == 1:
            frames.insert(rng.randrange(len(frames) + 1), rng.choice(frames))
        elif kind == 2 and len(frames) > 1:
            del frames[rng.randrange(len(frames))]
        elif kind == 3:
            a, b = rng.randrange(len(frames)), rng.randrange(len(frames))
            frames[a], frames[b] = frames[b], frames[a]
        else:
            at = rng.randrange(len(frames))
            frame = bytearray(frames[at])
            (tweak if kind < 9 else havoc)(frame, rng)
            frames[at] = bytes(frame[:LONGEST])
    return join(frames[:MOST_FRAMES])[:ROOM]

"""What a power cut may leave of files: the model that the crash tests judge by.

Nothing that was not synced is certain. Of a file's sectors of 512 bytes each may be as it was
at the last sync, or as any write since then left it, each for itself: so writes are lost, torn
and put out of order. So are sizes, and so are the names in the folder, until that is synced; a
synced file whose name was not is lost with its name.
"""

import random
from collections.abc import Callable

from tests.crash.expected import SECTOR, Atomic, Expected


class File:
    """What is on the platter of one file, and what is only on its way there."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable = bytearray(content)
        self.versions: dict[int, list[bytes]] = {}  #: sector → what it was since the sync
        self.sizes = [len(content)]  #: since the sync; the last one is now

    def now(self, sector: int) -> bytes:
        at = sector * SECTOR
        known = self.versions.get(sector)
        return known[-1] if known else bytes(self.durable[at : at + SECTOR]).ljust(SECTOR, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        at, end = offset, offset + len(data)
        if end > self.sizes[-1]:
            self.sizes.append(end)
        while at < end:
            sector, skip = divmod(at, SECTOR)
            part = data[at - offset : at - offset + SECTOR - skip]
            old = self.now(sector)
            new = old[:skip] + part + old[skip + len(part) :]
            self.versions.setdefault(sector, [old]).append(new)
            at += len(part)

    def truncate(self, size: int) -> None:
        if size < self.sizes[-1]:
            self.write(size, bytes(self.sizes[-1] - size))
        self.sizes.append(size)

    def sync(self) -> None:
        self.durable = self._made({at: each[-1] for at, each in self.versions.items()}, -1)
        self.versions.clear()
        self.sizes = [len(self.durable)]

    def after_power_cut(self, dice: random.Random) -> bytes:
        lucky = dice.random()
        arrived = {
            sector: dice.choice(versions)
            for sector, versions in self.versions.items()
            if dice.random() < lucky
        }
        return bytes(self._made(arrived, dice.randrange(len(self.sizes))))

    def _made(self, sectors: dict[int, bytes], size: int) -> bytearray:
        content = bytearray(self.durable)
        length = self.sizes[size]
        content += bytes(max(0, length - len(content)))
        for sector, data in sectors.items():
            at = sector * SECTOR
            if at < len(content):
                content[at : at + SECTOR] = data[: len(content) - at]
        del content[length:]
        return content


class Folder:
    """Names of files; ``None`` stands for no file of that name."""

    def __init__(self) -> None:
        self.names: dict[str, list[File | None]] = {}

    def find(self, name: str) -> File | None:
        return self.names.get(name, [None])[-1]

    def put(self, name: str, file: File | None) -> None:
        self.names.setdefault(name, [None]).append(file)

    def sync(self) -> None:
        self.names = {name: versions[-1:] for name, versions in self.names.items()}

    def after_power_cut(self, dice: random.Random) -> dict[str, bytes]:
        """The files that are there, each looked at in its own luck."""
        chosen = {name: dice.choice(versions) for name, versions in self.names.items()}
        return {name: file.after_power_cut(dice) for name, file in chosen.items() if file}


#: One thing that happened, to be done to a Replay of it.
Event = Callable[["Replay"], None]


class Replay:
    """Does again what was recorded, on a platter of its own."""

    def __init__(self, content: bytes) -> None:
        self.folder = Folder()
        self.files: dict[int, File] = {}
        self.expected = Expected(content)
        self.marks: dict[int, object] = {}  # of the flushes that are under way
        self.atomics: dict[int, Atomic] = {}
        self.generation = 0
        self.room = 0  #: what a fresh disk is to have
        self.golden = ""  #: name of the golden image, which may be moved

    def after_power_cut(self, dice: random.Random) -> dict[str, bytes]:
        return self.folder.after_power_cut(dice)

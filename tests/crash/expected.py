"""What a disk may be after a power cut: sector by sector, and what must be whole."""

from dataclasses import dataclass

SECTOR = 512
ZEROS = bytes(SECTOR)


@dataclass(eq=False, slots=True)
class Atomic:
    """A write that must not be there in part."""

    first: int  #: sector
    new: list[bytes]
    old: list[tuple[bytes, ...]]  #: what each sector might have been before
    written: bool = False  #: whether the disk has it, so that a flush makes it durable

    def is_torn(self, found: list[bytes], allowed: list[list[bytes]]) -> bool:
        """Whether one sector is certainly new and another certainly old; what may have been
        written over it later says nothing."""
        news = olds = False
        for number, (new, old) in enumerate(zip(self.new, self.old, strict=True), self.first):
            news |= found[number] == new
            olds |= found[number] in old and found[number] not in after(new, allowed[number])
        return news and olds


@dataclass(slots=True)
class Mark:
    """What there was when a flush began."""

    versions: list[int]
    atomics: list[Atomic]


class Expected:
    """What each sector of the disk may be after a power cut; the last is what it is now."""

    def __init__(self, golden: bytes) -> None:
        self._golden = cut(golden)
        self.allowed = [[sector] for sector in self._golden]
        self.sizes = {len(self.allowed)}  #: sectors that the disk may have
        self._fresh: int | None = None  #: being reset: all may be fresh too, of so many sectors
        self._atomics: list[Atomic] = []

    def begin_change(self, offset: int, data: bytes) -> None:
        for number, sector in enumerate(cut(data), offset // SECTOR):
            self.allowed[number].append(sector)

    def begin_atomic(self, offset: int, data: bytes) -> Atomic:
        """It may be there from now on, but never in part."""
        first, new = offset // SECTOR, cut(data)
        old = [tuple(versions) for versions in self.allowed[first : first + len(new)]]
        self._atomics.append(Atomic(first, new, old))
        self.begin_change(offset, data)
        return self._atomics[-1]

    def give_up(self, atomic: Atomic) -> None:
        """It was never begun."""
        self._atomics.remove(atomic)
        for number, new in enumerate(atomic.new, atomic.first):
            self.allowed[number].remove(new)

    def begin_flush(self, busy: range = range(0)) -> Mark:
        """What is there when a flush begins; of sectors just being written, all but that."""
        versions = [
            max(1, len(versions) - (sector in busy)) for sector, versions in enumerate(self.allowed)
        ]
        return Mark(versions, [atomic for atomic in self._atomics if atomic.written])

    def end_flush(self, mark: Mark) -> None:
        """What was there when the flush began is the oldest that may come back."""
        for versions, oldest in zip(self.allowed, mark.versions, strict=False):
            del versions[: oldest - 1]
        self._atomics = [atomic for atomic in self._atomics if atomic not in mark.atomics]

    def begin_resize(self, size: int) -> None:
        """It grows: what is new reads as zeros."""
        self.sizes.add(size // SECTOR)
        self.allowed += [[ZEROS] for _ in range(size // SECTOR - len(self.allowed))]

    def end_resize(self) -> None:
        self.sizes = {len(self.allowed)}

    def begin_reset(self, size: int) -> None:
        """From now on it may be the old one or a fresh one of ``size``, as a whole."""
        self._fresh = size // SECTOR

    def end_reset(self, size: int) -> None:
        self.allowed = [[sector] for sector in self._afresh(size // SECTOR)]
        self.sizes = {len(self.allowed)}
        self._fresh = None
        self._atomics.clear()

    def _afresh(self, count: int) -> list[bytes]:
        return self._golden + [ZEROS] * (count - len(self._golden))

    def now(self) -> bytes:
        return b"".join(versions[-1] for versions in self.allowed)

    def wrong(self, content: bytes) -> str:
        """What is neither what was flushed nor what came later; nothing when all is well."""
        found = cut(content)
        if self._fresh == len(found) and found == self._afresh(self._fresh):
            return ""
        if len(found) not in self.sizes:
            return f"{len(found)} sectors, not {sorted(self.sizes)}"
        wrong = [
            number
            for number, (sector, versions) in enumerate(zip(found, self.allowed, strict=False))
            if sector not in versions
        ]
        if wrong:
            return f"{len(wrong)} sectors, the first {wrong[0]}, are neither old nor new"
        torn = [atomic.first for atomic in self._atomics if atomic.is_torn(found, self.allowed)]
        return f"the atomic write at sector {torn[0]} is there in part" if torn else ""


def after(version: bytes, versions: list[bytes]) -> list[bytes]:
    """That one, and what came later; all, when it is too old to come back."""
    if version not in versions:
        return versions
    return versions[len(versions) - 1 - versions[::-1].index(version) :]


def cut(content: bytes) -> list[bytes]:
    """By sectors."""
    return [content[at : at + SECTOR] for at in range(0, len(content), SECTOR)]

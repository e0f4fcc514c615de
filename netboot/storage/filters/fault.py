"""Makes a disk fail as told: which verb, where, of what kind, how often.

    disk = Faulty(disk, [Rule("read", Fault.MEDIUM, range(4096, 8192), times=2)])

The first rule that fits a call raises its DiskError instead of passing the call on. A failed
flush makes the disk answer nothing any more, as a real one must.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netboot.storage.disk import Buffer, Disk, DiskError, Fault
from netboot.storage.filters import Filter


@dataclass(slots=True)
class Rule:
    """One kind of failure."""

    verb: str  #: read, write, zero, unmap or flush
    fault: Fault
    where: range | None = None  #: bytes of the disk; None: anywhere
    after: int = 0  #: how many calls that fit go well first
    times: int | None = None  #: how many then fail; None: all

    def strikes(self, verb: str, offset: int, length: int) -> bool:
        """Whether this call fails; counts it."""
        if verb != self.verb:
            return False
        if self.where is not None:
            first, end = max(offset, self.where.start), min(offset + length, self.where.stop)
            if first >= end:
                return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None:
            if self.times <= 0:
                return False
            self.times -= 1
        return True


class Faulty(Filter):
    """A disk with ``rules``, which may be changed while it is used."""

    def __init__(self, inner: Disk, rules: Iterable[Rule] = ()) -> None:
        super().__init__(inner)
        self.rules = list(rules)
        self._failed = False

    def _check(self, verb: str, offset: int, length: int) -> None:
        if self._failed:
            raise DiskError(Fault.FAILED, "an earlier flush failed", offset)
        for rule in self.rules:
            if rule.strikes(verb, offset, length):
                self._failed = verb == "flush"
                at = max(offset, rule.where.start) if rule.where is not None else offset
                raise DiskError(rule.fault, f"{verb} at {at}: failed as told", at)

    def read(self, offset: int, length: int) -> Sequence[Buffer]:
        self._check("read", offset, length)
        return self.inner.read(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        self._check("write", offset, len(data))
        self.inner.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._check("zero", offset, length)
        self.inner.zero(offset, length)

    def unmap(self, offset: int, length: int) -> None:
        self._check("unmap", offset, length)
        self.inner.unmap(offset, length)

    def flush(self) -> None:
        self._check("flush", 0, 0)
        self.inner.flush()

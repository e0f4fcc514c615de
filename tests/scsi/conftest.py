"""A target with one unit and two initiators, and CDBs written as hex."""

from collections.abc import Callable

import pytest

from netboot.scsi.action import Action, Amend, Check, Collect, Keep, Reply
from netboot.scsi.sense import Sense
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Nexus, Unit

NAME = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
SIZE = 64 << 20


class Bench:
    """``run`` sends a CDB; ``nexus`` and ``other`` have had their 29/00."""

    def __init__(self, **settings: object) -> None:
        settings = {"size": SIZE, "serial": "52540012345600", "target_name": NAME, **settings}
        self.kept: list[bytes] = []
        self.can_keep = True  #: whether what is to be kept can be written
        self.unit = Unit(0, **settings)  # type: ignore[arg-type]
        self.units = LogicalUnits([self.unit])
        self.nexus = self.join("iqn.1994-05.com.example:one", b"\x40\0\1\x37\0\0")
        self.other = self.join("iqn.1994-05.com.example:two", b"\x40\0\1\x37\0\1")

    def join(self, initiator: str, isid: bytes) -> Nexus:
        """A further session, its first unit attention taken."""
        nexus = self.units.attach(initiator, isid)
        assert isinstance(self.run("00 00000000 00", nexus=nexus), Check)
        return nexus

    def run(
        self,
        cdb: str | bytes,
        *,
        data: bytes | None = None,
        edtl: int | None = None,
        nexus: Nexus | None = None,
        lun: int = 0,
    ) -> Action:
        """The Action of a CDB; with ``data`` what follows after it was collected."""
        raw = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
        length = len(data or b"") if edtl is None else edtl
        action = self.units.execute(nexus or self.nexus, lun, raw.ljust(16, b"\0"), length)
        if data is not None and isinstance(action, Collect):
            action = action.then(data[: action.length])
        return self.settle(action)

    def settle(self, action: Action) -> Action:
        """What follows when it is its turn, and what is to be kept was put down in ``kept``."""
        while isinstance(action, Amend | Keep):
            if isinstance(action, Amend):
                action = action.change()
                continue
            if self.can_keep:
                self.kept.append(action.content)
            action = action.then(self.can_keep)
        return action

    def data(self, cdb: str | bytes, **more: object) -> bytes:
        """The Data-In of a command that must succeed."""
        action = self.run(cdb, **more)  # type: ignore[arg-type]
        assert isinstance(action, Reply), action
        assert action.status == 0
        return action.data

    def sense(self, cdb: str | bytes, **more: object) -> Sense:
        """The sense of a command that must be refused."""
        action = self.run(cdb, **more)  # type: ignore[arg-type]
        assert isinstance(action, Check), action
        return action.sense

    def asc(self, cdb: str | bytes, **more: object) -> int:
        """Additional sense code and qualifier of a command that must be refused."""
        return self.sense(cdb, **more).asc

    def field(self, cdb: str | bytes, **more: object) -> tuple[int | None, int | None]:
        """Byte and bit that INVALID FIELD IN CDB points at."""
        sense = self.sense(cdb, **more)
        assert (sense.key, sense.asc, sense.in_data) == (5, 0x2400, False)
        return sense.field, sense.bit

    def parameter(self, cdb: str | bytes, **more: object) -> tuple[int | None, int | None]:
        """Byte and bit that INVALID FIELD IN PARAMETER LIST points at."""
        sense = self.sense(cdb, **more)
        assert (sense.key, sense.asc, sense.in_data) == (5, 0x2600, True)
        return sense.field, sense.bit

    def status(self, cdb: str | bytes, **more: object) -> int:
        """The status of a command that is answered at once."""
        action = self.run(cdb, **more)  # type: ignore[arg-type]
        assert isinstance(action, Reply), action
        return int(action.status)


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    """Make a bench whose unit has other settings."""
    return Bench


@pytest.fixture
def bench() -> Bench:
    """64 MiB, thin, writable, 512-byte blocks on 4 KiB physical ones."""
    return Bench()

"""Which DISCOVER begins a boot.

An ephemeral disk is thrown away at the beginning of each boot, so a beginning must be seen once
and never invented: not by a retransmission, not by the second program of a chain (a BIOS ROM
that fetches iPXE asks twice), and never by an operating system that merely lost its link.
"""

from collections import OrderedDict
from dataclasses import dataclass

from netboot.model import Stage

#: From the firmware's DISCOVER to that of the iPXE it fetched: slow TFTP and a waiting menu.
CHAIN_WINDOW = 600.0
#: A retransmission carries the xid of its first; firmware gives up within about a minute.
REPEAT_WINDOW = 120.0
_REMEMBERED = 65536


@dataclass(slots=True)
class _Boot:
    stage: Stage  #: of the DISCOVER that came last
    xid: int
    at: float
    by_firmware: bool  #: the boot began with a ROM that is not iPXE, and no OS has spoken since


class Boots:
    """Remembers the last DISCOVER of each machine, the 65536 latest."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, _Boot] = OrderedDict()

    def begins(self, mac: str, stage: Stage, xid: int, now: float) -> bool:
        """True when this DISCOVER is the first of a new boot."""
        last = self._last.get(mac)
        if stage is Stage.OS:
            self.running(mac)
            return False
        repeat = (
            last is not None
            and last.stage is stage
            and last.xid == xid
            and now - last.at < REPEAT_WINDOW
        )
        chained = (
            stage is Stage.IPXE
            and last is not None
            and last.by_firmware
            and now - last.at < CHAIN_WINDOW
        )
        by_firmware = stage is Stage.FIRMWARE or chained or (repeat and last.by_firmware)  # type: ignore[union-attr]
        self._last[mac] = _Boot(stage, xid, now, by_firmware)
        self._last.move_to_end(mac)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return not (repeat or chained)

    def running(self, mac: str) -> None:
        """The machine's operating system speaks: whatever firmware comes next begins anew."""
        self._last.pop(mac, None)

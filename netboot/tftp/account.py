"""What is counted and told of downloads, apart from how they are done: no sockets, no packets."""

import logging
from dataclasses import dataclass
from typing import Literal

from netboot.tftp.engine import Outcome, Transfer
from netboot.tftp.wire import printable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TftpEvent:
    """Something that happened to one download.

    ``start``: data has begun to flow; ``done`` and ``failed``: it ended; ``missing``: there is
    no such file, or it cannot be opened; ``probe``: the client asked for the size only.
    ``bytes`` were acknowledged.
    """

    address: str  #: of the client
    name: str  #: as it was asked for, made printable
    kind: Literal["start", "done", "failed", "missing", "probe"]
    bytes: int = 0
    detail: str = ""


@dataclass(slots=True)
class TftpCounters:
    """What has happened since the start; ``active`` is now."""

    requests: int = 0
    active: int = 0
    done: int = 0
    failed: int = 0
    missing: int = 0
    probes: int = 0
    refused: int = 0  #: writes, unknown modes, packets of no transfer
    busy: int = 0  #: requests left unanswered because too many transfers were running
    garbage: int = 0  #: datagrams that meant nothing
    resent: int = 0  #: packets sent again
    bytes: int = 0  #: acknowledged by clients

    def ended(self, transfer: Transfer, host: str, name: str) -> TftpEvent:
        """Count a transfer that has ended; what is to be told of it."""
        self.active -= 1
        self.resent += transfer.resent
        self.garbage += transfer.ignored
        self.bytes += transfer.delivered
        detail, size = printable(transfer.detail), transfer.delivered
        match transfer.outcome:
            case Outcome.DONE:
                self.done += 1
                log.info("TFTP: %s has fetched %s, %d bytes", host, name, size)
                return TftpEvent(host, name, "done", size, detail)
            case Outcome.PROBE:
                self.probes += 1
                log.debug("TFTP: %s only probed %s", host, name)
                return TftpEvent(host, name, "probe", size, detail)
        self.failed += 1
        return TftpEvent(host, name, "failed", size, detail)

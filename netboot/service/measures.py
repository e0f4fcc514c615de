"""The figures behind ``/metrics``, put together anew for each scrape from all parts.

Nothing is counted here and nothing remembered; what a part counts it counts where it happens.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from netboot import __version__
from netboot.dhcp.server import DhcpServer
from netboot.disks.supervisor import Supervisor
from netboot.dns.server import DnsServer
from netboot.http.metrics import EXPIRED, Figures
from netboot.http.server import HttpServer
from netboot.http.views import Health
from netboot.model import DiskProcess, Lease, LeaseState
from netboot.service.overview import Overview
from netboot.service.warming import Warmer
from netboot.tftp.server import TftpServer

T = TypeVar("T")


def in_words(processes: Sequence[DiskProcess]) -> str:
    """How the disk processes are, as /healthz says it."""
    away = [str(each.number) for each in processes if each.pid is None]
    if len(processes) == 1:
        return "the process is away" if away else f"process {processes[0].pid}"
    if away:
        return f"of {len(processes)} processes, {' and '.join(away)} (counted from 0) away"
    return f"processes {', '.join(str(each.pid) for each in processes)}"


@dataclass(frozen=True, slots=True)
class Measures:
    """``parts`` are those that run now; ``refused`` counts logins by their status."""

    state: Path
    clock: Callable[[], float]
    started: float
    overview: Overview
    health: Callable[[], Health]
    leases: Callable[[], Iterable[Lease]]
    disks: Supervisor
    refused: Mapping[int, int]
    parts: Sequence[object]

    def figures(self) -> Figures:
        """Everything, now."""
        http, warmer = self._part(HttpServer), self._part(Warmer)
        tftp, dns, dhcp = self._part(TftpServer), self._part(DnsServer), self._part(DhcpServer)
        return Figures(
            release=__version__,
            started=self.started,
            well=self.health().ok,
            named=self.overview.site().hosts,
            clients=self.overview.clients(),
            images=self.overview.images(),
            overlays=self.overview.overlays(),
            leases=self._leases(),
            disks=sorted(self.disks.counters().values(), key=lambda row: row.mac),
            processes=self.disks.processes,
            refused=dict(self.refused),
            prefetched=warmer.fetched if warmer else 0,
            room=self._room(),
            dhcp=dhcp.counters if dhcp else None,
            tftp=asdict(tftp.counters) if tftp else None,
            dns=asdict(dns.counters) if dns else None,
            http=dict(http.requests) if http else None,
            no_http=http.garbage if http else 0,
        )

    def _part(self, kind: type[T]) -> T | None:
        return next((part for part in self.parts if isinstance(part, kind)), None)

    def _leases(self) -> Mapping[str, int]:
        """By state; what was declined is over when it may be given again."""
        now = self.clock()
        held = (LeaseState.BOUND, LeaseState.OFFERED, LeaseState.DECLINED)
        return Counter(
            EXPIRED if lease.state in held and lease.expires <= now else str(lease.state)
            for lease in self.leases()
        )

    def _room(self) -> tuple[int, int] | None:
        try:
            usage = shutil.disk_usage(self.state)
        except OSError:
            return None
        return usage.free, usage.total

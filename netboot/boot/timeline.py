"""Events folded into one timeline per client: what happened in this boot, in order, and when.

A timeline never goes back within one boot: of each phase it keeps the first event, and a phase
below the one already reached is old news. It holds nothing but the running boot; history is the
state's business. No clock: every event brings its time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from netboot.events import BootEvent, Phase

#: Seconds without any event after which a fresh packet is a new boot wherever the old one got to.
#: One boot sends several: a ROM repeats its DISCOVER for a minute (4, 8, 16, 32 s; PXE 2.1
#: section 2.2), and iPXE begins with its own after it was loaded.
QUIET = 60.0

#: What to look at when a machine goes no further than a phase.
HINTS: Mapping[Phase, str] = {
    Phase.SEEN: "it was seen, and nothing was offered: is it in [[client]] or allowed by "
    "[unknown], is an address free in the pool?",
    Phase.OFFERED: "it was offered a boot program and did not fetch it: does another DHCP server "
    "answer, is TFTP (69/udp) or HTTP blocked, is the loader there? Offered a disk: was its login "
    "refused (see the log)?",
    Phase.LOADER: "it fetched its boot program, which did not come back: does that program know "
    "its network card, does Secure Boot refuse it?",
    Phase.SCRIPT: "it fetched its script and did not log in: see the machine's screen; is iSCSI "
    "(3260/tcp) blocked, was its login refused (see the log)?",
    Phase.LOGIN: "it logged in and read nothing: see the log of its disk",
    Phase.READING: "it reads, and no operating system has reported: its boot loader, kernel or "
    "initramfs stands still; see its serial line",
    Phase.OS: "its operating system runs, and has not said that it is up: does the image call "
    "/api/v1/ready?",
}


@dataclass(frozen=True, slots=True)
class Step:
    """The first event of a phase; ``after``: seconds since the first packet of this boot."""

    phase: Phase
    at: float
    after: float
    detail: str = ""


@dataclass(slots=True)
class Timeline:
    """The running boot of one client."""

    mac: str
    steps: list[Step] = field(default_factory=list)
    last: float = 0.0  #: when anything was heard of it last
    boots: int = 0  #: how many boots we saw begin

    @property
    def phase(self) -> Phase | None:
        """The furthest phase of this boot."""
        return self.steps[-1].phase if self.steps else None

    @property
    def began(self) -> float | None:
        """When the first packet of this boot came."""
        return self.steps[0].at if self.steps else None

    def add(self, event: BootEvent) -> bool:
        """Fold one event in; whether it was news (a new boot, or a further phase)."""
        begins = not self.steps or (event.fresh and self._over(event))
        self.last = max(self.last, event.at)
        if begins:
            self.steps.clear()
            self.boots += 1
        elif event.phase <= self.steps[-1].phase:
            return False
        after = max(0.0, event.at - self.steps[0].at) if self.steps else 0.0
        self.steps.append(Step(event.phase, event.at, after, event.detail))
        return True

    def _over(self, event: BootEvent) -> bool:
        """Whether a fresh packet now is a new boot: the old one had its disk, or is long silent."""
        return self.steps[-1].phase >= Phase.LOGIN or event.at - self.last > QUIET

    def stuck(self, now: float, patience: float = 120.0) -> str | None:
        """The hint for where it stands when nothing was heard for ``patience`` seconds."""
        phase = self.phase
        if phase is None or now - self.last < patience:
            return None
        return HINTS.get(phase)


class Timelines:
    """All clients' timelines; subscribe ``add`` to the bus.

    At most ``limit`` of them: anybody can invent MACs, and the longest silent one goes first.
    """

    def __init__(self, events: Iterable[BootEvent] = (), limit: int = 20_000) -> None:
        self._by_mac: dict[str, Timeline] = {}
        self._limit = limit
        for event in events:
            self.add(event)

    def add(self, event: BootEvent) -> None:
        """Fold one event into its client's timeline."""
        timeline = self._by_mac.pop(event.mac, None) or Timeline(event.mac)
        timeline.add(event)
        self._by_mac[event.mac] = timeline  # at the end: the dict is in the order of silence
        if len(self._by_mac) > self._limit:
            del self._by_mac[next(iter(self._by_mac))]

    def of(self, mac: str) -> Timeline:
        """The timeline of a client, empty when it was never seen."""
        return self._by_mac.get(mac) or Timeline(mac)

    def forget(self, mac: str) -> None:
        """Drop a client's timeline; it need not exist."""
        self._by_mac.pop(mac, None)

    def macs(self) -> list[str]:
        """Every client with a timeline, the longest silent first."""
        return list(self._by_mac)

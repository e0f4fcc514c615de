"""What the rounds of `make bench-net` come to: medians, ratios, bars, a table and a page. Pure.

A ratio always says how many times better we are: our throughput over theirs, or their time over
ours. It is taken round by round, because both sides of one round met the same machine, and the
median of the rounds counts. CPU is ours over theirs: less is better.
"""

import bisect
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

OURS = "netboot"
#: Exchanges that may be lost at a rate that still counts as served.
LOST = 0.01


@dataclass(frozen=True, slots=True)
class Sample:
    """One side in one round: the figure, and seconds of CPU that one transaction took it."""

    value: float
    cpu: float


def middle(samples: Sequence[Sample]) -> Sample:
    """What several fetches of one side in one round come to: the median of each of the two."""
    return Sample(
        statistics.median(sample.value for sample in samples),
        statistics.median(sample.cpu for sample in samples),
    )


@dataclass(slots=True)
class Workload:
    """One row's measurements; ``bars`` by rival, who has none is only shown."""

    section: str
    title: str
    unit: str
    bars: Mapping[str, float]
    faster: bool = True  #: more is better; else the figure is a time
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, side: str, sample: Sample) -> None:
        """One round more."""
        self.samples.setdefault(side, []).append(sample)

    def median(self, side: str) -> float:
        """The side's middle figure."""
        return statistics.median(sample.value for sample in self.samples[side])

    def cpu(self, side: str) -> float:
        """The side's middle CPU seconds a transaction."""
        return statistics.median(sample.cpu for sample in self.samples[side])

    def ratio(self, rival: str) -> float:
        """How many times better than ``rival`` we are, in the middle of the rounds."""
        pairs = zip(self.samples[OURS], self.samples[rival], strict=True)
        values = [(ours.value, theirs.value) for ours, theirs in pairs]
        if not self.faster:
            values = [(theirs, ours) for ours, theirs in values]
        return statistics.median(over / under if under else 0.0 for over, under in values)

    def rivals(self) -> list[str]:
        """In the order in which they were measured."""
        return [side for side in self.samples if side != OURS]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    section: str
    title: str
    unit: str
    rival: str
    ours: float
    theirs: float
    ratio: float
    bar: float | None
    cpu_ours: float  #: microseconds
    cpu_theirs: float

    @property
    def held(self) -> bool:
        """Whether the bar is reached; where there is none, it is."""
        return self.bar is None or self.ratio >= self.bar

    @property
    def verdict(self) -> str:
        """As the table says it."""
        return "" if self.bar is None else "holds" if self.held else "MISSED"


def rows(workloads: Sequence[Workload]) -> list[Row]:
    """A line for each workload and rival."""
    return [
        Row(
            work.section,
            work.title,
            work.unit,
            rival,
            work.median(OURS),
            work.median(rival),
            work.ratio(rival),
            work.bars.get(rival),
            1e6 * work.cpu(OURS),
            1e6 * work.cpu(rival),
        )
        for work in workloads
        for rival in work.rivals()
    ]


def table(lines: Sequence[Row]) -> str:
    """For a terminal."""
    text = [
        f"{'':42}{'rival':>10}{'theirs':>10}{'netboot':>10} {'':8}{'ratio':>7}{'bar':>6}"
        f"{'':9}{'CPU: theirs':>14}{'ours':>12}"
    ]
    for row in lines:
        bar = "" if row.bar is None else f"{row.bar:.1f}"
        text.append(
            f"{row.section + ' ' + row.title:42}{row.rival:>10}{_figure(row.theirs):>10}"
            f"{_figure(row.ours):>10} {row.unit:8}{row.ratio:7.2f}{bar:>6} {row.verdict:8}"
            f"{_cpu(row.cpu_theirs):>14}{_cpu(row.cpu_ours):>12}"
        )
    return "\n".join(text)


def page(lines: Sequence[Row], machine: str, rounds: int) -> str:
    """``docs/network-performance.md``."""
    parts = [
        "# Network services: performance\n",
        "Written by `make bench-net`; do not edit. Both sides of a row ran in turn on one machine,"
        " in network\nnamespaces; a figure is the median of the rounds, a ratio the median of the"
        " rounds' ratios, and always says\nhow many times better we are. Where a fetch takes less"
        " than a second, a round is the median of several, in\nalternating turns. CPU is what the"
        " server's processes take for one transaction: an exchange, or\na file;"
        " tftpd-hpa's is spent in a process for each transfer, which is gone when it could be"
        " asked.\n",
        f"{machine}; {rounds} rounds.\n",
        "DHCP: `perfdhcp` of Kea with 1,000 clients that ask as UEFI firmware does, through a"
        " relay. Leases are\npersisted: by us in SQLite, on disk before the ACK leaves; by dnsmasq"
        " in its lease file, which it\nsyncs likewise; by Kea in its memfile, which it does not"
        " sync. Nobody probes the address first.\nExchanges a second: the highest rate at which at"
        " most 1 % is lost. The p99 is from DISCOVER to ACK, over all asks of a round, which the"
        " servers are given\nin turn.\n",
        "TFTP: 300 clients at once are one process in C that takes less for a block than any of the"
        " servers, and says a\nrequest again after a second; tftpd-hpa fetches once a round. One"
        " curl with 300 transfers is at the end of its\ncore with each server, 5 µs a block, and"
        " measures itself: it is shown, and has no bar (`tests/bench/net_clients.py`).\n",
        "| service | workload | rival | theirs | netboot | unit | ratio | bar | | CPU theirs |"
        " CPU netboot |\n|---|---|---|---:|---:|---|---:|---:|---|---:|---:|",
    ]
    for row in lines:
        bar = "" if row.bar is None else f"{row.bar:.1f}"
        parts.append(
            f"| {row.section} | {row.title} | {row.rival} | {_figure(row.theirs)}"
            f" | {_figure(row.ours)} | {row.unit} | {row.ratio:.2f} | {bar} | {row.verdict}"
            f" | {_cpu(row.cpu_theirs)} | {_cpu(row.cpu_ours)} |"
        )
    return "\n".join(parts) + "\n"


def _cpu(microseconds: float) -> str:
    return f"{microseconds:.0f} µs" if microseconds else "–"


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# perfdhcp


@dataclass(frozen=True, slots=True)
class Exchanges:
    """What perfdhcp saw: exchanges begun and completed, and how long each took, in seconds."""

    begun: int
    completed: int
    seconds: float  #: from the first DISCOVER to the last ACK
    durations: tuple[float, ...]

    @property
    def served(self) -> bool:
        """Whether next to nothing was lost."""
        return self.completed > 0 and self.begun - self.completed <= LOST * self.begun

    @property
    def rate(self) -> float:
        """Completed exchanges a second."""
        return self.completed / self.seconds if self.seconds else 0.0


def exchanges(text: str) -> Exchanges:
    """perfdhcp's report with ``-x t``: both legs' time stamps, which have one zero.

    A REQUEST leaves when its OFFER has come: the legs are joined at that moment.
    """
    begun, stamps, leg = 0, {"DISCOVER-OFFER": [], "REQUEST-ACK": []}, ""  # type: ignore[var-annotated]
    for line in text.splitlines():
        name, _, rest = line.strip().partition(":")
        if line.startswith("***"):
            leg = rest.strip().rstrip("*")
        elif name == "sent packets" and leg == "DISCOVER-OFFER":
            begun = int(rest)
        elif name == "sent / received" and leg in stamps:
            sent, _, received = rest.partition("/")
            if not received.strip().startswith("-"):
                stamps[leg].append((float(sent), float(received)))
    offers = sorted(stamps["DISCOVER-OFFER"], key=lambda pair: pair[1])
    acks = sorted(stamps["REQUEST-ACK"])
    arrivals = [received for _, received in offers]
    durations = []
    used = 0
    for sent, received in acks:
        # Offers whose REQUEST was lost lie between: the latest that fits is the one.
        at = max(used, bisect.bisect_right(arrivals, sent) - 1) if len(offers) > len(acks) else used
        if at >= len(offers):
            break
        durations.append(received - offers[at][0])
        used = at + 1
    first = min((sent for sent, _ in offers), default=0.0)
    last = max((received for _, received in acks), default=0.0)
    return Exchanges(begun, len(acks), last - first, tuple(durations))


def pooled(parts: Iterable[Exchanges]) -> Exchanges:
    """One server's asks as if they were one: a percentile is of all that it was asked."""
    parts = list(parts)
    return Exchanges(
        sum(part.begun for part in parts),
        sum(part.completed for part in parts),
        sum(part.seconds for part in parts),
        tuple(duration for part in parts for duration in part.durations),
    )


def avalanche(text: str) -> float:
    """Seconds until perfdhcp's avalanche had its last lease; 0 where it tells none."""
    for line in text.splitlines():
        if line.startswith("It took "):
            hours, minutes, seconds = line.split()[2].split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return 0.0


def turns(sides: Iterable[T], number: int) -> list[T]:
    """Who is measured after whom in a round: the other way round in the next one.

    What one server leaves behind is the next one's: after 300 clients of tftpd-hpa, which take
    seconds in which the machine does next to nothing, dnsmasq had 0.96 of what it had before.
    """
    return list(sides)[:: -1 if number % 2 else 1]


def lap(fetches: Mapping[str, int], number: int) -> list[str]:
    """Who fetches when in a round: each side so many times, in alternating turns.

    A fetch of a quarter of a second scatters by 4 % and more, and the machine's mood changes within
    seconds. So a short one is done several times a round, the other side's between, and the median
    counts. The order turns round each time: A B, B A, A B; in the next round it begins with B A.
    """
    return [
        side
        for turn in range(max(fetches.values(), default=0))
        for side in turns([side for side in fetches if fetches[side] > turn], number + turn)
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def climb(start: float, passes: "dict[float, bool]", step: float = 1.3) -> float | None:
    """The next rate to try, given what passed; None: between the best and the next it fails."""
    good = [rate for rate, passed in passes.items() if passed]
    bad = [rate for rate, passed in passes.items() if not passed]
    if not passes:
        return start
    if not good:
        return min(bad) / step
    if bad and min(bad) <= max(good) * step * 1.01:
        return None
    return max(good) * step

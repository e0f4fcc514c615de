"""What a storm showed: figures, the bars they are held to, and the page that tells them. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.storm_trace import Shape

KIB, MIB = 1 << 10, 1 << 20
#: Clients whose cost for each is what it costs when there are few.
FEW = 16
#: What the issue asks for. Bytes, seconds, ratios.
IDLE, BUSY, FLAT, ATTACH, LOGIN, STALL, ONCE, RIVAL = MIB, 2 * MIB, 1.2, 1.0, 2.0, 5e-3, 1.25, 1.0
#: What boots may still fetch from disk when all that one reads was read ahead. How much sooner
#: they are done is the disk's affair: shown, not judged.
AHEAD = 0.1
#: How long boots with read-ahead take on a slow disk, against those without: less.
SOONER = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """One side under so many clients."""

    side: str
    clients: int
    logins: float  #: seconds until the last was ready
    login_p99: float
    seconds: float  #: until the last had booted
    fastest: float
    slowest: float
    read_p50: float
    read_p99: float
    cpu: float  #: seconds of the server, of the boots
    idle: float  #: bytes of memory that a client adds by logging in
    busy: float  #: and in all, when it has booted
    threads: int  #: the most there were
    disk: int  #: bytes read from disk
    sent: int  #: bytes read by the clients

    @property
    def each(self) -> float:
        """Processor seconds of the server for one client's boot."""
        return self.cpu / self.clients

    @property
    def fairness(self) -> float:
        """Slowest ÷ fastest."""
        return self.slowest / self.fastest


@dataclass(slots=True)
class Storm:
    """All that was measured."""

    shape: Shape
    runs: list[Run] = field(default_factory=list)
    cold: list[Run] = field(default_factory=list)  #: ours; one client, all, all with read-ahead
    slow: list[Run] = field(default_factory=list)  #: the same on a slow disk: all, read-ahead
    attach: float = 0.0  #: seconds for ``attached`` fresh overlays
    arrived: float = 0.0  #: and with their logins, all at once
    attached: int = 0
    logins: dict[int, float] = field(default_factory=dict)  #: p99 by targets configured
    stall: float = 0.0  #: p99 of cached reads while a neighbour reads cold
    stall_cold: float = 0.0  #: p99 of that neighbour's

    def of(self, side: str, clients: int) -> Run | None:
        """The run of a side under so many clients."""
        found = (run for run in self.runs if (run.side, run.clients) == (side, clients))
        return next(found, None)


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise, and what was measured of it."""

    what: str
    value: float
    most: float
    shown: str  #: how to write either of them

    @property
    def holds(self) -> bool:
        return self.value <= self.most

    def write(self, number: float) -> str:
        """A number of this bar for people."""
        return self.shown.format(number)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of them does not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def pair(counts: Sequence[int]) -> tuple[int, ...]:
    """The numbers of clients of which the cost for each is compared; none where one is missing."""
    most = max(counts, default=FEW)
    return (FEW, most) if FEW in counts and most > FEW else ()


def middle(tries: Sequence[Run]) -> Run:
    """The one that cost the server the median of its time."""
    return sorted(tries, key=lambda run: run.cpu)[len(tries) // 2]


def bars(storm: Storm) -> list[Bar]:
    """Every bar that this run can say something about."""
    found: list[Bar] = []
    ours = [run for run in storm.runs if run.side == "netboot"]
    if ours:
        most = max(ours, key=lambda run: run.clients)
        at = f"{most.clients:,} clients"
        found.append(
            Bar(f"memory per idle client, {at}", most.idle / KIB, IDLE / KIB, "{:,.0f} KiB")
        )
        found.append(
            Bar(
                f"memory per client over its boot, {at}", most.busy / KIB, BUSY / KIB, "{:,.0f} KiB"
            )
        )
        few = storm.of("netboot", FEW)
        if few is not None and most is not few:
            what = f"processor time per client, {at} against {FEW}"
            found.append(Bar(what, most.each / few.each, FLAT, "{:.2f}×"))
    for run in storm.runs:
        us = storm.of("netboot", run.clients)
        if run.side != "netboot" and us is not None:
            what = f"until the last of {run.clients} has booted, against {run.side}"
            found.append(Bar(what, us.seconds / run.seconds, RIVAL, "{:.2f}×"))
            what = f"processor time per client, {run.clients} clients, against {run.side}"
            found.append(Bar(what, us.each / run.each, RIVAL, "{:.2f}×"))
    if storm.attached:
        what = f"{storm.attached:,} overlays created and attached"
        found.append(Bar(what, storm.attach, ATTACH * storm.attached / 1000, "{:.2f} s"))
    if len(storm.logins) > 1:
        few_targets, *_, many = sorted(storm.logins)
        what = f"login p99 with {many:,} targets configured, against {few_targets}"
        found.append(Bar(what, storm.logins[many] / storm.logins[few_targets], LOGIN, "{:.2f}×"))
    if storm.stall:
        what = "p99 of cached reads while a neighbour reads cold"
        found.append(Bar(what, storm.stall * 1e3, STALL * 1e3, "{:.2f} ms"))
    if len(storm.cold) > 1:
        alone, together = storm.cold[:2]
        what = f"read from disk by {together.clients} clients on a cold cache, against one"
        found.append(Bar(what, together.disk / max(1, alone.disk), ONCE, "{:.2f}×"))
    if len(storm.slow) > 1:
        without, ahead = storm.slow
        what = f"until the last of {ahead.clients} has booted on a slow disk, read ahead"
        found.append(
            Bar(what + ", against without", ahead.seconds / without.seconds, SOONER, "{:.2f}×")
        )
    if len(storm.cold) > 2:
        without, ahead = storm.cold[1:3]
        what = (
            f"read from disk by {ahead.clients} boots with the blocks read ahead, against without"
        )
        found.append(Bar(what, ahead.disk / max(1, without.disk), AHEAD, "{:.2f}×"))
    return found


HEAD = (
    "| | Clients | Last booted | Slowest ÷ fastest | Read p50 | p99 | CPU per client | Memory per "
    "client: idle | booted | Threads | From disk |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def rows(runs: Sequence[Run], names: Sequence[str] = ()) -> str:
    """Runs as a Markdown table."""
    lines = [HEAD]
    for number, run in enumerate(runs):
        cells = (
            names[number] if names else run.side,
            f"{run.clients:,}",
            f"{run.seconds:.1f} s",
            f"{run.fairness:.2f}",
            f"{run.read_p50 * 1e3:.2f} ms",
            f"{run.read_p99 * 1e3:.1f} ms",
            f"{run.each * 1e3:.0f} ms",
            f"{run.idle / KIB:,.0f} KiB",
            f"{run.busy / KIB:,.0f} KiB",
            f"{run.threads:,}",
            f"{run.disk / MIB:,.0f} MiB",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def held(found: Sequence[Bar]) -> str:
    """The bars as a Markdown table."""
    lines = ["| Bar | At most | Measured | |", "|---|---|---|---|"]
    for bar in found:
        verdict = "" if bar.holds else "**missed**"
        lines.append(f"| {bar.what} | {bar.write(bar.most)} | {bar.write(bar.value)} | {verdict} |")
    return "\n".join(lines)


#: By perf, schedstat, `ss -m` and the collector's own callbacks: no figure of the run at hand.
WHERE = f"""## What a machine costs more among a thousand

Not what one might think, as a look into both storms showed (two cores, Linux 6.18, Python 3.11).
In the kernel a client takes about as long among 1,000 as among {FEW}: what its sockets cost more
there, for being out of the cache, is saved on sleeping and waking. Sockets hold 8 to 25 MB, 60 at
most, of the 1,500 that the kernel allows them; a client takes 60 to 120 page faults, among {FEW}
twice as many; `pwrite` and `fdatasync` are a fourteenth, among {FEW} a tenth; the garbage collector
takes 0.2 ms for each client, its login included. It was in the interpreter: 12 ms among {FEW}, 22
among 1,000. A request follows a hundred pointers through its session's objects; since the last one
75 MB of other clients' data have gone through the cache, so that each comes from memory, one after
the other. `iscsi/nearby` has them fetched all at once: of 60 ms for each of 1,000 clients 49 to 57
were left, and the interpreter still waited 16 ms for what leads to the express lane, and uvloop
for its own. Now `iscsi/intake` keeps that in one piece, and `iscsi/gate` reads for all sessions in
place of the loop: it knows whose turns are next, and fetches what is theirs while the one before
is answered. A client among 1,000 then took 41 to 54 ms, as the machine went, and in six whole
runs 0.94 to 1.10 of what one among {FEW} took; before, 1.17 to 1.23."""
COLD = ("one client", "all at once", "all, read ahead")


def page(storm: Storm, facts: Sequence[str]) -> str:
    """``docs/storm.md``."""
    shape = storm.shape
    parts = [
        "# The boot storm",
        f"""Written by `make bench-storm`. What a Debian of the golden image asks of its disk from
the firmware's first read until it says that it is up was recorded once, on the wire, in QEMU
(`tests/bench/debian-boot.trace`): {shape.reads:,} reads ({shape.read_bytes / 1e6:.0f} MB, of which
{shape.first_read / 1e6:.0f} MB different), {shape.writes} writes
({shape.write_bytes / 1e6:.1f} MB) and {shape.flushes} flushes. `tests/bench/storm.c` replays it
from many clients at once, each on a persistent overlay of its own over one golden image. A command
waits for as many answers as it did then, and for the guest's thinking time: that of a machine ten
times as fast as the emulated one, at most 20 ms at a time, {shape.think:.1f} s in all. What a read
begins with is checked against the golden image. tgt, which has no overlays, has a copy for each
client, of the blocks that are read. All of it shares the processors with the clients.""",
        "\n".join(f"- {fact}" for fact in facts),
        "## Bars",
        held(bars(storm)),
        "## Runs",
        "Memory is anonymous and shared memory of the server (PSS of `/proc/PID/smaps_rollup`), "
        "without\nthe kernel's buffers of sockets. The image is in the page cache. This machine is "
        f"not as\nfast in one minute as in the next: {FEW} clients and the most, whose cost for "
        "each is compared,\nare therefore measured in turn, nine times and three, and the median "
        "counts.",
        rows(storm.runs),
        WHERE,
    ]
    if storm.cold:
        parts += [
            "## On a cold cache",
            rows(storm.cold, COLD[: len(storm.cold)]),
            "Read ahead: what the disk process had learned from the first of these boots is asked\n"
            "for, by the service's own `service/warming.py`, one second before the first client\n"
            "begins: any firmware takes longer from its DISCOVER to its first block.",
        ]
    if storm.slow:
        parts += [
            "The disk of this machine is fast. The same with one that reads no more than 80 MiB\n"
            "and 120 times a second, as a hard disk does (the kernel's block I/O controller\n"
            "slows both the disk process and the one that reads ahead):",
            rows(storm.slow, COLD[1 : 1 + len(storm.slow)]),
        ]
    if storm.stall:
        parts.append(
            f"A client that reads what is cached while another reads 64 KiB pieces that are not: "
            f"p99\n{storm.stall * 1e3:.2f} ms for the first, {storm.stall_cold * 1e3:.2f} ms for "
            "the other."
        )
    if storm.attached:
        parts.append(
            f"{storm.attached:,} fresh overlays, made and opened one after the other by the "
            f"storage alone: {storm.attach:.2f} s.\nAs many machines that log in at once for the "
            f"first time, through the door of a control process:\n{storm.arrived:.2f} s."
        )
    if storm.logins:
        told = ", ".join(
            f"{seconds * 1e3:.2f} ms with {count:,} targets"
            for count, seconds in sorted(storm.logins.items())
        )
        parts.append(f"Logins one after the other, p99: {told} configured.")
    return "\n\n".join(parts) + "\n"

"""THE table of metrics: what ``/metrics`` says, for Prometheus (text format 0.0.4).

A row is a metric's name, type, words and labels, and how its values are read from ``Figures``;
documentation and tests come from the same rows. Pure: whoever answers puts the figures together
(``service.measures``). Nothing here lives from one scrape to the next, and no label ever holds
what a stranger may choose: a MAC is that of a machine of the settings, or of one with a disk.

Names as Prometheus wants them (prometheus.io, "Metric and label naming"): base units, ``_total``
for what only grows. What is known beforehand is there with 0 as well, so that a rate has a start.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from netboot.events import Phase
from netboot.http.views import ClientView, ImageView, OverlayView
from netboot.model import Counters, DiskProcess, LeaseState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: What is counted of packets, requests and questions: the counters' names → the label's values.
DHCP_REPLIES = {"offers": "offer", "acks": "ack", "naks": "nak"}
DHCP_DROPPED = {
    "garbage": "garbage",  # no DHCP
    "ignored": "unknown-machine",
    "silent": "not-ours-to-answer",
    "unserved": "no-pool",  # a relay's network
    "exhausted": "pool-exhausted",
    "unpersisted": "lease-not-written",
    "unsent": "not-sent",
    "faults": "fault",
}
DHCP_CONFLICTS = {"conflicts": "probe", "declined": "declined", "foreign": "other-server"}
TFTP_RESULTS = {"done": "done", "failed": "failed", "missing": "missing", "probes": "probe"}
TFTP_DROPPED = {"busy": "busy", "refused": "refused", "garbage": "garbage"}
DNS_RESULTS = {"answered": "us", "forwarded": "upstream"}
DNS_TROUBLE = {
    "unanswered": "upstreams-silent",
    "overflow": "too-many",
    "garbage": "garbage",
    "mismatched": "mismatched-reply",
    "loops": "loop",
}
#: Why a login was refused, by its status (RFC 7143 section 11.13.5).
REFUSALS: Mapping[int, str] = {
    0x0201: "authentication",
    0x0202: "not-authorized",
    0x0203: "not-found",
    0x0300: "target-error",
    0x0301: "unavailable",
    0x0302: "out-of-resources",
}
#: The state of a lease that is over; no state of its own where leases are kept.
EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is measured, at one moment; times are seconds since the epoch.

    A part that is not there (DHCP in mode off) is None, and has no lines.
    """

    release: str
    started: float  #: when the control process did
    well: bool  #: every part works
    named: Collection[str] = ()  #: MACs of the machines that the settings name
    clients: Sequence[ClientView] = ()
    images: Sequence[ImageView] = ()
    overlays: Sequence[OverlayView] = ()
    leases: Mapping[str, int] = field(default_factory=dict)  #: by state
    disks: Sequence[Counters] = ()
    processes: Sequence[DiskProcess] = ()
    prefetched: int = 0  #: bytes of images
    refused: Mapping[int, int] = field(default_factory=dict)  #: logins, by status
    room: tuple[int, int] | None = None  #: bytes free, and in all, where the state is
    dhcp: Mapping[str, int] | None = None
    tftp: Mapping[str, int] | None = None
    dns: Mapping[str, int] | None = None
    http: Mapping[tuple[str, int], int] | None = None  #: by route and status
    no_http: int = 0  #: requests that were no HTTP


class Type(StrEnum):
    """What a value may do."""

    COUNTER = "counter"  #: only grow, until its process ends
    GAUGE = "gauge"


#: The labels' values, then the value.
Point: TypeAlias = tuple[str | float, ...]
Read: TypeAlias = Callable[[Figures], Iterable[Point]]


class Metric(NamedTuple):
    """One row; ``read`` gives a point for each line, in the order of the labels."""

    name: str
    type: Type
    help: str
    labels: tuple[str, ...]
    read: Read


def render(figures: Figures) -> bytes:
    """What Prometheus is told."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Table(figures))
    return generate_latest(registry)


class _Table(Collector):
    """The rows as prometheus_client wants them."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Family]:
        for row in METRICS:
            make = CounterMetricFamily if row.type is Type.COUNTER else GaugeMetricFamily
            family = make(row.name, row.help, labels=row.labels)
            for *labels, value in row.read(self._figures):
                family.add_metric([str(label) for label in labels], float(value))
            if family.samples:
                yield family


# How rows read.


def _value(of: Callable[[Figures], float]) -> Read:
    return lambda figures: [(of(figures),)]


def _only(part: str, name: str) -> Read:
    """One counter of a part; nothing where the part is not there."""
    return lambda figures: [line[1:] for line in _each(part, {name: name})(figures)]


def _each(part: str, names: Mapping[str, str]) -> Read:
    """The counters of these names, under their labels."""

    def read(figures: Figures) -> Iterator[Point]:
        counters: Mapping[str, int] | None = getattr(figures, part)
        if counters is not None:
            for name, label in names.items():
                yield label, counters.get(name, 0)

    return read


def _room(which: int) -> Read:
    return lambda figures: [(figures.room[which],)] if figures.room else []


def _ours(figures: Figures) -> Iterator[ClientView]:
    """Named in the settings, or once at its disk: where unknown machines have a profile,
    anybody can invent some."""
    for client in figures.clients:
        known = client.mac in figures.named or client.overlay or client.counters
        if known and client.profile is not None:
            yield client


def _machines(figures: Figures) -> Iterator[Point]:
    for client in _ours(figures):
        yield client.mac, client.name, client.profile or "", client.image or "", 1


def _phases(figures: Figures) -> Iterator[Point]:
    reached = Counter(client.phase for client in figures.clients if client.profile is not None)
    yield "unseen", reached[None]
    for phase in Phase:
        yield phase.label, reached[phase]


def _boots(figures: Figures) -> Iterator[Point]:
    for client in _ours(figures):
        if client.phase is Phase.READY:
            yield client.mac, client.timeline[-1].after


def _leases(figures: Figures) -> Iterator[Point]:
    for state in (*LeaseState, EXPIRED):
        yield str(state), figures.leases.get(state, 0)


def _process(of: Callable[[DiskProcess], float]) -> Read:
    """Of each disk process, by its number."""
    return lambda figures: ((str(each.number), of(each)) for each in figures.processes)


def _disk(name: str) -> Read:
    """One field of the counters of each machine's disk."""
    return lambda figures: ((row.mac, getattr(row, name)) for row in figures.disks)


def _refused(figures: Figures) -> Iterator[Point]:
    found = dict.fromkeys((*REFUSALS.values(), "other"), 0)
    for status, count in figures.refused.items():
        found[REFUSALS.get(status, "other")] += count
    yield from found.items()


def _overlay(of: Callable[[OverlayView], float | None]) -> Read:
    def read(figures: Figures) -> Iterator[Point]:
        for each in figures.overlays:
            value = of(each)
            if value is not None:
                yield each.mac, each.image, each.mode, value

    return read


def _image(of: Callable[[ImageView], float]) -> Read:
    return lambda figures: ((image.name, str(image.version), of(image)) for image in figures.images)


def _http(figures: Figures) -> Iterator[Point]:
    for (route, status), count in sorted((figures.http or {}).items()):
        yield route, str(status), count


# The table.


def _counter(name: str, text: str, read: Read, *labels: str) -> Metric:
    return Metric(f"netboot_{name}_total", Type.COUNTER, text, labels, read)


def _gauge(name: str, text: str, read: Read, *labels: str) -> Metric:
    return Metric(f"netboot_{name}", Type.GAUGE, text, labels, read)


_OVERLAY = "mac", "image", "mode"
_VERSION = "image", "version"

METRICS: tuple[Metric, ...] = (
    # the service
    _gauge("build_info", "1; the release that runs.", lambda f: [(f.release, 1)], "version"),
    _gauge(
        "start_time_seconds",
        "When the control process started; since the epoch.",
        _value(lambda f: f.started),
    ),
    _gauge("well", "1 when every part works, as /healthz says.", _value(lambda f: f.well)),
    _gauge("state_free_bytes", "Room left on the file system of the state folder.", _room(0)),
    _gauge("state_size_bytes", "Size of that file system.", _room(1)),
    # machines
    _gauge(
        "machine_info",
        "1; the names of a machine of the settings, or of one that has a disk.",
        *(_machines, "mac", "name", "profile", "image"),
    ),
    _gauge("machines", "Machines by the phase that their boot has reached.", _phases, "phase"),
    _gauge(
        "machine_boot_seconds",
        "From the first packet to ready, of a machine that is ready.",
        *(_boots, "mac"),
    ),
    _gauge("leases", "Addresses by the state of their lease.", _leases, "state"),
    # disks
    _gauge(
        "disk_process_up",
        "1 while a disk process answers.",
        *(_process(lambda each: each.pid is not None), "process"),
    ),
    _counter(
        "disk_process_restarts",
        "How often a disk process died and was replaced.",
        *(_process(lambda each: each.restarts), "process"),
    ),
    _gauge(
        "disk_process_sessions",
        "Sessions that a disk process has.",
        *(_process(lambda each: each.sessions), "process"),
    ),
    _counter(
        "prefetch_bytes",
        "Bytes of images that were read ahead for machines which were about to boot.",
        _value(lambda f: f.prefetched),
    ),
    _counter(
        "disk_sessions", "Sessions that logged in to a machine's disk.", _disk("sessions"), "mac"
    ),
    _counter("disk_reads", "Reads of a machine's disk.", _disk("reads"), "mac"),
    _counter("disk_read_bytes", "Bytes read of a machine's disk.", _disk("read_bytes"), "mac"),
    _counter("disk_writes", "Writes to a machine's disk.", _disk("writes"), "mac"),
    _counter(
        "disk_written_bytes", "Bytes written to a machine's disk.", _disk("write_bytes"), "mac"
    ),
    _counter("disk_flushes", "Flushes of a machine's disk.", _disk("flushes"), "mac"),
    _counter(
        "disk_errors",
        "Commands that failed below a machine's disk: no room, a bad medium, a failed sync.",
        _disk("errors"),
        "mac",
    ),
    _counter(
        "logins_refused",
        "iSCSI logins that we did not allow; of failed proofs, those that the log tells.",
        _refused,
        "reason",
    ),
    # overlays and golden images
    _gauge(
        "overlay_allocated_bytes",
        "Bytes that an overlay takes on our disk.",
        *(_overlay(lambda each: each.allocated), *_OVERLAY),
    ),
    _gauge(
        "overlay_trouble",
        "1 when something went wrong with an overlay since it was begun.",
        *(_overlay(lambda each: bool(each.trouble)), *_OVERLAY),
    ),
    _gauge(
        "overlay_trouble_time_seconds",
        "When that was last; since the epoch.",
        *(_overlay(lambda each: each.troubled), *_OVERLAY),
    ),
    _gauge(
        "image_size_bytes",
        "Size of a version of a golden image.",
        *(_image(lambda image: image.size), *_VERSION),
    ),
    _gauge(
        "image_current",
        "1 for the version that new overlays begin on.",
        *(_image(lambda image: image.current), *_VERSION),
    ),
    _gauge(
        "image_machines",
        "Machines whose overlay stands on a version.",
        *(_image(lambda image: len(image.used_by)), *_VERSION),
    ),
    # protocols
    _counter("dhcp_packets", "DHCP packets that came.", _only("dhcp", "received")),
    _counter("dhcp_replies", "DHCP replies that went out.", _each("dhcp", DHCP_REPLIES), "type"),
    _counter(
        "dhcp_unanswered",
        "DHCP packets that got no answer from us, by reason.",
        *(_each("dhcp", DHCP_DROPPED), "reason"),
    ),
    _counter(
        "dhcp_conflicts",
        "Addresses found in use by somebody else, and other servers' packets.",
        *(_each("dhcp", DHCP_CONFLICTS), "kind"),
    ),
    _counter("tftp_requests", "Files that were asked for by TFTP.", _only("tftp", "requests")),
    _counter(
        "tftp_results", "TFTP requests by how they ended.", _each("tftp", TFTP_RESULTS), "result"
    ),
    _counter(
        "tftp_refused",
        "TFTP packets that began no transfer, by reason.",
        *(_each("tftp", TFTP_DROPPED), "reason"),
    ),
    _gauge("tftp_transfers", "TFTP transfers under way.", _only("tftp", "active")),
    _counter(
        "tftp_sent_bytes", "Bytes of files that clients acknowledged.", _only("tftp", "bytes")
    ),
    _counter("tftp_resent_packets", "TFTP packets that were sent again.", _only("tftp", "resent")),
    _counter("dns_queries", "DNS questions that came.", _only("dns", "queries")),
    _counter(
        "dns_answers",
        "DNS questions answered by us, or passed on.",
        _each("dns", DNS_RESULTS),
        "by",
    ),
    _counter(
        "dns_trouble",
        "DNS questions and replies that led nowhere, by reason.",
        *(_each("dns", DNS_TROUBLE), "reason"),
    ),
    _counter(
        "http_requests", "HTTP requests; without a route, nothing is there.", _http, "route", "code"
    ),
    _counter(
        "http_garbage",
        "What came to the HTTP port and was no HTTP.",
        lambda f: [(f.no_http,)] if f.http is not None else [],
    ),
)

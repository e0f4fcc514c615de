"""The metrics: by the rules of Prometheus, each row read, and nothing said that has no row."""

import ast
import re
from collections import Counter as Count
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from netboot.dns.server import DnsCounters
from netboot.events import Phase
from netboot.http import metrics
from netboot.http.metrics import METRICS, Figures, Metric, Type, render
from netboot.http.views import ClientView, ImageView, OverlayView, StepView
from netboot.model import Counters, DiskProcess
from netboot.tftp.server import TftpCounters

ROOT = Path(__file__).parent.parent.parent
A, B, C = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))
DISK = Counters(A, 1, 2, 1024, 3, 4096, 4, 5)
WELL = OverlayView("/a", "persistent", 0, 8192, A, "debian", 2)
ILL = OverlayView("/b", "ephemeral", 7, 0, B, "debian", 1, "sync failed", 1_600_000_000.0)
STEPS = (StepView(Phase.SEEN, 1.0, 0.0), StepView(Phase.READY, 22.5, 21.5))
NOTHING = Figures("1.2.3", 1_700_000_000.0, False)
ALL = Figures(
    release="1.2.3",
    started=1_700_000_000.0,
    well=True,
    named={A},
    clients=(
        ClientView(A, "ws1", profile="p", image="debian", phase=Phase.READY, timeline=STEPS),
        ClientView(B, 'a "name"\\', profile="p", image="debian", phase=Phase.OS, overlay=ILL),
        ClientView(C, "invented", profile="p", phase=Phase.SEEN),
        ClientView("52:54:00:00:00:04", "ignored", phase=Phase.SEEN),
    ),
    images=(
        ImageView("debian", 1, 512, "sha256:1", 1.0, current=False, used_by=(B,)),
        ImageView("debian", 2, 1024, "sha256:2", 2.0, used_by=(A, C)),
    ),
    overlays=(WELL, ILL),
    leases={"bound": 3, "expired": 2},
    disks=(DISK,),
    processes=(DiskProcess(0, 77, 5, 6), DiskProcess(1)),
    prefetched=1 << 20,
    refused={0x0202: 2, 0x0301: 1, 0x0999: 4},
    room=(100, 1 << 40),
    dhcp={"received": 9, "offers": 2, "acks": 3, "garbage": 1, "foreign": 1},
    tftp={"requests": 5, "done": 4, "probes": 1, "busy": 2, "active": 1, "bytes": 77, "resent": 3},
    dns={"queries": 8, "answered": 5, "forwarded": 3, "unanswered": 1},
    http={("/healthz", 200): 11, ("", 404): 2, ("/boot/{mac}.ipxe", 200): 1},
    no_http=3,
)


def lines(figures: Figures) -> dict[str, float]:
    """The samples as prometheus_client reads them: ``name{label="value"}`` → value."""
    found = {}
    for family in text_string_to_metric_families(render(figures).decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


@pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
def test_each_row_keeps_the_rules(row: Metric) -> None:
    """Those of promtool's linter: a prefix, base units, ``_total``, words."""
    assert re.fullmatch(r"netboot(_[a-z]+)+", row.name)
    assert row.name.endswith("_total") == (row.type is Type.COUNTER)
    assert row.help.endswith(".") and row.help.count("\n") == 0
    assert all(re.fullmatch(r"[a-z]+", label) for label in row.labels)
    abbreviated = {"ms", "sec", "kb", "mb", "mib", "kib", "minutes", "hours", "bits", "count"}
    assert not abbreviated & set(row.name.split("_"))
    for unit in ("seconds", "bytes"):
        if unit in row.name.split("_"):
            assert row.name.removesuffix("_total").endswith(unit)


def test_no_two_rows_have_a_name() -> None:
    assert max(Count(row.name for row in METRICS).values()) == 1


@pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
def test_each_row_has_lines_for_whole_figures_and_as_many_values_as_labels(row: Metric) -> None:
    points = list(row.read(ALL))
    assert points
    assert {len(point) for point in points} == {len(row.labels) + 1}
    assert all(isinstance(point[-1], int | float) for point in points)


def test_what_is_said_is_what_the_rows_say() -> None:
    families = {
        family.name: family for family in text_string_to_metric_families(render(ALL).decode())
    }
    assert len(families) == len(METRICS)
    for row in METRICS:
        family = families[row.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (row.type.value, row.help)
        assert {frozenset(sample.labels) for sample in family.samples} == {frozenset(row.labels)}


def test_the_text_is_prometheus_s(fakes: ModuleType) -> None:
    text = render(replace(NOTHING, disks=(DISK,))).decode()
    assert (
        "# HELP netboot_disk_errors_total Commands that failed below a machine's disk: "
        "no room, a bad medium, a failed sync.\n"
        "# TYPE netboot_disk_errors_total counter\n"
        'netboot_disk_errors_total{mac="52:54:00:00:00:01"} 5.0\n'
    ) in text
    assert text.endswith("\n")
    assert "_created" not in text


def test_machines() -> None:
    found = lines(ALL)
    phases = {key: value for key, value in found.items() if key.startswith("netboot_machines{")}
    assert phases.pop("netboot_machines{phase=ready}") == 1
    assert phases.pop("netboot_machines{phase=os}") == 1
    assert phases.pop("netboot_machines{phase=seen}") == 1
    assert set(phases.values()) == {0.0} and len(phases) == 6
    assert found[f"netboot_machine_boot_seconds{{mac={A}}}"] == 21.5
    infos = [key for key in found if key.startswith("netboot_machine_info")]
    assert infos == [
        f"netboot_machine_info{{image=debian,mac={A},name=ws1,profile=p}}",
        f'netboot_machine_info{{image=debian,mac={B},name=a "name"\\,profile=p}}',
    ]
    assert found["netboot_leases{state=bound}"] == 3
    assert found["netboot_leases{state=expired}"] == 2
    assert found["netboot_leases{state=offered}"] == 0


def test_no_stranger_makes_lines() -> None:
    """A thousand invented machines add none but for the counts."""
    invented = tuple(
        ClientView(f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}", "x", profile="p", phase=Phase.SEEN)
        for n in range(256, 1256)
    )
    more = lines(replace(ALL, clients=(*ALL.clients, *invented)))
    assert set(more) == set(lines(ALL))
    assert more["netboot_machines{phase=seen}"] == 1001


def test_disks_and_overlays() -> None:
    found = lines(ALL)
    names = "sessions", "reads", "read_bytes", "writes", "written_bytes", "flushes", "errors"
    values = [found[f"netboot_disk_{name}_total{{mac={A}}}"] for name in names]
    assert values == [1, 2, 1024, 3, 4096, 4, 5]
    names = "up", "restarts_total", "sessions"
    for number, expected in enumerate(([1, 6, 5], [0, 0, 0])):
        row = f"{{process={number}}}"
        assert [found[f"netboot_disk_process_{name}{row}"] for name in names] == expected
    assert found["netboot_prefetch_bytes_total"] == 1 << 20
    well, ill = (f"{{image=debian,mac={each.mac},mode={each.mode}}}" for each in (WELL, ILL))
    assert found[f"netboot_overlay_allocated_bytes{well}"] == 8192
    assert found[f"netboot_overlay_trouble{well}"] == 0
    assert found[f"netboot_overlay_trouble{ill}"] == 1
    assert f"netboot_overlay_trouble_time_seconds{well}" not in found
    assert found[f"netboot_overlay_trouble_time_seconds{ill}"] == 1_600_000_000
    assert found["netboot_image_size_bytes{image=debian,version=2}"] == 1024
    assert found["netboot_image_current{image=debian,version=1}"] == 0
    assert found["netboot_image_current{image=debian,version=2}"] == 1
    assert found["netboot_image_machines{image=debian,version=2}"] == 2
    assert found["netboot_state_free_bytes"] == 100
    assert found["netboot_state_size_bytes"] == 1 << 40


def test_refusals_and_protocols() -> None:
    found = lines(ALL)
    reasons = {
        key[len("netboot_logins_refused_total{reason=") : -1]: value
        for key, value in found.items()
        if key.startswith("netboot_logins_refused")
    }
    assert reasons == {
        **dict.fromkeys(metrics.REFUSALS.values(), 0),
        "not-authorized": 2,
        "unavailable": 1,
        "other": 4,
    }
    assert found["netboot_dhcp_packets_total"] == 9
    assert found["netboot_dhcp_replies_total{type=ack}"] == 3
    assert found["netboot_dhcp_replies_total{type=nak}"] == 0
    assert found["netboot_dhcp_conflicts_total{kind=other-server}"] == 1
    assert found["netboot_tftp_results_total{result=probe}"] == 1
    assert found["netboot_tftp_refused_total{reason=busy}"] == 2
    assert found["netboot_tftp_sent_bytes_total"] == 77
    assert found["netboot_dns_answers_total{by=upstream}"] == 3
    assert found["netboot_dns_trouble_total{reason=upstreams-silent}"] == 1
    assert found["netboot_http_requests_total{code=200,route=/boot/{mac}.ipxe}"] == 1
    assert found["netboot_http_requests_total{code=404,route=}"] == 2
    assert found["netboot_http_garbage_total"] == 3


def test_a_part_that_is_not_there_has_no_lines() -> None:
    found = lines(NOTHING)
    parts = ("dhcp", "tftp", "dns", "http", "state")
    assert not [key for key in found if key.split("_")[1] in parts]
    assert found["netboot_well"] == 0
    assert found["netboot_build_info{version=1.2.3}"] == 1
    assert found["netboot_start_time_seconds"] == 1_700_000_000


def test_every_counter_of_tftp_and_dns_is_in_the_table() -> None:
    told = {"requests", "active", "bytes", "resent", *metrics.TFTP_RESULTS, *metrics.TFTP_DROPPED}
    assert told == set(TftpCounters.__slots__)
    gone = {"pending", "connections"}  # what is under way now is nothing an operator acts on
    assert {"queries", *metrics.DNS_RESULTS, *metrics.DNS_TROUBLE} | gone == set(
        DnsCounters.__slots__
    )


def test_every_counter_of_dhcp_is_in_the_table() -> None:
    found = set()
    for name in ("engine", "server"):
        for node in ast.walk(ast.parse((ROOT / "netboot" / "dhcp" / f"{name}.py").read_text())):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("counters"):
                if isinstance(node.slice, ast.Constant):
                    found.add(node.slice.value)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "self._drop":
                found.add(ast.literal_eval(node.args[0]))
    from netboot.dhcp import engine

    found |= set(engine._COUNTED.values())
    told = {*metrics.DHCP_REPLIES, *metrics.DHCP_DROPPED, *metrics.DHCP_CONFLICTS}
    assert found == {"received", *told}


def test_the_page_names_none_that_is_not_there() -> None:
    """Its alerts and examples too, and the values of their labels."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    names = {row.name for row in METRICS}
    assert set(re.findall(r"\bnetboot_[a-z_]+[a-z]\b", page)) == names
    said = set(re.findall(r'{\w+=~?"([^"]+)"', render(ALL).decode()))
    for value in re.findall(r'netboot_\w+{\w+!?[=~]+"([^"]+)"', page):
        assert {*value.split("|")} <= said, value


def test_over_http(fakes: ModuleType) -> None:
    async def work(server: object) -> None:
        await fakes.ask(server.port, "/boot/52-54-00-12-34-56.ipxe")
        await fakes.ask(server.port, "/nothing")
        got = await fakes.ask(server.port, "/metrics")
        assert (got.status, got.headers["content-type"]) == (200, metrics.CONTENT_TYPE)
        assert 'netboot_build_info{version="1.2.3"} 1.0\n' in got.body.decode()
        head = await fakes.ask(server.port, "/metrics", "HEAD")
        assert (head.status, head.body) == (200, b"")

    fakes.run(work)

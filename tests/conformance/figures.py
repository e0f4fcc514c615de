"""What the suite's outcomes come to, and the page that says so: ``docs/conformance.md``.

A failure that is the suite's own stands in ``ARTEFACTS``, with the test that shows it; no other
may be, and no unit but those that are named there.
"""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from tests.conformance.units import KINDS, LIMIT, LONG, LONG_LIMIT, LONG_SIZE, SIZE

#: Tests that may skip themselves at all units: the bar that the project has set itself.
MOST_SKIPS = 5


class Verdict(StrEnum):
    """How a test ended."""

    PASSED = "passed"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, and the suite's reason when it is not PASSED."""

    verdict: Verdict
    why: str = ""


PROOFS = "tests/conformance/test_artefacts.py"


@dataclass(frozen=True, slots=True)
class Artefact:
    """A failure that is the suite's own: why, where, and the test that shows it."""

    why: str
    kinds: frozenset[str]  #: of units
    proof: str  #: a test of ``PROOFS``


ARTEFACTS: Mapping[str, Artefact] = {
    "SCSI.GetLBAStatus.UnmapSingle": Artefact(
        "asks for the status from block `i + 1` on, and wants an answer that begins at block `i` "
        "plus the blocks of a physical block; SBC-3 5.3 wants it to begin at the block that was "
        "asked for. Where a physical block is one logical block the two are the same, and it "
        "passes (removable).",
        frozenset({"thin", "4 per physical"}),
        "test_unmap_single_asks_for_one_block_and_wants_another",
    ),
    "iSCSI.iSCSITMF.LUNResetSimpleAsync": Artefact(
        "judges the answer to its LOGICAL UNIT RESET before that has come: it asserts a variable "
        "that only its callback sets, fails, and logs out. The answer that then comes is what it "
        "wanted, by its own words. Often it then ends before its summary, by an abort of its C "
        "library over a damaged heap. libiscsi has since moved the assertion into the callback "
        "(commit 5553d6b).",
        frozenset({"thin", "removable", "4 per physical"}),
        "test_lun_reset_simple_async_judges_before_it_is_answered",
    ),
}

#: Passes that say less than they seem to.
FAINT: Mapping[str, str] = {
    "SCSI.WriteSame10.UnmapUntilEnd": "of a target that refuses a count of 0 (WSNZ) it asks "
    "nothing but that. Of others it wants zeros where it has sent a block of FFh with UNMAP, and "
    "where what is read is to be what was sent (SBC-3 5.43).",
    "SCSI.WriteSame16.UnmapUntilEnd": "of a target that refuses a count of 0 (WSNZ) it asks "
    "nothing but that.",
}

#: Why a test that skips itself at every unit does so, where its own words are not enough.
SKIPS: Mapping[str, str] = {
    f"SCSI.WriteSame{size}.ZeroBlocks": "we refuse a count of 0 and say so (WSNZ, SBC-3 6.5.3): "
    "the test sees that it is refused, and has no more to ask. Its limits are tested in "
    "tests/scsi/test_provisioning.py."
    for size in (10, 16)
}


Rows = dict[str, dict[str, Outcome]]


def counts(rows: Rows, kind: str) -> tuple[int, int, int]:
    """Passed, skipped and failed tests at one unit."""
    seen = [outcomes[kind].verdict for outcomes in rows.values() if kind in outcomes]
    return seen.count(Verdict.PASSED), seen.count(Verdict.SKIPPED), seen.count(Verdict.FAILED)


def never_ran(rows: Rows) -> list[str]:
    """The tests that skipped themselves at every unit."""
    return [
        name
        for name, outcomes in rows.items()
        if all(outcome.verdict is Verdict.SKIPPED for outcome in outcomes.values())
    ]


def failures(rows: Rows) -> list[tuple[str, str, str]]:
    """Test, unit and reason of all failures."""
    return [
        (name, kind, outcome.why)
        for name, outcomes in rows.items()
        for kind, outcome in outcomes.items()
        if outcome.verdict is Verdict.FAILED
    ]


def table(sides: Mapping[str, Rows]) -> str:
    """The figures of all targets, for people."""
    lines = ["| Target | Unit | Passed | Skipped | Failed |", "|---|---|---|---|---|"]
    for side, rows in sides.items():
        for kind in dict.fromkeys(kind for outcomes in rows.values() for kind in outcomes):
            lines.append(f"| {side} | {kind} | {' | '.join(map(str, counts(rows, kind)))} |")
        lines.append(
            f"| {side} | **over all units** | | {len(never_ran(rows))} never ran "
            f"| {len({name for name, _, _ in failures(rows)})} at one or more |"
        )
    return "\n".join(lines) + "\n"


def unheld(rows: Rows) -> list[str]:
    """What of our own figures is not as we say it is; nothing, if all is well."""
    wrong = [
        f"{name} failed at {kind}: {why}"
        for name, kind, why in failures(rows)
        if name not in ARTEFACTS or kind not in ARTEFACTS[name].kinds
    ]
    skipped = never_ran(rows)
    if len(skipped) > MOST_SKIPS:
        wrong.append(f"{len(skipped)} tests ran at no unit, {MOST_SKIPS} may: {', '.join(skipped)}")
    return wrong


def surroundings() -> list[str]:
    """What was measured with what, where and when."""
    packages = []
    for package in ("libiscsi-bin", "tgt"):
        command = ["dpkg-query", "-W", "-f", "${Version}", package]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
        except OSError:  # another distribution
            told = ""
        packages.append(f"{package} {told or 'of unknown version'}")
    found = re.search(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return [
        f"- when: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- netboot {version('netboot')}, {', '.join(packages)}",
        f"- Python {platform.python_version()}, Linux {platform.release()}",
        f"- {os.cpu_count()} × {found[1] if found else platform.machine()}, {memory:.0f} GiB of "
        "memory\n",
    ]


def page(sides: Mapping[str, Rows]) -> str:
    """``docs/conformance.md``."""
    units = ", ".join(kind.name for kind in KINDS)
    long = ", ".join(f"`{name}`" for name in LONG)
    parts = [
        "# Conformance\n",
        "Written by `make conformance`: every test of libiscsi's suite (`iscsi-test-cu`), a\n"
        f"process each with a limit of {LIMIT:.0f} s, a second session, and four logical units\n"
        f"({units}), against our disk process and against tgt in\n"
        "the same run. A test that skipped itself is counted apart. At a read-only unit only what\n"
        f"does not write is asked. A unit has {SIZE >> 20} MiB, but {LONG_SIZE >> 30} GiB "
        "(and the\n"
        f"test {LONG_LIMIT:.0f} s) for {long}, which wants to find busy, seconds later,\n"
        "what it is overwriting.\n",
        *surroundings(),
        table(sides),
        "The bar: nothing fails but the artefacts below, where they are said to; and at most "
        f"{MOST_SKIPS} tests run\nat no unit.\n",
        "## Artefacts of the suite\n",
        f"Each is shown by a test, which `make test` runs ([{PROOFS}](../{PROOFS})).\n",
    ]
    for name, artefact in ARTEFACTS.items():
        parts.append(f"- `{name}` {artefact.why} Shown by `{artefact.proof}`.")
    parts.append("\n## Passes that say little\n")
    parts += [f"- `{name}`: {why}" for name, why in FAINT.items()]
    parts.append("")
    for side, rows in sides.items():
        failed = failures(rows)
        parts.append(f"## What failed: {side}\n")
        parts += [f"- `{name}`, {kind}: {_plain(why)}" for name, kind, why in failed] or [
            "Nothing."
        ]
        parts.append(f"\n## What never ran: {side}\n")
        parts += [
            f"- `{name}`: {_plain(_reason(rows[name]))} {_ours(side, name)}".rstrip()
            for name in never_ran(rows)
        ] or ["Nothing."]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _ours(side: str, name: str) -> str:
    return f"({SKIPS[name]})" if side == "netboot" and name in SKIPS else ""


def _reason(outcomes: Mapping[str, Outcome]) -> str:
    return next(iter(outcomes.values())).why


def _plain(text: str) -> str:
    """One line without what Markdown would take for markup."""
    return re.sub(r"[`*|<>\[\]]", "", text)

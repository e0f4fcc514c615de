"""libiscsi's own test suite against our target, and against tgt in the same run.

``make conformance`` runs every test of ``iscsi-test-cu`` in a process of its own, with a time
limit, at four logical units and with a second session, and writes ``docs/conformance.md``. A
test that skipped itself is counted apart: the suite counts it as passed. All traffic stays on
127.0.0.1; needs the packages libiscsi-bin and tgt.
"""

import argparse
import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from netboot.disks.supervisor import Supervisor
from netboot.model import Admission, DiskSpec, Lun, Portal

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conformance.md"
SUITE = "iscsi-test-cu"
NAME = "iqn.2026-11.lab.netboot:conformance"
#: Seconds that a test may take: Sanitize.Reset sleeps a minute when it has seen what it wants.
LIMIT = 100.0
#: These want zeros where no test before them has written, so they run first.
FIRST = ("SCSI.MultipathIO.CompareAndWrite",)


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


@dataclass(frozen=True, slots=True)
class Kind:
    """A logical unit to test, as we and as tgt are told of it."""

    name: str
    thin: bool = True
    removable: bool = False
    read_only: bool = False
    exponent: int = 3
    size: int = 64 << 20  #: bytes
    only: str = ""  #: an expression: the tests that want such a unit

    @property
    def tgt(self) -> str:
        """The parameters of tgtadm."""
        made = f"thin_provisioning={self.thin:d},removable={self.removable:d}"
        return made + f",readonly={self.read_only:d},lbppbe={self.exponent}"


#: The tests that do not write, or want to be refused: what a read-only unit can be asked.
READERS = (
    r"^SCSI\.(Inquiry|Mandatory|ModeSense6|NoMedia|Prefetch\d+|PreventAllow|Prin\w+"
    r"|Prout(Clear|Preempt|Register)|Read\w*|Report\w+|Reserve6|StartStopUnit|TestUnitReady"
    r"|Verify\d+)\.|^iSCSI\.iSCSI(cmdsn|Nop|SendTargets|CHAP\w*|Residuals\.Read)"
)
KINDS = (
    Kind("thin"),
    Kind("removable", removable=True, exponent=0),
    Kind("read-only", read_only=True, only=READERS),
    Kind("4 per physical", exponent=2),
    # It takes long enough to overwrite that Sanitize.Reset can look on.
    Kind("6 GiB", size=6 << 30, only=r"Sanitize\.Reset"),
)

#: Failures that are the suite's own: the test, and why no target can or should pass it.
ARTEFACTS: Mapping[str, str] = {
    "SCSI.GetLBAStatus.UnmapSingle": "asks for the block after block `i`, and wants the answer to "
    "begin `i` plus the blocks of a physical block. The two are the same where a physical block "
    "is one logical block: it passes at that unit (removable).",
    "SCSI.Sanitize.Reset": "sleeps for three seconds, and wants the unit to be overwriting still. "
    "64 MiB take a tenth of a second; it passes where the unit is large enough (6 GiB).",
    "SCSI.WriteSame10.UnmapUntilEnd": "sends a block of FFh with the UNMAP bit and wants zeros. "
    "Where unmapped blocks read as zeros, a block that is not zero shall be written as it is "
    "(SBC-3 5.44). Its twin for WRITE SAME(16) sends a block of zeros, and passes.",
    "iSCSI.iSCSITMF.LUNResetSimpleAsync": "frees its task and asserts before the answer that it "
    "waits for was called back, and does not come to its summary.",
}

Rows = dict[str, dict[str, Outcome]]


def suite() -> list[str]:
    """The names of all tests, each once."""
    done = subprocess.run([SUITE, "-l"], capture_output=True, text=True, timeout=20, check=True)
    found = re.findall(r"^i?SCSI\.\w+\.\w+$", done.stdout, re.MULTILINE)
    return sorted(found, key=lambda name: (name not in FIRST, name))


def judged(words: str) -> Outcome:
    """What the suite's output says of the one test it ran."""
    row = re.search(r"^ *tests +(\d+) +(\d+) +(\d+) +(\d+)", words, re.MULTILINE)
    if row is None:
        return Outcome(Verdict.FAILED, "it ended before its summary")
    _, ran, passed, failed = map(int, row.groups())
    reason = re.search(r"\[(?:FAILED|SKIPPED)\] *(.+)", words)
    why = reason[1].strip() if reason else ""
    if failed or passed != 1 or ran != 1:
        place = re.search(r"^ *1\. (.+)", words, re.MULTILINE)
        failure = re.search(r"\[FAILED\] *(.+)", words)
        found = failure or place
        return Outcome(Verdict.FAILED, found[1].strip() if found else "it did not run")
    return Outcome(Verdict.SKIPPED, why) if "[SKIPPED]" in words else Outcome(Verdict.PASSED)


def run(test: str, url: str) -> Outcome:
    """Run one test with two sessions at ``url``."""
    command = [SUITE, "-d", "-S", "-n", "-t", test, url, url]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return Outcome(Verdict.FAILED, f"no end after {LIMIT:.0f} s")
    return judged(done.stdout + done.stderr)


def run_all(
    names: Sequence[str], kinds: Sequence[Kind], url: Callable[[int], str], show: str
) -> Rows:
    """All tests at all units: test → unit → outcome."""
    rows: Rows = {name: {} for name in names}
    for kind in kinds:
        for name in (name for name in names if re.search(kind.only, name)):
            outcome = rows[name][kind.name] = run(name, url(KINDS.index(kind)))
            if outcome.verdict is not Verdict.PASSED:
                print(f"{show}: {kind.name}: {name}: {outcome.verdict}: {outcome.why}", flush=True)
    return rows


async def ours(folder: Path, names: Sequence[str], kinds: Sequence[Kind]) -> Rows:
    """The suite against our disk process."""
    folder.mkdir()
    for number, kind in enumerate(KINDS):
        with (folder / f"{number}.raw").open("wb") as file:
            file.truncate(kind.size)
    luns = tuple(
        Lun(
            number,
            DiskSpec(
                *(str(folder / f"{number}.raw"), kind.size, f"sha256:{number}"),
                None if kind.read_only else str(folder / f"{number}.qcow2"),
                read_only=kind.read_only,
            ),
            f"CONFORMANCE{number}",
            thin=kind.thin,
            removable=kind.removable,
            physical_block_exponent=kind.exponent,
        )
        for number, kind in enumerate(KINDS)
    )
    admission = Admission(0, "52:54:00:00:00:01", NAME, luns)
    disks = Supervisor(folder, (Portal("127.0.0.1", 0),), lambda _: admission, lambda _: None)
    await disks.start()
    try:
        url = f"iscsi://127.0.0.1:{disks.port}/{NAME}"
        return await asyncio.to_thread(run_all, names, kinds, lambda n: f"{url}/{n}", "netboot")
    finally:
        await disks.stop()


def free_port() -> int:
    """A port that nobody listens on; tgt cannot choose one itself."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def theirs(folder: Path, names: Sequence[str], kinds: Sequence[Kind], port: int) -> Rows:
    """The suite against Debian's tgt, set up the same way."""
    folder.mkdir()
    # A control socket of its own, so that no other tgtd of this machine is met.
    environment = {**os.environ, "TGT_IPC_SOCKET": str(folder / "tgtd")}

    def tell(*words: str) -> None:
        command = ["tgtadm", "--lld", "iscsi", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=20, env=environment)

    async with AsyncExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        server = await asyncio.create_subprocess_exec(
            *("tgtd", "-f", "--iscsi", f"portal=127.0.0.1:{port}"),
            stdout=log,
            stderr=log,
            env=environment,
        )
        stack.push_async_callback(server.wait)
        stack.callback(server.kill)
        for attempt in range(100):
            try:
                tell("--op", "show", "--mode", "sys")
                break
            except subprocess.CalledProcessError:
                if attempt == 99:
                    raise
                await asyncio.sleep(0.1)
        tell("--op", "new", "--mode", "target", "--tid", "1", "-T", NAME)
        for number, kind in enumerate(KINDS, 1):
            disk = folder / f"{number}.raw"
            with disk.open("wb") as file:
                file.truncate(kind.size)
            unit = ["--mode", "logicalunit", "--tid", "1", "--lun", str(number)]
            tell("--op", "new", *unit, "-b", str(disk))
            tell("--op", "update", *unit, "--params", kind.tgt)
        tell("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        url = f"iscsi://127.0.0.1:{port}/{NAME}"
        if server.returncode is not None:
            raise RuntimeError(f"tgtd has ended: {(folder / 'log').read_text()[-300:]}")
        return await asyncio.to_thread(run_all, names, kinds, lambda n: f"{url}/{n + 1}", "tgt")
    raise AssertionError("the stack never swallows an exception")


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


def page(sides: Mapping[str, Rows]) -> str:
    """``docs/conformance.md``."""
    parts = [
        "# Conformance\n",
        "Written by `make conformance`: every test of libiscsi's suite (`iscsi-test-cu` of Debian's"
        "\nlibiscsi-bin), one process each with a limit of "
        f"{LIMIT:.0f} s, a second session, and four logical\nunits, against our disk process and "
        "against Debian's tgt in the same run. A test that skipped\nitself is counted apart.\n",
        table(sides),
    ]
    if ARTEFACTS:
        parts.append("## Artefacts of the suite\n")
        parts += [f"- `{name}`: {why}" for name, why in ARTEFACTS.items()]
        parts.append("")
    for side, rows in sides.items():
        failed = failures(rows)
        parts.append(f"## What failed: {side}\n")
        parts += [f"- `{name}`, {kind}: {_plain(why)}" for name, kind, why in failed] or [
            "Nothing."
        ]
        parts.append(f"\n## What never ran: {side}\n")
        rows_skipped = [f"- `{name}`: {_plain(_reason(rows[name]))}" for name in never_ran(rows)]
        parts += rows_skipped or ["Nothing."]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _reason(outcomes: Mapping[str, Outcome]) -> str:
    return next(iter(outcomes.values())).why


def _plain(text: str) -> str:
    """One line without what Markdown would take for markup."""
    return re.sub(r"[`*|<>\[\]]", "", text)


async def compare(options: argparse.Namespace) -> dict[str, Rows]:
    """Both targets, side by side."""
    names = [name for name in suite() if re.search(options.only, name)]
    kinds = [kind for kind in KINDS if not options.unit or kind.name in options.unit]
    with tempfile.TemporaryDirectory(prefix="netboot-conformance-") as made:
        folder = Path(made)
        sides = {"netboot": ours(folder / "ours", names, kinds)}
        if not options.alone:
            sides["tgt"] = theirs(folder / "theirs", names, kinds, free_port())
        return dict(zip(sides, await asyncio.gather(*sides.values()), strict=True))


def main() -> int:
    """Run, print the figures, write the page; 1 when a failure is no listed artefact."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", default="", help="tests whose name matches this expression")
    parser.add_argument("--unit", action="append", choices=[kind.name for kind in KINDS])
    parser.add_argument("--alone", action="store_true", help="without tgt")
    options = parser.parse_args()
    for program in (SUITE, *(() if options.alone else ("tgtd", "tgtadm"))):
        if shutil.which(program) is None:
            print(f"{program} is missing: apt-get install libiscsi-bin tgt", file=sys.stderr)
            return 2
    sides = asyncio.run(compare(options))
    print(table(sides))
    if not (options.only or options.unit or options.alone):
        PAGE.write_text(page(sides))
    bad = [name for name, _, _ in failures(sides["netboot"]) if name not in ARTEFACTS]
    print("no failure but the artefacts" if not bad else f"failed: {', '.join(sorted(set(bad)))}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

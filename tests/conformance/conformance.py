"""libiscsi's own test suite against our target, and against tgt in the same run.

``make conformance`` runs every test of ``iscsi-test-cu`` in a process of its own, with a time
limit, at four logical units and with a second session, and writes ``docs/conformance.md``. A
test that skipped itself is counted apart: the suite counts it as passed. All traffic stays on
127.0.0.1; needs the packages libiscsi-bin and tgt, and 20 GiB in the folder for temporary files.
"""

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from netboot.model import Admission, DiskSpec, Lun
from tests import ending
from tests.bench.servers import disk_process, export, tgtd
from tests.conformance.figures import Outcome, Rows, Verdict, page, table, unheld
from tests.conformance.units import KINDS, LIMIT, LONG, LONG_LIMIT, LONG_SIZE, SIZE, UNITS, Kind

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conformance.md"
SUITE = "iscsi-test-cu"
NAME = "iqn.2026-11.lab.netboot:conformance"
#: Bytes below the folder for temporary files: the large units are overwritten, the others nearly.
ROOM = sum(size for _, size in UNITS) + (1 << 30)
#: These want zeros where no test before them has written, so they run first.
FIRST = ("SCSI.MultipathIO.CompareAndWrite",)


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


async def run(test: str, url: str) -> Outcome:
    """Run one test with two sessions at ``url``."""
    limit = LONG_LIMIT if test in LONG else LIMIT
    process = await asyncio.create_subprocess_exec(
        *(SUITE, "-d", "-S", "-n", "-t", test, url, url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        said = await asyncio.wait_for(process.communicate(), limit)
    except TimeoutError:
        return Outcome(Verdict.FAILED, f"no end after {limit:.0f} s")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return judged(b"".join(said).decode(errors="replace"))


async def run_all(
    names: Sequence[str], kinds: Sequence[Kind], url: Callable[[int], str], show: str
) -> Rows:
    """All tests at all units: test → unit → outcome."""
    rows: Rows = {name: {} for name in names}
    for kind in kinds:
        for name in (name for name in names if re.search(kind.only, name)):
            lun = UNITS.index((kind, LONG_SIZE if name in LONG else SIZE))
            outcome = rows[name][kind.name] = await run(name, url(lun))
            if outcome.verdict is not Verdict.PASSED:
                print(f"{show}: {kind.name}: {name}: {outcome.verdict}: {outcome.why}", flush=True)
    return rows


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[int]:
    """Our disk process with all units, for as long as the block lasts; its port."""
    folder.mkdir()
    for number, (_, size) in enumerate(UNITS):
        with (folder / f"{number}.raw").open("wb") as file:
            file.truncate(size)
    luns = tuple(
        Lun(
            number,
            DiskSpec(
                *(str(folder / f"{number}.raw"), size, f"sha256:{number}"),
                None if kind.read_only else str(folder / f"{number}.qcow2"),
                read_only=kind.read_only,
            ),
            f"CONFORMANCE{number}",
            thin=kind.thin,
            removable=kind.removable,
            physical_block_exponent=kind.exponent,
        )
        for number, (kind, size) in enumerate(UNITS)
    )
    admission = Admission(0, "52:54:00:00:00:01", NAME, luns)
    async with disk_process(folder, lambda _: admission) as (port, _):
        yield port


def at(port: int, lun: int) -> str:
    """A unit as libiscsi names it."""
    return f"iscsi://127.0.0.1:{port}/{NAME}/{lun}"


async def ours(folder: Path, names: Sequence[str], kinds: Sequence[Kind]) -> Rows:
    """The suite against our disk process."""
    async with serving(folder) as port:
        return await run_all(names, kinds, lambda n: at(port, n), "netboot")
    raise AssertionError("nothing here swallows an exception")


async def theirs(folder: Path, names: Sequence[str], kinds: Sequence[Kind]) -> Rows:
    """The suite against Debian's tgt, set up the same way."""
    async with tgtd(folder) as (port, _, tell):
        disks = [folder / f"{number}.raw" for number in range(len(UNITS))]
        for disk, (_, size) in zip(disks, UNITS, strict=True):
            with disk.open("wb") as file:
                file.truncate(size)
        export(tell, 1, NAME, *disks, words=[kind.tgt for kind, _ in UNITS])
        return await run_all(names, kinds, lambda n: at(port, n + 1), "tgt")
    raise AssertionError("nothing here swallows an exception")


async def compare(options: argparse.Namespace) -> dict[str, Rows]:
    """Both targets, side by side."""
    names = [name for name in suite() if re.search(options.only, name)]
    kinds = [kind for kind in KINDS if not options.unit or kind.name in options.unit]
    with tempfile.TemporaryDirectory(prefix="netboot-conformance-") as made:
        folder = Path(made)
        sides = {"netboot": ours(folder / "ours", names, kinds)}
        if not options.alone:
            sides["tgt"] = theirs(folder / "theirs", names, kinds)
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
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if any(re.search(options.only, name) for name in LONG) and free < ROOM:
        print(
            f"{tempfile.gettempdir()} has {free >> 30} GiB free, {ROOM >> 30} are overwritten: "
            "set TMPDIR to another folder",
            file=sys.stderr,
        )
        return 2
    sides = ending.run(compare(options))
    print(table(sides))
    if not (options.only or options.unit or options.alone):
        PAGE.write_text(page(sides))
    wrong = unheld(sides["netboot"])
    print("\n".join(wrong) or "no failure but the artefacts")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

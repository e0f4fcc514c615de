"""Run the fuzz targets: ``python -m tests.fuzz.run [--seconds n | --inputs n] [target ...]``.

With atheris (the extra ``fuzz``) inputs are chosen by the branches they reach; without it they
are mutations of the seeds, of what is in ``regressions`` and of their own neighbours. Prints
the figures; findings go to ``build/fuzz/<target>``, and the exit status says that there are some.
"""

import argparse
import importlib
import json
import logging
import os
import random
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

from tests.fuzz.frames import mutate
from tests.fuzz.judge import Finding, Judge

if "--alone" in sys.argv and "--guided" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["netboot"]):
        importlib.import_module("tests.fuzz.targets")
from tests.fuzz.targets import TARGETS, Target, tidy

ROOT = Path(__file__).parent.parent.parent
REGRESSIONS = Path(__file__).parent / "regressions"
FOUND = ROOT / "build" / "fuzz"
#: As many neighbours of neighbours are kept, to go on from.
POOL = 1024


def corpus(target: Target) -> list[bytes]:
    """The seeds, and everything that once found something."""
    kept = sorted((REGRESSIONS / target.name).glob("*.bin"))
    return [*target.seeds, *(path.read_bytes() for path in kept)]


def walk(target: Target, judge: Judge, seed: int, inputs: int, until: float | None = None) -> None:
    """Mutate and run, reproducibly from ``seed``, ``inputs`` times or until the clock says so."""
    rng = random.Random(seed)
    seeds = corpus(target)
    pool = list(seeds)
    for data in seeds[:inputs]:
        judge.weigh(data)
    while judge.inputs < inputs:
        if judge.inputs % 1024 == 0:
            judge.settle()
            if until is not None and time.monotonic() > until:
                break
        data = mutate(
            rng.choice(pool if rng.randrange(3) == 0 else seeds), rng, seeds, target.tweak
        )
        judge.weigh(data)
        if rng.randrange(8) == 0:  # without coverage: any neighbour may lead further
            if len(pool) < POOL:
                pool.append(data)
            else:
                pool[rng.randrange(len(seeds), POOL)] = data


def save(target: Target, finding: Finding) -> Path:
    """Keep a finding's input and what it did."""
    folder = FOUND / target.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{finding.kind}-{sha256(finding.data).hexdigest()[:12]}.bin"
    path.write_bytes(finding.data)
    path.with_suffix(".txt").write_text(f"{finding.kind} {finding.where}\n{finding.detail}\n")
    return path


def guided(target: Target, judge: Judge, seed: int, inputs: int, seconds: int) -> None:
    """The same with atheris, which never returns: it ends the process after the report."""
    seeds = corpus(target)
    folder = FOUND / "corpus" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds:
        (folder / sha256(data).hexdigest()[:20]).write_bytes(data)

    def mutator(data: bytes, size: int, number: int) -> bytes:
        return mutate(bytes(data), random.Random(number), seeds, target.tweak)[:size]

    begin = time.monotonic()
    arguments = [sys.argv[0], str(folder), f"-seed={seed}", "-max_len=40000", "-verbosity=0"]
    arguments += ["-rss_limit_mb=4096", "-print_final_stats=0"]
    arguments += [f"-max_total_time={seconds}"] if seconds else [f"-runs={inputs}"]
    limit = inputs if not seconds else sys.maxsize

    def counted(data: bytes) -> None:
        judge.weigh(data)
        if judge.inputs % 4096 == 0:
            judge.settle()
        if judge.inputs >= limit or (seconds and time.monotonic() - begin >= seconds):
            _report(target, judge, time.monotonic() - begin)
            tidy()
            os._exit(1 if judge.findings else 0)

    atheris.Setup(arguments, counted, custom_mutator=mutator)
    atheris.Fuzz()


def _report(target: Target, judge: Judge, took: float) -> None:
    for finding in judge.findings.values():
        path = save(target, finding)
        print(f"  {target.name}: {finding.kind} {finding.where}: {path.relative_to(ROOT)}")
    rate = judge.inputs / took if took else 0
    figures = {
        "target": target.name,
        "inputs": judge.inputs,
        "seconds": round(took),
        "per second": round(rate),
        "slowest ms": round(judge.slowest * 1000, 1),
        "findings": len(judge.findings),
    }
    print(json.dumps(figures), flush=True)


def alone(target: Target, options: argparse.Namespace) -> int:
    """One target in this process; its exit status."""
    logging.disable(logging.CRITICAL)
    judge = Judge(target.run)
    begin = time.monotonic()
    if options.guided:
        guided(target, judge, options.seed, options.inputs, options.seconds)
    until = begin + options.seconds if options.seconds else None
    walk(target, judge, options.seed, options.inputs if until is None else sys.maxsize, until)
    _report(target, judge, time.monotonic() - begin)
    return 1 if judge.findings else 0


def main() -> int:
    """Each target in a process of its own, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all when none is named")
    parser.add_argument("--seconds", type=int, default=0, help="for each target")
    parser.add_argument("--inputs", type=int, default=100_000, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="one target, in this process")
    parser.add_argument("--guided", action="store_true", help="with atheris")
    options = parser.parse_args()
    if options.alone:
        return alone(TARGETS[options.targets[0]], options)
    failed = False
    for name in options.targets or TARGETS:
        argv = [sys.executable, "-m", "tests.fuzz.run", "--alone", name]
        argv += [f"--seconds={options.seconds}", f"--inputs={options.inputs}"]
        argv += [f"--seed={options.seed}", *(["--guided"] if options.guided else [])]
        FOUND.mkdir(parents=True, exist_ok=True)
        with (FOUND / f"{name}.log").open("w") as log:  # what atheris says of its own work
            status = subprocess.run(argv, cwd=ROOT, stderr=log).returncode
        if status not in (0, 1):
            print(f"  {name}: ended with {status}; see {log.name}")
        failed |= status != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

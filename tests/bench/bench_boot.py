"""The same machine boots the same image with dnsmasq + tgt and with us, in turn.

    make bench-boot            one BIOS machine, two rounds
    python -m tests.bench.bench_boot --rounds 3 --firmware uefi

Wall time from power on to the guest's own word that it is up. Each boot has namespaces, a state
and a disk of its own, the golden image in the page cache. Exit 0 when the median of ours is at
most that of theirs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from netboot.errors import NetbootError
from netboot.lab import namespace
from netboot.lab.machine import Firmware, Machine
from netboot.lab.run import Lab, borrow, scratch
from netboot.lab.service import Settings
from tests import ending
from tests.bench.rival import Rival

ROOT = Path(__file__).parents[2]
SIDES = ("dnsmasq + tgt", "netboot")
BAR = 1.0
PATIENCE = 240.0


async def once(side: str, image: str, library: Path, firmware: Firmware, routed: bool) -> float:
    """Seconds of one boot."""
    version = borrow(image, library)
    machine = Machine("bench1", "52:54:00:6e:62:01", "tap0", firmware, cores=2)
    with scratch("netboot-bench-") as folder:
        settings = Settings(folder / "state", image, [machine])
        rival = Rival(folder, settings, version, routed=routed) if side != "netboot" else None
        async with Lab(folder, settings, version, service=rival) as lab:
            begun = time.monotonic()
            console = await lab.power_on(machine)
            await console.expect("NETBOOT-READY", PATIENCE)
            return time.monotonic() - begun


def apart(side: str, arguments: argparse.Namespace) -> float:
    """The same in a child with namespaces of its own."""
    words = [sys.executable, "-m", "tests.bench.bench_boot", "--side", side]
    words += ["--image", arguments.image, "--library", str(arguments.library.absolute())]
    words += ["--firmware", arguments.firmware, *(["--routed"] if arguments.routed else [])]
    done = namespace.run(words, stdout=subprocess.PIPE, cwd=ROOT, timeout=PATIENCE + 120)
    if done.returncode:
        sys.exit(done.returncode)
    return float(json.loads(done.stdout)["seconds"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--image", default="debian")
    parser.add_argument("--library", type=Path, default=Path("/var/lib/netboot"))
    parser.add_argument("--firmware", choices=list(Firmware), default="bios")
    parser.add_argument(
        "--routed", action="store_true", help="dnsmasq, too, tells iPXE that there is no router"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    ending.unwinds()
    if arguments.side:
        firmware = Firmware(arguments.firmware)
        try:
            seconds = ending.run(
                once(
                    arguments.side,
                    arguments.image,
                    arguments.library,
                    firmware,
                    arguments.routed,
                )
            )
        except NetbootError as error:
            sys.exit(f"{arguments.side}: {error}")
        print(json.dumps({"seconds": seconds}))
        return 0

    Path(borrow(arguments.image, arguments.library).path).read_bytes()  # into the page cache
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(arguments.rounds):
        for side in SIDES:
            taken[side].append(apart(side, arguments))
            print(f"round {number + 1}  {side:14}{taken[side][-1]:8.1f} s", flush=True)
    theirs, ours = (statistics.median(taken[side]) for side in SIDES)
    print(f"median   dnsmasq + tgt {theirs:8.1f} s   netboot {ours:8.1f} s")
    print(f"ratio    {ours / theirs:.2f} of theirs (bar: at most {BAR:.2f})")
    return int(ours > BAR * theirs)


if __name__ == "__main__":
    sys.exit(main())

"""Record what a real machine asks of its disk while it boots: once, from QEMU.

    python -m tests.bench.storm_record --image debian --out boot.trace

One BIOS machine boots the golden image in a lab of its own, from power on to its own word that it
is up. The bridge is captured whole, and ``storm_trace`` makes of it what a replay needs.
"""

import argparse
import sys
from pathlib import Path

from netboot.errors import LabError
from netboot.lab import namespace
from netboot.lab.machine import Machine
from netboot.lab.run import Lab, borrow, scratch
from netboot.lab.service import Settings
from tests import ending
from tests.bench import storm_trace

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0


async def capture(image: str, library: Path, out: Path) -> None:
    """Boot once, and write the trace of it."""
    version = borrow(image, library)
    machine = Machine("storm1", "52:54:00:6e:62:01", "tap0", cores=2)
    with scratch("netboot-storm-") as folder:
        settings = Settings(folder / "state", image, [machine])
        async with Lab(folder, settings, version, snap=0) as lab:
            console = await lab.power_on(machine)
            await console.expect("NETBOOT-READY", PATIENCE)
        with lab.capture.open("rb") as file:
            steps = storm_trace.of_capture(file)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(storm_trace.encode(steps))


def record(image: str, library: Path, out: Path) -> None:
    """The same in a child with namespaces of its own; LabError when it cannot."""
    words = [
        sys.executable,
        "-m",
        "tests.bench.storm_record",
        "--image",
        image,
        "--library",
        str(library),
    ]
    words += ["--out", str(out.absolute())]
    done = namespace.run(words, cwd=ROOT, timeout=PATIENCE + 120)
    if done.returncode:
        raise LabError("the boot could not be recorded; what the child said is above")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="debian")
    parser.add_argument("--library", type=Path, default=Path("/var/lib/netboot"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    ending.unwinds()
    if not namespace.inside():
        record(options.image, options.library, options.out)
        return 0
    try:
        ending.run(capture(options.image, options.library, options.out))
    except (LabError, storm_trace.TraceError) as error:
        sys.exit(f"storm: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

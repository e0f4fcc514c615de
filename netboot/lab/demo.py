"""The demonstration: a BIOS and a UEFI machine, one golden image, each with a disk of its own.

Both boot side by side; each writes a file that only it can know, reboots, finds its own file
again and not the other's. Success is what the *guests* say, not what we sent.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console as Screen

from netboot.errors import LabError
from netboot.lab.console import ConsoleError
from netboot.lab.machine import Firmware, Machine
from netboot.lab.report import sizes, timeline
from netboot.lab.run import Lab, scratch
from netboot.lab.service import Settings
from netboot.model import Version

MACHINES = (
    Machine("bios1", "52:54:00:6e:62:01", "tap0", Firmware.BIOS),
    Machine("uefi1", "52:54:00:6e:62:02", "tap1", Firmware.UEFI, rom=False),
)
#: Seconds for one boot. A Debian takes 45-80 s under TCG with a core to itself.
BOOT = 240.0


async def live(lab: Lab, machine: Machine, say: Callable[[str], None]) -> None:
    """One machine's part: boot, write, reboot, find."""
    begun = time.monotonic()
    mine, other = f"/root/{machine.name}", [m for m in MACHINES if m is not machine]

    def tell(text: str) -> None:
        say(f"{time.monotonic() - begun:6.1f} s  {machine.name}: {text}")

    console = await lab.power_on(machine)
    tell(f"switched on ({machine.firmware})")
    await console.up(BOOT)
    tell("is up: " + await console.run("uname -sr; findmnt -no SOURCE,FSTYPE /"))
    await console.run(f"echo 'written by {machine.name}' > {mine} && sync")
    tell(f"wrote {mine}; rebooting")
    await console.send("reboot")
    await console.up(BOOT)
    found = await console.run(f"cat {mine}")
    if found.strip() != f"written by {machine.name}":
        raise ConsoleError(f"{machine.name}: {mine} holds {found!r} after the reboot")
    for one in other:
        await console.run(f"test ! -e /root/{one.name}")
    tell(f"is up again, found {mine} and none of {', '.join(m.name for m in other)}'s")


async def demo(version: Version, screen: Screen) -> None:
    """Returns when both machines lived; LabError with all reasons when one did not."""

    def say(text: str) -> None:
        screen.print(text, highlight=False, markup=False)

    with scratch("netboot-demo-") as folder:
        settings = Settings(folder / "state", version.image, MACHINES)
        async with Lab(folder, settings, version) as lab:
            parts = [live(lab, each, say) for each in MACHINES]
            ends = await asyncio.gather(*parts, return_exceptions=True)
            failures = []
            for each, end in zip(MACHINES, ends, strict=True):
                if isinstance(end, ConsoleError):
                    failures.append(f"{end}; last phase: {await lab.last_phase(each.mac)}")
                elif end is not None:
                    raise end
                with suppress(OSError):
                    screen.print(timeline(await lab.service.client(each.mac)))
        screen.print(sizes(version, settings.state))
        if failures:
            raise LabError("\n".join(failures))

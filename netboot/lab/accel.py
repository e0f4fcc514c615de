"""Whether QEMU may use KVM here: tried, not guessed.

``/dev/kvm`` can exist and still hang the first instruction (nested virtualisation that is only
half there), so a machine is booted as far as its firmware's first words. Where those do not
come in time QEMU's own emulation (TCG) is used.
"""

import os
import subprocess
from pathlib import Path

TCG = "tcg,thread=multi,tb-size=256"
PROBE = [
    *("qemu-system-x86_64", "-machine", "q35,graphics=off", "-accel", "kvm", "-cpu", "host"),
    *("-m", "64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    *("-serial", "stdio"),
]
#: Seconds. SeaBIOS speaks after a few tens of milliseconds under KVM.
PATIENCE = 5.0


def choose(device: Path = Path("/dev/kvm"), probe: list[str] = PROBE) -> str:
    """``kvm`` or the TCG setting; ``NETBOOT_ACCEL`` in the environment overrides the probe."""
    forced = os.environ.get("NETBOOT_ACCEL")
    if forced:
        return TCG if forced == "tcg" else forced
    if not os.access(device, os.R_OK | os.W_OK):
        return TCG
    return "kvm" if speaks(probe) else TCG


def speaks(probe: list[str]) -> bool:
    """Whether the probe's machine says anything within the patience we have."""
    process = subprocess.Popen(
        probe, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as late:
        process.kill()
        rest, _ = process.communicate()
        output = (late.stdout or b"") + rest
    return b"SeaBIOS" in output

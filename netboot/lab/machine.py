"""A machine without a disk, as a QEMU command line. Pure: nothing is started here.

The ROM of QEMU's network cards is iPXE, on BIOS and on UEFI. Without it (``rom=False``) a UEFI
machine boots by its firmware's own PXE client, as most hardware does, which then loads iPXE by
TFTP; a BIOS machine has nothing left to boot by. ``http`` takes that PXE client away from a UEFI
machine too, so that it boots by its firmware's HTTP client.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from netboot.errors import LabError

#: Debian's ovmf package; code is shared, the variables are copied for each machine.
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")


class Firmware(StrEnum):
    """What the machine wakes up with."""

    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine: ``name`` is also its host name, ``tap`` its network port."""

    name: str
    mac: str
    tap: str
    firmware: Firmware = Firmware.BIOS
    memory: int = 1024  #: MiB
    cores: int = 1
    rom: bool = True  #: the card's own iPXE
    http: bool = False  #: UEFI HTTP boot


def check(firmware: Firmware) -> None:
    """LabError naming the package when this firmware cannot be had here."""
    if firmware is Firmware.UEFI and not (OVMF_CODE.is_file() and OVMF_VARS.is_file()):
        raise LabError(f"UEFI machines need {OVMF_CODE}: apt-get install ovmf")


def command(machine: Machine, accel: str, variables: Path) -> list[str]:
    """The QEMU command line; the serial line is its standard input and output.

    ``variables`` is this machine's own copy of the UEFI variables (unused on BIOS).
    """
    cpu = "host" if accel == "kvm" else "max"
    arguments = ["qemu-system-x86_64", "-name", machine.name]
    arguments += ["-machine", "q35,graphics=off", "-accel", accel, "-cpu", cpu]
    arguments += ["-smp", str(machine.cores), "-m", str(machine.memory)]
    arguments += ["-nodefaults", "-no-user-config", "-display", "none"]
    arguments += ["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"]
    arguments += ["-netdev", f"tap,id=net0,ifname={machine.tap},script=no,downscript=no"]
    rom = "" if machine.rom else ",romfile="
    card = f"virtio-net-pci,netdev=net0,mac={machine.mac},bootindex=1{rom}"
    arguments += ["-device", card]
    arguments += ["-object", "rng-random,filename=/dev/urandom,id=rng0"]
    arguments += ["-device", "virtio-rng-pci,rng=rng0"]
    # The golden image gives a root shell on the serial line to a machine that carries this mark.
    arguments += ["-smbios", "type=11,value=netboot.lab=1"]
    if machine.firmware is Firmware.UEFI:
        code = f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF_CODE}"
        arguments += ["-drive", code]
        arguments += ["-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
    if machine.http:
        # OVMF takes its settings by name from fw_cfg (OvmfPkg, NetworkPkg: *PXESupport).
        for version in (4, 6):
            arguments += ["-fw_cfg", f"name=opt/org.tianocore/IPv{version}PXESupport,string=n"]
    return arguments

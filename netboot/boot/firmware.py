"""THE firmware table: from the architecture code of a packet to the program we send.

The codes are those of RFC 4578 section 2.1 as IANA keeps them ("Processor Architecture Types"
of the DHCPv6 parameters). A row drives the plan, ``explain`` and the tests. Loader names
without an architecture in them are the x86 builds that every packager of iPXE ships; the others
are named as Debian's package ``ipxe`` names them.

Nothing here ever looks at a packet: ``of`` takes the facts of a Client.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from netboot.model import Client


class Transport(StrEnum):
    """How a firmware fetches its boot program."""

    TFTP = "tftp"
    HTTP = "http"


class Kind(StrEnum):
    """What a firmware can run, which is what keeps a ``.efi`` away from a BIOS."""

    BIOS = "bios"
    EFI = "efi"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Firmware:
    """One row. ``loaders``: the default first, then the known alternatives; () = none of ours."""

    code: int
    name: str
    kind: Kind
    loaders: tuple[str, ...]
    transport: Transport = Transport.TFTP
    story: str = ""  #: what is odd about it, and how we know

    @property
    def loader(self) -> str | None:
        """The file that this firmware gets when nobody asks for another."""
        return self.loaders[0] if self.loaders else None


_BIOS = ("undionly.kpxe", "ipxe.pxe", "undionly.kkpxe")
_X64 = ("snponly.efi", "ipxe.efi", "ipxe-amd64.efi")
_IA32 = ("ipxe-i386.efi",)
_ARM32 = ("ipxe-arm32.efi",)
_ARM64 = ("ipxe-arm64.efi", "snponly-arm64.efi")
_RISCV32 = ("ipxe-riscv32.efi",)
_RISCV64 = ("ipxe-riscv64.efi",)
_LOONG64 = ("ipxe-loong64.efi",)

_EBC = (
    "RFC 4578 gave 7 to EFI byte code and 9 to x64; erratum 4625 swaps them, firmware sends "
    "either, so both get the x64 build, as LTSP, xCAT, Warewulf, MAAS and Cobbler do."
)
_SNP = (
    "snponly.efi drives the network card through the firmware's own driver, so it works where "
    "iPXE has no driver, and is the most reliable for Windows; ipxe.efi brings its own drivers."
)
_NONE = "There is no build of iPXE for it: it gets its names and addresses, and no boot program."
_H = Transport.HTTP

ROWS: tuple[Firmware, ...] = (
    Firmware(
        0x00,
        "x86 BIOS",
        Kind.BIOS,
        _BIOS,
        story="A PXE ROM that leaves option 93 out is a BIOS too: the oldest ones predate it. "
        "BIOS builds of iPXE have no HTTPS.",
    ),
    Firmware(0x01, "NEC/PC98", Kind.OTHER, (), story=_NONE),
    Firmware(0x02, "Itanium", Kind.OTHER, (), story=_NONE),
    Firmware(0x03, "DEC Alpha", Kind.OTHER, (), story=_NONE),
    Firmware(0x04, "Arc x86", Kind.OTHER, (), story=_NONE),
    Firmware(0x05, "Intel Lean Client", Kind.OTHER, (), story=_NONE),
    Firmware(
        0x06,
        "IA32 UEFI",
        Kind.EFI,
        _IA32,
        story="Atom tablets: a 32-bit UEFI on a 64-bit processor starts 32-bit programs only.",
    ),
    Firmware(0x07, "x64 UEFI", Kind.EFI, _X64, story=_SNP),
    Firmware(0x08, "EFI Xscale", Kind.OTHER, (), story=_NONE),
    Firmware(0x09, "x64 UEFI (as EBC)", Kind.EFI, _X64, story=_EBC),
    Firmware(0x0A, "ARM 32-bit UEFI", Kind.EFI, _ARM32),
    Firmware(0x0B, "ARM 64-bit UEFI", Kind.EFI, _ARM64),
    Firmware(0x0C, "PowerPC Open Firmware", Kind.OTHER, (), story=_NONE),
    Firmware(0x0D, "PowerPC ePAPR", Kind.OTHER, (), story=_NONE),
    Firmware(0x0E, "POWER OPAL v3", Kind.OTHER, (), story=_NONE),
    Firmware(0x0F, "IA32 UEFI HTTP", Kind.EFI, _IA32, _H),
    Firmware(
        0x10,
        "x64 UEFI HTTP",
        Kind.EFI,
        _X64,
        _H,
        story="The answer must be HTTPClient in option 60 and a URL in 67; a proxy offer of the "
        "other kind is dropped (EDK2 HttpBootDhcp4.c). Some firmware takes https only.",
    ),
    Firmware(0x11, "x64 UEFI HTTP (as EBC)", Kind.EFI, _X64, _H, story=_EBC),
    Firmware(0x12, "ARM 32-bit UEFI HTTP", Kind.EFI, _ARM32, _H),
    Firmware(0x13, "ARM 64-bit UEFI HTTP", Kind.EFI, _ARM64, _H),
    Firmware(
        0x14,
        "x86 BIOS HTTP",
        Kind.BIOS,
        (),
        _H,
        story="In the registry, but no firmware is known to send it, so nobody can say what it "
        "would start.",
    ),
    Firmware(0x15, "ARM 32-bit U-Boot", Kind.OTHER, (), story=_NONE),
    Firmware(0x16, "ARM 64-bit U-Boot", Kind.OTHER, (), story=_NONE),
    Firmware(0x17, "ARM 32-bit U-Boot HTTP", Kind.OTHER, (), _H, story=_NONE),
    Firmware(0x18, "ARM 64-bit U-Boot HTTP", Kind.OTHER, (), _H, story=_NONE),
    Firmware(0x19, "RISC-V 32-bit UEFI", Kind.EFI, _RISCV32),
    Firmware(0x1A, "RISC-V 32-bit UEFI HTTP", Kind.EFI, _RISCV32, _H),
    Firmware(0x1B, "RISC-V 64-bit UEFI", Kind.EFI, _RISCV64),
    Firmware(0x1C, "RISC-V 64-bit UEFI HTTP", Kind.EFI, _RISCV64, _H),
    Firmware(0x1D, "RISC-V 128-bit UEFI", Kind.EFI, (), story=_NONE),
    Firmware(0x1E, "RISC-V 128-bit UEFI HTTP", Kind.EFI, (), _H, story=_NONE),
    Firmware(0x1F, "s390 basic", Kind.OTHER, (), story=_NONE),
    Firmware(0x20, "s390 extended", Kind.OTHER, (), story=_NONE),
    Firmware(0x21, "MIPS 32-bit UEFI", Kind.EFI, (), story=_NONE),
    Firmware(0x22, "MIPS 64-bit UEFI", Kind.EFI, (), story=_NONE),
    Firmware(0x23, "Sunway 32-bit UEFI", Kind.EFI, (), story=_NONE),
    Firmware(0x24, "Sunway 64-bit UEFI", Kind.EFI, (), story=_NONE),
    Firmware(0x25, "LoongArch 32-bit UEFI", Kind.EFI, (), story=_NONE),
    Firmware(0x26, "LoongArch 32-bit UEFI HTTP", Kind.EFI, (), _H, story=_NONE),
    Firmware(0x27, "LoongArch 64-bit UEFI", Kind.EFI, _LOONG64),
    Firmware(0x28, "LoongArch 64-bit UEFI HTTP", Kind.EFI, _LOONG64, _H),
    Firmware(0x29, "Raspberry Pi (rpiboot)", Kind.OTHER, (), story=_NONE),
)

BY_CODE: Mapping[int, Firmware] = MappingProxyType({row.code: row for row in ROWS})

#: The boot ROM of a Raspberry Pi says that it is an x86 BIOS (code 0); only its MAC tells.
RASPBERRY_PI = Firmware(
    0x00,
    "Raspberry Pi boot ROM",
    Kind.OTHER,
    (),
    story="It sends architecture 0 and looks for its own firmware files by TFTP; undionly.kpxe "
    "would only make it hang (raspberrypi/firmware#801, #1101).",
)
RASPBERRY_PI_OUIS = frozenset(
    {"b8:27:eb", "dc:a6:32", "e4:5f:01", "28:cd:c1", "d8:3a:dd", "2c:cf:67", "88:a2:9e"}
)

#: Every loader that some row names: a profile's ``loader`` that is one of these is wanted only
#: where the row has it.
KNOWN_LOADERS: frozenset[str] = frozenset(loader for row in ROWS for loader in row.loaders)


def of(client: Client) -> tuple[Firmware | None, str]:
    """The row for this client, and in words how it was found; None: no row has its code.

    Option 93 may be a list, in the order of what the machine likes best: the first code that we
    have a loader for wins, else the first that we know at all.
    """
    if not client.arch:
        return BY_CODE[0x00], "no architecture in the packet: taken for an x86 BIOS"
    if 0x00 in client.arch and client.mac[:8] in RASPBERRY_PI_OUIS:
        return RASPBERRY_PI, "architecture 0 from a MAC of Raspberry Pi: its boot ROM"
    known = [BY_CODE[code] for code in client.arch if code in BY_CODE]
    codes = ", ".join(str(code) for code in client.arch)
    if not known:
        return None, f"architecture {codes} is in no row of the firmware table"
    row = next((row for row in known if row.loaders), known[0])
    chosen = f"architecture {row.code}" + (f" of {codes}" if len(client.arch) > 1 else "")
    return row, f"{chosen}: {row.name}"


def loader_for(row: Firmware, wanted: str | None) -> tuple[str | None, str]:
    """The loader that a machine of this row gets when its profile wants ``wanted``; and why.

    A profile names one loader for all its machines: ``ipxe.efi`` must reach neither a BIOS nor
    an ARM machine, which then get the default of their row.
    """
    if row.loader is None:
        return None, f"no loader for {row.name}: {row.story}"
    if wanted is None or wanted == row.loader:
        return row.loader, f"loader {row.loader}, the first choice for {row.name}"
    if wanted in row.loaders:
        return wanted, f"loader {wanted}, because the profile says so"
    fits = wanted.lower().endswith(".efi") == (row.kind is Kind.EFI)
    if fits and wanted not in KNOWN_LOADERS:
        return wanted, f"loader {wanted}, the profile's own"
    return row.loader, f"loader {row.loader}: the profile's {wanted} is not for {row.name}"

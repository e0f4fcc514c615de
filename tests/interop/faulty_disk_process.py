"""A disk process whose disks fail as the folder of its socket says: no test, but run by one.

While a file of the name lies there:

    medium      writes of bytes 8 MiB up to 9 MiB and reads of 10 up to 11 MiB meet a bad platter
    space       writes of bytes 9 MiB up to 10 MiB find no room
    sync        fdatasync of ``client.data`` fails

Only the disk ``client`` is struck, or that which VICTIM in the environment names.
"""

import errno
import os
import sys
from pathlib import Path

from netboot import disk_process
from netboot.model import DiskSpec
from netboot.storage.attach import Goldens
from netboot.storage.disk import Disk, Fault
from netboot.storage.filters.fault import Faulty, Rule

MIB = 1 << 20
FOLDER = Path(sys.argv[sys.argv.index("--socket") + 1]).parent
VICTIM = os.environ.get("VICTIM", "client")


class WhenTold(Rule):
    """Strikes while the file ``fault`` is there."""

    def strikes(self, verb: str, offset: int, length: int) -> bool:
        return (FOLDER / self.fault).exists() and super().strikes(verb, offset, length)


def attach(spec: DiskSpec, goldens: Goldens | None = None) -> Disk:
    disk = real_attach(spec, goldens)
    if Path(spec.overlay or "").stem != VICTIM:
        return disk
    return Faulty(
        disk,
        [
            WhenTold("write", Fault.MEDIUM, range(8 * MIB, 9 * MIB)),
            WhenTold("write", Fault.SPACE, range(9 * MIB, 10 * MIB)),
            WhenTold("read", Fault.MEDIUM, range(10 * MIB, 11 * MIB)),
        ],
    )


def fdatasync(handle: int) -> None:
    name = Path(f"/proc/self/fd/{handle}").readlink().name
    if name == f"{VICTIM}.data" and (FOLDER / "sync").exists():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    real_fdatasync(handle)


real_attach, disk_process.attach = disk_process.attach, attach
real_fdatasync, os.fdatasync = os.fdatasync, fdatasync

if __name__ == "__main__":
    sys.exit(disk_process.main())

"""The servers under a storm, with what the kernel tells of them; and the image they serve."""

import asyncio
import fcntl
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

from netboot.boot import admission
from netboot.errors import NetbootError
from netboot.model import (
    Admission,
    DhcpMode,
    DiskSpec,
    Host,
    Knock,
    Lun,
    Profile,
    Secrets,
    Site,
    Version,
)
from netboot.service.ledger import Ledger
from netboot.state.store import Store
from netboot.storage import attach as storage
from netboot.storage.attach import Goldens
from tests.bench.servers import disk_process, export, tgtd

IQN = "iqn.2026-11.lab.netboot"
TARGET = f"{IQN}:%d"
MACS = "52-54-00-00-%02x-%02x"
TARGET_OF_MAC = f"{IQN}:{MACS}"
INITIATOR_OF_MAC = f"{IQN}:client.{MACS}"
DIGEST = "sha256:storm"
CHUNK = 1 << 20
#: linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, and FS_TOPDIR_FL, by which ext4 spreads the folders
#: in a folder over the disk (as those in its root; "Orlov").
_GETFLAGS, _SETFLAGS, _TOPDIR = 0x80086601, 0x40086602, 0x00020000


@dataclass(slots=True)
class Server:
    """One side: where it listens, and the process that is watched."""

    name: str
    port: int
    pid: int
    lun: int = 0
    most_threads: int = 0

    def _tasks(self) -> list[Path]:
        return list(Path(f"/proc/{self.pid}/task").iterdir())

    def cpu(self) -> float:
        """Processor seconds of its threads so far (proc(5), schedstat)."""
        total = 0
        for task in self._tasks():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:  # it has just ended
                continue
        return total / 1e9

    def threads(self) -> int:
        """How many threads there are."""
        count = len(self._tasks())
        self.most_threads = max(self.most_threads, count)
        return count

    def memory(self) -> int:
        """Bytes of its own: anonymous and shared memory, no file's pages."""
        total = 0
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) << 10
        return total

    def disk(self) -> int:
        """Bytes that the kernel has fetched from disk for it."""
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("read_bytes:"):
                return int(line.split()[1])
        return 0


@asynccontextmanager
async def ours(folder: Path, golden: Path) -> AsyncIterator[Server]:
    """Our disk process: target ``…:<n>`` is client n's own overlay, made at its login."""
    folder.mkdir()
    size = golden.stat().st_size

    def admit(knock: Knock) -> Admission:
        number = int(knock.target.rpartition(":")[2])
        mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        spec = DiskSpec(str(golden), size, DIGEST, str(folder / f"{number}.qcow2"))
        return Admission(0, mac, knock.target, (Lun(0, spec, f"STORM{number}"),))

    async with disk_process(folder, admit) as (port, pid):
        yield Server("netboot", port, pid)


@asynccontextmanager
async def configured(folder: Path, golden: Path, count: int) -> AsyncIterator[Server]:
    """The same with so many machines in the settings, each judged at the service's own door."""
    folder.mkdir()
    store = Store(f"sqlite:///{folder}/netboot.sqlite")
    size = golden.stat().st_size
    store.add_version(Version("debian", 1, str(golden), size, DIGEST, 0.0))
    macs = [f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(count)]
    site = Site(
        *("lo", IPv4Interface("127.0.0.1/8"), "lab.netboot"),
        dhcp_mode=DhcpMode.OFF,
        iqn=IQN,
        profiles={"lab": Profile("lab", image="debian")},
        hosts={mac: Host(mac, f"host{number}", profile="lab") for number, mac in enumerate(macs)},
    )
    ledger = Ledger(store, folder)

    def admit(knock: Knock) -> Admission:
        return admission.admit(
            knock,
            site,
            lease_of=lambda mac: None,
            version_of=ledger.version_of,
            overlay_of=ledger.overlay_of,
            secrets_of=lambda mac: Secrets(mac, "", "", 0.0),
            version_at=ledger.version_at,
        )

    try:
        async with disk_process(folder, admit) as (port, pid):
            yield Server("netboot", port, pid)
    finally:
        store.close()


@asynccontextmanager
async def tgt(folder: Path, copies: Sequence[Path]) -> AsyncIterator[Server]:
    """Debian's tgt as it comes, with a target for each copy."""
    async with tgtd(folder) as (port, pid, tell):

        def set_up() -> None:
            for number, path in enumerate(copies):
                export(tell, number + 1, TARGET % number, path)

        await asyncio.to_thread(set_up)
        yield Server("tgt", port, pid, 1)


def apart(folder: Path) -> Path:
    """A new folder below ``folder`` in a part of the disk of its own, where that can be had.

    An ext4 without a journal walks past each inode of a block group that was deleted in the last
    minutes before it gives out another. After thousands of overlays were thrown away that takes
    longer than all else, and no lab makes a thousand overlays where it has just deleted as many.
    """
    folder.mkdir(exist_ok=True)
    top = os.open(folder, os.O_RDONLY)
    try:
        flags = fcntl.ioctl(top, _GETFLAGS, bytes(8))
        fcntl.ioctl(
            top, _SETFLAGS, (int.from_bytes(flags, "little") | _TOPDIR).to_bytes(8, "little")
        )
    except OSError:
        pass  # another file system
    finally:
        os.close(top)
    return Path(tempfile.mkdtemp(dir=folder))


def attach(folder: Path, golden: Path, count: int) -> float:
    """Seconds to make and open so many persistent overlays, one after the other."""
    goldens, size = Goldens(), golden.stat().st_size
    disks = []
    begun = time.monotonic()
    for number in range(count):
        spec = DiskSpec(str(golden), size, DIGEST, str(folder / f"{number}.qcow2"))
        disks.append(storage.attach(spec, goldens))
    took = time.monotonic() - begun
    for disk in disks:
        disk.close()
    return took


# The image.


def data_of(golden: Path) -> list[tuple[int, int]]:
    """(offset, length) of what is no hole in a file."""
    found = []
    size = golden.stat().st_size
    with golden.open("rb") as file:
        at = 0
        while at < size:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            found.append((begin, at - begin))
    return found


def copy(source: Path, target: Path, ranges: Iterable[tuple[int, int]] = ()) -> None:
    """A copy of a file, holes kept, synced; with ``ranges``, of nothing but those."""
    with source.open("rb") as old, target.open("wb") as new:
        os.truncate(new.fileno(), source.stat().st_size)
        for begin, length in ranges or data_of(source):
            for at in range(begin, begin + length, CHUNK):
                piece = os.pread(old.fileno(), min(CHUNK, begin + length - at), at)
                os.pwrite(new.fileno(), piece, at)
        os.fsync(new.fileno())


def copies(folder: Path, golden: Path, ranges: Sequence[tuple[int, int]], count: int) -> list[Path]:
    """A copy for each of so many clients: of the blocks that a boot reads, the rest is holes."""
    folder.mkdir()
    made = [folder / f"{number}.raw" for number in range(count)]
    for path in made:
        copy(golden, path, ranges)
    return made


def forget(golden: Path) -> None:
    """Have the kernel drop what it has of a file in memory; NetbootError when it does not."""
    with golden.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        begin, length = data_of(golden)[0]
        try:
            os.preadv(file.fileno(), [bytearray(min(length, 4096))], begin, os.RWF_NOWAIT)
        except BlockingIOError:
            return
    raise NetbootError(f"{golden}: stays in memory; does somebody use it?")


# A slow disk.

BLKIO = Path("/sys/fs/cgroup/blkio")


@contextmanager
def slow_reads(file: Path, bytes_second: int, reads_second: int) -> Iterator[Callable[[int], None]]:
    """A way to have the kernel slow down what processes read from the disk that a file is on, also
    by reading ahead (block I/O controller, cgroup-v1/blkio-controller.rst); NetbootError.
    """
    group = BLKIO / f"netboot-storm-{os.getpid()}"
    number = file.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    device = Path("/sys/dev/block") / name
    if (device / "partition").exists():
        name = (device.resolve().parent / "dev").read_text().strip()

    def join(pid: int) -> None:
        (group / "cgroup.procs").write_text(str(pid))

    try:
        group.mkdir()
        try:
            (group / "blkio.throttle.read_bps_device").write_text(f"{name} {bytes_second}")
            (group / "blkio.throttle.read_iops_device").write_text(f"{name} {reads_second}")
            yield join
        finally:
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    (BLKIO / "cgroup.procs").write_text(pid)
            group.rmdir()
    except OSError as problem:
        raise NetbootError(f"{problem.filename}: {problem.strerror}") from problem

"""One lab from start to end: network, capture, service, machines; and everything away again.

    async with Lab(folder, settings) as lab:
        console = await lab.power_on(machine)
        await console.expect("login:", 180)

A lab's folder holds all that a person needs after a failure: the serial log of each machine,
the service's log and settings, the capture of the bridge.
"""

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from netboot.errors import ImageError, LabError
from netboot.lab import accel, machine, namespace
from netboot.lab.console import Console, ConsoleError
from netboot.lab.machine import Firmware, Machine
from netboot.lab.service import ADDRESS, PREFIX, Service, Settings
from netboot.model import Version
from netboot.state.store import Store

#: Bytes kept of each captured packet: all of DHCP and TFTP, the headers of iSCSI.
SNAP = 400


@dataclass(slots=True)
class Running:
    """A machine that is switched on."""

    machine: Machine
    process: asyncio.subprocess.Process
    console: Console
    pump: asyncio.Task[None]
    log: Path


class Lab:
    """The network, the service and the machines of one run, inside a namespace."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        version: Version,
        *,
        service: Service | None = None,
        snap: int = SNAP,
    ) -> None:
        """``service`` may be another's in our place, to compare the two; ``snap`` 0: all bytes."""
        self.folder = folder
        self.settings = settings
        self.version = version
        self.service = service or Service(folder, settings)
        self.running: dict[str, Running] = {}
        self.capture = folder / "capture.pcap"
        self._snap = snap
        self._tcpdump: asyncio.subprocess.Process | None = None
        self._accel = ""

    async def __aenter__(self) -> "Lab":
        if not namespace.inside():
            raise LabError("a lab runs inside its own namespaces: start it by `netboot lab`")
        for each in self.settings.machines:
            machine.check(each.firmware)
        if shutil.which("qemu-system-x86_64") is None:
            raise LabError("the lab needs QEMU: apt-get install qemu-system-x86")
        try:
            namespace.build(f"{ADDRESS}/{PREFIX}", [each.tap for each in self.settings.machines])
            self._accel = await asyncio.to_thread(accel.choose)
            lend(self.version, self.settings.state)
            await self._start_capture()
            await self.service.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _start_capture(self) -> None:
        if shutil.which("tcpdump") is None:
            return
        self._tcpdump = await asyncio.create_subprocess_exec(
            *("tcpdump", "-i", namespace.BRIDGE, "-s", str(self._snap), "-U", "-Z", "root"),
            *("-w", str(self.capture)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def power_on(self, each: Machine) -> Console:
        """Switch a machine on; its serial line."""
        log = self.folder / f"{each.name}.serial.log"
        variables = self.folder / f"{each.name}.vars.fd"
        if each.firmware is Firmware.UEFI and not variables.exists():
            shutil.copyfile(machine.OVMF_VARS, variables)
        with (self.folder / f"{each.name}.qemu.log").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *machine.command(each, self._accel, variables),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        console = Console(each.name, process.stdout, process.stdin)
        pump = asyncio.create_task(console.pump(log))
        self.running[each.name] = Running(each, process, console, pump, log)
        return console

    async def power_off(self, name: str) -> None:
        """Pull the plug, as a person would."""
        running = self.running.pop(name, None)
        if running is None:
            return
        with suppress(ProcessLookupError):
            running.process.kill()
        await running.process.wait()
        await running.pump

    async def close(self) -> None:
        """Everything away again, also after half a start."""
        for name in tuple(self.running):
            await self.power_off(name)
        try:
            await self.service.stop()
        finally:
            if self._tcpdump is not None and self._tcpdump.returncode is None:
                self._tcpdump.terminate()
                await self._tcpdump.wait()

    async def last_phase(self, mac: str) -> str:
        """How far a machine came, in one word; for reports of a failure."""
        try:
            return str((await self.service.client(mac)).get("phase") or "no packet seen")
        except OSError:
            return "unknown: the service does not answer"


def lend(version: Version, state: Path) -> None:
    """Make the library's version known to a lab's own state; its bytes stay where they are."""
    state.mkdir(parents=True, exist_ok=True)
    store = Store(f"sqlite:///{state}/netboot.sqlite")
    try:
        if store.version(version.image, version.number) is None:
            store.add_version(version)
    finally:
        store.close()


def borrow(image: str, library: Path) -> Version:
    """The latest version of an image of the library; ImageError with the way out."""
    database = library / "netboot.sqlite"
    found = None
    if database.is_file():
        store = Store(f"sqlite:///{database}")
        found = store.latest(image)
        store.close()
    if found is None or not Path(found.path).is_file():
        raise ImageError(f"there is no image {image!r} in {library}: netboot image build {image}")
    return found


def keep_overlays(state: Path, golden: Path, folder: Path) -> list[Path]:
    """Each overlay as one qcow2 file over the golden image, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for overlay in sorted(state.glob("overlays/*.qcow2")):
        target = folder / overlay.name
        command = ["qemu-img", "convert", "-O", "qcow2", "-B", str(golden), "-F", "raw"]
        done = subprocess.run([*command, overlay, target], capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"qemu-img could not keep {overlay}: {done.stderr.strip()}")
        kept.append(target)
    return kept


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A folder for one run's logs and disks: kept, and named, only when the lab failed."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    except LabError as error:
        raise type(error)(f"{error}; logs and capture: {folder}") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


async def boot(
    version: Version, firmware: Firmware, expect: str, within: float, keep: Path | None
) -> list[Path]:
    """Boot one machine until its serial line shows the text ``expect``.

    The overlays kept in ``keep``; ConsoleError when the machine does not show it within that
    many seconds, LabError when there was no lab to try it in.
    """
    only = Machine("machine1", "52:54:00:6e:62:01", "tap0", firmware, cores=2)
    with scratch("netboot-boot-") as folder:
        settings = Settings(folder / "state", version.image, [only])
        try:
            async with Lab(folder, settings, version) as lab:
                console = await lab.power_on(only)
                try:
                    await console.expect(re.escape(expect), within, shown=expect)
                except ConsoleError as error:
                    phase = await lab.last_phase(only.mac)
                    raise ConsoleError(f"{error}; last phase: {phase}") from None
        finally:
            if keep is not None:
                kept = keep_overlays(settings.state, Path(version.path), keep)
        return kept if keep is not None else []

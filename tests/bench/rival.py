"""What people use today in our place: dnsmasq for DHCP and TFTP, tgt for the disk.

Set up as their own documentation says, and with what helps them: no proxyDHCP wait (option
175.176), the loaders of the same folder, a copy of the golden image that is made before the
clock starts, because tgt has no differencing disks. ``routed`` also has dnsmasq advertise that
there is no IPv6 router, which is not its default and which few know of.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from netboot.errors import LabError
from netboot.lab.machine import Machine
from netboot.lab.namespace import BRIDGE, ip
from netboot.lab.service import ADDRESS, Service, Settings
from netboot.model import Version
from tests.bench.servers import export, tgtd

IQN = "iqn.2026-11.rival.lab"


class Rival(Service):
    """dnsmasq + tgt behind the same two verbs as our own service."""

    def __init__(
        self, folder: Path, settings: Settings, version: Version, *, routed: bool = False
    ) -> None:
        super().__init__(folder, settings)
        self._routed = routed
        self._folder = folder
        self._version = version
        self._running = AsyncExitStack()

    async def start(self) -> None:
        """tgt, then a copy of the disk a machine, then dnsmasq."""
        place = tgtd(self._folder / "tgt", address=ADDRESS, port=3260)
        _, _, tell = await self._running.enter_async_context(place)
        for number, machine in enumerate(self.settings.machines, 1):
            copy = self._folder / f"{machine.name}.raw"
            command = ["cp", "--sparse=always", "--reflink=auto", self._version.path, str(copy)]
            await asyncio.to_thread(subprocess.run, command, check=True)
            # Only blocks that are on disk are a fair start for a copy that was just written.
            await asyncio.to_thread(subprocess.run, ["sync", str(copy)], check=True)
            export(tell, number, f"{IQN}:{machine.name}", copy)
        words = self._dnsmasq(self.settings.machines)
        if self._routed:
            ip("-6", "address", "add", "fd00:77::1/64", "dev", BRIDGE)
            words += ["--enable-ra", "--dhcp-range=fd00:77::,ra-only", f"--ra-param={BRIDGE},0,0"]
        await self._spawn("dnsmasq", *words)

    def _dnsmasq(self, machines: Sequence[Machine]) -> list[str]:
        words = ["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-hosts"]
        words += ["--user=root", f"--interface={BRIDGE}", "--bind-interfaces", "--no-ping"]
        words += ["--dhcp-authoritative", "--pid-file=", f"--dhcp-leasefile={self._folder}/leases"]
        words += ["--dhcp-range=192.168.77.50,192.168.77.199,1h", "--dhcp-option=3"]
        words += ["--dhcp-match=set:ipxe,175"]
        words += [f"--dhcp-match=set:efi,option:client-arch,{arch}" for arch in (7, 9)]
        words += ["--tag-if=set:efirom,tag:efi,tag:!ipxe"]
        words += ["--dhcp-boot=tag:efirom,snponly.efi"]
        words += ["--enable-tftp", "--tftp-root=/usr/lib/ipxe"]
        words += ["--dhcp-option-force=tag:ipxe,encap:175,176,1b"]
        for machine in machines:
            words += [f"--dhcp-host={machine.mac},set:{machine.name},{machine.name}"]
            path = f"iscsi:{ADDRESS}:::1:{IQN}:{machine.name}"
            words += [f"--dhcp-option=tag:{machine.name},17,{path}"]
        return words

    async def _spawn(self, *command: str) -> None:
        if shutil.which(command[0]) is None:
            raise LabError(f"the rival needs {command[0]}: apt-get install dnsmasq-base")
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._running.push_async_callback(_ended, process)
        await asyncio.sleep(0.2)
        if process.returncode is not None:
            raise LabError(f"{command[0]} did not start: {self.log.read_text().strip()[-300:]}")

    async def client(self, mac: str) -> dict[str, Any]:
        """They know nothing of phases."""
        raise ConnectionRefusedError(f"dnsmasq and tgt cannot say where {mac} is")

    async def stop(self) -> int:
        """End both."""
        await self._running.aclose()
        return 0


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()

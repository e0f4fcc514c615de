"""``netboot serve`` inside the lab: its settings, its process, and its API asked from here."""

import asyncio
import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netboot.disks.engine import owner
from netboot.errors import LabError
from netboot.lab.machine import Machine
from netboot.lab.namespace import BRIDGE
from netboot.model import Knock, hyphenated

ADDRESS = "192.168.77.1"
PREFIX = 24
PORT = 8080
#: Seconds until the service must be up, and until it must have stopped.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a lab's service is told; everything else keeps its default."""

    state: Path
    image: str
    machines: Sequence[Machine]
    overlay: str = "persistent"
    mode: str = "full"
    reservations: dict[str, str] = field(default_factory=dict)  #: MAC → address
    extra: str = ""  #: more TOML, at the end

    def toml(self) -> str:
        """The settings file."""
        quote = json.dumps  # a TOML basic string takes the same escapes
        lines = [
            "[site]",
            f"interface = {quote(BRIDGE)}",
            f'address = "{ADDRESS}/{PREFIX}"',
            'domain = "lab.netboot"',
            f"state = {quote(str(self.state))}",
            "[dhcp]",
            f"mode = {quote(self.mode)}",
            'pool = "192.168.77.50-192.168.77.199"',
            'lease = "1h"',
            "[http]",
            f"port = {PORT}",
            "[[profile]]",
            'name = "lab"',
            f"image = {quote(self.image)}",
            f"overlay = {quote(self.overlay)}",
        ]
        for machine in self.machines:
            lines += ["[[client]]", f"mac = {quote(machine.mac)}", f"name = {quote(machine.name)}"]
            lines += ['profile = "lab"']
            if machine.mac in self.reservations:
                lines += [f"address = {quote(self.reservations[machine.mac])}"]
        lines += ["[unknown]", 'policy = "ignore"', self.extra]
        return "\n".join(lines) + "\n"


class Service:
    """The process, and what it tells over its API."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.log = folder / "service.log"
        self.config = folder / "netboot.toml"
        self.settings = settings
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it says that it is well; LabError with its own last line."""
        self.config.write_text(self.settings.toml())
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "netboot", "serve", "--config", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NO_COLOR": "1"},
            )
        try:
            async with asyncio.timeout(PATIENCE):
                while not await self._well():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise LabError(
                f"the service did not come up in {PATIENCE:.0f} s; see {self.log}"
            ) from None

    async def _well(self) -> bool:
        if self.process is not None and self.process.returncode is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise LabError(f"the service ended while starting: {lines[-1]}")
        try:
            await self.get("/healthz")
        except OSError:
            return False
        return True

    async def get(self, path: str) -> Any:
        """The JSON that the API answers; OSError when it does not."""
        return await asyncio.to_thread(_get, f"http://{ADDRESS}:{PORT}{path}")

    async def client(self, mac: str) -> dict[str, Any]:
        """What the service knows of one machine."""
        view = await self.get(f"/api/v1/clients/{mac}")
        return dict(view)

    async def disk_process(self, mac: str) -> int:
        """The process that serves a machine's disk; OSError when there is one less than usual."""
        parts = (await self.get("/healthz"))["parts"]
        found = [int(number) for number in re.findall(r"\d+", parts["disks"])]
        return found[owner(Knock("", f":{hyphenated(mac)}", ""), len(found))]

    def disk_words(self) -> str:
        """What the disk processes have written to their logs."""
        logs = sorted(self.settings.state.glob("disk-*.log"))
        return "".join(log.read_text(errors="replace") for log in logs)

    async def stop(self) -> int:
        """Ask it to stop, and see that it does; its exit code."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
                raise LabError(
                    f"the service did not stop in {PATIENCE:.0f} s; see {self.log}"
                ) from None
        return self.process.returncode or 0


def _get(url: str) -> Any:
    # The lab's namespace has no proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return json.load(answer)

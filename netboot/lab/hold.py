"""A lab that stays: held by one process in the background, described by one file.

``lab up`` starts the holder; it builds the lab, switches the machines on and writes
``status.json`` every second, which is all that ``lab status`` and ``lab down`` need. Ending the
holder ends its namespaces, and everything in them.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netboot.errors import LabError
from netboot.lab import namespace
from netboot.lab.machine import Firmware, Machine
from netboot.lab.run import Lab
from netboot.lab.service import ADDRESS, PORT, Settings
from netboot.model import Version

#: Seconds until a lab must be up, and until it must be gone.
PATIENCE = 60.0


def machines(count: int, firmware: Firmware) -> list[Machine]:
    """``count`` machines named machine1, machine2, ... with a tap each."""
    return [
        Machine(f"machine{n}", f"52:54:00:6e:62:{n:02x}", f"tap{n - 1}", firmware)
        for n in range(1, count + 1)
    ]


def read(folder: Path) -> dict[str, Any] | None:
    """What the holder last wrote, or None where no lab is up."""
    try:
        status: dict[str, Any] = json.loads((folder / "status.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return status if _alive(int(status["pid"])) else None


def _alive(pid: int) -> bool:
    try:
        return b"netboot" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def start(folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Start ``netboot ARGUMENTS`` as the holder and wait until its lab is up; its status."""
    if read(folder) is not None:
        raise LabError(f"a lab is already up in {folder}: netboot lab down")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").unlink(missing_ok=True)
    command = namespace.unshare(
        [sys.executable, "-m", "netboot", *arguments], root=os.geteuid() == 0
    )
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, namespace.MARK: "1"},
        )
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        status = read(folder)
        if status is not None:
            return status
        if process.poll() is not None:
            lines = (folder / "lab.log").read_text().strip().splitlines() or ["it said nothing"]
            raise LabError(f"the lab did not start: {lines[-1]}")
        time.sleep(0.1)
    process.kill()
    raise LabError(f"the lab was not up in {PATIENCE:.0f} s; see {folder / 'lab.log'}")


def stop(folder: Path) -> bool:
    """End the lab of this folder; False where none is up."""
    status = read(folder)
    if status is None:
        return False
    pid = int(status["pid"])
    os.kill(pid, signal.SIGTERM)
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        if not _alive(pid):
            (folder / "status.json").unlink(missing_ok=True)
            return True
        time.sleep(0.1)
    raise LabError(f"the lab (process {pid}) did not stop in {PATIENCE:.0f} s")


async def hold(folder: Path, settings: Settings, version: Version) -> None:
    """Be the holder: until SIGTERM, or Ctrl-C."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    async with Lab(folder, settings, version) as lab:
        for machine in settings.machines:
            await lab.power_on(machine)
        while not over.is_set():
            _write(folder, await _status(lab))
            try:
                async with asyncio.timeout(1.0):
                    await over.wait()
            except TimeoutError:
                continue


async def _status(lab: Lab) -> dict[str, Any]:
    try:
        clients = (await lab.service.get("/api/v1/clients"))["clients"]
    except OSError:
        clients = []
    phases = {client["mac"]: client.get("phase") for client in clients}
    return {
        # /proc is the outer one: this is the process as everybody outside sees it.
        "pid": int(Path("/proc/self").readlink().name),
        "address": ADDRESS,
        "api": f"http://{ADDRESS}:{PORT}/api/v1/",
        "image": lab.version.image,
        "version": lab.version.number,
        "machines": [
            {
                "name": running.machine.name,
                "mac": running.machine.mac,
                "firmware": str(running.machine.firmware),
                "on": running.process.returncode is None,
                "phase": phases.get(running.machine.mac),
                "serial": str(running.log),
            }
            for running in lab.running.values()
        ],
    }


def _write(folder: Path, status: dict[str, Any]) -> None:
    new = folder / "status.json.new"
    new.write_text(json.dumps(status, indent=1))
    new.replace(folder / "status.json")

"""A server is drained: iPXE, sent elsewhere at its login, boots from there, and so does the guest.

The other server is a disk process of its own at another port. Here no disk is made.
"""

import asyncio
from pathlib import Path

from netboot.boot.admission import serial
from netboot.boot.initiators import initiator_of
from netboot.disks.supervisor import Supervisor
from netboot.disks.wire import DiskEvent
from netboot.lab.machine import Machine
from netboot.lab.run import Lab
from netboot.lab.service import ADDRESS, Settings
from netboot.model import Admission, DiskSpec, Knock, Lun, Portal, Version, hyphenated

ONE = Machine("ws1", "52:54:00:6e:62:01", "tap0", cores=2)
THERE = Portal(ADDRESS, 3261)


async def scenario(lab: Lab, version: Version, folder: Path) -> None:
    overlay = folder / "ws1.qcow2"
    spec = DiskSpec(version.path, version.size, version.digest, str(overlay))
    name = f"iqn.2026-11.lab.netboot:{hyphenated(ONE.mac)}"
    welcome = Admission(0, ONE.mac, name, (Lun(0, spec, serial(ONE.mac)),))
    events: list[DiskEvent] = []

    def admit(knock: Knock) -> Admission:
        return welcome

    async with lab:
        other = Supervisor(folder, [THERE], admit, events.append)
        await other.start()
        try:
            console = await lab.power_on(ONE)
            await console.up(240)
            assert "rw" in (await console.run("findmnt -no OPTIONS /")).split(",")
            await lab.power_off(ONE.name)
        finally:
            await other.stop()
        found = [initiator_of(event.isid) for event in events if event.kind == "login"]
        assert {row.name for row in found if row is not None} == {"iPXE", "open-iscsi"}
        assert overlay.exists() and not list(lab.settings.state.glob("overlays/*"))
        here = lab.service.disk_words()
        assert here.count("is refused with 0101") >= 2 and "has logged in" not in here


def test_a_drained_server(version: Version, tmp_path: Path) -> None:
    redirect = f'[iscsi]\nredirect = "{THERE.endpoint}"'
    settings = Settings(tmp_path / "state", version.image, [ONE], extra=redirect)
    asyncio.run(scenario(Lab(tmp_path, settings, version), version, tmp_path / "other"))

"""A UEFI machine by its firmware's own PXE client; its disk is new at each boot."""

import asyncio
from pathlib import Path

from netboot.lab.machine import Firmware, Machine
from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Version

ONE = Machine("uefi1", "52:54:00:6e:62:02", "tap0", Firmware.UEFI, cores=2, rom=False)
BOOT = 300


def test_uefi_boots_by_tftp_and_forgets(version: Version, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", version.image, [ONE], overlay="ephemeral")
    asyncio.run(scenario(Lab(tmp_path, settings, version)))


async def scenario(lab: Lab) -> None:
    async with lab:
        console = await lab.power_on(ONE)
        await console.up(BOOT)
        assert await console.run("test -d /sys/firmware/efi && echo efi") == "efi"
        name = await console.run("cat /sys/firmware/ibft/target0/target-name")
        assert name == "iqn.2026-11.lab.netboot:52-54-00-6e-62-02"
        await console.run("echo gone > /root/gone && sync")
        first = await lab.service.client(ONE.mac)
        phases = [step["phase"] for step in first["timeline"]]
        assert phases == ["seen", "offered", "loader", "login", "reading", "os", "ready"]

        await console.send("reboot")
        await console.up(BOOT)
        await console.run("test ! -e /root/gone")
        second = await lab.service.client(ONE.mac)
        assert second["overlay"]["generation"] > first["overlay"]["generation"]
        assert second["address"] == first["address"]

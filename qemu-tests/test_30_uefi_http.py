"""A UEFI machine by its firmware's HTTP client: no TFTP at all."""

import asyncio
from pathlib import Path

from netboot.lab.machine import Firmware, Machine
from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Version

ONE = Machine("http1", "52:54:00:6e:62:03", "tap0", Firmware.UEFI, cores=2, rom=False, http=True)
BOOT = 300


def test_uefi_boots_by_http(version: Version, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", version.image, [ONE])
    asyncio.run(scenario(Lab(tmp_path, settings, version)))


async def scenario(lab: Lab) -> None:
    async with lab:
        console = await lab.power_on(ONE)
        await console.up(BOOT)
        name = await console.run("cat /sys/firmware/ibft/target0/target-name")
        assert name == "iqn.2026-11.lab.netboot:52-54-00-6e-62-03"
        client = await lab.service.client(ONE.mac)
        steps = {step["phase"]: step["detail"] for step in client["timeline"]}
        assert list(steps) == ["seen", "offered", "loader", "login", "reading", "os", "ready"]
        assert "HTTP" in steps["loader"]

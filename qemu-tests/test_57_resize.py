"""A machine's disk grows under it: its kernel hears so, and writes where nothing was before."""

import asyncio
import subprocess
from pathlib import Path

from netboot.lab.machine import Machine
from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Version
from netboot.service import control

ONE = Machine("ws1", "52:54:00:6e:62:01", "tap0", cores=2)
BOOT = 240
SIZE = 100 << 30
END = SIZE - (1 << 20)


def test_a_guest_sees_its_disk_grow(version: Version, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", version.image, [ONE])
    asyncio.run(scenario(Lab(tmp_path, settings, version)))
    (overlay,) = (tmp_path / "state" / "overlays").glob("*.qcow2")
    done = subprocess.run(["qemu-img", "check", overlay], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


async def scenario(lab: Lab) -> None:
    async with lab:
        console = await lab.power_on(ONE)
        await console.up(BOOT)
        disk = await console.run("lsblk -no PKNAME $(findmnt -no SOURCE /)")
        await console.run("head -c 1M /dev/urandom > /root/kept && sync && sha256sum /root/kept")
        before = await console.run("sha256sum < /root/kept")
        (grown,) = await asyncio.to_thread(
            *(control.ask, lab.settings.state, "resize"), mac=ONE.mac, image=None, size=SIZE
        )
        assert grown["size"] == SIZE > grown["before"]
        # The first command after it meets the unit attention 2A/09; Linux says so and asks to
        # be told to look.
        await console.run("dd if=/dev/urandom of=/root/more bs=1M count=1 conv=fsync; true")
        assert "Capacity data has changed" in await console.run("dmesg")
        await console.run(f"echo 1 > /sys/block/{disk}/device/rescan")
        assert await console.run(f"blockdev --getsize64 /dev/{disk}") == str(SIZE)
        at = f"bs=1M count=1 {{}}={END >> 20} status=none"
        assert (
            await console.run(
                f"dd if=/dev/{disk} iflag=direct {at.format('skip')} | tr -d '\\0' | wc -c"
            )
            == "0"
        )
        await console.run(f"dd if=/root/kept of=/dev/{disk} oflag=direct {at.format('seek')}; sync")
        await console.run("echo 3 > /proc/sys/vm/drop_caches")
        again = f"dd if=/dev/{disk} iflag=direct {at.format('skip')} | sha256sum"
        assert await console.run(again) == before == await console.run("sha256sum < /root/kept")

        await console.send("reboot")
        await console.up(BOOT)
        assert await console.run(f"blockdev --getsize64 /dev/{disk}") == str(SIZE)
        assert await console.run(again) == before == await console.run("sha256sum < /root/kept")

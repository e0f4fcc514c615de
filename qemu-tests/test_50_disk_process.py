"""The disk process is killed under a guest that writes, and the control process too.

The guest goes on: no record that it synced is missing, no error reached it, and what it had
written without a sync is what it reads back from the disk afterwards.
"""

import asyncio
import os
import signal
from collections.abc import Collection
from pathlib import Path

from netboot.lab.machine import Machine
from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Version

ONE = Machine("ws1", "52:54:00:6e:62:01", "tap0", cores=2)
BOOT = 240
RECORDS = 60
WRITER = """
for i in $(seq {records}); do
    echo $i >> /root/records && sync /root/records || echo failed $i >> /run/failures
    sleep 0.2
done
touch /run/written
"""
#: A record is begun when the one before it is synced: two more, and one sync began and ended.
GOES_ON = """
n=$(wc -l < /root/records); until [ $(wc -l < /root/records) -ge $((n + 2)) ]; do sleep 0.1; done
"""


def test_guests_go_on_when_our_processes_die(version: Version, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", version.image, [ONE])
    asyncio.run(scenario(Lab(tmp_path, settings, version)))


async def disk_process(lab: Lab, gone: Collection[int] = ()) -> int:
    """Its pid, once it is there and well and none of those that are gone."""
    async with asyncio.timeout(30):
        while True:
            try:
                parts = (await lab.service.get("/healthz"))["parts"]
                pid = int(parts["disks"].removeprefix("process "))
                if pid not in gone:
                    return pid
            except (OSError, ValueError):
                pass
            await asyncio.sleep(0.2)


async def scenario(lab: Lab) -> None:
    async with lab:
        console = await lab.power_on(ONE)
        await console.up(BOOT)
        await console.run(f"cat > /run/writer <<'E'\n{WRITER.format(records=RECORDS)}\nE")
        # Cached in the target when it dies: written, not yet synced by anybody.
        await console.run("dd if=/dev/urandom of=/root/big bs=1M count=32 2>/dev/null", 120)
        digest = await console.run("sha256sum /root/big", 60)
        await console.run("nohup sh /run/writer >/dev/null 2>&1 & true")

        killed: list[int] = []
        for _ in range(3):
            pid = await disk_process(lab, killed)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            await console.run(GOES_ON.strip(), 120)

        # The control process: disks go on, the next one adopts them.
        pid = await disk_process(lab, killed)
        assert lab.service.process is not None
        lab.service.process.kill()
        await lab.service.process.wait()
        await console.run(GOES_ON.strip(), 120)
        os.kill(pid, 0)
        await lab.service.start()
        assert await disk_process(lab) == pid

        await console.run("until test -e /run/written; do sleep 0.5; done", 180)
        await console.run("test ! -e /run/failures")
        await console.run("sync; echo 3 > /proc/sys/vm/drop_caches", 120)
        assert await console.run("wc -l < /root/records") == str(RECORDS)
        assert await console.run("tail -1 /root/records") == str(RECORDS)
        assert await console.run("sha256sum /root/big", 120) == digest
        assert "rw" in (await console.run("findmnt -no OPTIONS /")).split(",")
        await console.run("! dmesg | grep -E 'I/O error|EXT4-fs error|Aborting journal'")

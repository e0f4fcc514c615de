"""The service is stopped in order and started again, twice, under a guest that writes.

Its iscsid is asked to log out (Async Message, event 1), does so, and logs in again when somebody
is there: it hears "try later" until then. No record that it synced is missing, no error reached
it. The judges are those of `make killtest`.
"""

import asyncio
from pathlib import Path

from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Version
from tests.kill.killtest import ONE, Killing, Watch

STOPS = 2
ASKED = "Target requests logout within 3 seconds"


async def scenario(lab: Lab) -> None:
    async with lab:
        killing = Killing(lab)
        console = await killing.boot()
        await killing.begin_loose(console)
        watch = await killing.begin(console, 1)
        await watch.during(stops(lab, watch), 240)
        await killing.end(console)
        await killing.finds_all(console)
        said = await console.run("journalctl -b -u iscsid --no-pager -o cat", 60)
        assert said.count(ASKED) == STOPS
        disks = lab.service.disk_words()
        assert disks.count("has left: logout") >= STOPS
        await killing.switch_off(console)
        await killing.judged()
        assert killing.outcome.outside == killing.outcome.acknowledged >= 2 * STOPS


async def stops(lab: Lab, watch: Watch) -> None:
    for _ in range(STOPS):
        await watch.goes_on()
        assert await lab.service.stop() == 0
        await lab.service.start()
        await watch.goes_on()
    await watch.goes_on()


def test_a_guest_logs_out_and_comes_back(version: Version, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", version.image, [ONE])
    asyncio.run(scenario(Lab(tmp_path, settings, version)))

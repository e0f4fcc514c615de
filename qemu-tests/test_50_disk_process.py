"""The disk process is killed under a guest that writes, and the control process too.

The guest goes on: no record that it synced is missing, no error reached it, and what it had
written without a sync is what it reads back from the disk afterwards. A few kills of the many
of `make killtest`, whose judges they share.
"""

import asyncio
from pathlib import Path

from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Version
from tests.kill.killtest import ONE, scenario
from tests.kill.records import Kind, plan


def test_guests_go_on_when_our_processes_die(version: Version, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", version.image, [ONE])
    blows = plan(seed=1, disk=3, control=1, both=0)
    outcome = asyncio.run(scenario(Lab(tmp_path, settings, version), blows))
    assert {kind: len(found) for kind, found in outcome.kinds().items()} == {
        Kind.DISK: 3,
        Kind.CONTROL: 1,
    }
    assert outcome.outside == outcome.acknowledged >= 20
    assert outcome.loose
    assert outcome.lost >= 1

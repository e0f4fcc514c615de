"""A BIOS machine proves that it is itself, from iPXE to its operating system, and we to it.

The secrets go from the database to iPXE by DHCP, from iPXE by the iBFT to the initramfs, and from
its session to iscsid, which takes over the root disk with a login of its own. Then the disk process
is killed, and iscsid logs in once more while there is no disk to read from.
"""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from netboot.lab.machine import Machine
from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Secrets, Version
from netboot.state.store import Store

ONE = Machine("ws1", "52:54:00:6e:62:01", "tap0", cores=2)
IBFT = "/sys/firmware/ibft/target0"
BOOT = 300


@pytest.mark.parametrize("mode", ["chap", "mutual"])
def test_every_login_of_a_boot_proves_itself(version: Version, tmp_path: Path, mode: str) -> None:
    extra = f'[iscsi]\nchap = "{mode}"'
    settings = Settings(tmp_path / "state", version.image, [ONE], extra=extra)
    lab = Lab(tmp_path, settings, version)
    secrets = asyncio.run(scenario(lab, mode))

    log = lab.service.disk_words()
    proofs = re.findall(r"has logged in to \S+(?: by (.*))?", log)
    assert len(proofs) >= 5, "iPXE twice, iscsistart, iscsid twice"
    assert set(proofs) == {"mutual CHAP with MD5" if mode == "mutual" else "CHAP with MD5"}
    for each in (log, lab.service.log.read_text()):
        assert secrets.secret not in each
        assert secrets.reverse not in each


async def scenario(lab: Lab, mode: str) -> Secrets:
    async with lab:
        console = await lab.power_on(ONE)
        await console.up(BOOT)
        secrets = kept(lab)
        names = ("chap-name", "chap-secret", "rev-chap-name", "rev-chap-name-secret")
        told = {name: await console.run(f"cat {IBFT}/{name} 2>/dev/null; :") for name in names}
        assert told["chap-name"] == "52-54-00-6e-62-01"
        assert told["chap-secret"] == secrets.secret
        assert await console.run(f"stat -c %a {IBFT}/chap-secret") == "400"
        mutual = mode == "mutual"
        assert told["rev-chap-name"] == ("netboot" if mutual else "")
        assert told["rev-chap-name-secret"] == (secrets.reverse if mutual else "")

        os.kill(await lab.service.disk_process(ONE.mac), signal.SIGKILL)
        await console.run("date > /root/kept && sync")
        assert await console.run("test -s /root/kept && echo written") == "written"

        client = await lab.service.client(ONE.mac)
        steps = {step["phase"]: step["detail"] for step in client["timeline"]}
        assert "iPXE logs in" in steps["login"]
        assert "CHAP with MD5" in steps["login"]
        return secrets


def kept(lab: Lab) -> Secrets:
    store = Store(f"sqlite:///{lab.settings.state}/netboot.sqlite")
    try:
        found = store.secrets(ONE.mac)
        assert found is not None
        return found
    finally:
        store.close()

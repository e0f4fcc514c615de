"""A BIOS machine without a disk comes up as an ordinary Debian, twice, on its own disk."""

import asyncio
import subprocess
from pathlib import Path

from netboot.lab.machine import Machine
from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Version

ONE = Machine("ws1", "52:54:00:6e:62:01", "tap0", cores=2)
RESERVED = "192.168.77.21"
BOOT = 240


def test_bios_boots_keeps_its_files_and_its_address(version: Version, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "state", version.image, [ONE], reservations={ONE.mac: RESERVED})
    asyncio.run(scenario(Lab(tmp_path, settings, version, snap=0)))
    assert_no_malformed_pdu(tmp_path / "capture.pcap")


async def scenario(lab: Lab) -> None:
    async with lab:
        console = await lab.power_on(ONE)
        await console.up(BOOT)
        root = await console.run(
            "lsblk -dno TRAN,VENDOR /dev/$(lsblk -no PKNAME $(findmnt -no SOURCE /))"
        )
        assert "iscsi" in root
        assert "NETBOOT" in root
        name = await console.run("cat /sys/firmware/ibft/target0/target-name")
        assert name == "iqn.2026-11.lab.netboot:52-54-00-6e-62-01"
        assert RESERVED in await console.run("ip -br -4 address")
        assert await console.run("cat /sys/firmware/ibft/ethernet0/ip-addr") == RESERVED
        assert await console.run("hostname") == "ws1"
        await console.run("echo kept > /root/kept && sync")

        await console.send("reboot")
        await console.up(BOOT)
        assert await console.run("cat /root/kept") == "kept"
        assert RESERVED in await console.run("ip -br -4 address")

        client = await lab.service.client(ONE.mac)
        phases = [step["phase"] for step in client["timeline"]]
        assert phases == ["seen", "offered", "login", "reading", "os", "ready"]
        after = [step["after"] for step in client["timeline"]]
        assert after == sorted(after)
        assert client["address"] == RESERVED
        assert client["counters"]["read_bytes"] > 10 << 20
        assert client["counters"]["write_bytes"] > 0
        answer = await lab.service.get("/api/v1/clients")
        assert [each["mac"] for each in answer["clients"]] == [ONE.mac]


def assert_no_malformed_pdu(capture: Path) -> None:
    """tshark, the judge, has read every PDU of two boots.

    Linux asks for the first 4 bytes of a VPD page to learn how long it is, and gets just those;
    tshark's SCSI part (not its iSCSI part) misses the rest of the page.
    """
    short = "iscsi.opcode==0x25&&iscsi.datasegmentlength==4"
    command = ["tshark", "-r", capture, "-q", "-d", "tcp.port==3260,iscsi", "-z"]
    command += [f"io,stat,0,iscsi,_ws.malformed&&!({short}),iscsi.opcode==0x3f"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if "<>" in line and "Dur" not in line)
    frames = [int(cell.split()[0]) for cell in row.strip("| ").split("|")[1::2]]
    assert frames[0] > 1000, done.stdout
    assert frames[1:] == [0, 0], done.stdout

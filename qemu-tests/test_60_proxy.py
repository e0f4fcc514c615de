"""Another server gives the addresses, we only say what to boot (proxyDHCP).

The other one is dnsmasq, in a network namespace of its own on the same bridge.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from netboot.lab import namespace
from netboot.lab.machine import Firmware, Machine
from netboot.lab.run import Lab
from netboot.lab.service import Settings
from netboot.model import Version

BIOS = Machine("ws1", "52:54:00:6e:62:01", "tap0", cores=2)
UEFI = Machine("ws2", "52:54:00:6e:62:02", "tap0", Firmware.UEFI, cores=2, rom=False)
BOOT = 300


@pytest.mark.parametrize("machine", [BIOS, UEFI], ids=["bios", "uefi"])
def test_boots_beside_another_dhcp_server(
    version: Version, tmp_path: Path, machine: Machine
) -> None:
    settings = Settings(tmp_path / "state", version.image, [machine], mode="proxy")
    asyncio.run(scenario(Lab(tmp_path, settings, version), machine))


async def scenario(lab: Lab, machine: Machine) -> None:
    async with lab, other_server(lab.folder / "dnsmasq.log", machine):
        console = await lab.power_on(machine)
        await console.up(BOOT)
        addresses = await console.run("ip -br -4 address")
        assert "192.168.77.1" in addresses, "one of 192.168.77.100 to 192.168.77.199"
        name = await console.run("cat /sys/firmware/ibft/target0/target-name")
        assert name == f"iqn.2026-11.lab.netboot:{machine.mac.replace(':', '-')}"
        server = await console.run("cat /sys/firmware/ibft/ethernet0/dhcp")
        assert server == "192.168.77.2", "the address is the other server's"


@asynccontextmanager
async def other_server(log: Path, machine: Machine) -> AsyncIterator[None]:
    """dnsmasq at 192.168.77.2, which knows nothing of booting."""
    # It says that its namespace is there, and waits until its end of the cable is.
    wait = "echo there; until ip link show other >/dev/null 2>&1; do sleep 0.05; done"
    up = "ip address add 192.168.77.2/24 dev other; ip link set other up"
    serve = "exec dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --no-ping --user=root"
    serve += " --pid-file= --dhcp-leasefile=/dev/null --leasefile-ro --log-facility=-"
    serve += " --interface=other --bind-interfaces --dhcp-range=192.168.77.100,192.168.77.199,1h"
    serve += f" --dhcp-host={machine.mac},{machine.name}"
    with log.open("wb") as words:
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--net", "sh", "-c", f"{wait}; {up}; {serve}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
        )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 10) == b"there\n"
        namespace.ip("link", "add", "cable", "type", "veth", "peer", "name", "other")
        namespace.ip("link", "set", "cable", "master", namespace.BRIDGE, "up")
        namespace.ip("link", "set", "other", "netns", str(process.pid))
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()

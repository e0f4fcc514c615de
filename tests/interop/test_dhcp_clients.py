"""The DHCP clients of Debian against our real server, over a cable between two namespaces.

busybox udhcpc is what many an initramfs runs, ISC dhclient what many a system runs: they send
different client identifiers, and must get the address that the firmware got.
"""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from netboot.dhcp.engine import Engine
from netboot.dhcp.server import DhcpServer
from netboot.events import BootEvent, Phase
from netboot.model import BootPlan, Client, Host, Lease, LeaseState, Profile, Site

pytestmark = pytest.mark.interop

MAC = "52:54:00:c0:ff:ee"
SERVER = IPv4Interface("192.168.77.1/24")
POOL = (IPv4Address("192.168.77.50"), IPv4Address("192.168.77.60"))
PROFILE = Profile("workstation", "debian")
PATIENCE = 40.0


@dataclass
class Service:
    """Our server on one end of the cable, and what it kept and told."""

    cable: Any
    folder: Path
    site: Site = field(
        default_factory=lambda: Site("srv0", SERVER, "lab.netboot", unknown_profile="workstation")
    )
    kept: dict[str, Lease] = field(default_factory=dict)
    states: list[LeaseState] = field(default_factory=list)
    told: list[BootEvent] = field(default_factory=list)
    clients: list[asyncio.subprocess.Process] = field(default_factory=list)

    def keep(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self.kept[lease.mac] = lease
            self.states.append(lease.state)

    def plan(self, client: Client) -> BootPlan:
        host = self.site.hosts.get(client.mac)
        name, reserved = (host.name, host.address) if host else ("ws-c0ffee", None)
        return BootPlan(client=client, name=name, profile=PROFILE, reserved=reserved)

    def run(self, story: Callable[[], Awaitable[None]]) -> Engine:
        """Serve while ``story`` goes on; a new server each time, as after a restart."""
        kept = list(self.kept.values())
        engine = Engine(self.site, POOL, 3600, self.plan, kept, [self.site.address.ip])
        server = DhcpServer(engine, "srv0", SERVER.ip, self.keep, self.told.append)

        async def main() -> None:
            with self.cable.inside(self.cable.server):
                await server.start()
            try:
                await story()
            finally:
                for process in self.clients:
                    if process.returncode is None:  # the story broke off before its end
                        process.kill()
                        await process.wait()
                await server.stop()

        asyncio.run(main())
        return engine

    def script(self) -> Path:
        """What the clients call for each event: it notes its environment and configures it."""
        path = self.folder / "event"
        path.write_text(
            "#!/bin/sh\n"
            f"{{ printf '%s\\0' \"event=$1\"; env -0; }} > {self.folder}/told.new\n"
            f"mv {self.folder}/told.new {self.folder}/told-$(date +%s%N)\n"
            'yours="$ip$new_ip_address"\n'
            '[ -z "$yours" ] || ip address replace "$yours/24" dev cli0\n'
        )
        path.chmod(0o755)
        return path

    def events(self) -> list[dict[str, str]]:
        """The environments of the events so far."""
        found = []
        for path in sorted(self.folder.glob("told-*")):
            pairs = [part.partition("=") for part in path.read_text().split("\0") if part]
            found.append({name: value for name, _, value in pairs})
        return found

    async def event(self, *names: str) -> dict[str, str]:
        """The latest event of these names, once it is there."""
        for _ in range(int(PATIENCE * 50)):
            for told in reversed(self.events()):
                if (told.get("reason") or told["event"]) in names:
                    return told
            await asyncio.sleep(0.02)
        raise AssertionError(f"none of {names} in {json.dumps(self.events(), indent=1)}")

    async def start(self, *command: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *self.cable.at_client(*command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self.clients.append(process)
        return process

    async def finish(self, *command: str) -> str:
        process = await self.start(*command)
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0, said.decode()
        return said.decode()

    def udhcpc(self, *options: str) -> list[str]:
        shape = ["udhcpc", "-f", "-i", "cli0", "-s", str(self.script()), "-t", "8", "-T", "2", "-n"]
        return [*shape, *options]

    def dhclient(self, *options: str) -> list[str]:
        """Foreground, and its files where they harm nobody; no configuration, and our script."""
        files = ["-lf", str(self.folder / "leases"), "-pf", str(self.folder / "pid")]
        settings = self.folder / "dhclient.conf"
        settings.write_text("request subnet-mask, routers, domain-name-servers, host-name;\n")
        (self.folder / "leases").touch()
        shape = ["dhclient", "-4", "-d", "-v", "-sf", str(self.script()), "-cf", str(settings)]
        return [*shape, *files, *options, "cli0"]


@pytest.fixture
def service(cable: Callable[[str], Any], tmp_path: Path) -> Service:
    return Service(cable(str(SERVER)), tmp_path)


async def ended(process: asyncio.subprocess.Process, number: int = signal.SIGTERM) -> None:
    """End a process that this test started, and reap it."""
    if process.returncode is None:
        process.send_signal(number)
    await asyncio.wait_for(process.communicate(), PATIENCE)


async def said(process: asyncio.subprocess.Process, words: bytes) -> None:
    """Read what a process prints until these words are there.

    dhclient calls its script first and writes its lease file then: who ends it on the script's
    word ends it without a lease, and "bound to" is what it says when all is done.
    """
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while line := await process.stdout.readline():
            if words in line:
                return
    raise AssertionError(f"the client ended and never said {words.decode()}")


def test_udhcpc_gets_all_it_asks_for(service: Service) -> None:
    async def story() -> None:
        await service.finish(*service.udhcpc("-q", "-O", "broadcast", "-O", "hostname"))
        told = await service.event("bound")
        assert told["ip"] == "192.168.77.50"
        assert (told["subnet"], told["serverid"]) == ("255.255.255.0", "192.168.77.1")
        assert (told["dns"], told["domain"]) == ("192.168.77.1", "lab.netboot")
        assert (told["hostname"], told["broadcast"]) == ("ws-c0ffee", "192.168.77.255")
        assert told["lease"] == "3600"
        assert "router" not in told and "boot_file" not in told

    service.run(story)
    assert service.kept[MAC].address == IPv4Address("192.168.77.50")
    assert [event.phase for event in service.told] == [Phase.OS]


def test_dhclient_gets_all_it_asks_for(service: Service) -> None:
    async def story() -> None:
        client = await service.start(*service.dhclient())
        told = await service.event("BOUND")
        await ended(client)
        assert told["new_ip_address"] == "192.168.77.50"
        assert told["new_subnet_mask"] == "255.255.255.0"
        assert told["new_domain_name_servers"] == "192.168.77.1"
        assert told["new_host_name"] == "ws-c0ffee"
        assert told["new_dhcp_server_identifier"] == "192.168.77.1"
        assert told["new_dhcp_lease_time"] == "3600"
        assert "new_domain_name" not in told  # it did not ask

    service.run(story)


@pytest.mark.parametrize("identifier", ["", "ff:00:00:00:01:00:01", "00:2f:65:74:68:30"])
def test_one_address_whatever_the_client_identifier(service: Service, identifier: str) -> None:
    """``-C`` sends none, ``-x 0x3d`` one of our choice: a DUID, ipconfig's /eth0."""

    async def story() -> None:
        other = ["-C", "-x", f"0x3d:{identifier}"] if identifier else ["-C"]
        await service.finish(*service.udhcpc("-q"))
        await service.finish(*service.udhcpc("-q", *other))
        client = await service.start(*service.dhclient())
        dhclients = await service.event("BOUND")
        await ended(client)
        assert dhclients["new_ip_address"] == "192.168.77.50"
        bound = [told["ip"] for told in service.events() if told["event"] == "bound"]
        assert bound == ["192.168.77.50"] * 2

    engine = service.run(story)
    assert len(engine.leases.all()) == 1


def test_a_lease_survives_a_restart_of_ours(service: Service) -> None:
    """The new server is handed what the old one persisted, and nothing else."""
    taken = Lease("52:54:00:00:00:01", IPv4Address("192.168.77.50"), 9e9, LeaseState.BOUND)
    service.keep([taken])

    async def first() -> None:
        await service.finish(*service.udhcpc("-q"))
        assert (await service.event("bound"))["ip"] == "192.168.77.51"

    async def second() -> None:
        for path in service.folder.glob("told-*"):
            path.unlink()
        await service.finish(*service.udhcpc("-q"))
        assert (await service.event("bound"))["ip"] == "192.168.77.51"

    service.run(first)
    service.run(second)


def test_a_reservation(service: Service) -> None:
    host = Host(MAC, "ws1", "workstation", IPv4Address("192.168.77.21"))
    service.site = Site("srv0", SERVER, "lab.netboot", hosts={MAC: host})

    async def story() -> None:
        await service.finish(*service.udhcpc("-q", "-r", "192.168.77.55", "-O", "hostname"))
        told = await service.event("bound")
        assert (told["ip"], told["hostname"]) == ("192.168.77.21", "ws1")

    service.run(story)


def test_udhcpc_renews_by_unicast_and_releases(service: Service) -> None:
    async def story() -> None:
        process = await service.start(*service.udhcpc("-R"))
        await service.event("bound")
        before = service.kept[MAC].expires
        # ``ip netns exec`` becomes the client, so the process is the client's own.
        process.send_signal(signal.SIGUSR1)
        await service.event("renew")
        assert service.kept[MAC].expires > before
        await ended(process)

    service.run(story)
    assert service.states[-1] is LeaseState.RELEASED
    assert [event.phase for event in service.told] == [Phase.OS]  # a renewal is no news


def test_dhclient_reboots_and_releases(service: Service) -> None:
    """INIT-REBOOT from its lease file, then RELEASE."""

    async def story() -> None:
        for reason in ("BOUND", "REBOOT"):
            client = await service.start(*service.dhclient())
            told = await service.event(reason)
            assert told["new_ip_address"] == "192.168.77.50"
            await said(client, b"bound to 192.168.77.50")
            for path in service.folder.glob("told-*"):
                path.unlink()
            await ended(client)
        await service.finish(*service.dhclient("-r"))
        for _ in range(500):
            if service.states[-1] is LeaseState.RELEASED:
                return
            await asyncio.sleep(0.02)

    service.run(story)
    assert service.states == [LeaseState.BOUND, LeaseState.BOUND, LeaseState.RELEASED]


def test_a_machine_that_comes_from_another_network_is_told_so(service: Service) -> None:
    """dhclient asks for the address of its old lease, gets a NAK, and starts anew."""
    command = service.dhclient()
    (service.folder / "leases").write_text(
        'lease {\n  interface "cli0";\n  fixed-address 10.1.2.3;\n'
        "  option subnet-mask 255.255.255.0;\n  option dhcp-lease-time 86400;\n"
        "  option dhcp-server-identifier 10.1.2.1;\n"
        "  renew 1 2035/01/01 00:00:00;\n  rebind 1 2035/01/01 00:00:00;\n"
        "  expire 1 2035/01/01 00:00:00;\n}\n"
    )

    async def story() -> None:
        client = await service.start(*command)
        told = await service.event("BOUND")
        await ended(client)
        assert told["new_ip_address"] == "192.168.77.50"

    engine = service.run(story)
    assert engine.counters["naks"] == 1


def test_no_client_of_another_run_is_left(service: Service) -> None:
    """The processes that these tests start end with them: none holds the namespace open."""

    async def story() -> None:
        process = await service.start(*service.udhcpc())
        await service.event("bound")
        await ended(process)
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)

    service.run(story)

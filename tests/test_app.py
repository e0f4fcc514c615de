"""The whole service in a network namespace of its own, asked by foreign clients in another.

Every test starts ``netboot serve`` as a process and ends it; nothing touches this machine's own
network. Needs root, as the service does.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from netboot import app, config
from netboot.errors import ConfigError
from netboot.state.store import Store
from netboot.storage.prefetch import keep

MAC = "52:54:00:12:34:56"
STRANGER = "52:54:00:99:99:99"
OURS = "192.168.77.1"
IQN = "iqn.2026-11.lab.netboot"
INITIATOR = f"{IQN}:client.52-54-00-12-34-56"
#: Seconds for anything that a test waits for; nothing here should take one.
PATIENCE = 30

SETTINGS = """
[site]
interface = "br0"
address = "192.168.77.1/24"
domain = "lab.netboot"
state = "{state}"
[dhcp]
mode = "full"
pool = "192.168.77.50-192.168.77.99"
lease = "1h"
[tftp]
loaders = ["{loaders}"]
[[profile]]
name = "workstation"
image = "debian"
overlay = "persistent"
[[client]]
mac = "52:54:00:12:34:56"
name = "ws1"
profile = "workstation"
address = "192.168.77.21"
[unknown]
policy = "ignore"
"""

#: What udhcpc calls: takes the address, and writes down what it was told.
LEASED = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address flush dev "$interface"
ip address add "$ip/$mask" dev "$interface"
echo "$ip $subnet $dns $domain $hostname $lease" > "{told}"
"""


@dataclass
class World:
    """Two namespaces: ``server`` with a bridge, ``client`` with a card on it."""

    folder: Path
    server: str = field(default_factory=lambda: f"nbapp-s{os.getpid()}")
    client: str = field(default_factory=lambda: f"nbapp-c{os.getpid()}")

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def settings(self) -> Path:
        return self.folder / "netboot.toml"

    def inside(self, where: str, *words: object, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in a namespace."""
        command = ["ip", "netns", "exec", where, *map(str, words)]
        more = {"capture_output": True, "text": True, "timeout": PATIENCE, **more}
        return subprocess.run(command, check=False, **more)

    def at_client(self, *words: object) -> str:
        """What a program in the client's namespace says; it must succeed."""
        done = self.inside(self.client, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def netboot(self, *words: object) -> subprocess.CompletedProcess[str]:
        """One of our own commands, beside the service."""
        return self.inside(self.server, sys.executable, "-m", "netboot", *words)

    def configure(self) -> None:
        """Write the settings."""
        loaders = self.folder / "loaders"
        self.settings.write_text(SETTINGS.format(state=self.state, loaders=loaders))

    def change(self, old: str, new: str) -> None:
        """Exchange words of the settings for others."""
        text = self.settings.read_text()
        assert old in text
        self.settings.write_text(text.replace(old, new))

    def refused(self, *extra: object) -> str:
        """The one line of a service that does not start."""
        done = self.netboot("serve", "--config", self.settings, *extra)
        assert done.returncode == 2, done.stdout + done.stderr
        *log, line = done.stderr.strip().splitlines()
        assert "Traceback" not in done.stderr
        assert not [entry for entry in log if "ready" in entry]
        assert line.startswith("netboot: ")
        return line.removeprefix("netboot: ")

    @contextmanager
    def service(self, *extra: str, code: int | None = 0) -> Iterator["Running"]:
        """The service, ready; it must end well by SIGTERM, with this exit code."""
        log = self.folder / "service.log"
        command = ["ip", "netns", "exec", self.server, sys.executable, "-m", "netboot", "serve"]
        command += ["--config", str(self.settings), *extra]
        with log.open("w") as words:
            process = subprocess.Popen(command, stdout=words, stderr=words)
        running = Running(self, process, log)
        try:
            running.wait_until_ready()
            yield running
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == code or code is None, running.words
            assert "Traceback" not in running.words
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self.end_disks()

    def end_disks(self) -> None:
        """No disk process outlives a test."""
        for path in self.state.glob("disk-*.sock"):
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(PATIENCE)
                try:
                    line.connect(str(path))
                except OSError:
                    continue
                line.sendall(b'{"type":"stop"}\n')
                while line.recv(65536):
                    pass

    @property
    def disk_words(self) -> str:
        """What the disk processes have said."""
        return "".join(path.read_text() for path in self.state.glob("disk-*.log"))


@dataclass
class Running:
    world: World
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def words(self) -> str:
        return self.log.read_text()

    def wait_until_ready(self) -> None:
        """Until /healthz says that it is well."""
        ask = ["curl", "-sf", f"http://{OURS}:8080/healthz"]
        give_up = time.monotonic() + PATIENCE
        while (done := self.world.inside(self.world.server, *ask)).returncode:
            assert self.process.poll() is None, self.words
            assert time.monotonic() < give_up, self.words
            time.sleep(0.05)
        assert json.loads(done.stdout)["ok"] is True

    def get(self, path: str) -> Any:
        done = self.world.inside(self.world.server, "curl", "-sf", f"http://{OURS}:8080{path}")
        assert done.returncode == 0, self.words
        return json.loads(done.stdout)

    def wait_for(self, text: str) -> None:
        """Until the log says so."""
        tail = ["tail", "-n", "+1", "-F", "--pid", str(self.process.pid), str(self.log)]
        with subprocess.Popen(tail, stdout=subprocess.PIPE, text=True) as lines:
            assert lines.stdout is not None
            for line in lines.stdout:
                if text in line:
                    break
            else:
                pytest.fail(f"{text!r} is not in {self.words}")
            lines.kill()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    here, there = ["ip", "-n", made.server], ["ip", "-n", made.client]
    cable = [*here, "link", "add", "up0", "type", "veth"]
    commands: list[Sequence[str]] = [
        ["ip", "netns", "add", made.server],
        ["ip", "netns", "add", made.client],
        [*here, "link", "set", "lo", "up"],
        [*here, "link", "add", "br0", "type", "bridge"],
        [*here, "address", "add", f"{OURS}/24", "dev", "br0"],
        [*here, "link", "set", "br0", "up"],
        [*cable, "peer", "name", "eth0", "netns", made.client],
        [*here, "link", "set", "up0", "master", "br0", "up"],
        [*there, "link", "set", "lo", "up"],
        [*there, "link", "set", "eth0", "address", MAC, "up"],
    ]
    try:
        for command in commands:
            subprocess.run(command, check=True, timeout=PATIENCE)
        made.configure()
        (tmp_path / "loaders").mkdir()
        for name in ("undionly.kpxe", "snponly.efi"):
            (tmp_path / "loaders" / name).write_bytes(name.encode() * 1000)
        raw = tmp_path / "golden.raw"
        raw.write_bytes(b"\xaa" * (4 << 20))
        done = made.netboot("image", "add", raw, "--name", "debian", "--state", made.state)
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        for name in (made.server, made.client):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def lease(world: World) -> list[str]:
    """An address by Debian's own client: what it was told."""
    told = world.folder / "told"
    script = world.folder / "leased"
    script.write_text(LEASED.format(told=told))
    script.chmod(0o755)
    words = ["-n", "-q", "-f", "-t", "8", "-T", "1", "-s", str(script)]
    world.at_client("udhcpc", "-i", "eth0", "-x", "hostname:liar", *words)
    return told.read_text().split()


#: A firmware's DISCOVER, sent and answered below UDP; argv: MAC, architecture, xid.
PXE = """
import sys
from scapy.all import BOOTP, DHCP, IP, UDP, Ether, conf, srp1
mac, arch, xid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
conf.checkIPaddr = False
asked = (
    Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
    / UDP(sport=68, dport=67)
    / BOOTP(chaddr=bytes.fromhex(mac.replace(":", "")), xid=xid, flags=0x8000)
    / DHCP(options=[("message-type", "discover"),
                    ("vendor_class_id", f"PXEClient:Arch:{arch:05}:UNDI:003000"),
                    (93, arch.to_bytes(2, "big")), "end"])
)
answer = srp1(asked, iface="eth0", timeout=float(sys.argv[4]), verbose=False)
print(answer[BOOTP].yiaddr, answer[BOOTP].file.rstrip(b"\\0").decode() if answer else "", sep=" ") \
    if answer else print("silence")
"""


def discover(world: World, mac: str, xid: int, arch: int = 0, patience: float = 10.0) -> list[str]:
    return world.at_client(sys.executable, "-c", PXE, mac, arch, xid, patience).split()


# The whole.


@pytest.mark.interop
def test_one_service_serves_a_machine_whole(world: World) -> None:
    with world.service() as running:
        assert lease(world) == [
            *("192.168.77.21", "255.255.255.0", OURS, "lab.netboot", "ws1", "3600")
        ]
        dig = ["dig", "+short", "+time=5", f"@{OURS}"]
        assert world.at_client(*dig, "ws1.lab.netboot") == "192.168.77.21\n"
        assert world.at_client(*dig, "-x", "192.168.77.21") == "ws1.lab.netboot.\n"
        assert world.at_client(*dig, "netboot.lab.netboot") == f"{OURS}\n"
        for url in (f"http://{OURS}:8080/loaders/snponly.efi", f"tftp://{OURS}/snponly.efi"):
            assert world.at_client("curl", "-sf", url) == "snponly.efi" * 1000
        listed = world.at_client("iscsi-ls", "-s", "-i", INITIATOR, f"iscsi://{OURS}")
        assert f"Target:{IQN}:52-54-00-12-34-56 Portal:{OURS}:3260,1" in listed
        assert "Lun:0" in listed
        world.at_client("curl", "-sf", "-X", "POST", f"http://{OURS}:8080/api/v1/ready")
        view = running.get(f"/api/v1/clients/{MAC}")
        assert (view["name"], view["address"], view["phase"]) == ("ws1", "192.168.77.21", "ready")
        assert view["overlay"]["mode"] == "persistent"
        told = running.get(f"/api/v1/explain/{MAC}")
        assert told["profile"] == "workstation"
        figures = world.at_client("curl", "-sf", f"http://{OURS}:8080/metrics").splitlines()
        assert {
            "netboot_well 1.0",
            'netboot_machines{phase="ready"} 1.0',
            'netboot_leases{state="bound"} 1.0',
            'netboot_disk_process_up{process="0"} 1.0',
            f'netboot_overlay_trouble{{image="debian",mac="{MAC}",mode="persistent"}} 0.0',
            'netboot_dhcp_replies_total{type="ack"} 1.0',
            'netboot_tftp_results_total{result="done"} 1.0',
            'netboot_dns_answers_total{by="us"} 3.0',
            'netboot_http_requests_total{code="200",route="/loaders/{name}"} 1.0',
        } <= {*figures}, figures
    assert not (world.state / "control.sock").exists()
    found = Store(f"sqlite:///{world.state}/netboot.sqlite")
    assert [event.phase.label for event in found.events(MAC)][-1] == "ready"
    found.close()


SOLICIT = """
import socket, sys, time
index = socket.if_nametoindex("eth0")
asker = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
asker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
asker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
asker.settimeout(0.5)
wire = bytes.fromhex("8500000000000000 0101" + sys.argv[1].replace(":", ""))
answers = set()
for _ in range(int(sys.argv[2])):
    try:
        asker.sendto(wire, ("ff02::2", 0, 0, index))
        answers.add(asker.recv(1500)[0])
    except TimeoutError:
        continue
    except OSError:  # our link-local address is still tentative
        time.sleep(0.2)
    if 134 in answers:
        break
print("router advertisement" if 134 in answers else "silence")
"""


@pytest.mark.interop
def test_a_machine_of_ours_is_told_that_there_is_no_ipv6_router(world: World) -> None:
    with world.service():
        ask = (sys.executable, "-c", SOLICIT)
        assert world.at_client(*ask, MAC, 40) == "router advertisement\n"
        assert world.at_client(*ask, STRANGER, 3) == "silence\n"


@pytest.mark.interop
def test_a_boot_is_followed_from_firmware_on(world: World) -> None:
    world.change('overlay = "persistent"', 'overlay = "ephemeral"')
    with world.service() as running:
        assert discover(world, MAC, 1) == ["192.168.77.21", "undionly.kpxe"]
        assert discover(world, MAC, 1) == ["192.168.77.21", "undionly.kpxe"]  # again, not anew
        assert running.get(f"/api/v1/clients/{MAC}")["overlay"] is None  # its login makes one
        lease(world)
        world.at_client("curl", "-sf", f"tftp://{OURS}/undionly.kpxe")
        world.at_client("iscsi-ls", "-s", "-i", INITIATOR, f"iscsi://{OURS}")
        assert running.get(f"/api/v1/clients/{MAC}")["overlay"]["generation"] == 0
        assert discover(world, MAC, 2, 7) == ["192.168.77.21", "snponly.efi"]
        assert running.get(f"/api/v1/clients/{MAC}")["overlay"]["generation"] == 1
        assert f"ws1 ({MAC}): offered after" in running.words


@pytest.mark.interop
@pytest.mark.parametrize("wanted", [True, False])
def test_the_first_discover_of_a_storm_brings_the_image_into_memory(
    world: World, wanted: bool
) -> None:
    if not wanted:
        world.change("[tftp]", "[iscsi]\nprefetch = false\n[tftp]")
    golden = world.state / "images" / "debian" / "1.raw"
    size = golden.stat().st_size
    keep(str(golden), size, [2, 0, 1, 3] * 2)  # a boot had needed it
    with golden.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with world.service() as running:
        assert discover(world, MAC, 1)[0] == "192.168.77.21"
        if wanted:
            running.wait_for("image debian: read ahead 4 MiB of the 4 that a boot needs")
        ask = ["curl", "-sf", f"http://{OURS}:8080/metrics"]
        told = world.inside(world.server, *ask).stdout
        line = next(x for x in told.splitlines() if x.startswith("netboot_prefetch_bytes_total "))
        assert float(line.split()[1]) == (size if wanted else 0)
    assert ("read ahead" in running.words) is wanted


@pytest.mark.interop
def test_leases_and_disks_outlive_the_service(world: World) -> None:
    world.change('address = "192.168.77.21"\n', "")
    with world.service("--leave-disks") as running:
        first = lease(world)[0]
        world.at_client("iscsi-ls", "-s", "-i", INITIATOR, f"iscsi://{OURS}")
        disks = running.get("/healthz")["parts"]["disks"]
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(PATIENCE)
        with world.service() as again:
            assert again.get("/healthz")["parts"]["disks"] == disks
            assert lease(world)[0] == first
            world.at_client("iscsi-ls", "-s", "-i", INITIATOR, f"iscsi://{OURS}")


@pytest.mark.interop
def test_the_settings_are_read_again(world: World) -> None:
    with world.service() as running:
        good = world.settings.read_text()
        world.settings.write_text(good.replace('mac = "52', 'mac = "zz'))
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("the settings stay as they are: ")
        assert 'client#1.mac = "zz:54:00:12:34:56"' in running.words
        world.settings.write_text(good.replace('image = "debian"', 'image = "windows"'))
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("there is no image windows")
        assert lease(world)[4] == "ws1"
        renamed = good.replace('"ws1"', '"desk7"').replace('lease = "1h"', 'lease = "2h"')
        world.settings.write_text(renamed.replace("77.21", "77.33"))
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("a restart is needed for [dhcp]")
        running.wait_for("1 profiles, 1 clients")
        assert discover(world, MAC, 9)[0] == "192.168.77.33"
        kept = "52:54:00:00:00:01", "192.168.77.50"  # else the first address that is given
        more = '[[client]]\nmac = "%s"\nname = "kept"\nprofile = "workstation"\naddress = "%s"\n'
        more += '[[client]]\nmac = "%s"\nname = "free"\nprofile = "workstation"\n'
        more %= (*kept, "52:54:00:00:00:02")
        world.settings.write_text(renamed.replace("77.21", "77.33") + more)
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("1 profiles, 3 clients")
        assert discover(world, "52:54:00:00:00:02", 10)[0] == "192.168.77.51"
        assert discover(world, kept[0], 11)[0] == kept[1]
        assert running.get(f"/api/v1/clients/{MAC}")["name"] == "desk7"


@pytest.mark.interop
def test_an_interrupt_ends_it_too(world: World) -> None:
    with world.service(code=130) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(PATIENCE) == 130


@pytest.mark.interop
def test_overlays_are_reset_beside_the_service(world: World) -> None:
    options = f"driver=iscsi,transport=tcp,portal={OURS},target={IQN}:52-54-00-12-34-56,lun=0"
    disk = ["--image-opts", f"{options},initiator-name={INITIATOR}"]
    with world.service():
        lease(world)
        world.at_client("qemu-io", "-c", "write -P 0x55 0 64k", *disk)
        world.at_client("qemu-io", "-c", "read -P 0x55 0 64k", *disk)
        refused = world.netboot("overlay", "reset", "ws1", "--config", world.settings)
        assert refused.returncode == 2
        assert "is in use: its machine is logged in" in refused.stderr
        done = world.netboot("overlay", "reset", MAC, "--force", "--state", world.state)
        assert done.returncode == 0, done.stderr
        world.at_client("qemu-io", "-c", "read -P 0xaa 0 64k", *disk)
        world.change('image = "debian"', 'image = "arch"')  # not yet read by the service
        words = ("overlay", "reset", MAC, "--force", "--config", world.settings)
        assert world.netboot(*words).returncode == 0
        refused = world.netboot("image", "remove", "debian", "--config", world.settings)
        assert refused.returncode == 2
        assert "profile workstation of the running service boots it" in refused.stderr


@pytest.mark.interop
def test_a_disk_grows_beside_the_service(world: World) -> None:
    options = f"driver=iscsi,transport=tcp,portal={OURS},target={IQN}:52-54-00-12-34-56,lun=0"
    disk = ["--image-opts", f"{options},initiator-name={INITIATOR}"]
    with world.service():
        lease(world)
        world.at_client("qemu-io", "-c", "write -P 0x55 0 64k", *disk)
        words = ("overlay", "resize", "ws1", "1G", "--config", world.settings)
        done = world.netboot(*words)  # open still: the disk process lets it grow
        assert done.returncode == 0, done.stderr
        assert "its disk over debian has 1.0 GiB now, it had 4.0 MiB" in done.stdout
        verbs = ("-c", "length", "-c", "read -P 0 1023M 1M", "-c", "write -P 0x66 1023M 64k")
        assert "1 GiB" in world.at_client("qemu-io", *verbs, *disk)
        refused = world.netboot(*words[:3], "512M", *words[4:])
        assert refused.returncode and "never becomes smaller" in refused.stderr
        world.netboot("overlay", "reset", MAC, "--force", "--state", world.state)
        lost = world.netboot(*words)
        assert lost.returncode and "has no overlay" in lost.stderr
        world.change('overlay = "persistent"', 'overlay = "persistent"\ndisk = "2G"')
    with world.service():
        lease(world)
        assert "2 GiB" in world.at_client("qemu-io", "-c", "length", *disk)


@pytest.mark.interop
@pytest.mark.parametrize("mode", ["proxy", "off"])
def test_addresses_may_be_somebody_elses(world: World, mode: str) -> None:
    world.change('mode = "full"', f'mode = "{mode}"')
    world.change('pool = "192.168.77.50-192.168.77.99"\n', "")
    world.at_client("ip", "address", "add", "192.168.77.200/24", "dev", "eth0")
    with world.service() as running:
        if mode == "proxy":
            assert discover(world, MAC, 1) == ["0.0.0.0", "undionly.kpxe"]
        else:
            assert discover(world, MAC, 1, patience=0.5) == ["silence"]
        world.at_client("curl", "-sf", f"tftp://{OURS}/undionly.kpxe")
        assert "Lun:0" in world.at_client(
            *("iscsi-ls", "-s", "-i", INITIATOR, f"iscsi://{OURS}"),
        )
        world.at_client("curl", "-sf", "-X", "POST", f"http://{OURS}:8080/api/v1/ready")
        phases = [step["phase"] for step in running.get(f"/api/v1/clients/{MAC}")["timeline"]]
        # The kernel's neighbours tell whose address it is.
        assert [phase for phase in phases if phase in ("loader", "login", "ready")] == [
            *("loader", "login", "ready")
        ]


# Bad input.


#: An iPXE's DISCOVER and REQUEST, below UDP; argv: MAC. Prints option 175 of offer and ACK, hex.
IPXE = """
import sys
from scapy.all import BOOTP, DHCP, IP, UDP, Ether, conf, srp1
mac = sys.argv[1]
conf.checkIPaddr = False
def ask(kind, *more):
    options = [("message-type", kind), (77, b"iPXE"), (93, bytes(2)), (175, bytes((17, 1, 1)))]
    packet = (
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67) / BOOTP(chaddr=bytes.fromhex(mac.replace(":", "")), xid=7)
        / DHCP(options=[*options, *more, "end"])
    )
    answer = srp1(packet, iface="eth0", timeout=10, verbose=False)
    told = {one[0]: one[1] for one in answer[DHCP].options if isinstance(one, tuple)}
    return answer[BOOTP].yiaddr, told
address, offered = ask("discover")
_, acked = ask("request", ("server_id", offered["server_id"]), ("requested_addr", address))
print(offered[175].hex(), acked[175].hex())
"""


def sub_options(text: str) -> dict[int, str]:
    """Option 175, as it lies in the packet."""
    data, found = bytes.fromhex(text), {}
    while data and data[0] != 255:
        found[data[0]] = data[2 : 2 + data[1]].decode("latin-1")
        data = data[2 + data[1] :]
    return found


def inquiry(world: World, user: str = "", more: str = "") -> str:
    """What iscsi-inq says of the machine's disk; URL: user%secret."""
    url = f"iscsi://{user}{OURS}/{IQN}:52-54-00-12-34-56/0{more}"
    done = world.inside(world.client, "iscsi-inq", "-i", INITIATOR, url)
    return done.stdout + done.stderr


@pytest.mark.interop
def test_a_machine_proves_itself_by_what_only_its_ipxe_is_told(world: World) -> None:
    world.change("[[profile]]", '[iscsi]\nchap = "mutual"\n[[profile]]')
    with world.service() as running:
        offered, acked = world.at_client(sys.executable, "-c", IPXE, MAC).split()
        told = sub_options(acked)
        assert (told[190], told[192]) == ("52-54-00-12-34-56", "netboot")
        assert len(told[191]) == len(told[193]) == 16 and told[191] != told[193]
        assert set(sub_options(offered)) == set(told) - {190, 191, 192, 193}
        lease(world)

        mutual = f"?target_user=netboot&target_password={told[193]}"
        assert "NETBOOT" in inquiry(world, f"{told[190]}%{told[191]}@", mutual)
        assert "NETBOOT" in inquiry(world, f"{told[190]}%{told[191]}@"), "it need not ask for ours"
        wrong = f"?target_user=netboot&target_password={told[191]}"
        assert "NETBOOT" not in inquiry(world, f"{told[190]}%{told[191]}@", wrong)
        for user in ("", f"{told[190]}%{told[193]}@", f"ws1%{told[191]}@"):
            assert "NETBOOT" not in inquiry(world, user)
        running.wait_for(f"ws1 ({MAC}): login refused (0201): {INITIATOR} from 192.168.77.21: ")

        path = f"http://{OURS}:8080/boot/52-54-00-12-34-56.ipxe"
        script = world.at_client("curl", "-sf", path)
        assert f"set username {told[190]}\nset password {told[191]}\n" in script
        assert f"set reverse-username netboot\nset reverse-password {told[193]}\n" in script
        others = world.inside(world.server, "curl", "-sf", "-A", "iPXE/1.21", path).stdout
        assert others.startswith("#!ipxe") and "password" not in others

        before = world.netboot("client", "secret", "ws1", "--json", "--config", world.settings)
        assert json.loads(before.stdout)["chap"]["secret"] == told[191]
        renewed = world.netboot(
            *("client", "secret", "ws1", "--renew", "--force", "--json"),
            *("--config", world.settings),
        )
        fresh = json.loads(renewed.stdout)["chap"]["secret"]
        assert "NETBOOT" not in inquiry(world, f"{told[190]}%{told[191]}@")
        assert "NETBOOT" in inquiry(world, f"{told[190]}%{fresh}@")

        explained = world.netboot("explain", "ws1", "--config", world.settings).stdout
        assert "proof      mutual CHAP as user 52-54-00-12-34-56" in explained
        everything = explained + running.words + str(running.get("/api/v1/clients"))
        everything += str(running.get(f"/api/v1/explain/{MAC}"))
        for secret in (told[191], told[193], fresh):
            assert secret not in everything
        assert "by mutual CHAP with MD5" in world.disk_words
    files = {path.name: path.stat().st_mode & 0o777 for path in world.state.glob("netboot.sqlite*")}
    assert set(files.values()) == {0o600}


@pytest.mark.interop
def test_discovery_proves_itself_where_the_operator_says_so(world: World) -> None:
    keys = 'discovery_secret = "let-me-look-1"\ndiscovery_mutual_secret = "look-at-me-12"\n'
    world.change("[[profile]]", f"[iscsi]\n{keys}[[profile]]")
    target = f"Target:{IQN}:52-54-00-12-34-56"

    def listed(user: str) -> str:
        words = ("iscsi-ls", "-i", INITIATOR, f"iscsi://{user}{OURS}")
        done = world.inside(world.client, *words)
        return done.stdout + done.stderr

    with world.service() as running:
        lease(world)
        assert target in listed("discovery%let-me-look-1@")
        for user in (
            "",
            "discovery%let-me-look-2@",
            "discovery%look-at-me-12@",
            "x%let-me-look-1@",
        ):
            assert target not in listed(user)
        running.wait_for("login refused (0201)")
        assert "NETBOOT" in inquiry(world), "a disk is another matter"
        assert "let-me-look-1" not in running.words


@pytest.mark.interop
def test_a_machine_that_brings_its_own_secret_is_told_none(world: World) -> None:
    own = 'address = "192.168.77.21"\nchap_name = "me"\nchap_secret = "its-own-secret"\n'
    world.change('address = "192.168.77.21"\n', own)
    with world.service():
        _offered, acked = world.at_client(sys.executable, "-c", IPXE, MAC).split()
        assert not {190, 191, 192, 193} & set(sub_options(acked))
        lease(world)
        assert "NETBOOT" in inquiry(world, "me%its-own-secret@")
        assert "NETBOOT" not in inquiry(world)
        assert "NETBOOT" not in inquiry(world, "me%another-secret@")


@pytest.mark.interop
def test_an_unknown_machine_gets_no_answer_and_one_line(world: World) -> None:
    with world.service() as running:
        for xid in (1, 2, 3):
            assert discover(world, STRANGER, xid, patience=0.5) == ["silence"]
        assert running.words.count(STRANGER) == 1
        assert discover(world, MAC, 4)[0] == "192.168.77.21"


GARBAGE = """
import os, socket, sys
for size in (0, 1, 3, 47, 48, 240, 600, 1400):
    for port in (53, 67, 69, 4011):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(os.urandom(size), (sys.argv[1], port))
    for port in (53, 3260, 8080):
        with socket.create_connection((sys.argv[1], port)) as tcp:
            tcp.sendall(os.urandom(size))
"""


@pytest.mark.interop
def test_garbage_on_any_port_stops_nothing(world: World) -> None:
    with world.service() as running:
        lease(world)
        world.at_client(sys.executable, "-c", GARBAGE, OURS)
        assert running.get("/healthz")["ok"] is True
        assert lease(world)[0] == "192.168.77.21"
        world.at_client("iscsi-ls", "-i", INITIATOR, f"iscsi://{OURS}")
        world.at_client("curl", "-sf", f"tftp://{OURS}/undionly.kpxe")
        world.at_client("dig", "+short", "+time=5", f"@{OURS}", "ws1.lab.netboot")


@pytest.mark.interop
def test_what_is_not_fit_is_one_line_and_nobody_is_answered(world: World) -> None:
    text = world.settings.read_text()
    for old, new, told in (
        ('"br0"', '"br7"', "site.interface: there is no br7 on this machine, only br0, lo, up0"),
        (
            "192.168.77.1/24",
            "192.168.77.2/24",
            "site.address: 192.168.77.2 is not an address of this machine: ip address add "
            "192.168.77.2/24 dev br0",
        ),
        ('"br0"', '"up0"', "site.address: 192.168.77.1 belongs to br0, not to up0"),
        (
            'image = "debian"',
            'image = "windows"',
            "profile workstation: there is no image windows: netboot image build windows",
        ),
        (
            'overlay = "persistent"',
            'loader = "special.efi"',
            "the boot program special.efi for profile workstation is in none of ",
        ),
        (f'state = "{world.state}"', f'state = "{world.settings}"', "site.state: "),
        ("lease =", "leese =", f"{world.settings}: dhcp.leese: there is no such setting; did you"),
    ):
        assert old in text
        world.settings.write_text(text.replace(old, new))
        assert world.refused().startswith(told)
    world.settings.write_text(text)


@pytest.mark.interop
def test_missing_files_are_one_line(world: World) -> None:
    loader = world.folder / "loaders" / "undionly.kpxe"
    loader.rename(world.folder / "elsewhere")
    line = world.refused()
    assert line.startswith("the boot program undionly.kpxe for x86 BIOS machines is in none of ")
    assert line.endswith("apt-get install ipxe, or put it there")
    (world.folder / "elsewhere").rename(loader)
    (world.state / "images" / "debian" / "1.raw").unlink()
    assert "1.raw of image debian is gone: bring it back, or " in world.refused()


FULL = """
mount -t tmpfs -o size={size}k none "{state}"
cp -a "{kept}/." "{state}" && head -c 100M /dev/zero > "{state}/filler"
exec {python} -m netboot serve --config "{settings}"
"""


@pytest.mark.interop
def test_no_room_on_the_disk_is_one_line(world: World) -> None:
    """The mount is the process's own: it is gone with it."""
    kept = world.folder / "kept"
    (world.state / "images" / "debian" / "1.raw").rename(world.folder / "elsewhere")
    world.state.rename(kept)
    world.state.mkdir()
    script = FULL.format(
        size=512, state=world.state, kept=kept, python=sys.executable, settings=world.settings
    )
    done = world.inside(world.server, "sh", "-c", script)
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert line == (
        f"netboot: site.state: {world.state} cannot be written to (No space left on device): "
        "make room, or choose another folder"
    )


@pytest.mark.interop
def test_a_golden_file_changed_behind_our_back_is_refused(world: World) -> None:
    with world.service() as running:
        lease(world)
        golden = world.state / "images" / "debian" / "1.raw"
        golden.chmod(0o644)
        with golden.open("r+b") as file:
            file.write(b"changed")
        words = ["iscsi-ls", "-s", "-i", INITIATOR, f"iscsi://{OURS}"]
        done = world.inside(world.client, *words)
        assert "Lun:0" not in done.stdout
        running.wait_for("changed since it was added")
        assert f"ws1 ({MAC}): its disk: " in running.words
        assert list(world.state.glob("overlays/*.qcow2")) == []
        assert running.get("/healthz")["ok"] is True


HOLD = """
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
taken = socket.socket(socket.AF_INET, getattr(socket, "SOCK_" + kind))
taken.bind((address, port))
taken.listen() if kind == "STREAM" else None
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.mark.interop
@pytest.mark.parametrize(
    ("kind", "port", "told"),
    [
        ("DGRAM", 67, "UDP port 67 on br0 is in use by another program (ss -lunp"),
        ("DGRAM", 4011, "UDP port 4011 on br0 is in use by another program"),
        ("DGRAM", 69, f"UDP port 69 on {OURS} is in use by another program"),
        ("DGRAM", 53, f"UDP port 53 on {OURS} is in use by another program"),
        ("STREAM", 53, f"TCP port 53 on {OURS} is in use by another program (ss -ltnp"),
        ("STREAM", 8080, f"TCP port 8080 on {OURS} is in use by another program"),
        ("STREAM", 3260, f"iSCSI cannot listen on {OURS} port 3260: Address already in use"),
    ],
)
def test_a_port_in_use_is_one_line(world: World, kind: str, port: int, told: str) -> None:
    words = [sys.executable, "-c", HOLD, kind, "0.0.0.0" if port in (67, 4011) else OURS, str(port)]
    with subprocess.Popen(
        ["ip", "netns", "exec", world.server, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        line = world.refused()
        assert line.startswith(told), "nothing before it: the line says netboot: once"
        assert "stop" in line and ("or set " in line or "or change " in line)
        holder.communicate(timeout=PATIENCE)


@pytest.mark.interop
def test_two_services_do_not_share_a_state_folder(world: World) -> None:
    with world.service() as running:
        text = world.refused()
        assert text.startswith("site.state: another netboot serve (process ")
        assert running.get("/healthz")["ok"] is True


@pytest.mark.interop
def test_without_root_it_says_what_it_needs(world: World) -> None:
    """The same service, without the capability to open low ports."""
    state = world.folder / "mine"
    state.mkdir()
    world.change(f'state = "{world.state}"', f'state = "{state}"')
    bare = ["setpriv", "--bounding-set", "-net_bind_service,-net_raw"]
    bare += ["--inh-caps", "-net_bind_service,-net_raw"]
    serve = [sys.executable, "-m", "netboot", "serve", "--config", str(world.settings)]
    done = world.inside(world.server, *bare, *serve)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "netboot: UDP port 67 on br0 may not be opened: run as root, or grant "
        "CAP_NET_BIND_SERVICE and CAP_NET_RAW"
    )


# The parts of the composition that need no network.


def settings(tmp_path: Path, more: str = "") -> config.Settings:
    text = SETTINGS.format(state=tmp_path, loaders=tmp_path / "loaders")
    return config.parse(text + more, "test")


def test_a_service_that_never_started_stops(tmp_path: Path) -> None:
    service = app.Service(settings(tmp_path))
    assert service.site.address == IPv4Interface("192.168.77.1/24")

    async def run() -> None:
        with pytest.raises(ConfigError, match=r"site\.interface: there is no br0"):
            await service.start()
        await service.stop()
        await service.stop()

    asyncio.run(run())
    # The state folder is nobody's again.
    asyncio.run(_start_again(tmp_path))


def test_a_reload_before_it_is_ready_is_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = app.Service(settings(tmp_path))
    before = service.settings
    service.reload(tmp_path / "nowhere")
    assert service.settings is before
    assert caplog.text == ""


async def _start_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"site\.interface"):
        await app.Service(settings(tmp_path)).start()


#: A login that says what it was answered: the status in hex, and the text.
KNOCK = """
import socket, sys
text = ("InitiatorName=%s\\0TargetName=%s\\0" % tuple(sys.argv[2:])).encode()
head = bytes((0x43, 0x87, 0, 0, 0)) + len(text).to_bytes(3, "big") + bytes.fromhex("00023d000001")
with socket.create_connection((sys.argv[1], 3260), 10) as sock:
    sock.sendall(head.ljust(48, b"\\0") + text + bytes(-len(text) % 4))
    answer = sock.recv(4096)
print(answer[36:38].hex(), answer[48:].decode().replace("\\0", " "))
"""


@pytest.mark.interop
def test_a_server_is_drained_without_a_restart(world: World) -> None:
    knock = (sys.executable, "-c", KNOCK, OURS, INITIATOR, f"{IQN}:52-54-00-12-34-56")
    with world.service() as running:
        lease(world)
        assert world.at_client(*knock).startswith("0000 ")
        away = '[iscsi]\nredirect = "192.168.77.9:3260"\nclient_sessions = 3\n[tftp]'
        world.change("[tftp]", away)
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("1 profiles, 1 clients")
        assert "a restart is needed" not in running.words
        assert world.at_client(*knock) == "0101 TargetAddress=192.168.77.9:3260 \n"
        assert "login refused" not in running.words  # it is nothing to worry about
        world.change('redirect = "192.168.77.9:3260"\n', "")
        world.change("[[client]]", '[[profile]]\nname = "b"\nimage = "debian"\n[[client]]')
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("2 profiles, 1 clients")
        assert world.at_client(*knock).startswith("0000 ")


@pytest.mark.interop
def test_a_portal_that_is_not_there_is_told_at_the_start(world: World) -> None:
    world.change("[tftp]", f'[iscsi]\nportals = ["{OURS}:3260", "[fd00:77::1]:3260"]\n[tftp]')
    assert "iSCSI cannot listen on fd00:77::1 port 3260: Cannot assign" in world.refused()

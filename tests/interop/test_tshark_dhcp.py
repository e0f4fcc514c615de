"""Every kind of reply that we send, as Wireshark's dissectors read it: nothing is malformed."""

import json
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from netboot.dhcp.effects import Send
from netboot.dhcp.engine import PROBE_WAIT, Engine
from netboot.dhcp.wire import Packet, encode
from netboot.model import BootPlan, Client, DhcpMode, Profile, Site, Stage

pytestmark = pytest.mark.interop

MAC = bytes.fromhex("525400123456")
SERVER = IPv4Interface("192.168.77.1/24")
PROGRAMS: dict[str, dict[int, bytes]] = {
    "BIOS": {60: b"PXEClient:Arch:00000:UNDI:002001", 93: b"\0\0", 97: b"\0" + bytes(range(16))},
    "UEFI": {60: b"PXEClient:Arch:00007:UNDI:003016", 93: b"\0\x07", 97: bytes(17)},
    "HTTP": {60: b"HTTPClient:Arch:00016:UNDI:003001", 93: b"\0\x10"},
    "iPXE": {
        60: b"PXEClient:Arch:00000:UNDI:002001",
        77: b"iPXE",
        93: b"\0\0",
        175: b"\x11\x01\x01",
    },
    "OS": {61: b"\x01" + MAC, 12: b"debian"},
}


def plan(client: Client) -> BootPlan:
    boots: dict[str, Any] = {}
    if client.stage is Stage.IPXE:
        target = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
        boots = {"root_path": f"iscsi:192.168.77.1::::{target}", "initiator": "iqn.2026-11.x:y"}
    elif client.http:
        boots = {"loader_url": "http://192.168.77.1:8080/loaders/snponly.efi"}
    elif client.stage is Stage.FIRMWARE:
        boots = {"loader": "snponly.efi"}
    return BootPlan(client=client, name="ws1", profile=Profile("w", "debian"), **boots)


def conversation(mode: DhcpMode, program: dict[int, bytes]) -> list[Send]:
    """OFFER and ACK, the answer of port 4011, and a NAK."""
    site = Site("br0", SERVER, "lab.netboot", mode, router=IPv4Address("192.168.77.254"))
    pool = (IPv4Address("192.168.77.50"), IPv4Address("192.168.77.60"))
    engine = Engine(site, pool, 3600, plan, dns=[SERVER.ip])
    yours = pool[0].packed

    def say(kind: int, port: int = 67, **fields: Any) -> list[Any]:
        options = {53: bytes((kind,)), **fields.pop("options", {}), **program}
        packet = Packet(op=1, xid=7, hardware=MAC, options=options, **fields)
        return engine.receive(encode(packet), ("192.168.77.50", 68), 0.0, port)

    effects = say(1) + engine.tick(PROBE_WAIT)
    effects += say(3, options={54: SERVER.ip.packed, 50: yours, 82: b"\x01\x04eth0"})
    effects += say(3, options={50: bytes((10, 0, 0, 1))})
    effects += say(3, 4011, ciaddr=pool[0], options={43: b"\x47\x04\0\0\0\0\xff"})
    effects += say(8, ciaddr=pool[0])
    return [effect for effect in effects if isinstance(effect, Send)]


def dissected(path: Path, sends: Sequence[Send]) -> list[dict[str, Any]]:
    frames = [
        Ether(src="02:00:00:00:00:01", dst=send.mac)
        / IP(src=str(SERVER.ip), dst=str(send.address))
        / UDP(sport=send.source_port, dport=send.port)
        / send.data
        for send in sends
    ]
    wrpcap(str(path), frames)
    command = ["tshark", "-r", str(path), "-d", "udp.port==4011,dhcp", "-T", "json"]
    command += ["--no-duplicate-keys"]  # options repeat their key: json.loads keeps the last
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    return [packet["_source"]["layers"] for packet in json.loads(done.stdout)]


@pytest.mark.parametrize("mode", [DhcpMode.FULL, DhcpMode.PROXY])
def test_nothing_is_malformed(tmp_path: Path, mode: DhcpMode) -> None:
    sends = [send for program in PROGRAMS.values() for send in conversation(mode, program)]
    assert len(sends) == (24 if mode is DhcpMode.FULL else 8)
    found = dissected(tmp_path / "replies.pcap", sends)
    assert len(found) == len(sends)
    for layers in found:
        assert "dhcp" in layers, layers.keys()
        assert not [name for name in layers if "malformed" in name]
        assert "_ws.expert" not in json.dumps(layers["dhcp"])


def test_the_root_path_and_initiator_as_wireshark_reads_them(tmp_path: Path) -> None:
    offer = conversation(DhcpMode.FULL, PROGRAMS["iPXE"])[:1]
    text = json.dumps(dissected(tmp_path / "offer.pcap", offer))
    assert "iscsi:192.168.77.1::::iqn.2026-11.lab.netboot:52-54-00-12-34-56" in text
    assert "255.255.255.0" in text and "192.168.77.254" in text

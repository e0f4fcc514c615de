"""A small LAN for the pure parts: machines speak in packets that scapy builds, and what the
engine sends back is read by scapy, so that no mistake of our codec hides itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.packet import Packet as Layer

from netboot.dhcp.effects import Effect, Send
from netboot.dhcp.engine import PROBE_WAIT, Engine
from netboot.model import BootPlan, Chap, Client, DhcpMode, Host, Lease, Profile, Site, Stage

FIRST, LAST = IPv4Address("192.168.77.50"), IPv4Address("192.168.77.199")
SERVER = "192.168.77.1"

BIOS = (
    ("vendor_class_id", b"PXEClient:Arch:00000:UNDI:002001"),
    (93, b"\x00\x00"),
    (94, b"\x01\x02\x01"),
    (97, b"\x00" + bytes(range(16))),
    ("param_req_list", [1, 3, 6, 12, 15, 43, 54, 60, 66, 67, 128, 129]),
)
UEFI = (
    ("vendor_class_id", b"PXEClient:Arch:00007:UNDI:003016"),
    (93, b"\x00\x07"),
    (97, b"\x00" + bytes(range(16))),
    ("param_req_list", [1, 3, 6, 12, 15, 43, 54, 60, 66, 67, 97]),
    ("max_dhcp_size", 1472),
)
HTTP = (
    ("vendor_class_id", b"HTTPClient:Arch:00016:UNDI:003001"),
    (93, b"\x00\x10"),
    ("param_req_list", [1, 3, 6, 12, 15, 43, 60, 67]),
)
IPXE = (
    ("vendor_class_id", b"PXEClient:Arch:00000:UNDI:002001"),
    (77, b"iPXE"),
    (93, b"\x00\x00"),
    (97, b"\x00" + bytes(range(16))),
    (175, bytes((17, 1, 1, 19, 1, 1, 177, 5, 1, 0x1A, 0xF4, 0x10, 0, 235, 3, 1, 21, 1))),
    ("client_id", b"\x01\x52\x54\x00\x00\x00\x01"),
    ("param_req_list", [1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 128, 175, 203]),
)
OS = (
    ("client_id", b"\xff\x12\x34\x56\x78\x00\x01\x00\x01\x2c"),
    ("hostname", b"debian"),
    ("param_req_list", [1, 28, 2, 3, 15, 6, 12, 58, 59]),
)
PROGRAMS = {"BIOS": BIOS, "UEFI": UEFI, "HTTP": HTTP, "IPXE": IPXE, "OS": OS}


def a_site(mode: DhcpMode = DhcpMode.FULL, **fields: Any) -> Site:
    """The site of the example settings, with one reservation."""
    site = Site(
        interface="br0",
        address=IPv4Interface("192.168.77.1/24"),
        domain="lab.netboot",
        dhcp_mode=mode,
        profiles={"workstation": Profile("workstation", "debian")},
        hosts={
            "52:54:00:00:00:21": Host(
                "52:54:00:00:00:21", "ws21", "workstation", IPv4Address("192.168.77.121")
            )
        },
        unknown_profile="workstation",
    )
    return replace(site, **fields)


def a_plan(site: Site, script: str | None = None) -> Callable[[Client], BootPlan | None]:
    """What the brain would say, in ten lines; machines of ``66:…`` are nobody's."""

    def plan(client: Client) -> BootPlan | None:
        if client.mac.startswith("66:"):
            return None
        host = site.hosts.get(client.mac)
        base = BootPlan(
            client=client,
            name=host.name if host else f"ws-{client.mac[-2:]}",
            profile=site.profiles["workstation"],
            initiator=site.initiator_name(client.mac),
            reserved=host.address if host else None,
            starts_boot=client.stage is not Stage.OS,
        )
        if client.stage is Stage.OS:
            return base
        if client.stage is Stage.IPXE and script is not None:
            return replace(base, script_url=script)
        if client.stage is Stage.IPXE:
            target = site.target_name(client.mac)
            return replace(base, root_path=f"iscsi:{site.address.ip}::::{target}")
        if client.http:
            return replace(base, loader_url=f"http://{site.address.ip}:8080/loaders/snponly.efi")
        return replace(base, loader="undionly.kpxe" if client.arch == (0,) else "snponly.efi")

    return plan


@dataclass
class Heard:
    """One reply: the effect, and what scapy reads in it."""

    send: Send
    bootp: Layer
    options: dict[Any, Any] = field(default_factory=dict)

    @property
    def kind(self) -> int:
        return int(self.options["message-type"])


@dataclass
class Lan:
    """An engine, a clock, and machines that talk to it."""

    engine: Engine
    now: float = 1000.0

    def say(
        self,
        mac: str,
        message: str,
        *options: tuple[Any, Any],
        port: int = 67,
        peer: tuple[str, int] = ("0.0.0.0", 68),
        **fields: Any,
    ) -> list[Effect]:
        """The effects of one packet that scapy built."""
        packet = datagram(mac, message, *options, **fields)
        return self.engine.receive(packet, peer, self.now, port)

    def pass_time(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.engine.tick(self.now)

    def offer(self, mac: str, program: Sequence[tuple[Any, Any]], **fields: Any) -> Heard:
        """DISCOVER, the probe that nobody answers, and the one OFFER."""
        effects = self.say(mac, "discover", *program, **fields)
        effects += self.pass_time(PROBE_WAIT) if self.engine.deadline() else []
        return only(effects)

    def dora(self, mac: str, program: Sequence[tuple[Any, Any]], **fields: Any) -> Heard:
        """The whole exchange; its ACK."""
        offer = self.offer(mac, program, **fields)
        effects = self.say(
            mac,
            "request",
            ("server_id", SERVER),
            ("requested_addr", offer.bootp.yiaddr),
            *program,
            **fields,
        )
        return only(effects)


def datagram(mac: str, message: str, *options: tuple[Any, Any], **fields: Any) -> bytes:
    """A client's packet, by scapy."""
    fields.setdefault("xid", 0x1234)
    chaddr = bytes.fromhex(mac.replace(":", ""))
    layers = BOOTP(op=1, chaddr=chaddr, **fields) / DHCP(
        options=[("message-type", message), *options, "end"]
    )
    return bytes(layers)


def heard(effects: Sequence[Effect]) -> list[Heard]:
    """The replies among ``effects``."""
    found = []
    for send in effects:
        if isinstance(send, Send):
            bootp = BOOTP(send.data)
            pairs = [option for option in bootp[DHCP].options if isinstance(option, tuple)]
            values = {name: rest[0] if len(rest) == 1 else rest for name, *rest in pairs}
            found.append(Heard(send, bootp, values))
    return found


def only(effects: Sequence[Effect]) -> Heard:
    replies = heard(effects)
    assert len(replies) == 1, effects
    return replies[0]


class Kit:
    """What the tests of this folder share."""

    FIRST, LAST, SERVER, PROGRAMS = FIRST, LAST, SERVER, PROGRAMS
    BIOS, UEFI, HTTP, IPXE, OS = BIOS, UEFI, HTTP, IPXE, OS
    site = staticmethod(a_site)
    plan = staticmethod(a_plan)
    datagram = staticmethod(datagram)
    heard = staticmethod(heard)
    only = staticmethod(only)

    @staticmethod
    def lan(
        mode: DhcpMode = DhcpMode.FULL,
        *,
        pool: tuple[IPv4Address, IPv4Address] = (FIRST, LAST),
        leases: Sequence[Lease] = (),
        script: str | None = None,
        probe: bool = True,
        chap_of: Callable[[str], Chap | None] = lambda mac: None,
        **fields: Any,
    ) -> Lan:
        site = a_site(mode, **fields)
        plan, dns = a_plan(site, script), [site.address.ip]
        return Lan(Engine(site, pool, 3600, plan, leases, dns, probe=probe, chap_of=chap_of))


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit

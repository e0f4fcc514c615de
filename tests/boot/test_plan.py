"""The decision at each stage, every reason it gives, and what may never happen."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.boot.firmware import ROWS, Firmware, Transport
from netboot.boot.plan import http_url, plan, root_path, script_path
from netboot.model import BootPlan, Client, Host, Profile, Site, Stage

WS1 = "52:54:00:12:34:56"
OTHER = "52:54:00:00:00:99"
HOST = Host(WS1, "ws1", "workstation", IPv4Address("192.168.77.21"))
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    profiles={
        "workstation": Profile("workstation", "debian"),
        "menu": Profile("menu", "debian", script="menu.ipxe"),
        "native": Profile("native", "debian", loader="ipxe.efi"),
    },
    hosts={WS1: HOST},
    unknown_profile="workstation",
)
NAMED = "client ws1 is named with profile workstation"
ALREADY = "this is iPXE already: no loader"
ROOT = "iscsi:192.168.77.1:::0:iqn.2026-11.lab.netboot:52-54-00-12-34-56"


def decide(client: Client, site: Site = SITE) -> BootPlan:
    made = plan(client, site)
    assert made is not None
    return made


def with_profile(name: str) -> Site:
    return replace(SITE, hosts={WS1: replace(HOST, profile=name)})


def bootables(made: BootPlan) -> list[str]:
    four = (made.loader, made.loader_url, made.script_url, made.root_path)
    return [item for item in four if item is not None]


def test_a_bios() -> None:
    client = Client(WS1, Stage.FIRMWARE, arch=(0,), vendor_class="PXEClient:Arch:00000")
    assert decide(client) == BootPlan(
        client=client,
        name="ws1",
        profile=SITE.profiles["workstation"],
        loader="undionly.kpxe",
        initiator="iqn.2026-11.lab.netboot:client.52-54-00-12-34-56",
        reserved=IPv4Address("192.168.77.21"),
        starts_boot=True,
        why=(
            NAMED,
            "architecture 0: x86 BIOS",
            "loader undionly.kpxe, the first choice for x86 BIOS",
            "by TFTP",
        ),
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_of_the_firmware_table(row: Firmware) -> None:
    by_http = row.transport is Transport.HTTP
    made = decide(Client(WS1, Stage.FIRMWARE, arch=(row.code,), http=by_http))
    assert made.loader == (None if by_http else row.loader)
    url = f"http://192.168.77.1:8080/loaders/{row.loader}" if row.loader and by_http else None
    assert made.loader_url == url
    assert made.script_url is None
    assert made.root_path is None
    assert made.starts_boot
    assert made.why[0] == NAMED
    assert row.name in made.why[1]
    if row.loader is None:
        assert made.why[2:] == (f"no loader for {row.name}: {row.story}",)
    else:
        assert made.why[3] == (f"by HTTP: {url}" if by_http else "by TFTP")


@pytest.mark.parametrize(
    ("http", "arch", "vendor_class", "by_http"),
    [
        (True, 16, "HTTPClient:Arch:00016", True),
        (True, 7, "HTTPClient:Arch:00007", True),  # what it says it is counts, not its number
        (False, 16, "PXEClient:Arch:00016", False),
        (False, 16, "", True),
        (False, 7, "", False),
    ],
)
def test_http_or_tftp(http: bool, arch: int, vendor_class: str, by_http: bool) -> None:
    made = decide(Client(WS1, Stage.FIRMWARE, (arch,), http=http, vendor_class=vendor_class))
    assert (made.loader_url is not None) is by_http
    assert (made.loader is not None) is not by_http


def test_firmware_that_nobody_knows_gets_its_address_and_a_reason() -> None:
    made = decide(Client(WS1, Stage.FIRMWARE, arch=(4711,)))
    assert bootables(made) == []
    assert made.why == (
        NAMED,
        "architecture 4711 is in no row of the firmware table",
        "it gets an address and no boot program",
    )


def test_the_profile_chooses_the_loader() -> None:
    made = decide(Client(WS1, Stage.FIRMWARE, arch=(7,)), with_profile("native"))
    assert made.loader == "ipxe.efi"
    assert made.why[2] == "loader ipxe.efi, because the profile says so"


def test_ipxe_gets_its_root_path() -> None:
    made = decide(Client(WS1, Stage.IPXE, arch=(0,), features=frozenset({17, 19})))
    assert made.root_path == ROOT
    assert bootables(made) == [ROOT]
    assert made.starts_boot
    assert made.why == (NAMED, ALREADY, f"root path {ROOT}")


def test_ipxe_without_iscsi_is_warned_about() -> None:
    made = decide(Client(WS1, Stage.IPXE, features=frozenset({19, 21})))
    assert made.root_path == ROOT
    assert made.why[-1] == ("warning: this iPXE was built without iSCSI, it will not find the disk")


def test_ipxe_gets_a_script_where_the_profile_wants_one() -> None:
    made = decide(Client(WS1, Stage.IPXE), with_profile("menu"))
    url = "http://192.168.77.1:8080/boot/52-54-00-12-34-56.ipxe"
    assert bootables(made) == [url]
    assert made.script_url == url
    assert made.why[1:] == (ALREADY, f"profile menu wants the script menu.ipxe: {url}")


def test_an_iscsi_name_that_is_none_gives_no_root_path() -> None:
    odd = replace(SITE, iqn="iqn.2026-11.${net0/mac}")
    made = decide(Client(WS1, Stage.IPXE), odd)
    assert bootables(made) == []
    assert made.why[-1].startswith("no root path: 'iqn.2026-11.${net0/mac}:52-54-")
    assert bootables(decide(Client(WS1, Stage.IPXE), replace(SITE, iqn="iqn." + "a" * 220))) == []


def test_an_operating_system_gets_nothing_to_boot() -> None:
    made = decide(Client(WS1, Stage.OS, hostname="debian"))
    assert bootables(made) == []
    assert not made.starts_boot
    assert made.name == "ws1"
    assert made.reserved == IPv4Address("192.168.77.21")
    assert made.why == (NAMED, "an operating system is running: nothing to boot")


def test_a_machine_nobody_named() -> None:
    made = decide(Client(OTHER, Stage.IPXE))
    assert made.name == "client-525400000099"
    assert made.reserved is None
    assert made.initiator == "iqn.2026-11.lab.netboot:client.52-54-00-00-00-99"
    assert made.root_path == "iscsi:192.168.77.1:::0:iqn.2026-11.lab.netboot:52-54-00-00-00-99"
    assert made.why[0] == "no client has this MAC: unknown machines have profile workstation"


@pytest.mark.parametrize("stage", Stage)
def test_a_machine_that_is_not_ours(stage: Stage) -> None:
    assert plan(Client(OTHER, stage), replace(SITE, unknown_profile=None)) is None
    assert plan(Client(WS1, stage), replace(SITE, profiles={})) is None


def test_a_machine_that_brings_its_own_initiator_name() -> None:
    own = replace(SITE, hosts={WS1: replace(HOST, initiator="iqn.1991-05.com.example:ws1")})
    assert decide(Client(WS1, Stage.IPXE), own).initiator == "iqn.1991-05.com.example:ws1"


@pytest.mark.parametrize(
    ("port", "lun", "path"),
    [
        (3260, 0, "iscsi:192.168.77.1:::0:iqn.2026-11.lab.netboot:52-54-00-12-34-56"),
        (3261, 0, "iscsi:192.168.77.1::3261:0:iqn.2026-11.lab.netboot:52-54-00-12-34-56"),
        (3260, 10, "iscsi:192.168.77.1:::a:iqn.2026-11.lab.netboot:52-54-00-12-34-56"),
        (3260, 64, "iscsi:192.168.77.1:::40:iqn.2026-11.lab.netboot:52-54-00-12-34-56"),
    ],
)
def test_root_path(port: int, lun: int, path: str) -> None:
    assert root_path(replace(SITE, iscsi_port=port), WS1, lun) == path
    server, protocol, at, number, target = path.removeprefix("iscsi:").split(":", 4)
    assert (server, protocol) == ("192.168.77.1", "")
    assert (int(at or "3260"), int(number, 16)) == (port, lun)
    assert target == SITE.target_name(WS1)


def test_urls() -> None:
    assert http_url(SITE, "/x") == "http://192.168.77.1:8080/x"
    assert script_path(WS1) == "/boot/52-54-00-12-34-56.ipxe"


CLIENTS = st.builds(
    Client,
    mac=st.sampled_from([WS1, OTHER, "b8:27:eb:00:00:01"]),
    stage=st.sampled_from(Stage),
    arch=st.lists(st.integers(0, 50), max_size=3).map(tuple),
    http=st.booleans(),
    vendor_class=st.text() | st.sampled_from(["PXEClient", "HTTPClient"]),
    user_class=st.text(),
    hostname=st.text() | st.sampled_from(["${net0/mac}", "a && reboot", "x\n#!ipxe"]),
    features=st.frozensets(st.integers(16, 41)),
)


@given(CLIENTS, st.sampled_from(sorted(SITE.profiles)))
def test_never_more_than_one_thing_to_boot_and_always_reasons(client: Client, name: str) -> None:
    made = decide(client, replace(with_profile(name), unknown_profile=name))
    assert len(bootables(made)) <= 1
    assert made.why
    assert all(made.why)
    allowed = {
        Stage.FIRMWARE: {made.loader, made.loader_url},
        Stage.IPXE: {made.script_url, made.root_path},
        Stage.OS: set(),
    }[client.stage]
    assert set(bootables(made)) <= allowed
    assert made.starts_boot is (client.stage is not Stage.OS)
    assert made == decide(client, replace(with_profile(name), unknown_profile=name))


@given(CLIENTS)
def test_nothing_of_the_packet_reaches_ipxe(client: Client) -> None:
    """``${`` is expanded and a newline ends a line: only the MAC may come through."""
    bare = Client(client.mac, client.stage, client.arch, client.http, client.uuid)
    asked = replace(client, vendor_class="PXEClient" if client.vendor_class else "")
    plain = replace(bare, vendor_class="PXEClient" if client.vendor_class else "")
    assert bootables(decide(asked)) == bootables(decide(plain))
    for text in (*bootables(decide(client)), decide(client).name, decide(client).initiator or ""):
        assert text.isascii()
        assert text.isprintable()
        assert not set(text) & set("${}&|\n ")

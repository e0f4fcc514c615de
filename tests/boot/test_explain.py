"""The whole explanation of a machine, as data and as text; and that asking changes nothing."""

from dataclasses import asdict, replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from netboot.boot.explain import PROBES, Disk, Explanation, as_text, explain
from netboot.boot.plan import plan
from netboot.boot.script import Scripts
from netboot.model import (
    Client,
    Host,
    Lease,
    LeaseState,
    Overlay,
    OverlayMode,
    Profile,
    Site,
    Stage,
    Version,
)

WS1 = "52:54:00:12:34:56"
OTHER = "52:54:00:00:00:99"
IQN = "iqn.2026-11.lab.netboot"
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    profiles={
        "work": Profile("work", "debian"),
        "menu": Profile("menu", "debian", OverlayMode.EPHEMERAL, script="own.ipxe"),
    },
    hosts={WS1: Host(WS1, "ws1", "work", IPv4Address("192.168.77.21"))},
)
V2 = Version("debian", 2, "/lib/debian/2.raw", 1 << 30, "sha256:22", 0.0)
V3 = Version("debian", 3, "/lib/debian/3.raw", 1 << 30, "sha256:33", 0.0)
OVERLAY = Overlay(WS1, "debian", 3, OverlayMode.PERSISTENT, 0, "/ov/ws1.qcow2")


def ask(
    mac: str = WS1,
    site: Site = SITE,
    folder: Path | None = None,
    lease: Lease | None = None,
    versions: tuple[Version, ...] = (V3,),
    overlay: Overlay | None = OVERLAY,
) -> Explanation:
    numbered = {(version.image, version.number): version for version in versions}
    newest = {version.image: version for version in versions}
    return explain(
        mac,
        site,
        Scripts([folder] if folder else []),
        lease_of=lambda _: lease,
        version_of=newest.get,
        existing_overlay=lambda _, image: overlay if image == "debian" else None,
        version_at=lambda image, number: numbered.get((image, number)),
    )


def disk(**more: object) -> Disk:
    found = ask(**more).disk  # type: ignore[arg-type]
    assert found is not None
    return found


def test_as_text_whole() -> None:
    assert (
        as_text(ask())
        == f"""{WS1}  ws1
  rule     client ws1 is named with profile work
  profile  work
  address  192.168.77.21 (reserved)

BIOS (PXE): loader undionly.kpxe
  - architecture 0: x86 BIOS
  - loader undionly.kpxe, the first choice for x86 BIOS
  - by TFTP

UEFI x64 (PXE): loader snponly.efi
  - architecture 7: x64 UEFI
  - loader snponly.efi, the first choice for x64 UEFI
  - by TFTP

UEFI x64 (HTTP): loader_url http://192.168.77.1:8080/loaders/snponly.efi
  - architecture 16: x64 UEFI HTTP
  - loader snponly.efi, the first choice for x64 UEFI HTTP
  - by HTTP: http://192.168.77.1:8080/loaders/snponly.efi

UEFI ARM64 (PXE): loader ipxe-arm64.efi
  - architecture 11: ARM 64-bit UEFI
  - loader ipxe-arm64.efi, the first choice for ARM 64-bit UEFI
  - by TFTP

iPXE: root_path iscsi:192.168.77.1:::0:{IQN}:52-54-00-12-34-56
  - this is iPXE already: no loader
  - root path iscsi:192.168.77.1:::0:{IQN}:52-54-00-12-34-56

operating system: nothing to boot
  - an operating system is running: nothing to boot

disk:
  target     {IQN}:52-54-00-12-34-56, LUN 0, serial NB525400123456
  initiator  {IQN}:client.52-54-00-12-34-56
  proof      none: its name and its address must do
  overlay    /ov/ws1.qcow2 (persistent, generation 0)
  golden     /lib/debian/3.raw (debian, version 3)
"""
    )


def test_as_data() -> None:
    told = ask()
    assert (told.mac, told.name, told.profile) == (WS1, "ws1", "work")
    assert [answer.probe for answer in told.answers] == [probe.label for probe in PROBES]
    assert [answer.sends for answer in told.answers] == [
        "loader",
        "loader",
        "loader_url",
        "loader",
        "root_path",
        "",
    ]
    assert (told.script, told.script_error) == (None, None)
    assert asdict(disk()) == {
        "root_path": f"iscsi:192.168.77.1:::0:{IQN}:52-54-00-12-34-56",
        "target": f"{IQN}:52-54-00-12-34-56",
        "initiator": f"{IQN}:client.52-54-00-12-34-56",
        "serial": "NB525400123456",
        "proof": "none: its name and its address must do",
        "image": "debian",
        "version": 3,
        "golden": "/lib/debian/3.raw",
        "mode": OverlayMode.PERSISTENT,
        "overlay": "/ov/ws1.qcow2",
        "generation": 0,
        "note": "",
    }


def test_it_says_what_the_machine_really_gets() -> None:
    made = plan(Client(WS1, Stage.IPXE, features=frozenset({17})), SITE)
    assert made is not None
    told = next(answer for answer in ask().answers if answer.probe == "iPXE")
    assert (told.value, told.why) == (made.root_path, made.why)


def test_a_machine_that_is_ignored() -> None:
    told = ask(OTHER)
    assert told == Explanation(OTHER, "no client has this MAC, and unknown machines are ignored")
    assert as_text(told) == (
        f"{OTHER}  ignored\n"
        "  rule     no client has this MAC, and unknown machines are ignored\n"
        "  answer   none, at any stage\n"
    )


def test_a_machine_nobody_named() -> None:
    site = replace(SITE, unknown_profile="work")
    lease = Lease(OTHER, IPv4Address("192.168.77.50"), 0.0, LeaseState.BOUND)
    told = ask(OTHER, site, lease=lease, overlay=None)
    assert told.name == "client-525400000099"
    assert told.address == "192.168.77.50 (bound)"
    assert "  address  none yet\n" in as_text(ask(OTHER, site))


def menu(folder: Path, text: str) -> Explanation:
    (folder / "own.ipxe.j2").write_text(text)
    site = replace(SITE, hosts={WS1: replace(SITE.hosts[WS1], profile="menu")})
    return ask(site=site, folder=folder)


def test_a_script(tmp_path: Path) -> None:
    told = menu(tmp_path, "#!ipxe\necho {{ name }}\n")
    assert told.script == "#!ipxe\necho ws1\n"
    assert told.answers[4].sends == "script_url"
    assert "\nscript:\n  | #!ipxe\n  | echo ws1\n\ndisk:\n" in as_text(told)


def test_a_script_with_a_mistake_is_part_of_the_answer(tmp_path: Path) -> None:
    told = menu(tmp_path, "#!ipxe\necho {{ nam }}\n")
    assert told.script is None
    place = f"template {tmp_path}/own.ipxe.j2, line 2"
    assert told.script_error == f"{place}: 'nam' is undefined"
    assert f"\nscript: does not render: {place}: 'nam' is undefined\n" in as_text(told)


@pytest.mark.parametrize(
    ("versions", "overlay", "version", "golden", "note"),
    [
        ((V2, V3), OVERLAY, 3, V3.path, ""),
        ((V2, V3), None, 3, V3.path, "no overlay yet: the first login makes it"),
        ((), None, None, None, "the image is not there yet: netboot image build debian"),
        (
            (V2, V3),
            replace(OVERLAY, version=2),
            2,
            V2.path,
            "the newest version is 3; its overlay keeps the one it stands on",
        ),
        (
            (V3,),
            replace(OVERLAY, version=2),
            None,
            None,
            "its overlay stands on version 2, which is gone",
        ),
        ((), OVERLAY, None, None, "its overlay stands on version 3, which is gone"),
    ],
)
def test_the_disk_chain(
    versions: tuple[Version, ...],
    overlay: Overlay | None,
    version: int | None,
    golden: str | None,
    note: str,
) -> None:
    found = disk(versions=versions, overlay=overlay)
    assert (found.version, found.golden, found.note) == (version, golden, note)
    text = as_text(ask(versions=versions, overlay=overlay))
    assert (f"\n  note       {note}\n" in text) is bool(note)
    assert f"golden     {golden or 'none'} (debian, " in text


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.label)
def test_the_probes_are_real_packets(probe: object) -> None:
    stage, arch, vendor = probe.stage, probe.arch, probe.vendor_class  # type: ignore[attr-defined]
    assert all(f":{code:05}:" in vendor for code in arch)
    assert bool(arch) is (stage is not Stage.OS)


def test_text_without_a_disk() -> None:
    text = as_text(Explanation(WS1, "because", "ws1", "work"))
    assert text == f"{WS1}  ws1\n  rule     because\n  profile  work\n  address  none yet\n"

"""The QEMU command line of a machine."""

from pathlib import Path

import pytest

from netboot.errors import LabError
from netboot.lab import machine
from netboot.lab.machine import Firmware, Machine, command

BIOS = Machine("m1", "52:54:00:00:00:01", "tap0")
UEFI = Machine("m2", "52:54:00:00:00:02", "tap1", Firmware.UEFI, memory=2048, cores=2)


def options(arguments: list[str], name: str) -> list[str]:
    return [arguments[i + 1] for i, word in enumerate(arguments) if word == name]


def test_a_machine_has_a_network_and_no_disk() -> None:
    for each in (BIOS, UEFI):
        line = command(each, "tcg", Path("/v/vars.fd"))
        assert any(each.mac in option for option in options(line, "-device"))
        assert any(f"ifname={each.tap}," in option for option in options(line, "-netdev"))
        assert not any("if=virtio" in d or "if=ide" in d for d in options(line, "-drive"))
        assert options(line, "-m") == [str(each.memory)]
        assert options(line, "-smp") == [str(each.cores)]


def test_only_uefi_has_flash() -> None:
    assert options(command(BIOS, "tcg", Path("/v")), "-drive") == []
    code, variables = options(command(UEFI, "tcg", Path("/v/vars.fd")), "-drive")
    assert "readonly=on" in code
    assert variables.endswith("file=/v/vars.fd")
    assert "readonly" not in variables


@pytest.mark.parametrize(("accel", "cpu"), [("kvm", "host"), ("tcg,thread=multi", "max")])
def test_the_processor_follows_the_accelerator(accel: str, cpu: str) -> None:
    line = command(BIOS, accel, Path("/v"))
    assert options(line, "-accel") == [accel]
    assert options(line, "-cpu") == [cpu]


def test_missing_firmware_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OVMF_CODE", Path("/nowhere"))
    machine.check(Firmware.BIOS)
    with pytest.raises(LabError, match="apt-get install ovmf"):
        machine.check(Firmware.UEFI)


def test_without_the_cards_rom_the_firmware_is_on_its_own() -> None:
    bare = Machine("m3", "52:54:00:00:00:03", "tap2", Firmware.UEFI, rom=False)
    card, _ = options(command(bare, "tcg", Path("/v")), "-device")
    assert card.endswith(",romfile=")
    assert "romfile" not in options(command(UEFI, "tcg", Path("/v")), "-device")[0]


def test_http_boot_has_no_pxe_client() -> None:
    machine = Machine("m4", "52:54:00:00:00:04", "tap3", Firmware.UEFI, rom=False, http=True)
    settings = options(command(machine, "tcg", Path("/v")), "-fw_cfg")
    assert settings == [f"name=opt/org.tianocore/IPv{n}PXESupport,string=n" for n in (4, 6)]
    assert options(command(UEFI, "tcg", Path("/v")), "-fw_cfg") == []

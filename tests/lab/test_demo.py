"""The demonstration's cast: one machine of each firmware, told apart by everything."""

from netboot.lab.demo import MACHINES
from netboot.lab.machine import Firmware


def test_one_of_each_firmware_with_nothing_in_common() -> None:
    assert [machine.firmware for machine in MACHINES] == [Firmware.BIOS, Firmware.UEFI]
    for attribute in ("name", "mac", "tap"):
        assert len({getattr(machine, attribute) for machine in MACHINES}) == len(MACHINES)

"""What begins a boot, told as the packets of real chains."""

import pytest

from netboot.dhcp import boots
from netboot.dhcp.boots import CHAIN_WINDOW, REPEAT_WINDOW, Boots
from netboot.model import Stage

FIRMWARE, IPXE, OS = Stage.FIRMWARE, Stage.IPXE, Stage.OS
MAC = "52:54:00:12:34:56"

Story = list[tuple[Stage, int, float, bool]]

STORIES: dict[str, Story] = {
    "BIOS, undionly, OS, and again": [
        (FIRMWARE, 1, 0, True),
        (IPXE, 2, 8, False),
        (OS, 3, 40, False),
        (FIRMWARE, 4, 900, True),
        (IPXE, 5, 908, False),
    ],
    "a ROM that is iPXE": [(IPXE, 1, 0, True), (OS, 2, 30, False), (IPXE, 3, 300, True)],
    "an iPXE ROM whose OS asks for nothing": [(IPXE, 1, 0, True), (IPXE, 2, 300, True)],
    "retransmissions": [
        (FIRMWARE, 1, 0, True),
        (FIRMWARE, 1, 4, False),
        (FIRMWARE, 1, 12, False),
        (IPXE, 2, 20, False),
        (IPXE, 2, 21, False),
        (IPXE, 2, 23, False),
    ],
    "an iPXE ROM repeats itself": [(IPXE, 9, 0, True), (IPXE, 9, 1, False), (IPXE, 9, 3, False)],
    "UEFI tries PXE, then HTTP": [(FIRMWARE, 1, 0, True), (FIRMWARE, 2, 30, True)],
    "the loaded iPXE asks twice": [
        (FIRMWARE, 1, 0, True),
        (IPXE, 2, 8, False),
        (IPXE, 3, 12, False),
    ],
    "an xid that comes back much later": [
        (FIRMWARE, 1, 0, True),
        (FIRMWARE, 1, REPEAT_WINDOW, True),
    ],
    "an iPXE long after the firmware": [(FIRMWARE, 1, 0, True), (IPXE, 2, CHAIN_WINDOW, True)],
    "a link that is lost under a running OS": [
        (FIRMWARE, 1, 0, True),
        (IPXE, 2, 8, False),
        (OS, 3, 40, False),
        (OS, 4, 4000, False),
        (OS, 5, 9000, False),
    ],
    "reset before the OS came up": [
        (FIRMWARE, 1, 0, True),
        (IPXE, 2, 8, False),
        (FIRMWARE, 3, 20, True),
        (IPXE, 4, 28, False),
    ],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_stories(story: Story) -> None:
    remembered = Boots()
    told = [remembered.begins(MAC, stage, xid, at) for stage, xid, at, _ in story]
    assert told == [begins for *_, begins in story]


def test_machines_do_not_mix() -> None:
    remembered = Boots()
    assert remembered.begins("52:54:00:00:00:01", FIRMWARE, 1, 0)
    assert remembered.begins("52:54:00:00:00:02", IPXE, 1, 1)


def test_an_operating_system_that_only_renews_ends_the_chain_too() -> None:
    remembered = Boots()
    remembered.begins(MAC, FIRMWARE, 1, 0)
    remembered.running(MAC)
    assert remembered.begins(MAC, IPXE, 2, 5)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boots, "_REMEMBERED", 3)
    remembered = Boots()
    for number in range(5):
        assert remembered.begins(f"52:54:00:00:00:{number:02x}", FIRMWARE, 1, 0)
    assert remembered.begins("52:54:00:00:00:00", FIRMWARE, 1, 0)  # forgotten
    assert not remembered.begins("52:54:00:00:00:04", FIRMWARE, 1, 0)

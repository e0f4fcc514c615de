"""A lab that stays: what its status file says, and what a stale one does not."""

import json
import os
from pathlib import Path

import pytest

from netboot.errors import LabError
from netboot.lab import hold
from netboot.lab.machine import Firmware


def test_machines_have_names_macs_and_taps_of_their_own() -> None:
    made = hold.machines(12, Firmware.UEFI)
    assert len({m.mac for m in made}) == len({m.tap for m in made}) == 12
    assert (made[0].name, made[0].tap) == ("machine1", "tap0")
    assert made[11].mac == "52:54:00:6e:62:0c"
    assert all(m.firmware is Firmware.UEFI for m in made)


@pytest.mark.parametrize("text", [None, "", "{", json.dumps({"pid": 1 << 22})])
def test_no_lab_is_no_lab_whatever_lies_there(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "status.json").write_text(text)
    assert hold.read(tmp_path) is None
    assert hold.stop(tmp_path) is False


def test_another_process_with_that_number_is_not_our_lab(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"pid": 1}))
    assert hold.read(tmp_path) is None


def test_a_second_lab_in_one_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"pid": os.getpid()}))
    monkeypatch.setattr(hold, "_alive", lambda pid: True)
    with pytest.raises(LabError, match="already up"):
        hold.start(tmp_path, [])


def test_a_lab_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"the lab did not start: .*no-such-command"):
        hold.start(tmp_path / "lab", ["no-such-command"])

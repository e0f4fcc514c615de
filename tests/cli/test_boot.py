"""``netboot boot``: what it refuses, what it hands inside, how it answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from netboot.cli.entry import group
from netboot.errors import ImageError
from netboot.lab import namespace, run
from netboot.lab.console import ConsoleError
from netboot.lab.machine import Firmware
from netboot.lab.run import lend
from netboot.model import Version


@pytest.fixture
def state(tmp_path: Path) -> Path:
    golden = tmp_path / "golden.raw"
    golden.write_bytes(bytes(1 << 20))
    lend(Version("debian", 3, str(golden), 1 << 20, "sha256:00", 1.0), tmp_path / "state")
    return tmp_path / "state"


def boot(*words: object) -> Result:
    return CliRunner().invoke(group, ["boot", *map(str, words)])


def test_an_image_that_is_not_there_never_starts_a_lab(tmp_path: Path) -> None:
    done = boot("nosuch", "--state", tmp_path)
    assert isinstance(done.exception, ImageError)
    assert "netboot image build nosuch" in str(done.exception)


def test_outside_it_runs_itself_inside_with_all_it_was_told(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.delenv(namespace.MARK, raising=False)
    monkeypatch.setattr(namespace, "check", lambda: None)
    monkeypatch.setattr(namespace, "reenter", lambda words: told.extend(words) or 1)
    done = boot(
        *("debian", "--state", state, "--firmware", "uefi", "--expect", "a b"),
        *("--timeout", 7, "--keep-overlay", tmp_path / "kept", "--json"),
    )
    assert done.exit_code == 1
    assert told == [
        *("boot", "debian", "--firmware", "uefi", "--expect", "a b", "--timeout", "7.0"),
        *("--state", str(state), "--keep-overlay", str(tmp_path / "kept"), "--json"),
    ]


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Inside, with a lab that only notes what it was asked for."""
    asked: dict[str, Any] = {}

    async def pretend(
        version: Version, firmware: Firmware, expect: str, within: float, keep: Path | None
    ) -> list[Path]:
        asked.update(version=version, firmware=firmware, expect=expect, within=within, keep=keep)
        if asked.get("fails"):
            raise ConsoleError("machine1: no luck")
        return [keep / "one.qcow2"] if keep else []

    monkeypatch.setenv(namespace.MARK, "1")
    monkeypatch.setattr(run, "boot", pretend)
    return asked


def test_the_text_is_text_and_the_answer_zero(state: Path, inside: dict[str, Any]) -> None:
    done = boot("debian", "--state", state, "--expect", "up (now)?")
    assert done.exit_code == 0
    assert inside["expect"] == "up (now)?"
    assert inside["version"].number == 3
    assert inside["firmware"] is Firmware.BIOS
    assert "debian version 3 showed 'up (now)?'" in done.stdout


def test_json_names_the_overlays(state: Path, tmp_path: Path, inside: dict[str, Any]) -> None:
    done = boot("debian", "--state", state, "--json", "--keep-overlay", tmp_path)
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["failure"]) == (True, None)
    assert answer["overlays"] == [str(tmp_path / "one.qcow2")]


def test_a_machine_that_does_not_show_it_is_one(state: Path, inside: dict[str, Any]) -> None:
    inside["fails"] = True
    done = boot("debian", "--state", state)
    assert done.exit_code == 1
    assert done.stderr == "netboot: machine1: no luck\n"
    answer = json.loads(boot("debian", "--state", state, "--json").stdout)
    assert (answer["ok"], answer["failure"]) == (False, "machine1: no luck")

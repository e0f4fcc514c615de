"""KVM is tried, not guessed."""

import sys
from pathlib import Path

import pytest

from netboot.lab import accel
from netboot.lab.accel import TCG, choose


@pytest.fixture(autouse=True)
def nothing_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETBOOT_ACCEL", raising=False)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    return path


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_without_the_device_there_is_nothing_to_try(tmp_path: Path) -> None:
    assert choose(tmp_path / "none", ["/nowhere/qemu"]) == TCG


def test_a_machine_that_speaks_and_ends(device: Path) -> None:
    assert choose(device, python("print('SeaBIOS (version x)')")) == "kvm"


def test_a_machine_that_speaks_and_stays(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "PATIENCE", 1.0)
    program = "import time; print('SeaBIOS', flush=True); time.sleep(60)"
    assert choose(device, python(program)) == "kvm"


def test_a_machine_that_hangs(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "PATIENCE", 0.3)
    assert choose(device, python("import time; time.sleep(60)")) == TCG


def test_a_machine_that_fails(device: Path) -> None:
    assert choose(device, python("raise SystemExit('kvm: permission denied')")) == TCG


@pytest.mark.parametrize(("word", "setting"), [("kvm", "kvm"), ("tcg", TCG)])
def test_the_environment_overrides(
    device: Path, monkeypatch: pytest.MonkeyPatch, word: str, setting: str
) -> None:
    monkeypatch.setenv("NETBOOT_ACCEL", word)
    assert choose(device, python("import time; time.sleep(60)")) == setting

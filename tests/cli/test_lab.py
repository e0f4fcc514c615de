"""``netboot lab``: up, down, status and demo, with a holder that holds nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from netboot.cli import image
from netboot.cli.entry import group
from netboot.lab import hold, namespace
from netboot.lab.run import lend
from netboot.lab.service import Settings
from netboot.model import Version

STATUS = {
    "pid": 42,
    "address": "192.168.77.1",
    "api": "http://192.168.77.1:8080/api/v1/",
    "image": "debian",
    "version": 3,
    "machines": [
        {
            "name": "machine1",
            "mac": "52:54:00:6e:62:01",
            "firmware": "bios",
            "on": True,
            "phase": "reading",
            "serial": "/lab/machine1.serial.log",
        }
    ],
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    golden = tmp_path / "golden.raw"
    golden.write_bytes(bytes(1 << 20))
    lend(Version("debian", 3, str(golden), 1 << 20, "sha256:00", 1.0), tmp_path / "state")
    return tmp_path / "state"


def lab(*words: object) -> Result:
    return CliRunner().invoke(group, ["lab", *map(str, words)])


def test_up_starts_the_holder_with_all_it_was_told(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def start(folder: Path, words: list[str]) -> dict[str, Any]:
        told.extend([folder, words])
        return STATUS

    monkeypatch.setattr(namespace, "check", lambda: None)
    monkeypatch.setattr(hold, "start", start)
    words = ("up", "--state", state, "--dir", tmp_path / "lab", "--machines", 2)
    done = lab(*words, "--firmware", "uefi", "--overlay", "ephemeral")
    assert done.exit_code == 0, done.output
    assert "machine1" in done.stdout
    assert "nsenter -t 42 -n" in done.stderr
    assert told[0] == tmp_path / "lab"
    for pair in ("--machines 2", "--firmware uefi", "--overlay ephemeral", f"--state {state}"):
        assert pair in " ".join(told[1])
    assert "--hold" in told[1]


def test_the_holder_holds_machines_of_that_kind(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Settings] = []

    async def pretend(folder: Path, settings: Settings, version: Version) -> None:
        held.append(settings)

    monkeypatch.setattr(hold, "hold", pretend)
    words = ("up", "--hold", "--state", state, "--dir", tmp_path, "--machines", 3)
    assert lab(*words, "--overlay", "ephemeral").exit_code == 0
    (settings,) = held
    assert len(settings.machines) == 3
    assert settings.overlay == "ephemeral"
    assert settings.state == tmp_path / "state"


def test_status_and_down_where_no_lab_is(tmp_path: Path) -> None:
    done = lab("status", "--dir", tmp_path)
    assert done.exit_code == 1
    assert "netboot lab up" in done.stderr
    assert json.loads(lab("status", "--dir", tmp_path, "--json").stdout) == {"up": False}
    assert "no lab is up" in lab("down", "--dir", tmp_path).stdout
    assert json.loads(lab("down", "--dir", tmp_path, "--json").stdout) == {"was_up": False}


def test_status_of_a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "read", lambda folder: STATUS)
    done = lab("status", "--dir", tmp_path)
    assert done.exit_code == 0
    assert "reading" in done.stdout
    answer = json.loads(lab("status", "--dir", tmp_path, "--json").stdout)
    assert answer == {"up": True, **STATUS}


def test_the_demonstration_builds_what_is_missing_before_it_goes_inside(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []
    monkeypatch.delenv(namespace.MARK, raising=False)
    monkeypatch.setattr(namespace, "check", lambda: None)
    monkeypatch.setattr(image, "ensure", lambda place, name: steps.append((place.folder, name)))
    monkeypatch.setattr(namespace, "reenter", lambda words: steps.append(words) or 0)
    assert lab("demo", "--state", state).exit_code == 0
    assert steps == [
        (state, "debian"),
        ["lab", "demo", "--image", "debian", "--state", str(state)],
    ]

"""The lab's service: its settings are ones the service accepts, its failures are told."""

import asyncio
import tomllib
from pathlib import Path

import pytest

from netboot.config import load
from netboot.disks.engine import owner
from netboot.errors import LabError
from netboot.lab import service
from netboot.lab.machine import Machine
from netboot.lab.service import Service, Settings
from netboot.model import Knock

MACHINES = [Machine("m1", "52:54:00:00:00:01", "tap0"), Machine("m2", "52:54:00:00:00:02", "tap1")]


def settings(state: Path) -> Settings:
    return Settings(
        state,
        "debian",
        MACHINES,
        overlay="ephemeral",
        reservations={"52:54:00:00:00:02": "192.168.77.20"},
        extra='[[profile]]\nname = "other"\nimage = "x"',
    )


def test_the_service_accepts_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "netboot.toml"
    path.write_text(settings(tmp_path / 'a "quoted" state').toml())
    site = load(path).to_site()
    assert site.profiles["lab"].image == "debian"
    assert site.profiles["lab"].overlay == "ephemeral"
    assert site.hosts["52:54:00:00:00:01"].address is None
    assert str(site.hosts["52:54:00:00:00:02"].address) == "192.168.77.20"
    assert site.unknown_profile is None
    assert tomllib.loads(path.read_text())["site"]["state"].endswith('a "quoted" state')


def test_a_service_that_ends_is_told_with_its_last_line(tmp_path: Path) -> None:
    broken = Settings(tmp_path, "debian", MACHINES, mode="nonsense")

    async def main() -> None:
        with pytest.raises(LabError, match=r"the service ended while starting: .*"):
            await Service(tmp_path, broken).start()

    asyncio.run(main())
    assert "mode" in (tmp_path / "service.log").read_text()


def test_nobody_answers_is_an_oserror_not_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ADDRESS", "127.0.0.1")
    monkeypatch.setattr(service, "PORT", 1)
    with pytest.raises(OSError, match="refused"):
        asyncio.run(Service(tmp_path, settings(tmp_path)).get("/healthz"))


def test_stopping_what_was_never_started_is_harmless(tmp_path: Path) -> None:
    assert asyncio.run(Service(tmp_path, settings(tmp_path)).stop()) == 0


def test_which_process_serves_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Service(tmp_path, settings(tmp_path))

    async def get(path: str) -> object:
        assert path == "/healthz"
        return {"parts": {"disks": words}}

    monkeypatch.setattr(made, "get", get)
    words = "process 77"
    macs = [f"52:54:00:00:00:{n:02x}" for n in range(20)]
    assert {asyncio.run(made.disk_process(mac)) for mac in macs} == {77}
    words = "processes 77, 78, 79"
    target = "iqn.2026-11.lab.netboot:52-54-00-00-00-07"
    owned = 77 + owner(Knock("iqn.a", target, "10.0.0.9"), 3)
    assert asyncio.run(made.disk_process(macs[7])) == owned
    assert {asyncio.run(made.disk_process(mac)) for mac in macs} == {77, 78, 79}


def test_what_the_disk_processes_said(tmp_path: Path) -> None:
    made = Service(tmp_path, settings(tmp_path))
    assert made.disk_words() == ""
    for number in (1, 0):
        (tmp_path / f"disk-{number}.log").write_text(f"{number}\n")
    assert made.disk_words() == "0\n1\n"

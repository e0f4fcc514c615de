"""The order in which changes get to stable storage, call by call."""

import os
from pathlib import Path
from typing import Any

import pytest

from netboot.storage import durable
from netboot.storage.disk import DiskError, Fault
from tests.storage.conftest import Bench, content, kill


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def calls(monkeypatch: Any) -> list[str]:
    """What is done to which file, from now on: ``sync data``, ``write qcow2``, ..."""
    heard: list[str] = []

    def listen(name: str, word: str) -> None:
        real = getattr(os, name)

        def call(fd: int, *rest: Any) -> Any:
            path = Path(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)"))
            heard.append(f"{word} {path.name.removeprefix('client.').removesuffix('.new')}")
            return real(fd, *rest)

        monkeypatch.setattr(os, name, call)

    for name, word in (("pwrite", "write"), ("fdatasync", "sync"), ("fsync", "sync")):
        listen(name, word)
    punch = durable.punch
    monkeypatch.setattr(durable, "punch", lambda *rest: (heard.append("punch data"), punch(*rest)))
    return heard


def test_data_then_names_then_entries(bench: Bench, calls: list[str]) -> None:
    disk = bench.attach()
    calls.clear()
    disk.write(0, b"w" * 4096)
    assert calls == ["write data", "write live", "write live"]  # its header, then the cell
    calls.clear()
    disk.flush()
    assert calls == ["sync data", f"sync {bench.folder.name}", "write qcow2", "sync qcow2"]
    calls.clear()
    disk.write(0, b"x" * 4096)
    disk.flush()
    assert calls == ["write data", "sync data"]  # no entry says anything else
    calls.clear()
    disk.flush()
    assert calls == []


def test_a_hole_comes_last(bench: Bench, calls: list[str]) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 131072)
    disk.flush()
    calls.clear()
    disk.unmap(0, 131072)
    assert calls == ["write live"]
    disk.flush()
    assert calls[1:] == ["sync data", "write qcow2", "sync qcow2", "punch data"]


def test_what_was_meant_is_taken_back_when_all_of_it_is_safe(
    bench: Bench, calls: list[str]
) -> None:
    disk = bench.attach()
    calls.clear()
    disk.intend(0, b"m" * 8192)
    assert calls == ["write intent", "sync intent", f"sync {bench.folder.name}"]
    calls.clear()
    disk.write(0, b"m" * 8192)
    assert calls == ["write data", "write live", "write live", "write intent"]
    calls.clear()
    disk.flush()
    assert calls[-2:] == ["sync qcow2", "sync intent"]
    calls.clear()
    disk.settle()
    disk.flush()
    assert calls == []


def test_what_was_meant_and_not_written_is_taken_back_by_settling(
    bench: Bench, calls: list[str]
) -> None:
    disk = bench.attach()
    disk.intend(0, b"m" * 8192)
    calls.clear()
    disk.flush()
    assert "sync intent" not in calls
    disk.settle()
    assert calls[-1] == "sync intent"
    assert content(disk) == bench.content


def test_an_ephemeral_disk_waits_for_no_disk(bench: Bench, calls: list[str]) -> None:
    disk = bench.attach(ephemeral=True)
    disk.intend(0, b"m" * 8192)
    disk.write(0, b"m" * 8192)
    disk.flush()
    disk.settle()
    synced = [call for call in calls if call.startswith("sync")]
    assert all(call.startswith("sync golden.raw.id.") for call in synced), synced
    bench.disks.pop().close()
    assert "sync data" in calls and "sync qcow2" in calls


def test_closing_publishes_and_refuses_afterwards(bench: Bench, calls: list[str]) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 4096)
    disk.close()
    assert calls[-1] == "sync qcow2" and not bench.live.exists()
    disk.close()
    for verb in (disk.flush, lambda: disk.write(0, b"x" * 512), lambda: disk.read(0, 512)):
        with pytest.raises(DiskError, match="closed") as caught:
            verb()
        assert caught.value.fault is Fault.FAILED


def test_opening_syncs_nothing_where_nothing_was_meant(bench: Bench, calls: list[str]) -> None:
    bench.attach().write(0, b"w" * 4096)
    kill(bench.disks.pop())
    calls.clear()
    bench.attach()
    assert calls == []

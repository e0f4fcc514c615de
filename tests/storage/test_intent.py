"""Writes that are whole or not at all: what is left after a cut at each point."""

from pathlib import Path
from typing import Any

import pytest

from netboot.storage import live
from netboot.storage.disk import DiskError, Fault
from netboot.storage.intent import Intent
from netboot.storage.parts import discard
from tests.storage.conftest import SIZE, Bench, content, kill

DATA = bytes(range(256)) * 32


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.intent"


def test_put_and_take_back(path: Path) -> None:
    intent = Intent(str(path), 7)
    assert intent.left() is None
    intent.put(4096, DATA)
    assert intent.left() == (4096, DATA)
    intent.put(0, b"x" * 512)
    assert intent.left() == (0, b"x" * 512)
    intent.take_back()
    assert intent.left() is None and path.stat().st_size == 0


def test_nothing_to_take_back(path: Path) -> None:
    Intent(str(path), 7).take_back()
    assert not path.exists()


def test_an_intent_for_other_tables_is_not_ours(path: Path) -> None:
    Intent(str(path), 7).put(0, DATA)
    assert Intent(str(path), 8).left() is None


def test_a_torn_intent_is_none(path: Path) -> None:
    intent = Intent(str(path), 7)
    intent.put(512, DATA)
    whole = path.read_bytes()
    body = len(whole) - 36
    for torn in (*range(0, body, 97), body - 1, body + 1, len(whole) - 1):
        path.write_bytes(whole[:torn])
        assert intent.left() is None
    for at in range(0, body, 61):
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
        assert intent.left() is None
    path.write_bytes(whole + b"more")
    assert intent.left() is None
    path.write_bytes(whole[:body])  # as an older release has put it down
    assert intent.left() == (512, DATA)


def test_what_is_written_is_not_done_again_in_this_run_of_the_kernel(
    path: Path, monkeypatch: Any
) -> None:
    intent = Intent(str(path), 7)
    intent.put(512, DATA)
    assert intent.meant == (512, len(DATA)) and not intent.written
    intent.mark_written()
    assert intent.written and intent.meant is None
    assert Intent(str(path), 7).left() is None and Intent(str(path), 7).size()
    whole = path.read_bytes()
    for half in (1, 20, 35):  # what a power cut left of the mark
        path.write_bytes(whole[: -36 + half] + bytes(36 - half))
        assert intent.left() == (512, DATA)
    path.write_bytes(whole)
    monkeypatch.setattr(live, "boot_id", lambda: b"n" * 36)
    assert intent.left() == (512, DATA)
    intent.take_back()
    assert intent.size() == 0 and not intent.written and intent.left() is None


def test_no_folder(tmp_path: Path) -> None:
    intent = Intent(str(tmp_path / "gone" / "x.intent"), 7)
    with pytest.raises(DiskError) as caught:
        intent.put(0, DATA)
    assert caught.value.fault is Fault.MEDIUM


# On an overlay


def test_killed_before_the_write_it_is_done_when_the_disk_opens(bench: Bench) -> None:
    disk = bench.attach()
    disk.intend(512, DATA)
    kill(bench.disks.pop())
    again = bench.attach()
    assert content(again, 512, len(DATA)) == DATA
    assert content(again, 0, 512) == bench.content[:512]
    assert bench.path.with_suffix(".intent").stat().st_size == 0


def test_killed_amid_the_write_it_is_whole(bench: Bench) -> None:
    disk = bench.attach()
    disk.intend(512, DATA)
    disk.write(512, DATA[:1024])
    kill(bench.disks.pop())
    assert content(bench.attach(), 512, len(DATA)) == DATA


def test_what_was_settled_is_not_done_again(bench: Bench) -> None:
    disk = bench.attach()
    disk.intend(512, DATA)
    disk.write(512, DATA)
    disk.flush()
    disk.settle()
    disk.write(512, b"n" * len(DATA))
    kill(bench.disks.pop())
    assert content(bench.attach(), 512, len(DATA)) == b"n" * len(DATA)


def test_closing_a_disk_settles(bench: Bench) -> None:
    disk = bench.attach()
    disk.intend(512, DATA)
    bench.disks.pop().close()
    assert content(bench.attach()) == bench.content


def test_an_ephemeral_disk_means_nothing(bench: Bench) -> None:
    disk = bench.attach(ephemeral=True)
    disk.intend(512, DATA)
    disk.settle()
    assert not bench.path.with_suffix(".intent").exists()


def test_a_disk_that_takes_no_writes(bench: Bench) -> None:
    for disk in (bench.attach(overlay=None), bench.attach(read_only=True)):
        with pytest.raises(DiskError) as caught:
            disk.intend(0, DATA)
        assert caught.value.fault is Fault.READ_ONLY


def test_an_overlay_that_is_discarded_takes_its_intent_along(bench: Bench) -> None:
    bench.attach().intend(512, DATA)
    kill(bench.disks.pop())
    discard(str(bench.path))
    assert not bench.path.with_suffix(".intent").exists()
    assert content(bench.attach()) == bench.content
    assert len(bench.content) == SIZE


def test_tables_that_another_program_wrote_to(bench: Bench) -> None:
    """It takes the autoclear bit away, as every writer of qcow2 must."""
    bench.attach().intend(512, DATA)
    kill(bench.disks.pop())
    raw = bytearray(bench.path.read_bytes())
    raw[88:96] = bytes((*raw[88:95], raw[95] & 1))
    bench.path.write_bytes(raw)
    again = bench.attach()
    assert content(again, 0, 512) == bench.content[:512]

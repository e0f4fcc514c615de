"""The text beside an overlay: the old one or the new, whatever happens; never another's."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.storage import parts
from netboot.storage.disk import DiskError, Fault
from netboot.storage.notes import LIMIT, Notes

TEXT = b'{"registrations": []}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.scsi"


@pytest.fixture
def notes(path: Path) -> Notes:
    return Notes(str(path), 7)


def test_nothing_was_put(notes: Notes, path: Path) -> None:
    assert notes.left() == b""
    assert not path.exists()


def test_what_was_put_last_is_left(notes: Notes, path: Path) -> None:
    notes.put(b"the first, and longer one")
    notes.put(TEXT)
    assert Notes(str(path), 7).left() == TEXT
    assert [entry.name for entry in path.parent.iterdir()] == ["client.scsi"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_people_can_read_it(notes: Notes, path: Path) -> None:
    notes.put(TEXT)
    first, _, rest = path.read_bytes().partition(b"\n")
    assert first.startswith(b"netboot notes 1 of 7, CRC-32 ") and rest == TEXT


def test_an_empty_text_leaves_no_file(notes: Notes, path: Path) -> None:
    notes.put(b"")
    notes.put(TEXT)
    notes.put(b"")
    assert notes.left() == b"" and not path.exists()


def test_another_overlay_does_not_take_it_for_its_own(notes: Notes, path: Path) -> None:
    notes.put(TEXT)
    other = Notes(str(path), 8)
    assert other.left() == b""
    other.put(b"of 8")
    assert (notes.left(), other.left()) == (b"", b"of 8")


def test_every_damaged_byte_is_found(notes: Notes, path: Path) -> None:
    notes.put(TEXT)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for changed in (whole[:at] + bytes((whole[at] ^ 0x10,)) + whole[at + 1 :], whole[:at]):
            path.write_bytes(changed)
            with pytest.raises(DiskError, match=r"client\.scsi: is damaged") as found:
                notes.left()
            assert found.value.fault is Fault.MEDIUM
    notes.put(TEXT)
    assert notes.left() == TEXT


def test_a_file_too_long_is_not_read(notes: Notes, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LIMIT * 100)
    with pytest.raises(DiskError, match="is damaged"):
        notes.left()


def test_a_file_that_cannot_be_read(notes: Notes, path: Path) -> None:
    path.mkdir()
    with pytest.raises(DiskError, match="Is a directory"):
        notes.left()


def test_what_a_killed_process_left_is_nothing(notes: Notes, path: Path) -> None:
    notes.put(TEXT)
    Path(f"{path}.new").write_bytes(b"half of a te")
    assert notes.left() == TEXT
    notes.put(b"again")
    assert notes.left() == b"again"
    assert not Path(f"{path}.new").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
def test_what_cannot_be_written_leaves_the_old_one(
    notes: Notes, path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    notes.put(TEXT)

    def fail(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    if call == "rename":
        monkeypatch.setattr(Path, "rename", fail)
    else:
        monkeypatch.setattr(os, call, fail)
        monkeypatch.setattr(os, "pwritev", fail)
    with pytest.raises(DiskError) as found:
        notes.put(b"never")
    assert found.value.fault is (Fault.SPACE if number == errno.ENOSPC else Fault.MEDIUM)
    monkeypatch.undo()
    assert notes.left() == TEXT
    assert not Path(f"{path}.new").exists()


def test_the_order_is_data_name_folder(
    notes: Notes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name before its data, or neither durable at the end, would be a lie after a power cut."""
    order: list[str] = []
    sync, rename = os.fsync, Path.rename

    def synced(fd: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
        sync(fd)

    def renamed(self: Path, target: str) -> Path:
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    notes.put(TEXT)
    assert order == ["file", "rename", "folder"]
    notes.put(b"")
    assert order[3:] == ["folder"]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = Notes(str(tmp_path / "gone" / "x.scsi"), 7)
    assert gone.left() == b""
    for text in (TEXT, b""):
        with pytest.raises(DiskError, match="No such file"):
            gone.put(text)


@given(st.binary(max_size=200))
def test_any_file_is_a_text_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.mktemp("notes") / "x.scsi"
    path.write_bytes(raw)
    with pytest.raises(DiskError, match="is damaged"):
        Notes(str(path), 7).left()


@given(st.binary(min_size=1, max_size=2000), st.integers(1, (1 << 64) - 1))
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, born: int
) -> None:
    notes = Notes(str(tmp_path_factory.mktemp("notes") / "x.scsi"), born)
    notes.put(text)
    assert notes.left() == text


# Beside a real overlay


def test_they_go_with_their_overlay(bench: Any) -> None:
    disk = bench.attach()
    assert disk.notes.lasting and disk.notes.left() == b""
    disk.notes.put(TEXT)
    file = bench.path.with_suffix(".scsi")
    assert file.exists() and disk.space()[0] >= file.stat().st_blocks * 512
    disk.close()
    again = bench.attach()
    assert again.notes.left() == TEXT
    again.close()
    parts.discard(str(bench.path))
    assert not file.exists()


def test_a_killed_process_leaves_them(bench: Any, kill_disk: Any) -> None:
    disk = bench.attach()
    disk.notes.put(TEXT)
    kill_disk(disk)
    again = bench.attach()
    assert again.notes.left() == TEXT
    again.close()


def test_a_disk_that_is_begun_afresh_has_none(bench: Any) -> None:
    disk = bench.attach()
    disk.notes.put(TEXT)
    Path(f"{bench.path.with_suffix('.scsi')}.new").write_bytes(b"half")
    disk.close()
    fresh = bench.attach(generation=1)
    assert fresh.notes.left() == b"" and fresh.notes.born != disk.notes.born
    fresh.close()
    assert not [entry for entry in bench.path.parent.iterdir() if ".scsi" in entry.name]


def test_a_disk_that_grows_keeps_them(bench: Any) -> None:
    disk = bench.attach()
    disk.notes.put(TEXT)
    disk.resize(disk.size * 2)
    disk.close()
    again = bench.attach()
    assert again.notes.left() == TEXT
    again.close()


def test_an_ephemeral_disk_and_a_golden_image(bench: Any) -> None:
    disk = bench.attach(ephemeral=True)
    assert not disk.notes.lasting
    disk.close()
    golden = bench.attach(overlay=None)
    assert golden.notes is None and golden.space() is None
    golden.close()


def test_a_read_only_overlay_remembers_too(bench: Any) -> None:
    bench.attach().close()
    disk = bench.attach(read_only=True)
    disk.notes.put(TEXT)
    disk.close()
    again = bench.attach()
    assert again.notes.left() == TEXT
    again.close()

"""How the file of the tables comes to be: in which order, and what is there in between."""

import contextlib
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ImageError
from netboot.storage import live, making, qcow2
from netboot.storage.making import copy, entries, make, mend, put_in_place
from netboot.storage.qcow2 import DATA, SUBS, Meta

SIZE = 3 << 20


@pytest.fixture
def wanted(tmp_path: Path) -> Meta:
    return Meta(SIZE, str(tmp_path / "g.raw"), str(tmp_path / "c.data"), "sha256:1", 0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "c.qcow2")


@pytest.fixture
def undo() -> Any:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def made(path: str, wanted: Meta, undo: contextlib.ExitStack) -> int:
    """An overlay with one entry."""
    fd, _ = make(path, wanted, False, undo, over=False)
    os.pwrite(fd, qcow2.entries(5, bytes([DATA]) * SUBS), qcow2.L2 + 5 * qcow2.ENTRY)
    return fd


def listen(monkeypatch: Any) -> list[str]:
    """The names of the calls that order matters of."""
    calls: list[str] = []

    def heard(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return real(*arguments, **options)

        return call

    for name in ("fdatasync", "fsync", "link", "rename", "ftruncate", "unlink"):
        monkeypatch.setattr(os, name, heard(name))
    return calls


def header(path: str) -> Meta:
    return qcow2.decode(Path(path).read_bytes()[: qcow2.HEADER_AREA])


def test_a_new_one_is_synced_before_it_has_its_name(
    path: str, wanted: Meta, undo: contextlib.ExitStack, monkeypatch: Any
) -> None:
    calls = listen(monkeypatch)
    make(path, wanted, False, undo, over=False)
    assert calls.index("fdatasync") < calls.index("link") < len(calls) - 2
    assert calls[-2:] == ["ftruncate", "ftruncate"]  # the data comes last


@pytest.mark.parametrize("over", [False, True])
def test_a_disk_that_no_file_here_can_hold_is_not_begun(
    path: str, wanted: Meta, undo: contextlib.ExitStack, monkeypatch: Any, over: bool
) -> None:
    """Else its tables would be there, refused for want of data, until somebody resets it."""
    if over:
        make(path, wanted, False, undo, over=False)
    ftruncate = os.ftruncate

    def small(fd: int, size: int) -> None:
        if size > 1 << 30:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        ftruncate(fd, size)

    monkeypatch.setattr(os, "ftruncate", small)
    with pytest.raises(ImageError, match="cannot be created: File too large"):
        make(path, replace(wanted, size=2 << 30, generation=1), False, undo, over=over)
    assert Path(path).exists() is over
    if over:
        assert header(path).generation == 0


def test_old_data_goes_only_when_the_old_tables_are_gone_for_good(
    made: int, path: str, wanted: Meta, undo: contextlib.ExitStack, monkeypatch: Any
) -> None:
    calls = listen(monkeypatch)
    make(path, replace(wanted, generation=1), False, undo, over=True)
    assert calls[-4:] == ["rename", "fsync", "ftruncate", "ftruncate"]


def test_an_ephemeral_one_waits_for_no_disk(
    path: str, wanted: Meta, undo: contextlib.ExitStack, monkeypatch: Any
) -> None:
    calls = listen(monkeypatch)
    make(path, wanted, True, undo, over=False)
    make(path, wanted, True, undo, over=True)
    assert not {"fsync", "fdatasync"} & set(calls)


def test_each_has_a_number_of_its_own(path: str, wanted: Meta, undo: contextlib.ExitStack) -> None:
    born = {make(f"{path}{n}.qcow2", wanted, True, undo, over=False)[1].born for n in range(20)}
    assert len(born) == 20 and all(0 < number < 1 << 63 for number in born)


def test_what_lay_beside_is_nobodys(
    path: str, wanted: Meta, undo: contextlib.ExitStack, tmp_path: Path
) -> None:
    for suffix in (".live", ".intent", ".data"):
        (tmp_path / f"c{suffix}").write_bytes(b"rubbish")
    make(path, wanted, False, undo, over=False)
    assert sorted(os.listdir(tmp_path)) == ["c.data", "c.qcow2"]
    assert (tmp_path / "c.data").read_bytes() == bytes(SIZE)


def test_a_copy_has_the_entries_and_another_header(made: int, path: str, wanted: Meta) -> None:
    larger = replace(wanted, size=2 * qcow2.L2_SPAN, born=9)
    fd = copy(path, made, SIZE, larger)
    content = Path(path + ".new").read_bytes()
    assert len(content) == qcow2.file_size(larger.size)
    expected = bytearray(len(content))
    for offset, table in qcow2.tables(larger):
        expected[offset : offset + len(table)] = table
    entry = qcow2.entries(5, bytes([DATA]) * SUBS)
    expected[qcow2.L2 + 80 : qcow2.L2 + 96] = entry
    assert content == expected
    ((offset, raw),) = entries(fd, larger.size, path)
    assert raw[qcow2.L2 + 80 - offset :].startswith(entry)
    assert header(path) == replace(wanted, born=header(path).born)
    os.close(fd)


def test_a_copy_is_synced_before_it_gets_the_name(
    made: int, path: str, wanted: Meta, undo: contextlib.ExitStack, monkeypatch: Any
) -> None:
    calls = listen(monkeypatch)
    mend(path, made, wanted, undo)
    assert calls[-3:] == ["fsync", "rename", "fsync"]


def test_the_live_file_names_both_while_one_takes_the_place(
    made: int, path: str, wanted: Meta, tmp_path: Path, monkeypatch: Any
) -> None:
    named: list[tuple[int, ...]] = []
    monkeypatch.setattr(live, "name", lambda fd, *inodes: named.append(inodes))
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *names: (named.append(()), rename(*names)))
    fd = copy(path, made, SIZE, wanted)
    put_in_place(path, made, fd, 99)
    before, after = os.fstat(made).st_ino, os.fstat(fd).st_ino
    assert named == [(before, after), (), (after,)]
    assert os.stat(path).st_ino == after
    os.close(fd)


def test_what_cannot_be_put_in_place_leaves_the_old_one(
    made: int, path: str, wanted: Meta, monkeypatch: Any, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    fd = copy(path, made, SIZE, replace(wanted, size=2 * SIZE))
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(ImageError, match="cannot be replaced: Read-only file system"):
        put_in_place(path, made, fd, None)
    os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["c.data", "c.qcow2"]
    assert header(path).size == SIZE


def test_a_copy_that_fails_leaves_nothing(
    made: int, path: str, wanted: Meta, monkeypatch: Any, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ImageError, match="no new header can be written: No space left"):
        copy(path, made, SIZE, wanted)
    assert sorted(os.listdir(tmp_path)) == ["c.data", "c.qcow2"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_mending_keeps_what_was_not_flushed(
    made: int, path: str, wanted: Meta, undo: contextlib.ExitStack, tmp_path: Path
) -> None:
    os.close(live.begin(str(tmp_path / "c.live"), os.fstat(made).st_ino))
    fd = mend(path, made, wanted, undo)
    left = live.resume(str(tmp_path / "c.live"), os.fstat(fd).st_ino, must_match=True)
    assert left is not None
    os.close(left)


def test_a_folder_that_cannot_be_synced_is_one_line(
    made: int, path: str, wanted: Meta, undo: contextlib.ExitStack, monkeypatch: Any
) -> None:
    def broken(_: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(making, "sync_folder", broken)
    with pytest.raises(ImageError, match=r"c\.qcow2: Input/output error"):
        mend(path, made, wanted, undo)

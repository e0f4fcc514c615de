"""The files of an overlay: made whole, checked, mended, refused, given back."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from netboot.errors import ImageError
from netboot.storage import files as files_module
from netboot.storage import qcow2
from netboot.storage.files import open_overlay
from netboot.storage.qcow2 import SUB, Meta

SIZE = 1 << 20


@pytest.fixture
def wanted(tmp_path):
    return Meta(SIZE, str(tmp_path / "g.raw"), str(tmp_path / "c.data"), "sha256:1", 0)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "c.qcow2")


@pytest.fixture
def made(path, wanted):
    open_overlay(path, wanted, ephemeral=False).close()
    return path


def patch_file(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_what_is_made(path, wanted, tmp_path):
    files = open_overlay(path, wanted, ephemeral=False)
    assert sorted(os.listdir(tmp_path)) == ["c.data", "c.qcow2"]
    content = (tmp_path / "c.qcow2").read_bytes()
    assert len(content) == qcow2.file_size(SIZE)
    expected = bytearray(len(content))
    assert files.header == replace(wanted, born=files.header.born) and files.header.born
    for offset, table in qcow2.tables(files.header):
        expected[offset : offset + len(table)] = table
    assert content == expected
    assert (tmp_path / "c.data").stat().st_size == SIZE
    assert (tmp_path / "c.qcow2").stat().st_mode & 0o777 == 0o600
    assert list(files.load()) == []
    assert list(files.recover()) == []
    files.close()
    files.close()


def test_what_a_killed_maker_left_is_no_hindrance(path, wanted, tmp_path):
    (tmp_path / "c.qcow2.new").write_bytes(b"half")
    (tmp_path / "c.data").write_bytes(b"stale")
    open_overlay(path, wanted, ephemeral=False).close()
    assert sorted(os.listdir(tmp_path)) == ["c.data", "c.qcow2"]
    assert (tmp_path / "c.data").read_bytes() == bytes(SIZE)


def test_a_maker_killed_between_two_names_is_no_hindrance(made, wanted, tmp_path):
    os.link(made, made + ".new")
    open_overlay(made, wanted, ephemeral=False).close()
    newer = Meta(SIZE, wanted.golden, wanted.data, wanted.digest, 1)
    open_overlay(made, newer, ephemeral=False).close()
    assert sorted(os.listdir(tmp_path)) == ["c.data", "c.qcow2"]


def test_only_one_opens_it(made, wanted):
    first = open_overlay(made, wanted, ephemeral=False)
    before = open_descriptors()
    with pytest.raises(ImageError, match="in use by another program"):
        open_overlay(made, wanted, ephemeral=False)
    assert open_descriptors() == before
    first.close()
    open_overlay(made, wanted, ephemeral=False).close()


def test_two_who_make_it_at_once(path, wanted, monkeypatch):
    others = []
    link = os.link

    def link_late(new, name):
        if not others:
            others.append(None)
            with pytest.raises(ImageError, match="being replaced"):
                open_overlay(path, wanted, ephemeral=False)
        link(new, name)

    monkeypatch.setattr(os, "link", link_late)
    open_overlay(path, wanted, ephemeral=False).close()
    assert others


def test_one_that_is_replaced_while_we_open_it(made, wanted, monkeypatch):
    own = files_module.locks.own
    replaced = []

    def own_late(fd):
        if not replaced:
            replaced.append(None)
            newer = Meta(SIZE, wanted.golden, wanted.data, wanted.digest, 2)
            open_overlay(made, newer, ephemeral=False).close()
        return own(fd)

    monkeypatch.setattr(files_module.locks, "own", own_late)
    files = open_overlay(made, wanted, ephemeral=False)
    assert os.fstat(files.meta).st_ino == os.stat(made).st_ino
    files.close()


@pytest.mark.parametrize(
    ("generation", "ephemeral", "kept"),
    [(4, False, False), (3, False, True), (2, False, True), (4, True, False), (2, True, False)],
)
def test_an_older_generation_is_begun_afresh(path, wanted, generation, ephemeral, kept):
    third = Meta(SIZE, wanted.golden, wanted.data, wanted.digest, 3)
    files = open_overlay(path, third, ephemeral=ephemeral)
    os.pwrite(files.data, b"w" * SUB, 0)
    cells = bytes([qcow2.DATA]) + bytes(31)
    os.pwrite(files.meta, qcow2.entries(0, cells), qcow2.L2)
    files.close()
    before = open_descriptors()
    now = Meta(SIZE, wanted.golden, wanted.data, wanted.digest, generation)
    files = open_overlay(path, now, ephemeral=ephemeral)
    assert any(raw.strip(b"\0") for _, raw in files.load()) == kept
    assert (os.pread(files.data, 1, 0) == b"w") == kept
    files.close()
    assert open_descriptors() == before
    found = qcow2.decode(Path(path).read_bytes()[: qcow2.HEADER_AREA])
    assert found.generation == (3 if kept else generation)


def test_an_older_generation_may_have_another_golden_image(made, wanted):
    newer = Meta(2 * SIZE, wanted.golden, wanted.data, "sha256:2", 1)
    files = open_overlay(made, newer, ephemeral=False)
    assert os.fstat(files.data).st_size == 2 * SIZE
    files.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"digest": "sha256:2"}, "begun over sha256:1"), ({"size": 2 * SIZE}, "1048576 bytes")],
)
def test_another_golden_version_is_refused(made, wanted, change, words):
    before = Path(made).read_bytes()
    values = {"size": SIZE, "digest": wanted.digest} | change
    other = Meta(values["size"], wanted.golden, wanted.data, values["digest"], 0)
    with pytest.raises(ImageError, match=words):
        open_overlay(made, other, ephemeral=False)
    assert Path(made).read_bytes() == before


@pytest.mark.parametrize(
    ("offset", "data", "words"),
    [
        (0, bytes(4), "magic"),
        (79, b"\x16", "corrupt"),
        (qcow2.L1, bytes(8), "L1 table"),
        (qcow2.L1 + 4, b"\xff", "L1 table"),
    ],
)
def test_damage_is_refused_and_an_ephemeral_overlay_begun_afresh(made, wanted, offset, data, words):
    patch_file(made, offset, data)
    with pytest.raises(ImageError, match=words):
        open_overlay(made, wanted, ephemeral=False)
    open_overlay(made, wanted, ephemeral=True).close()


def test_a_damaged_entry_is_refused_with_its_file(made, wanted):
    patch_file(made, qcow2.L2, b"\xff" * 16)
    files = open_overlay(made, wanted, ephemeral=False)
    with pytest.raises(ImageError, match=r"c\.qcow2: the L2 entry of cluster 0"):
        list(files.load())
    files.close()


def test_a_missing_data_file_matters_only_when_it_holds_something(made, wanted):
    os.unlink(wanted.data)
    open_overlay(made, wanted, ephemeral=False).close()
    assert os.stat(wanted.data).st_size == SIZE
    cells = bytes([qcow2.DATA]) + bytes(31)
    patch_file(made, qcow2.L2, qcow2.entries(0, cells))
    os.unlink(wanted.data)
    with pytest.raises(ImageError, match="is missing"):
        open_overlay(made, wanted, ephemeral=False)
    assert not os.path.exists(wanted.data)


def test_a_data_file_that_was_shortened_is_refused(made, wanted):
    patch_file(made, qcow2.L2, qcow2.entries(0, bytes([qcow2.DATA]) + bytes(31)))
    os.truncate(wanted.data, SIZE - 512)
    with pytest.raises(ImageError, match="was shortened"):
        open_overlay(made, wanted, ephemeral=False)
    assert os.stat(wanted.data).st_size == SIZE - 512


@pytest.mark.parametrize("left", [0, 512, SIZE - 512])
def test_a_new_data_file_that_a_power_cut_left_short_is_made_whole(made, wanted, left):
    os.truncate(wanted.data, left)
    open_overlay(made, wanted, ephemeral=False).close()
    assert os.stat(wanted.data).st_size == SIZE


def test_a_data_file_that_cannot_be_made_is_one_line(made, wanted, monkeypatch):
    os.truncate(wanted.data, 0)

    def full(fd, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(ImageError, match=r"c\.data: No space left on device"):
        open_overlay(made, wanted, ephemeral=False)


def test_files_that_were_moved_are_mended(made, wanted, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("c.qcow2", "c.data"):
        (tmp_path / name).rename(other / name)
    moved = Meta(SIZE, str(tmp_path / "new.raw"), str(other / "c.data"), wanted.digest, 0)
    open_overlay(str(other / "c.qcow2"), moved, ephemeral=False).close()
    found = qcow2.decode((other / "c.qcow2").read_bytes()[: qcow2.HEADER_AREA])
    assert found == replace(moved, born=found.born)


def test_one_that_is_larger_than_its_golden_image_keeps_its_size(path, wanted):
    large = replace(wanted, size=5 * SIZE)
    open_overlay(path, large, ephemeral=False, least=SIZE).close()
    for asked in (wanted, large, replace(wanted, size=9 * SIZE)):
        files = open_overlay(path, asked, ephemeral=False, least=SIZE)
        assert files.size == files.header.size == 5 * SIZE
        assert os.fstat(files.data).st_size == 5 * SIZE
        files.close()
    with pytest.raises(ImageError, match="has 5242880 bytes, its golden image 9437184"):
        open_overlay(path, replace(wanted, size=9 * SIZE), ephemeral=False)


def test_when_another_program_wrote_to_the_tables_the_live_file_is_void(made, wanted):
    files = open_overlay(made, wanted, ephemeral=False)
    files.keep(0, b"\1")
    files.close()
    area = qcow2.encode(Meta(SIZE, wanted.golden, wanted.data, wanted.digest, 0, live=False))
    patch_file(made, 0, area)
    files = open_overlay(made, wanted, ephemeral=False)
    assert list(files.recover()) == []
    files.close()
    assert qcow2.decode(Path(made).read_bytes()[: qcow2.HEADER_AREA]).live


def test_a_damaged_live_file_is_named(made, wanted):
    files = open_overlay(made, wanted, ephemeral=False)
    files.keep(3, b"\1\7")
    files.close()
    files = open_overlay(made, wanted, ephemeral=False)
    with pytest.raises(ImageError, match=r"\.live: is damaged"):
        list(files.recover())
    files.close()


def test_what_is_kept_comes_back(made, wanted):
    files = open_overlay(made, wanted, ephemeral=False)
    files.keep(3, b"\1\2")
    files.close()
    files = open_overlay(made, wanted, ephemeral=False)
    ((first, cells),) = files.recover()
    assert (first, cells.rstrip(b"\0")) == (0, b"\0\0\0\1\2")
    files.forget_live()
    files.forget_live()
    files.close()
    files = open_overlay(made, wanted, ephemeral=False)
    assert list(files.recover()) == []
    files.close()


def test_the_folder_is_synced_once(made, wanted, monkeypatch):
    files = open_overlay(made, wanted, ephemeral=False)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    files.sync_folder_once()
    files.sync_folder_once()
    assert synced == [os.path.dirname(made)]
    files.close()


def test_errors_of_the_file_system_are_for_people(path, wanted, monkeypatch, tmp_path):
    with pytest.raises(ImageError, match="cannot be created: No such file or directory"):
        open_overlay(str(tmp_path / "no" / "c.qcow2"), wanted, ephemeral=False)
    (tmp_path / "dir.qcow2").mkdir()
    with pytest.raises(ImageError, match="Is a directory"):
        open_overlay(str(tmp_path / "dir.qcow2"), wanted, ephemeral=False)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ImageError, match="No space left"):
            open_overlay(path, wanted, ephemeral=False)
    assert not os.path.exists(path)

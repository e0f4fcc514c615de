"""The library: what is added is immutable, what fails leaves nothing, what is used stays."""

import fcntl
import hashlib
import json
import os

import pytest

from netboot.errors import ImageError
from netboot.model import DiskSpec, Overlay, OverlayMode, Version
from netboot.state.store import Store
from netboot.storage import library as library_module
from netboot.storage.attach import attach
from netboot.storage.library import Library, quiet
from netboot.storage.prefetch import learned_path

CONTENT = os.urandom(5000)
WHOLE = CONTENT + bytes(120)
DIGEST = "sha256:" + hashlib.sha256(WHOLE).hexdigest()


@pytest.fixture
def store():
    made = Store("sqlite://")
    yield made
    made.close()


@pytest.fixture
def library(tmp_path, store):
    return Library(tmp_path / "images", store)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    return path


def tree(library):
    return sorted(
        str(path.relative_to(library.root)) for path in library.root.rglob("*") if path.is_file()
    )


def spec(version, overlay=None):
    return DiskSpec(version.path, version.size, version.digest, overlay)


def test_add(library, source):
    version = library.add("debian", source)
    assert version.image == "debian"
    assert version.number == 1
    assert version.path == str(library.root / "debian" / "1.raw")
    assert (version.size, version.digest) == (5120, DIGEST)
    assert version.origin == str(source)
    assert version.created > 1e9
    assert library.list() == [version]
    assert tree(library) == ["debian/.lock", "debian/1.raw", "debian/1.raw.id"]


def test_a_version_is_immutable_and_has_an_identity(library, source):
    version = library.add("debian", source)
    file = library.root / "debian" / "1.raw"
    assert file.read_bytes() == WHOLE
    assert file.stat().st_mode & 0o777 == 0o444
    assert json.loads((library.root / "debian" / "1.raw.id").read_text())["digest"] == DIGEST
    disk = attach(spec(version))
    assert b"".join(disk.read(0, 5120)) == WHOLE
    disk.close()


def test_numbers_are_never_used_twice(library, source):
    library.add("debian", source)
    library.add("debian", source)
    library.remove("debian", 2)
    assert library.add("debian", source).number == 3
    assert [version.number for version in library.list("debian")] == [1, 3]


def test_show(library, source):
    first = library.add("debian", source)
    second = library.add("debian", source)
    assert library.show("debian") == second
    assert library.show("debian", 1) == first
    with pytest.raises(ImageError, match="no version 7, only 1, 2"):
        library.show("debian", 7)
    with pytest.raises(ImageError, match="no image fedora, only debian"):
        library.show("fedora")


def test_an_empty_library(library):
    assert library.list() == []
    with pytest.raises(ImageError, match="`netboot image build` makes one"):
        library.show("debian")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "Debian", "-x", "x" * 64, "é"])
def test_names_that_are_no_names(library, source, name):
    with pytest.raises(ImageError, match="allowed are"):
        library.add(name, source)
    assert not library.root.exists()


def test_a_missing_source_leaves_nothing(library, tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        library.add("debian", tmp_path / "nothing")
    assert tree(library) == []


def test_an_interruption_leaves_nothing(library, source):
    def interrupt(percent, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.add("debian", source, interrupt)
    assert tree(library) == []
    assert not (library.root / "debian").exists()
    assert library.list() == []


def test_a_catalogue_that_refuses_leaves_nothing(library, source, store, monkeypatch):
    def refuse(version):
        raise ImageError("the number is taken")

    monkeypatch.setattr(store, "add_version", refuse)
    with pytest.raises(ImageError, match="taken"):
        library.add("debian", source)
    assert tree(library) == ["debian/.lock"]


def test_a_file_that_is_in_no_catalogue_is_replaced(library, source):
    library.add("other", source)
    folder = library.root / "debian"
    folder.mkdir()
    (folder / "1.raw").write_bytes(b"left by a killed process")
    version = library.add("debian", source)
    assert version.number == 1
    attach(spec(version)).close()


def test_parts_of_killed_processes_are_swept_and_of_living_ones_not(library, source):
    folder = library.root / "debian"
    folder.mkdir(parents=True)
    (folder / ".dead.part").touch()
    with (folder / ".alive.part").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        library.add("debian", source)
        assert (folder / ".alive.part").exists()
    assert not (folder / ".dead.part").exists()


def test_no_room_is_one_line(library, source, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(library_module, "_sync", full)
    with pytest.raises(ImageError, match=r"image debian: .*No space left on device"):
        library.add("debian", source)
    assert tree(library) == []


def test_a_library_that_cannot_be_written_to(tmp_path, store, source):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="Not a directory"):
        Library(tmp_path / "file" / "images", store).add("debian", source)


def test_remove(library, source):
    golden = library.add("debian", source).path
    learned_path(golden).write_text("what its boots need")
    library.remove("debian", 1)
    assert library.list() == []
    assert not (library.root / "debian").exists()
    with pytest.raises(ImageError, match="no image debian"):
        library.remove("debian", 1)


def test_with_its_last_version_an_image_takes_its_folder_and_its_log_away(library, recipe):
    library.build(recipe)
    library.build(recipe)
    library.remove("tiny", 2)
    assert tree(library) == ["tiny/.lock", "tiny/1.raw", "tiny/1.raw.id", "tiny/build.log"]
    library.remove("tiny", 1)
    assert not (library.root / "tiny").exists()
    assert library.build(recipe).number == 3


def test_a_folder_in_which_something_else_lies_stays(library, source):
    library.add("debian", source)
    (library.root / "debian" / "notes").touch()
    library.remove("debian", 1)
    assert "debian/notes" in tree(library)


def test_a_folder_in_which_a_version_is_being_made_stays(library, source):
    library.add("debian", source)
    with library._part("debian") as part:
        part.write_bytes(WHOLE)
        library.remove("debian", 1)
        assert part.exists()
        version = library._finish("debian", part, DIGEST, "test")
    assert tree(library) == ["debian/.lock", "debian/2.raw", "debian/2.raw.id"]
    assert version.number == 2


def test_who_waits_for_the_lock_does_not_take_one_that_is_gone(library, source, monkeypatch):
    """Two that held locks on different files would take the same number."""
    library.add("debian", source)
    lock, waited = library.root / "debian" / ".lock", []

    def flock(file, how):
        if not waited:  # whoever had it takes it away, and then we get it
            lock.unlink()
        waited.append(how)

    monkeypatch.setattr(library_module.fcntl, "flock", flock)
    with library_module._locked(lock.parent):
        assert waited == [fcntl.LOCK_EX] * 2
        assert lock.exists()


def test_a_folder_taken_away_again_and_again_is_one_line(library, source, monkeypatch):
    def gone(**_):
        raise FileNotFoundError

    monkeypatch.setattr(library_module.tempfile, "mkstemp", gone)
    with pytest.raises(ImageError, match="taken away again and again"):
        library.add("debian", source)
    monkeypatch.setattr(library_module, "_still_there", lambda fd, path: False)
    (library.root / "debian").mkdir(parents=True, exist_ok=True)
    with (
        pytest.raises(ImageError, match="cannot be locked"),
        library_module._locked(library.root / "debian"),
    ):
        raise AssertionError


def test_remove_refuses_while_an_overlay_stands_on_it(library, source, store):
    version = library.add("debian", source)
    mac = "52:54:00:00:00:01"
    store.save_overlay(Overlay(mac, "debian", 1, OverlayMode.PERSISTENT, 0, "/o/x.qcow2"))
    with pytest.raises(ImageError, match=f"in use by {mac}"):
        library.remove("debian", 1)
    assert library.list() == [version]
    assert os.path.exists(version.path)


def test_remove_refuses_while_a_disk_has_it_open(library, source, tmp_path):
    version = library.add("debian", source)
    disk = attach(spec(version, str(tmp_path / "c.qcow2")))
    with pytest.raises(ImageError, match="a disk has it open"):
        library.remove("debian", 1)
    assert library.list() == [version]
    disk.close()
    library.remove("debian", 1)
    assert not os.path.exists(version.path)


def test_remove_of_a_version_whose_file_is_gone(library, source):
    version = library.add("debian", source)
    os.unlink(version.path)
    library.remove("debian", 1)
    assert library.list() == []


def test_verify_takes_a_restored_file_back(library, source, tmp_path):
    version = library.add("debian", source)
    backup = tmp_path / "backup"
    backup.write_bytes(WHOLE)
    backup.rename(version.path)
    with pytest.raises(ImageError, match="changed since it was added"):
        attach(spec(version))
    assert library.verify("debian") == version
    attach(spec(version)).close()
    assert os.stat(version.path).st_mode & 0o777 == 0o444


def test_verify_refuses_other_bytes(library, source):
    version = library.add("debian", source)
    os.chmod(version.path, 0o644)
    with open(version.path, "r+b") as file:
        file.write(b"x")
    with pytest.raises(ImageError, match=f"they were {DIGEST}"):
        library.verify("debian", 1)
    os.unlink(version.path)
    with pytest.raises(ImageError, match="No such file"):
        library.verify("debian", 1)


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / "recipes" / "tiny"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text('name = "tiny"\nsize = "1MiB"\n')
    write_program(folder, 'echo 10 making it; head -c "$NETBOOT_SIZE" /dev/zero > "$1"')
    return folder


def write_program(folder, text):
    (folder / "build").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "build").chmod(0o755)


def test_build(library, recipe):
    told = []
    version = library.build(recipe, lambda percent, text: told.append((percent, text)))
    assert (version.image, version.number, version.size) == ("tiny", 1, 1 << 20)
    assert version.digest == "sha256:" + hashlib.sha256(bytes(1 << 20)).hexdigest()
    assert version.origin == f"recipe {recipe}"
    assert told[0] == (9, "making it")
    assert told[-1] == (100, "computing the digest")
    assert tree(library) == ["tiny/.lock", "tiny/1.raw", "tiny/1.raw.id", "tiny/build.log"]
    attach(spec(version)).close()


def test_a_recipe_may_put_another_file_in_place(library, recipe):
    write_program(recipe, 'head -c 1024 /dev/zero > "$1.tmp" && mv "$1.tmp" "$1"')
    assert library.build(recipe).size == 1024


def test_recipes_keep_their_downloads(library, recipe):
    write_program(
        recipe, 'echo kept >> "$NETBOOT_CACHE/x"; cp "$NETBOOT_CACHE/x" "$1"; truncate -s 512 "$1"'
    )
    first, second = library.build(recipe), library.build(recipe)
    assert first.digest != second.digest
    assert (library.root / ".cache" / "tiny" / "x").read_text() == "kept\nkept\n"


def test_a_recipe_that_fails_leaves_only_its_log(library, recipe):
    write_program(recipe, 'echo half > "$1"; echo broken >&2; exit 1')
    with pytest.raises(ImageError, match="broken"):
        library.build(recipe)
    assert tree(library) == ["tiny/build.log"]
    assert library.list() == []


def test_the_quiet_progress():
    assert quiet(50, "anything") is None


def test_an_image_that_is_too_large_is_refused(library, tmp_path, monkeypatch):
    monkeypatch.setattr(library_module.qcow2, "MAX_SIZE", 4096)
    path = tmp_path / "big"
    path.write_bytes(bytes(8192))
    with pytest.raises(ImageError, match="8192 bytes, more than"):
        library.add("big", path)


def test_the_protocol_is_what_the_store_is(store):
    catalog: library_module.Catalog = store
    assert catalog.versions() == []
    assert isinstance(catalog.next_number("debian"), int)
    assert Version.__slots__

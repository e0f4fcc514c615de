"""A golden file that is not what it was is refused, and said to be."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from netboot.errors import ImageError
from netboot.storage.identity import Identity, check_identity, identity_path, write_identity
from netboot.storage.raw import Golden


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "1.raw"
    path.write_bytes(os.urandom(8192))
    write_identity(str(path), Identity.of("sha256:1", path.stat()))
    return path


def check(image, digest="sha256:1"):
    golden = Golden(str(image))
    try:
        check_identity(golden, digest)
    finally:
        golden.close()


def test_the_identity_lies_beside_the_file(image):
    assert identity_path(str(image)) == image.with_name("1.raw.id")
    stat = image.stat()
    assert json.loads(image.with_name("1.raw.id").read_text()) == {
        "digest": "sha256:1",
        "size": 8192,
        "inode": stat.st_ino,
        "mtime_ns": stat.st_mtime_ns,
    }
    assert [each.name for each in sorted(image.parent.iterdir())] == ["1.raw", "1.raw.id"]


def test_many_who_open_an_image_at_once_for_the_first_time(image):
    """Seen with a file of one name for all: one renamed what another had just emptied."""
    identity_path(str(image)).unlink()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(pool.map(check, [image] * 8))
            identity_path(str(image)).unlink()


def test_the_same_file_is_accepted(image):
    check(image)


def test_another_digest_is_refused(image):
    with pytest.raises(ImageError, match="is sha256:1, but sha256:2 is wanted"):
        check(image, "sha256:2")


def write_one_byte(image):
    with image.open("r+b") as file:
        file.write(b"x")
    os.utime(image, ns=(1, image.stat().st_mtime_ns + 1))  # however coarse the clock is


def replace_it(image):
    copy = image.with_name("copy")
    shutil.copy2(image, copy)
    copy.rename(image)


def append_to_it(image):
    with image.open("ab") as file:
        file.write(bytes(512))


@pytest.mark.parametrize("change", [write_one_byte, replace_it, append_to_it])
def test_a_changed_file_is_refused(image, change):
    change(image)
    with pytest.raises(ImageError, match="changed since it was added"):
        check(image)


def test_reading_it_is_no_change(image):
    image.read_bytes()
    image.chmod(0o400)
    check(image)


def test_a_file_without_identity_gets_one(image):
    identity_path(str(image)).unlink()
    check(image)
    write_one_byte(image)
    with pytest.raises(ImageError, match="changed"):
        check(image)


def test_a_folder_that_cannot_be_written_to_is_no_hindrance(image, monkeypatch):
    identity_path(str(image)).unlink()

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("netboot.storage.identity.write_identity", refused)
    check(image)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": 1}', "\0", '{"a": 1}'])
def test_an_identity_that_cannot_be_read_is_refused(image, text):
    identity_path(str(image)).write_text(text)
    with pytest.raises(ImageError, match=r"not readable .*--verify"):
        check(image)

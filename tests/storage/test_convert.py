"""Foreign images: told by their bytes, refused when they refer to others, copied sparse."""

import contextlib
import hashlib
import io
import os
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.errors import ImageError
from netboot.storage import convert
from netboot.storage.convert import digest_of, refuse_references, run_with_progress, sniff, to_raw


def silent(percent, text):
    assert 0 <= percent <= 100
    assert text


def qcow2_header(version=3, backing=0, features=0):
    head = struct.pack(">4sIQ", b"QFI\xfb", version, backing) + bytes(56)
    return head + struct.pack(">Q", features) + bytes(432)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"QFI\xfb\0\0\0\3", "qcow2"),
        (b"KDMV" + bytes(508), "vmdk"),
        (b"COWD" + bytes(508), "vmdk"),
        (b"# Disk DescriptorFile\n", "vmdk"),
        (b"vhdxfile" + bytes(504), "vhdx"),
        (b"conectix" + bytes(504), "vpc"),
        (bytes(1024) + b"conectix" + bytes(504), "vpc"),
        (b"\xeb\x63\x90" + bytes(509), "raw"),
        (b"", "raw"),
        (b"QFI", "raw"),
    ],
)
def test_the_format_is_told_by_its_magic(content, kind):
    assert sniff(io.BytesIO(content)) == kind


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("qcow2", qcow2_header(backing=512)),
        ("qcow2", qcow2_header(features=1 << 2)),
        ("qcow2", qcow2_header(version=2, backing=512)),
        ("vmdk", b'# Disk DescriptorFile\nRW 63 FLAT "/etc/shadow" 0\n'),
        ("vmdk", b"KDMV" + bytes(508)),  # capacity 0: the extents are in a descriptor
        ("vmdk", b"COWD" + bytes(508)),
        ("vmdk", b"KDMV" + bytes(8) + b"\1" + bytes(499) + b'parentFileNameHint="/etc/shadow"'),
    ],
)
def test_an_image_that_refers_to_other_files_is_refused(kind, content):
    with pytest.raises(ImageError, match="refers to other files"):
        refuse_references(io.BytesIO(content), kind, "evil")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("qcow2", qcow2_header()),
        ("qcow2", qcow2_header(version=2, features=1 << 2)),  # version 2 has no features
        ("qcow2", qcow2_header(features=1 << 4)),
        ("vmdk", b"KDMV" + bytes(8) + b"\1" + bytes(499)),
        ("raw", b"KDMV"),
    ],
)
def test_an_image_that_is_whole_in_itself_is_not(kind, content):
    refuse_references(io.BytesIO(content), kind, "good")


@given(st.binary(max_size=600))
def test_rubbish_never_raises_anything_else(content):
    file = io.BytesIO(content)
    with contextlib.suppress(ImageError):
        refuse_references(file, sniff(file), "rubbish")


def test_a_raw_file_is_copied_sparse_and_hashed_on_the_way(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(3 << 20)
        file.write(b"data" * 1024)
        file.seek(9 << 20)
        file.write(bytes(2 << 20))  # zeros that are there
    told = []
    digest = to_raw(source, target, lambda percent, text: told.append((percent, text)))
    assert target.read_bytes() == source.read_bytes()
    assert digest == "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest()
    assert target.stat().st_blocks * 512 <= 1 << 20
    assert told[-1] == (100, "copying")
    assert [percent for percent, _ in told] == sorted(percent for percent, _ in told)


def test_what_lay_in_the_target_is_gone(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"a" * 512 + bytes(512))
    target.write_bytes(b"x" * 4096)
    to_raw(source, target, silent)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("size", [1, 511, 512, 513, 5000])
def test_a_raw_file_is_filled_up_to_a_sector(tmp_path, size):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    digest = to_raw(source, target, silent)
    whole = source.read_bytes() + bytes(-size % 512)
    assert target.read_bytes() == whole
    assert digest == "sha256:" + hashlib.sha256(whole).hexdigest()
    assert digest_of(target, silent) == digest


def test_an_empty_or_missing_file_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(ImageError, match="is empty"):
        to_raw(tmp_path / "empty", tmp_path / "target", silent)
    with pytest.raises(ImageError, match="No such file"):
        to_raw(tmp_path / "missing", tmp_path / "target", silent)
    with pytest.raises(ImageError, match="Is a directory"):
        to_raw(tmp_path, tmp_path / "target", silent)


def test_the_digest_of_holes(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate((5 << 20) + 512)
    expected = hashlib.sha256(bytes((5 << 20) + 512)).hexdigest()
    assert digest_of(path, silent) == f"sha256:{expected}"


def test_progress_of_a_program(tmp_path):
    told = []
    program = "print('    (0.00/100%)\\r    (37.50/100%)\\r', end=''); print('    (100.00/100%)')"
    run_with_progress([sys.executable, "-c", program], told.append)
    assert told[-1] == 100


def test_a_program_that_fails_is_quoted():
    program = "import sys; print('first', file=sys.stderr); sys.exit('cannot do that')"
    with pytest.raises(ImageError, match="cannot do that"):
        run_with_progress([sys.executable, "-c", program], lambda percent: None)


def test_a_program_ends_when_we_are_interrupted(tmp_path):
    mark = tmp_path / "pid"
    program = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n"
        "print('(10.00/100%)', flush=True)\n"
        "time.sleep(50)\n"
    )

    def interrupt(percent):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_with_progress([sys.executable, "-c", program], interrupt)
    assert not os.path.exists(f"/proc/{mark.read_text()}")


def test_qemu_img_that_is_not_there_is_named(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.write_bytes(b"vhdxfile" + bytes(1 << 16))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="apt-get install qemu-utils"):
        to_raw(source, tmp_path / "target", silent)


def test_no_room_is_said_before_the_disk_is_full(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.write_bytes(qcow2_header() + os.urandom(1 << 20))
    usage = convert.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(convert, "_info", lambda path, kind: 8 << 20)
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ImageError, match="0 MiB are free"):
        to_raw(source, tmp_path / "target", silent)


def test_no_room_for_a_raw_file_is_said_of_where_there_is_none(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1 << 20))
    usage = convert.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ImageError, match=f"needs about 1 MiB below {tmp_path}, where 0 MiB"):
        to_raw(source, tmp_path / "target", silent)
    monkeypatch.undo()

    def full(fd, data, at):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert.os, "pwrite", full)
    folder = tmp_path / "there"
    folder.mkdir()
    with pytest.raises(ImageError, match=f"^{folder}: No space left on device: make room there"):
        to_raw(source, folder / "target", silent)

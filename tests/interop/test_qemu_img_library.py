"""Images of every format that qemu-img makes, taken into the library; and those it must refuse."""

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from netboot.errors import ImageError
from netboot.model import DiskSpec
from netboot.state.store import Store
from netboot.storage.attach import attach
from netboot.storage.library import Library

pytestmark = pytest.mark.interop

MIB = 1 << 20


def qemu_img(*arguments: object) -> None:
    subprocess.run(
        ["qemu-img", *map(str, arguments)], check=True, timeout=60, stdout=subprocess.DEVNULL
    )


@pytest.fixture
def library(tmp_path):
    store = Store("sqlite://")
    yield Library(tmp_path / "images", store)
    store.close()


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
        file.seek(3 * MIB)
        file.write(random.Random(1).randbytes(MIB))
        file.seek(16 * MIB - 512)
        file.write(b"the last sector".ljust(512, b"."))
    return path


FORMATS = {
    "qcow2": ["-O", "qcow2"],
    "qcow2 compressed": ["-c", "-O", "qcow2"],
    "qcow2 zstd": ["-c", "-O", "qcow2", "-o", "compression_type=zstd"],
    "qcow2 version 2": ["-O", "qcow2", "-o", "compat=0.10"],
    "qcow2 extended L2": ["-O", "qcow2", "-o", "extended_l2=on"],
    "vmdk": ["-O", "vmdk"],
    "vmdk streamOptimized": ["-O", "vmdk", "-o", "subformat=streamOptimized"],
    "vhd": ["-O", "vpc", "-o", "force_size=on"],
    "vhd fixed": ["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
    "vhdx": ["-O", "vhdx"],
    "raw": ["-O", "raw"],
}


@pytest.mark.parametrize("kind", FORMATS)
def test_add(library, raw, tmp_path, kind):
    file = tmp_path / "image with a space.bin"
    qemu_img("convert", "-f", "raw", *FORMATS[kind], raw, file)
    told: list[int] = []
    version = library.add("disk", file, lambda percent, text: told.append(percent))
    content = Path(version.path).read_bytes()
    assert content == raw.read_bytes()
    assert version.digest == "sha256:" + hashlib.sha256(content).hexdigest()
    assert version.size == 16 * MIB
    assert os.stat(version.path).st_blocks * 512 <= 3 * MIB
    assert os.stat(version.path).st_mode & 0o777 == 0o444
    assert told == sorted(told)
    assert told[-1] == 100
    disk = attach(DiskSpec(version.path, version.size, version.digest))
    assert b"".join(disk.read(16 * MIB - 512, 15)) == b"the last sector"
    disk.close()


def refused(library, file, words=None):
    with pytest.raises(ImageError, match=words):
        library.add("disk", file)
    assert library.list() == []
    assert not (library.root / "disk").exists()


def test_a_backing_file_is_refused(library, raw, tmp_path):
    file = tmp_path / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", file)
    refused(library, file, "refers to other files")


def test_a_data_file_is_refused(library, raw, tmp_path):
    file = tmp_path / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'd'}", file, "1M")
    refused(library, file, "refers to other files")


def test_an_overlay_of_our_own_is_refused(library, raw, tmp_path):
    path = str(tmp_path / "c.qcow2")
    attach(DiskSpec(str(raw), 16 * MIB, "sha256:1", path)).close()
    refused(library, Path(path), "refers to other files")


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_vmdk_of_several_files_is_refused(library, raw, tmp_path, subformat):
    file = tmp_path / "disk.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, file)
    refused(library, file, "refers to other files")


def test_a_vmdk_with_a_parent_is_refused(library, raw, tmp_path):
    parent, child = tmp_path / "parent.vmdk", tmp_path / "child.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", raw, parent)
    qemu_img("create", "-q", "-f", "vmdk", "-b", parent, "-F", "vmdk", child)
    refused(library, child, "refers to other files")


@pytest.mark.parametrize("method", [1, 2])
def test_an_encrypted_image_is_refused(library, raw, tmp_path, method):
    # Set by hand: making one with qemu-img measures the machine, and fails on a busy one.
    file = tmp_path / "secret.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, file)
    content = bytearray(file.read_bytes())
    content[32:36] = method.to_bytes(4, "big")
    file.write_bytes(content)
    refused(library, file)


@pytest.mark.parametrize("magic", [b"QFI\xfb\0\0\0\3", b"vhdxfile", b"KDMV\1\0\0\0\0\0\0\0\1"])
def test_rubbish_with_a_magic_number_is_refused(library, tmp_path, magic):
    file = tmp_path / "rubbish"
    file.write_bytes(magic + random.Random(3).randbytes(70000))
    refused(library, file)


def test_a_raw_file_that_holds_an_image_stays_raw(library, tmp_path):
    """What a guest wrote to the start of its raw disk must not become a format."""
    inner = tmp_path / "inner.raw"
    inner.write_bytes(bytes(512) + b"QFI\xfb" + bytes(508))
    assert Path(library.add("disk", inner).path).read_bytes() == inner.read_bytes()

"""From a DiskSpec to a Disk: what is opened, shared, refused and given back."""

import gc
import os

import pytest

from netboot.errors import ImageError
from netboot.storage.attach import Goldens, attach
from netboot.storage.disk import DiskError, Fault
from netboot.storage.qcow2 import SUB
from netboot.storage.raw import Raw


def whole(disk):
    return b"".join(disk.read(0, disk.size))


def open_descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_without_an_overlay_it_is_the_golden_image(bench):
    disk = bench.attach(overlay=None)
    assert disk.read_only
    assert whole(disk) == bench.content
    with pytest.raises(DiskError) as caught:
        disk.write(0, bytes(512))
    assert caught.value.fault is Fault.READ_ONLY
    disk.close()
    disk.close()
    assert not bench.path.exists()


def test_a_missing_overlay_is_made_and_found_again(bench):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    disk.close()
    assert whole(bench.attach()) == b"w" * SUB + bench.content[SUB:]


def test_two_overlays_know_nothing_of_each_other(bench):
    goldens = Goldens()
    disks = [attach(bench.spec(overlay=str(bench.folder / f"{i}.qcow2")), goldens) for i in (1, 2)]
    bench.disks += disks
    disks[0].write(0, b"1" * SUB)
    disks[1].write(SUB, b"2" * SUB)
    assert whole(disks[0]) == b"1" * SUB + bench.content[SUB:]
    assert whole(disks[1]) == bench.content[:SUB] + b"2" * SUB + bench.content[2 * SUB :]


def test_a_process_opens_each_golden_image_once(bench):
    goldens = Goldens()
    first = attach(bench.spec(), goldens)
    before = open_descriptors()
    more = [attach(bench.spec(overlay=None), goldens) for _ in range(5)]
    assert open_descriptors() == before
    for disk in more:
        disk.close()
        disk.close()
    assert whole(first) == bench.content
    first.close()
    assert goldens._open == {}


def test_another_size_of_an_open_golden_image_is_refused(bench):
    goldens = Goldens()
    first = attach(bench.spec(), goldens)
    bench.disks.append(first)
    with pytest.raises(ImageError, match="not the 512 it was added with"):
        attach(bench.spec(size=512, overlay=None), goldens)
    first.close()
    assert goldens._open == {}


def test_a_golden_image_is_open_as_long_as_anybody_uses_it(bench):
    goldens = Goldens()
    first = goldens.take(str(bench.golden), bench.size)
    assert goldens.take(str(bench.golden), bench.size) is first
    goldens.give_back(first)
    assert len(b"".join(first.read(0, 512))) == 512
    goldens.give_back(first)
    with pytest.raises(DiskError):
        first.read(0, 512)


def test_everything_is_given_back(bench):
    bench.attach().close()
    before = open_descriptors()
    disk = bench.attach()
    disk.write(0, bytes(512))
    disk.close()
    assert open_descriptors() == before


def test_a_changed_golden_file_is_refused_and_the_overlay_untouched(bench):
    disk = bench.attach()
    disk.write(0, b"w" * SUB)
    disk.close()
    overlay, data = bench.path.read_bytes(), bench.data.read_bytes()
    with bench.golden.open("r+b") as file:
        file.write(b"changed")
    os.utime(bench.golden, ns=(1, 1))
    before = open_descriptors()
    with pytest.raises(ImageError, match="changed since it was added"):
        bench.attach()
    assert open_descriptors() == before
    assert (bench.path.read_bytes(), bench.data.read_bytes()) == (overlay, data)


def test_a_golden_file_that_changes_while_open_is_refused_to_the_next(bench):
    goldens = Goldens()
    first = attach(bench.spec(), goldens)
    bench.disks.append(first)
    os.utime(bench.golden, ns=(1, 1))
    with pytest.raises(ImageError, match="changed since"):
        attach(bench.spec(overlay=None), goldens)
    assert whole(first) == bench.content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"golden": "/nowhere/golden.raw"}, "/nowhere/golden.raw: the golden image is gone"),
        ({"size": 4096}, "not the 4096 it was added with"),
        ({"digest": "sha256:other"}, "is wanted"),
        ({"overlay": "/nowhere/client.qcow2"}, "cannot be created"),
    ],
)
def test_refusals_leave_nothing_open(bench, change, words):
    bench.attach().close()
    before = open_descriptors()
    with pytest.raises(ImageError, match=words):
        attach(bench.spec(**change))
    assert open_descriptors() == before


def test_a_missing_golden_file_leaves_the_overlay_alone(bench):
    bench.attach().close()
    bench.golden.unlink()
    before = bench.path.read_bytes()
    with pytest.raises(ImageError, match="the golden image is gone"):
        bench.attach()
    assert bench.path.read_bytes() == before


def test_an_overlay_is_one_disks_only(bench):
    first = bench.attach()
    with pytest.raises(ImageError, match="in use"):
        bench.attach()
    first.close()
    bench.attach()


def test_an_overlay_that_cannot_be_read_leaves_nothing_open(bench):
    disk = bench.attach()
    disk.write(0, bytes(SUB))
    disk.close()
    with bench.path.open("r+b") as file:
        file.seek(4 * 131072)
        file.write(b"\xff" * 16)
    before = open_descriptors()
    with pytest.raises(ImageError, match="L2 entry of cluster 0"):
        bench.attach()
    assert open_descriptors() == before


def test_relative_paths_are_stored_absolute(bench, monkeypatch):
    monkeypatch.chdir(bench.folder)
    disk = bench.attach(golden="golden.raw", overlay="client.qcow2")
    disk.close()
    header = bench.path.read_bytes()[:4096]
    assert str(bench.data).encode() in header
    assert str(bench.golden).encode() in header


def test_a_new_generation_is_a_fresh_disk(bench):
    disk = bench.attach(ephemeral=True, generation=1)
    disk.write(0, b"w" * SUB)
    disk.close()
    assert whole(bench.attach(ephemeral=True, generation=1))[:1] == b"w"
    bench.disks.pop().close()
    assert whole(bench.attach(ephemeral=True, generation=2)) == bench.content


def test_a_golden_image_in_use_by_an_overlay_cannot_be_owned(bench):

    bench.attach()
    with pytest.raises(ImageError, match="in use"):
        Raw(bench.golden)

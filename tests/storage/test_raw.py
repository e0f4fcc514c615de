"""Raw files: the golden image, which nobody writes, and the plain disk."""

import errno
import os

import pytest

from netboot.errors import ImageError
from netboot.storage import raw, residency
from netboot.storage.disk import DiskError, Extent, Fault
from netboot.storage.raw import Golden, Raw

SIZE = 40 * 4096 + 512


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "golden.raw"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def golden(image):
    disk = Golden(str(image), SIZE)
    yield disk
    disk.close()


def drop(path):
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_read_after_resident_is_a_slice(golden, image):
    assert golden.resident(4096, 8192)
    (part,) = golden.read(4096 + 512, 4096)
    assert isinstance(part, memoryview)
    assert part == image.read_bytes()[4608:8704]


def test_any_other_read_is_a_copy(golden, image):
    golden.resident(4096, 8192)
    (part,) = golden.read(0, 4096)
    assert isinstance(part, bytes)
    assert part == image.read_bytes()[:4096]


def test_what_is_not_in_memory_is_read_with_a_copy_and_is_then(golden, image):
    drop(image)
    assert not golden.resident(0, 4096)
    (part,) = golden.read(0, 4096)
    assert isinstance(part, bytes)
    assert golden.resident(0, 4096)


def test_at_once_is_a_slice_and_asks_the_kernel_only_now_and_then(golden, image, monkeypatch):
    asked, clock = [], [100.0]
    mapped = residency.mapped
    monkeypatch.setattr(residency, "mapped", lambda *where: asked.append(where) or mapped(*where))
    monkeypatch.setattr(raw, "monotonic", lambda: clock[0])
    part = golden.at_once(4096, 8192)
    assert isinstance(part, memoryview) and part == image.read_bytes()[4096:12288]
    assert golden.at_once(512, 512) is not None and len(asked) == 1
    clock[0] += raw.TRUST
    assert golden.at_once(0, 512) is not None and len(asked) == 2


def test_a_region_that_stays_in_memory_is_asked_about_less_and_less(golden, image, monkeypatch):
    answers, asked, clock = [], [], [100.0]

    def mapped(*where):
        asked.append(clock[0])
        return answers.pop() if answers else True

    monkeypatch.setattr(residency, "mapped", mapped)
    monkeypatch.setattr(raw, "monotonic", lambda: clock[0])
    trust = raw.TRUST
    for _ in range(8):
        before = len(asked)
        assert golden.at_once(0, 512) is not None and len(asked) == before + 1
        clock[0] += trust * 0.99
        assert golden.at_once(0, 512) is not None and len(asked) == before + 1
        clock[0] += trust * 0.02
        trust = min(2 * trust, raw.MOST)
    answers.append(False)  # it has gone
    assert golden.at_once(0, 512) is None
    clock[0] += raw.TRUST
    assert golden.at_once(0, 512) is not None
    before = len(asked)
    clock[0] += raw.TRUST  # and is trusted as little as at first
    assert golden.at_once(0, 512) is not None and len(asked) == before + 1


def test_at_once_is_nothing_where_a_region_is_not_all_in_memory(golden, image, monkeypatch):
    drop(image)
    asked, clock = [], [100.0]
    mapped = residency.mapped
    monkeypatch.setattr(residency, "mapped", lambda *where: asked.append(where) or mapped(*where))
    monkeypatch.setattr(raw, "monotonic", lambda: clock[0])
    assert golden.at_once(0, 4096) is None
    image.read_bytes()
    assert golden.at_once(0, 4096) is None and len(asked) == 1  # not asked again so soon
    clock[0] += raw.TRUST
    assert golden.at_once(0, 4096) == image.read_bytes()[:4096]


def test_at_once_over_several_regions(tmp_path):
    path = tmp_path / "large.raw"
    path.write_bytes(os.urandom(3 << 20))
    disk = Golden(str(path))
    assert (
        disk.at_once((1 << 20) - 512, (1 << 20) + 1024)
        == path.read_bytes()[(1 << 20) - 512 : (2 << 20) + 512]
    )
    disk.close()
    assert disk.at_once(0, 512) is None


def test_at_once_of_a_plain_disk(image):
    disk = Raw(str(image))
    assert disk.at_once(512, 4096) == image.read_bytes()[512:4608]
    drop(image)
    assert disk.at_once(512, 4096) is None
    disk.close()


def test_a_golden_file_that_shrinks_is_a_medium_error_not_a_signal(golden, image):
    assert golden.resident(0, SIZE)
    os.truncate(image, 8192)
    assert not golden.resident(4096, 8192)
    with pytest.raises(DiskError, match="ends before byte 12288") as caught:
        golden.read(4096, 8192)
    assert caught.value.fault is Fault.MEDIUM
    assert caught.value.offset == 4096
    assert len(b"".join(golden.read(0, 8192))) == 8192


def test_a_kernel_that_is_not_honest_is_not_asked(image, monkeypatch):
    monkeypatch.setattr(residency, "mincore_is_honest", lambda fd: False)
    disk = Golden(str(image))
    drop(image)
    assert not disk.resident(0, 4096)
    disk.read(0, 4096)
    assert disk.resident(0, 4096)
    disk.close()


def test_a_golden_image_is_never_written(golden):
    for change in (
        lambda: golden.write(0, bytes(512)),
        lambda: golden.zero(0, 512),
        lambda: golden.unmap(0, 512),
    ):
        with pytest.raises(DiskError) as caught:
            change()
        assert caught.value.fault is Fault.READ_ONLY
    golden.flush()
    assert golden.read_only
    assert golden.extents(512, 1024) == (Extent(512, 1024, True),)


def test_a_slice_outlives_the_disk(image):
    disk = Golden(str(image))
    disk.resident(0, 4096)
    (part,) = disk.read(0, 4096)
    disk.close()
    disk.close()
    assert part == image.read_bytes()[:4096]
    assert not disk.resident(0, 4096)
    with pytest.raises(DiskError):
        disk.read(0, 512)


def test_another_size_is_refused(image):
    with pytest.raises(ImageError, match=f"has {SIZE} bytes, not the {SIZE + 512}"):
        Golden(str(image), SIZE + 512)


def test_a_missing_file_and_a_broken_size_are_refused(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        Golden(str(tmp_path / "nothing"))
    for size in (0, 511, 513):
        path = tmp_path / f"{size}.raw"
        path.write_bytes(bytes(size))
        with pytest.raises(ImageError, match="whole number of sectors"):
            Golden(str(path))


def test_a_golden_file_that_is_being_written_is_refused(image):
    writer = Raw(image)
    with pytest.raises(ImageError, match="open for writing"):
        Golden(str(image))
    writer.close()
    Golden(str(image)).close()


def test_a_failed_open_leaves_no_file_open(image):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ImageError):
        Golden(str(image), 512)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_plain_disk_is_written_in_place(image):
    disk = Raw(image)
    model = bytearray(image.read_bytes())
    disk.write(512, b"x" * 1024)
    model[512:1536] = b"x" * 1024
    disk.zero(4096, 8192)
    disk.unmap(20480, 512)
    model[4096:12288] = bytes(8192)
    model[20480:20992] = bytes(512)
    disk.flush()
    assert b"".join(disk.read(0, SIZE)) == model
    assert disk.extents(0, SIZE) == (Extent(0, SIZE, True),)
    assert disk.resident(0, SIZE)
    disk.close()
    disk.close()
    assert image.read_bytes() == model


def test_zeros_in_more_than_one_piece(tmp_path):
    path = tmp_path / "big.raw"
    path.write_bytes(b"\xff" * (3 << 20))
    disk = Raw(path)
    disk.zero(512, (3 << 20) - 1024)
    disk.close()
    assert path.read_bytes() == b"\xff" * 512 + bytes((3 << 20) - 1024) + b"\xff" * 512


def test_a_plain_disk_is_one_programs_only(image, golden):
    with pytest.raises(ImageError, match="in use"):
        Raw(image)
    with pytest.raises(ImageError, match="No such file"):
        Raw(str(image) + "x")


def test_a_plain_disk_stays_failed(image, monkeypatch):
    disk = Raw(image)

    def broken(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(DiskError) as first:
        disk.flush()
    monkeypatch.undo()
    with pytest.raises(DiskError) as second:
        disk.flush()
    assert (first.value.fault, second.value.fault) == (Fault.MEDIUM, Fault.FAILED)
    disk.close()


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ENOSPC, Fault.SPACE),
        (errno.EDQUOT, Fault.SPACE),
        (errno.EIO, Fault.MEDIUM),
        (errno.EROFS, Fault.MEDIUM),
    ],
)
def test_errors_of_the_file_system_by_kind(number, fault, image, monkeypatch):
    disk = Raw(image)

    def broken(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", broken)
        with pytest.raises(DiskError, match=os.strerror(number)) as caught:
            disk.write(1024, bytes(512))
    assert (caught.value.fault, caught.value.offset) == (fault, 1024)
    disk.close()


def test_short_reads_and_writes_go_on(image, monkeypatch):
    disk = Raw(image)
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, n, at: pread(fd, min(n, 700), at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:300], at))
    disk.write(512, bytes(range(256)) * 8)
    assert b"".join(disk.read(512, 2048)) == bytes(range(256)) * 8
    disk.close()


def test_a_large_write_is_made_in_pieces(tmp_path, monkeypatch):
    sizes = []
    pwrite = os.pwrite
    monkeypatch.setattr(raw.os, "pwrite", lambda *a: sizes.append(len(a[1])) or pwrite(*a))
    path, data = tmp_path / "x", os.urandom(2 * raw.PIECE + 512)
    with path.open("wb") as file:
        raw.write_at(file.fileno(), 512, data, "x")
    assert sizes == [raw.PIECE, raw.PIECE, 512]
    assert path.read_bytes() == bytes(512) + data


def test_a_read_error_is_a_medium_error(image, monkeypatch):
    disk = Raw(image)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        with pytest.raises(DiskError) as caught:
            disk.read(512, 512)
    assert caught.value.fault is Fault.MEDIUM
    assert raw.SECTOR == 512
    disk.close()


def test_a_plain_disk_grows_and_a_golden_image_never(image, golden):
    with pytest.raises(ImageError, match="never written"):
        golden.resize(2 * SIZE)
    golden.close()
    disk = Raw(image)
    for wrong in (SIZE - 512, SIZE + 1):
        with pytest.raises(ImageError, match=f"cannot have {wrong} bytes"):
            disk.resize(wrong)
    disk.resize(SIZE + 4096)
    assert disk.size == os.stat(image).st_size == SIZE + 4096
    assert b"".join(disk.read(SIZE, 4096)) == bytes(4096)
    disk.close()


def test_a_plain_disk_that_finds_no_room_to_grow(image, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    disk = Raw(image)
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", full)
        with pytest.raises(ImageError, match="No space left"):
            disk.resize(2 * SIZE)
    assert disk.size == SIZE
    disk.close()

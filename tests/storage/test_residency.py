"""What the kernel says of pages: in memory after a write, gone after it was told to drop them."""

import mmap
import os

import pytest

from netboot.storage import residency

SIZE = 64 * 4096


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    mapping = mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)
    yield fd, residency.address_of(mapping)
    mapping.close()
    os.close(fd)


def drop(fd: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def test_what_was_just_written_is_in_memory(mapped):
    fd, address = mapped
    assert residency.mapped(address, 0, SIZE)
    assert residency.cached(fd, 0, SIZE)


def test_what_was_dropped_is_not(mapped):
    fd, address = mapped
    drop(fd)
    assert not residency.mapped(address, 0, SIZE)
    assert not residency.mapped(address, 8 * 4096, 512)
    assert not residency.cached(fd, 8 * 4096, 512)


def test_one_page_that_is_missing_is_enough(tmp_path):
    # A MiB between what is read and what is asked: the kernel reads and drops in large folios.
    mib = 1 << 20
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8 * mib))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        fd, address = file.fileno(), residency.address_of(mapping)
        os.fsync(fd)
        drop(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no readahead
        os.pread(fd, 8192, 4 * mib)
        assert residency.mapped(address, 4 * mib, 8192)
        assert residency.mapped(address, 4 * mib + 4608, 512)
        assert residency.cached(fd, 4 * mib, 8192)
        ranges = ((0, 8 * mib), (3 * mib, 2 * mib), (4 * mib, 2 * mib), (0, 4096))
        for offset, length in ranges:
            assert not residency.mapped(address, offset, length)
        assert not residency.cached(fd, *ranges[0])  # last: it makes the kernel begin to read


def test_ranges_need_not_be_pages(mapped):
    _, address = mapped
    assert residency.mapped(address, 512, 512)
    assert residency.mapped(address, 4096 - 512, 1024)


def test_what_was_cut_off_is_not_in_memory(mapped):
    fd, address = mapped
    os.ftruncate(fd, SIZE // 2)
    assert residency.mapped(address, 0, SIZE // 2)
    assert not residency.cached(fd, SIZE // 2, 4096)
    assert not residency.cached(fd, 0, SIZE)


def test_asking_a_mapping_does_not_read(mapped):
    fd, address = mapped
    drop(fd)
    for _ in range(20):
        assert not residency.mapped(address, 0, 4096)


def test_a_range_that_is_larger_than_the_scratch_buffer(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(bytes(3 << 20))
    with path.open("rb") as file:
        assert residency.cached(file.fileno(), 512, (3 << 20) - 1024)


def test_a_file_that_cannot_be_asked_is_not_in_memory():
    reader, writer = os.pipe()
    assert not residency.cached(reader, 0, 1)
    os.close(reader)
    os.close(writer)


def test_the_owner_is_told_the_truth(mapped):
    assert residency.mincore_is_honest(mapped[0])


def test_a_one_byte_answer_does_not_spoil_anything(mapped):
    # bytes(1) is one shared object in CPython: the kernel must not be given it to write to.
    residency.mapped(mapped[1], 0, 512)
    assert bytes(1) == b"\0"

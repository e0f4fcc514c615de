"""What a boot needs is learned without a word, kept beside the image, and read ahead."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from netboot.model import DiskSpec
from netboot.storage import prefetch, raw
from netboot.storage.attach import Goldens, attach
from netboot.storage.prefetch import FEW, REGION, Fetched, keep, learned, learned_path, read_ahead
from netboot.storage.raw import BOOT, MOST_NEEDED, Golden

COUNT = 20
SIZE = COUNT * REGION - 512  # the last region is not whole
ORDER = (7, 0, 3, 12, 19, 1, 2, 5, 4)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "1.raw"
    path.write_bytes(os.urandom(SIZE))
    return str(path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(raw, "monotonic", lambda: now[0])
    return now


def boot(disk: Any, regions: tuple[int, ...] = ORDER) -> None:
    for region in regions:
        disk.at_once(region * REGION + 4096, 4096)


def drop(image: str) -> None:
    with Path(image).open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# Learning.


def test_a_boot_is_learned_in_the_order_of_its_first_reads(image: str, clock: list[float]) -> None:
    golden = Golden(image)
    boot(golden)
    boot(golden, tuple(reversed(ORDER)))
    assert golden.lesson() == ()  # it is not over
    clock[0] += BOOT + 1
    boot(golden, (9, 10))  # this is no part of it
    assert golden.lesson() == ORDER
    assert golden.lesson() == ()  # once
    golden.close()


def test_the_clock_starts_with_the_first_read(image: str, clock: list[float]) -> None:
    golden = Golden(image)
    clock[0] += 10 * BOOT  # in a menu
    boot(golden)
    assert golden.lesson() == ()
    assert golden.lesson(ending=True) == ORDER
    golden.close()


def test_a_read_across_regions_needs_them_all(image: str) -> None:
    golden = Golden(image)
    assert golden.at_once(2 * REGION - 4096, 8192) is not None
    assert golden.lesson(ending=True) == (1, 2)
    golden.close()


def test_no_more_is_learned_than_is_worth_it(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "MOST_NEEDED", 4)
    golden = Golden(image)
    boot(golden)
    assert golden.lesson(ending=True) == ORDER[:4]
    golden.close()


def test_who_read_nothing_has_nothing_to_tell(image: str) -> None:
    golden = Golden(image)
    assert golden.lesson(ending=True) == ()
    golden.close()


def spec(image: str, client: str = "a") -> DiskSpec:
    path = Path(image).with_name(client + ".qcow2")
    return DiskSpec(image, SIZE, "sha256:" + "ab" * 32, str(path))


def test_it_is_kept_when_the_last_disk_is_closed(image: str) -> None:
    goldens = Goldens()
    disks = [attach(spec(image, client), goldens) for client in "ab"]
    boot(disks[0], ORDER[:5])
    boot(disks[1])
    disks[0].close()
    assert learned(image, SIZE) == ()
    disks[1].close()
    assert learned(image, SIZE) == ORDER


def test_it_is_kept_when_somebody_comes_or_goes_after_the_boot(
    image: str, clock: list[float]
) -> None:
    goldens = Goldens()
    first = attach(spec(image), goldens)
    boot(first)
    clock[0] += BOOT + 1
    second = attach(spec(image, "b"), goldens)
    assert learned(image, SIZE) == ORDER
    learned_path(image).unlink()
    second.close()
    assert not learned_path(image).exists()  # told once
    first.close()
    assert not learned_path(image).exists()


# Keeping.


def test_the_file_and_nothing_else(image: str) -> None:
    keep(image, SIZE, ORDER)
    assert json.loads(learned_path(image).read_text()) == {"size": SIZE, "regions": list(ORDER)}
    assert sorted(os.listdir(Path(image).parent)) == ["1.raw", "1.raw.boot"]


def test_a_boot_that_was_cut_short_teaches_nothing(image: str) -> None:
    keep(image, SIZE, range(FEW - 1))
    assert not learned_path(image).exists()
    keep(image, SIZE, ORDER)
    keep(image, SIZE, ORDER[:FEW])
    assert learned(image, SIZE) == ORDER


def test_the_latest_boot_counts(image: str) -> None:
    keep(image, SIZE, ORDER)
    keep(image, SIZE, ORDER[::-1])
    assert learned(image, SIZE) == ORDER[::-1]


def test_a_folder_that_cannot_be_written_is_no_trouble(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *words: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    keep(image, SIZE, ORDER)
    assert sorted(os.listdir(Path(image).parent)) == ["1.raw"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"size": %d}' % SIZE,
        b'{"size": %d, "regions": 5}' % SIZE,
        b'{"size": %d, "regions": [1, "2"]}' % SIZE,
        b'{"size": %d, "regions": [true]}' % SIZE,
        b'{"size": %d, "regions": [-1]}' % SIZE,
        b'{"size": %d, "regions": [%d]}' % (SIZE, COUNT),
        b'{"size": %d, "regions": [1, 2]}' % (SIZE + 512),
        b'{"size": %d, "regions": %s}' % (SIZE, json.dumps([1] * (MOST_NEEDED + 1)).encode()),
        b"[" * 5000,
    ],
)
def test_a_damaged_file_teaches_nothing_and_is_replaced(image: str, content: bytes) -> None:
    learned_path(image).write_bytes(content)
    assert learned(image, SIZE) == ()
    assert read_ahead(image) == Fetched()
    keep(image, SIZE, ORDER)
    assert learned(image, SIZE) == ORDER


def test_as_many_as_are_kept_are_read(tmp_path: Path) -> None:
    size = 10**7 * REGION
    regions = range(10**7 - MOST_NEEDED, 10**7)
    keep(str(tmp_path / "large"), size, regions)
    assert learned(str(tmp_path / "large"), size) == tuple(regions)


# Reading ahead.


def test_what_is_not_in_memory_is_fetched(image: str) -> None:
    keep(image, SIZE, ORDER)
    drop(image)
    length = len(ORDER) * REGION - 512
    assert read_ahead(image) == Fetched(length, length)
    golden = Golden(image)
    for region in ORDER:
        assert golden.resident(region * REGION, min(REGION, SIZE - region * REGION))
    golden.close()
    assert read_ahead(image) == Fetched(length, 0)


def test_only_what_a_boot_needs_is_fetched(image: str) -> None:
    keep(image, SIZE, range(FEW))
    drop(image)
    assert read_ahead(image).cold == FEW * REGION
    golden = Golden(image)
    assert not golden.resident((FEW + 2) * REGION, REGION)
    golden.close()


def test_so_much_is_under_way_and_no_more(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "AHEAD", 2)
    calls: list[tuple[str, int]] = []
    advise, pread = os.posix_fadvise, os.pread

    def asked(fd: int, offset: int, length: int, advice: int) -> None:
        calls.append(("ask", offset // REGION))
        advise(fd, offset, length, advice)

    def waited(fd: int, length: int, offset: int) -> bytes:
        calls.append(("wait", offset // REGION))
        return pread(fd, length, offset)

    keep(image, SIZE, range(FEW))
    drop(image)
    monkeypatch.setattr(os, "posix_fadvise", asked)
    monkeypatch.setattr(os, "pread", waited)
    read_ahead(image)
    assert [region for what, region in calls if what == "wait"] == list(range(FEW))
    under_way = most = 0
    for what, _ in calls:
        under_way += 1 if what == "ask" else -1
        most = max(most, under_way)
    assert (most, under_way) == (3, 0)


def test_it_can_be_stopped(image: str) -> None:
    keep(image, SIZE, ORDER)
    drop(image)
    stopped = threading.Event()
    stopped.set()
    assert read_ahead(image, stopped.is_set).cold == 0


def test_who_is_not_told_what_is_in_memory_asks_for_all(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netboot.storage.residency.mincore_is_honest", lambda fd: False)
    keep(image, SIZE, ORDER)
    found = read_ahead(image)
    assert found.cold == found.known > 0


def test_nothing_known_or_no_image_is_nothing_to_do(image: str, tmp_path: Path) -> None:
    assert read_ahead(image) == Fetched()
    assert read_ahead(str(tmp_path / "none.raw")) == Fetched()

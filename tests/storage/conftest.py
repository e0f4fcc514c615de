"""Golden images and overlays in a temporary folder, closed at the end of each test."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netboot.model import DiskSpec
from netboot.storage.attach import attach
from netboot.storage.disk import Disk

# More than one cluster, not a whole number of clusters, not even of sub-clusters.
SIZE = 3 * 131072 + 5 * 512
DIGEST = "sha256:" + "ab" * 32


class Bench:
    """A folder with one golden image, and the disks that a test attached over it."""

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        self.folder = folder
        self.size = size
        self.content = random.Random(7).randbytes(size)
        self.golden = folder / "golden.raw"
        self.golden.write_bytes(self.content)
        self.path = folder / "client.qcow2"
        self.data = folder / "client.data"
        self.live = folder / "client.live"
        self.disks: list[Disk] = []

    def spec(self, **changes: Any) -> DiskSpec:
        values: dict[str, Any] = {
            "golden": str(self.golden),
            "size": self.size,
            "digest": DIGEST,
            "overlay": str(self.path),
        }
        return DiskSpec(**(values | changes))

    def attach(self, **changes: Any) -> Any:
        disk = attach(self.spec(**changes))
        self.disks.append(disk)
        return disk

    def close(self) -> None:
        for disk in self.disks:
            disk.close()


def kill(disk: Any) -> None:
    """What a killed process leaves: the kernel closes the files, nobody flushes anything."""
    disk._files.close()
    disk._release()


def content(disk: Disk, offset: int = 0, length: int | None = None) -> bytes:
    """What a range of a disk, or all of it, reads as."""
    return b"".join(disk.read(offset, disk.size - offset if length is None else length))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def kill_disk() -> Callable[[Any], None]:
    return kill


@pytest.fixture
def read_disk() -> Callable[..., bytes]:
    return content

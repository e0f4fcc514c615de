"""What the command line may ask of a running service, and what it is told."""

import asyncio
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ConfigError, ImageError, NetbootError
from netboot.model import Counters, DiskSpec, OverlayMode, Profile, Site, Version
from netboot.service.errands import Errands
from netboot.service.ledger import Ledger
from netboot.service.vault import Vault
from netboot.state.store import Store
from netboot.storage.attach import attach
from netboot.storage.files import size_of

MAC = "52:54:00:00:00:01"
SIZE = 1 << 20


class Disks:
    """A disk process that does as it is told, and in which nothing is open."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.open = False
        self.meanwhile: Any = None

    async def forget(self, mac: str) -> None:
        self.heard.append(("forget", mac))
        if self.meanwhile is not None:
            await self.meanwhile()

    async def resize(self, mac: str, path: str, size: int) -> bool:
        self.heard.append(("resize", mac, size))
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.open

    async def refresh(self) -> Mapping[str, Counters]:
        return {MAC: Counters(MAC, reads=3)}


class Rig:
    """Errands over a database, with one machine that has written to its disk."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder}/db")
        golden = folder / "1.raw"
        golden.write_bytes(b"g" * SIZE)
        self.store.add_version(Version("debian", 1, str(golden), SIZE, "sha256:1", 1.0))
        self.site = Site(
            *("eth0", IPv4Interface("192.168.77.1/24"), "netboot.lan"),
            profiles={"work": Profile("work", "debian")},
        )
        self.disks = Disks()
        vault = Vault(self.store, lambda: self.site, lambda: 5.0)
        self.errands = Errands(self.store, vault, self.disks, lambda: self.site)
        book = Ledger(self.store, folder)
        self.path = book.overlay_of(MAC, "debian", OverlayMode.PERSISTENT).path
        disk = attach(DiskSpec(str(golden), SIZE, "sha256:1", self.path))
        disk.write(0, b"w" * 4096)
        disk.close()

    def do(self, verb: str, **asked: Any) -> Any:
        return asyncio.run(self.errands.handlers()[verb](asked))  # type: ignore[arg-type]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.store.close()


def test_figures(rig: Rig) -> None:
    assert rig.do("counters")[MAC]["reads"] == 3
    assert rig.do("profiles") == {"work": "debian"}
    rig.site = Site("eth0", rig.site.address, "netboot.lan")
    assert rig.do("profiles") == {}  # as a reload has left it


def test_reset(rig: Rig) -> None:
    (freed,) = rig.do("reset", mac=MAC.upper())
    assert freed > 4096
    assert rig.disks.heard == [("forget", MAC)] and rig.store.overlays() == []
    assert not Path(rig.path).exists() and not rig.errands.busy
    assert rig.do("reset", mac=MAC) == []


def test_a_disk_that_is_not_open_grows_here(rig: Rig) -> None:
    (grown,) = rig.do("resize", mac=MAC, size=5 * SIZE)
    assert grown == {"image": "debian", "path": rig.path, "before": SIZE, "size": 5 * SIZE}
    assert rig.disks.heard == [("resize", MAC, 5 * SIZE)] and size_of(rig.path) == 5 * SIZE
    rig.disks.open = True  # then that process does it
    rig.do("resize", mac=MAC, image="debian", size=9 * SIZE)
    assert size_of(rig.path) == 5 * SIZE


@pytest.mark.parametrize(
    "asked",
    [
        {"mac": MAC, "size": "1G"},
        {"mac": MAC, "size": True},
        {"mac": MAC, "size": 1.5},
        {"mac": MAC, "size": 5 * SIZE, "image": 7},
        {"mac": "ws1", "size": 5 * SIZE},
        {"size": 5 * SIZE},
    ],
)
def test_what_nobody_can_do(rig: Rig, asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        rig.do("resize", **asked)
    assert rig.disks.heard == [] and size_of(rig.path) == SIZE


@pytest.mark.parametrize(("verb", "asked"), [("reset", {}), ("resize", {"size": 5 * SIZE})])
def test_nobody_gets_in_meanwhile(rig: Rig, verb: str, asked: dict[str, Any]) -> None:
    seen: list[set[str]] = []

    async def meanwhile() -> None:
        seen.append(set(rig.errands.busy))
        rig.disks.meanwhile = None
        for other in ("reset", "resize"):
            with pytest.raises(ConfigError, match="is being reset or grows just now"):
                await rig.errands.handlers()[other]({"mac": MAC, "size": 7 * SIZE})

    rig.disks.meanwhile = meanwhile
    rig.do(verb, mac=MAC, **asked)
    assert seen == [{MAC}] and not rig.errands.busy


def test_what_fails_leaves_the_door_open(rig: Rig) -> None:
    async def fails() -> None:
        raise NetbootError("the disk process does not answer")

    rig.disks.meanwhile = fails
    for verb in ("reset", "resize"):
        with pytest.raises(NetbootError, match="does not answer"):
            rig.do(verb, mac=MAC, size=5 * SIZE)
        assert not rig.errands.busy
    rig.disks.meanwhile = None
    with pytest.raises(ImageError, match="never becomes smaller"):
        rig.do("resize", mac=MAC, size=512)
    assert not rig.errands.busy

"""A running target for foreign initiators: supervisor, disk process, golden image, overlay."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from netboot.disks.supervisor import Supervisor
from netboot.disks.wire import DiskEvent
from netboot.model import Admission, Chap, DiskSpec, Knock, Lun, Portal

MAC = "52:54:00:12:34:56"
NAME = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
SIZE = 32 << 20


class IscsiTarget:
    """One client's target on 127.0.0.1; the loop runs in a thread, as programs need it.

    ``python`` runs the disk process, in surroundings of its own perhaps; ``overlay`` is where
    the client's disk lies. Other clients are let in by ``let_in``.
    """

    def __init__(
        self,
        state: Path,
        python: str = sys.executable,
        overlay: Path | None = None,
        portals: Sequence[Portal] = (Portal("127.0.0.1", 0),),
        processes: int = 1,
    ) -> None:
        self._processes = processes
        self.state = state
        self.golden = state / "golden.raw"
        self.overlay = overlay or state / "client.qcow2"
        self._python = python
        self.portals = tuple(portals)
        self._others: dict[str, Admission] = {}
        self.golden.write_bytes(random.Random(5).randbytes(SIZE))
        spec = DiskSpec(str(self.golden), SIZE, "sha256:golden", str(self.overlay))
        self.admission = Admission(0, MAC, NAME, (Lun(0, spec, "525400123456"),))
        self.knocks: list[Knock] = []
        self.events: list[DiskEvent] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()))
        self._thread.start()
        assert self._ready.wait(30), "the target did not start"

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.disks = Supervisor(
            *(self.state, self.portals, self._admit, self.events.append),
            python=self._python,
            processes=self._processes,
        )
        await self.disks.start()
        self.port = self.disks.port
        self.portals = self.disks.portals
        self._ready.set()
        await self._end.wait()
        await self.disks.stop()

    def _admit(self, knock: Knock) -> Admission:
        self.knocks.append(knock)
        return self._others.get(knock.target, self.admission)

    def let_in(self, mac: str) -> str:
        """Another client over the same golden image; its disk as ``url`` names them."""
        dashed = mac.replace(":", "-")
        name = f"iqn.2026-11.lab.netboot:{dashed}"
        spec = replace(self.admission.luns[0].disk, overlay=str(self.state / f"{dashed}.qcow2"))
        self._others[name] = Admission(0, mac, name, (Lun(0, spec, dashed.replace("-", "")),))
        return f"iscsi://127.0.0.1:{self.port}/{name}/0"

    def drain(self, redirect: str) -> None:
        """From now on every login is sent elsewhere."""
        self.admission = Admission(0x0101, MAC, NAME, detail="drained", redirect=redirect)

    def protect(self, chap: Chap) -> None:
        """From now on initiators must prove who they are."""
        self.admission = replace(self.admission, chap=chap)

    def url(self, lun: int = 0, user: str = "", port: int = 0) -> str:
        """The disk as libiscsi's programs name it."""
        return f"iscsi://{user}{'@' if user else ''}127.0.0.1:{port or self.port}/{NAME}/{lun}"

    def call(self, coroutine: Any) -> Any:
        """Run something on the target's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def stop(self) -> None:
        """Stop the disk process in order; twice is harmless."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(40)
            assert not self._thread.is_alive()


@pytest.fixture
def iscsi(tmp_path: Path) -> Iterator[IscsiTarget]:
    state = tmp_path / "state"
    state.mkdir()
    target = IscsiTarget(state)
    yield target
    target.stop()


@pytest.fixture
def iscsi_with(tmp_path: Path) -> Iterator[Callable[..., IscsiTarget]]:
    """Makes a target whose disk process is not as others; see IscsiTarget."""
    made: list[IscsiTarget] = []

    def make(python: str = sys.executable, overlay: Path | None = None, **more: Any) -> IscsiTarget:
        state = tmp_path / f"odd{len(made)}"
        state.mkdir()
        made.append(IscsiTarget(state, python, overlay, **more))
        return made[-1]

    yield make
    for target in made:
        target.stop()

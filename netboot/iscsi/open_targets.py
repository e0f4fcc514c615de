"""Which clients' disks are open: opened by the first login, closed some time after the last.

A ``Target`` is one client's open disks with the sessions at them. It stays open for a while
after its last session, so that a machine that comes back finds its disks warm and its
reservations in place. Who may enter is decided elsewhere (``portal``). Must never close a disk
that a worker is busy with, nor open one client's disks twice.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from netboot.errors import NetbootError
from netboot.iscsi import jobs
from netboot.iscsi.lun import Held, PoweredOn, held, power_on
from netboot.iscsi.peer import Peer
from netboot.iscsi.server import Attach, Volume
from netboot.iscsi.volume import Done, Tally
from netboot.model import Admission, Counters, Lun
from netboot.scsi.primary import lun_fields
from netboot.scsi.target import LogicalUnits

log = logging.getLogger(__name__)

#: Threads for cold reads and flushes of all disks.
WORKERS: Final = 8
#: Seconds that a client's disks stay open after its last session.
LINGER: Final = 30.0


@dataclass(slots=True, eq=False)
class Target:
    """One client's open disks, and the sessions at them."""

    mac: str
    name: str
    luns: tuple[Lun, ...]
    units: LogicalUnits
    volumes: dict[int, Volume]  #: by LUN field
    tally: Tally
    #: In the order of their logins; who comes and goes by ``OpenTargets``.
    peers: dict[Peer, None] = field(default_factory=dict)
    linger: asyncio.TimerHandle | None = None

    def is_what(self, admission: Admission) -> bool:
        """Whether these are the disks that an admission grants."""
        return (self.luns, self.name) == (admission.luns, admission.target)


class OpenTargets:
    """All targets whose disks are open.

    ``attach`` opens a disk (in a worker); ``on_error`` hears of which client's disk something
    went wrong, and what; ``spawn`` lets something go on beside.
    """

    def __init__(
        self,
        attach: Attach,
        on_error: Callable[[str, str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        linger: float = LINGER,
    ) -> None:
        self._attach = attach
        self._on_error = on_error
        self._spawn = spawn
        self._linger = linger
        self.ports: tuple[int, ...] = (1,)  #: the portal groups, which are the target ports
        self._pool = ThreadPoolExecutor(WORKERS, "disk")
        self._targets: dict[str, Target] = {}
        self._at: dict[Peer, Target] = {}  #: where each session is: a storm has thousands
        self._tallies: dict[str, Tally] = {}
        self._doors: dict[str, asyncio.Lock] = {}
        self._held: dict[tuple[str, int], Held] = {}  #: of closed disks, by MAC and LUN

    def __iter__(self) -> Iterator[Target]:
        return iter(tuple(self._targets.values()))

    def get(self, mac: str) -> Target | None:
        """A client's target, if it is open."""
        return self._targets.get(mac)

    def of(self, peer: Peer) -> Target | None:
        """The target that a session is at."""
        return self._at.get(peer)

    def enter(self, target: Target, peer: Peer) -> None:
        """A session begins at a target: it is not closed."""
        self.in_use(target)
        target.peers[peer] = None
        self._at[peer] = target

    def leave(self, target: Target, peer: Peer) -> None:
        """A session has ended."""
        target.peers.pop(peer, None)
        self._at.pop(peer, None)

    @property
    def sessions(self) -> int:
        """Sessions there are now."""
        return len(self._at)

    def counters(self) -> list[Counters]:
        """What every client's disk has done since this process first opened it."""
        return [tally.counters() for tally in self._tallies.values()]

    def door(self, mac: str) -> asyncio.Lock:
        """Only one at a time opens, closes or enters a client's target."""
        return self._doors.setdefault(mac, asyncio.Lock())

    # Opening and closing; behind the door.

    async def open(self, admission: Admission) -> Target:
        """Open the disks of an admission; any exception says why that cannot be."""
        mac, name = admission.mac, admission.target
        tally = self._tallies.setdefault(mac, Tally(mac))
        loop = asyncio.get_running_loop()
        volumes: dict[int, Volume] = {}
        opened: dict[Volume, PoweredOn] = {}
        try:
            for lun in admission.luns:
                disk = await loop.run_in_executor(self._pool, self._attach, lun.disk)
                try:
                    before = self._held.get((mac, lun.number))
                    on = await loop.run_in_executor(self._pool, power_on, lun, disk, name, before)
                except BaseException:
                    disk.close()
                    raise
                volume = Volume(
                    name=f"{mac} LUN {lun.number}",
                    block=on.unit.block_size,
                    tally=tally,
                    submit=self._submit,
                    sync=disk.flush,
                    on_error=lambda text: self._on_error(mac, text),
                    disk=disk,
                )
                if disk.notes is not None:
                    volume.remember = disk.notes.put
                volume.space = lambda disk=disk: disk.space() or (0, 0)  # type: ignore[misc]
                opened[volume] = on
                volumes |= dict.fromkeys(lun_fields(lun.number), volume)
            units = LogicalUnits(on.unit for on in opened.values())
            target = Target(mac, name, admission.luns, units, volumes, tally)
        except BaseException:
            for volume in opened:
                volume.disk.close()
            raise
        for unit in target.units.units:
            unit.ports = self.ports
        self._targets[mac] = target
        for volume, on in opened.items():
            if on.trouble:
                volume.failed(OSError(on.trouble))
            if on.todo is not None:  # nobody waits for the answer
                log.info("%s: goes on with what was under way", volume.name)
                jobs.Errand(volume, volume.disk, {}, lambda answer: None).go(on.todo)
        return target

    async def close(self, target: Target) -> None:
        """Wait for the workers of a target without sessions, then flush and close its disks."""
        self.in_use(target)
        self._targets.pop(target.mac, None)
        loop = asyncio.get_running_loop()
        for lun in target.luns:
            self._hold(target, lun)
        for volume in dict.fromkeys(target.volumes.values()):
            if volume.jobs:
                idle = asyncio.Event()
                volume.on_idle = idle.set
                await idle.wait()
            try:
                await loop.run_in_executor(self._pool, volume.disk.close)
            except Exception as error:
                volume.failed(error)

    def _hold(self, target: Target, lun: Lun) -> None:
        """Hold what a disk's reservations are, until it is opened again."""
        unit = target.units.find(lun.number)
        disk = target.volumes[lun_fields(lun.number)[0]].disk
        found = held(lun, disk, unit) if unit is not None else None
        self._held.pop((target.mac, lun.number), None)
        if found is not None:
            self._held[target.mac, lun.number] = found

    async def resize(self, mac: str, path: str, size: int) -> bool:
        """Let the disk with the overlay ``path`` grow, and every session at it know.

        False when it is not open here; any exception says why it cannot grow.
        """
        async with self.door(mac):
            target = self._targets.get(mac)
            for lun in target.luns if target is not None else ():
                unit = target.units.find(lun.number) if target is not None else None
                if target is not None and unit is not None and lun.disk.overlay == path:
                    volume = target.volumes[lun_fields(lun.number)[0]]
                    loop = asyncio.get_running_loop()
                    try:
                        await loop.run_in_executor(self._pool, volume.disk.resize, size)
                    except NetbootError:
                        raise  # it was refused: nothing is wrong with the disk
                    except Exception as error:
                        volume.failed(error)
                        raise
                    unit.resize(size)
                    return True
        return False

    def in_use(self, target: Target) -> None:
        """Somebody has come: it is not closed."""
        if target.linger is not None:
            target.linger.cancel()
            target.linger = None

    def unused(self, target: Target) -> None:
        """The last session has gone: it is closed, unless somebody comes in time."""
        self.in_use(target)
        loop = asyncio.get_running_loop()
        target.linger = loop.call_later(self._linger, lambda: self._spawn(self._retire(target)))

    async def _retire(self, target: Target) -> None:
        async with self.door(target.mac):
            if self._targets.get(target.mac) is target and not target.peers:
                if target.units.sanitizing:  # what was begun there should not wait for a login
                    self.unused(target)
                else:
                    await self.close(target)

    # Small things.

    def dismiss(self) -> None:
        """Every disk is closed: wait for the workers, and let them go."""
        self._pool.shutdown()

    def _submit(self, do: Callable[[], object], done: Done) -> None:
        loop = asyncio.get_running_loop()

        def finished(future: "Future[object]") -> None:
            error = future.exception()
            known = error if error is None or isinstance(error, Exception) else OSError(str(error))
            result = None if error is not None else future.result()
            loop.call_soon_threadsafe(done, result, known)

        self._pool.submit(do).add_done_callback(finished)

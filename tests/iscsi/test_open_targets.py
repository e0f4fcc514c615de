"""Disks open and close: half-opened ones, workers that are still busy, machines that come back."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from netboot.errors import ImageError
from netboot.iscsi.open_targets import OpenTargets
from netboot.model import Admission, DiskSpec, Lun
from netboot.scsi.action import Check, Reply
from netboot.scsi.kept import Operation, encode
from netboot.scsi.reservations import Reservations
from netboot.scsi.sense import Code, Key, Sense
from netboot.storage.disk import DiskError, Fault

MAC = "52:54:00:12:34:56"
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
SPEC = DiskSpec("/golden.raw", 1 << 20, "sha256:x")
ONE = Admission(0, MAC, TARGET, (Lun(0, SPEC, "525400123456"),))
TWO = replace(ONE, luns=(*ONE.luns, Lun(1, SPEC, "525400123457", thin=False)))


class Rig:
    """Open targets over memory disks; ``broken`` says at which disk opening fails."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.disks: list[Any] = []
        self.broken = 99
        self.dress: Callable[[Any], None] = lambda disk: None
        self.errors: list[tuple[str, str]] = []
        self.errands: set[asyncio.Task[None]] = set()
        self.targets = OpenTargets(
            self.attach, lambda mac, text: self.errors.append((mac, text)), self.spawn, linger=0.02
        )

    def attach(self, spec: DiskSpec) -> Any:
        if len(self.disks) == self.broken:
            raise OSError("the golden image has changed")
        self.disks.append(self._memory(spec.size))
        self.dress(self.disks[-1])
        return self.disks[-1]

    def spawn(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(errand)
        self.errands.add(task)
        task.add_done_callback(self.errands.discard)

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.005)


Scene = Callable[[Rig], Awaitable[None]]


@pytest.fixture
def play(memory: Any) -> Callable[[Scene], Rig]:
    def run(scene: Scene) -> Rig:
        async def main() -> Rig:
            rig = Rig(memory)
            try:
                await scene(rig)
            finally:
                for target in rig.targets:
                    await rig.targets.close(target)
                rig.targets.dismiss()
            return rig

        return asyncio.run(main())

    return run


def test_a_target_is_what_its_admission_says(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        target = await rig.targets.open(TWO)
        assert rig.targets.get(MAC) is target and list(rig.targets) == [target]
        assert target.is_what(TWO) and not target.is_what(ONE)
        assert not target.is_what(replace(TWO, target="iqn.else"))
        assert [unit.number for unit in target.units.units] == [0, 1]
        assert [unit.thin for unit in target.units.units] == [True, False]
        assert target.volumes[0] is not target.volumes[1 << 48]
        assert target.volumes[1 << 48].name == f"{MAC} LUN 1"
        assert rig.targets.sessions == 0 and rig.targets.get("else") is None

    assert all(disk.calls[-1] == ("close",) for disk in play(scene).disks)


def test_a_second_disk_that_fails_closes_the_first(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        rig.broken = 1
        with pytest.raises(OSError, match="has changed"):
            await rig.targets.open(TWO)
        assert list(rig.targets) == []

    (disk,) = play(scene).disks
    assert disk.calls == [("close",)]


def test_it_is_closed_some_time_after_the_last_use(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        target = await rig.targets.open(ONE)
        rig.targets.unused(target)
        rig.targets.in_use(target)
        await asyncio.sleep(0.05)
        assert rig.disks[0].calls == []
        rig.targets.unused(target)
        rig.targets.unused(target)  # twice is once
        await rig.until(lambda: rig.disks[0].calls)
        assert list(rig.targets) == [] and rig.disks[0].calls == [("close",)]

    play(scene)


def test_who_comes_in_while_it_lingers_keeps_it_open(play: Any) -> None:
    """The timer has fired, but the door was held by somebody who logged in."""

    async def scene(rig: Rig) -> None:
        target = await rig.targets.open(ONE)
        async with rig.targets.door(MAC):
            rig.targets.unused(target)
            await asyncio.sleep(0.05)
            someone: Any = object()
            rig.targets.enter(target, someone)
        await rig.until(lambda: not rig.errands)
        assert rig.targets.get(MAC) is target and rig.targets.sessions == 1
        assert rig.targets.of(someone) is target
        rig.targets.leave(target, someone)
        assert rig.targets.of(someone) is None and rig.targets.sessions == 0

    play(scene)


def test_closing_waits_for_the_workers(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        target = await rig.targets.open(ONE)
        volume = target.volumes[0]
        ended: list[object] = []
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow() -> str:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
            return "done"

        volume.work(slow, lambda result, error: ended.append((result, error)))
        closing = asyncio.ensure_future(rig.targets.close(target))
        await asyncio.sleep(0.02)
        assert rig.disks[0].calls == [] and not closing.done()
        release.set()
        await closing
        assert ended == [("done", None)] and rig.disks[0].calls == [("close",)]

    play(scene)


def test_a_disk_grows_and_every_session_learns_it(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        spec = replace(SPEC, overlay="/client.qcow2")
        admission = replace(TWO, luns=(TWO.luns[0], replace(TWO.luns[1], disk=spec)))
        target = await rig.targets.open(admission)
        lun = 1 << 48
        sessions = [target.units.attach(f"iqn.{n}", bytes(6)) for n in range(2)]
        for nexus in sessions:
            for each in (0, lun):
                target.units.execute(nexus, each, bytes(6))  # takes the 29/00
        assert await rig.targets.resize(MAC, "/client.qcow2", 5 << 20)
        assert [disk.size for disk in rig.disks] == [1 << 20, 5 << 20]
        for nexus in sessions:
            told = target.units.execute(nexus, lun, bytes(6))
            assert told == Check(Sense(Key.UNIT_ATTENTION, Code.CAPACITY_DATA_HAS_CHANGED))
            capacity = target.units.execute(nexus, lun, b"\x25".ljust(10, b"\0"))
            assert isinstance(capacity, Reply)
            assert capacity.data == struct.pack(">II", (5 << 20) // 512 - 1, 512)
            assert target.units.execute(nexus, 0, bytes(6)) == Reply()

    play(scene)


def test_a_disk_that_is_not_open_or_cannot_grow(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        assert not await rig.targets.resize(MAC, "/client.qcow2", 5 << 20)
        spec = replace(SPEC, overlay="/client.qcow2")
        target = await rig.targets.open(replace(ONE, luns=(replace(ONE.luns[0], disk=spec),)))
        assert not await rig.targets.resize(MAC, "/other.qcow2", 5 << 20)
        rig.disks[0].error = DiskError(Fault.SPACE, "no room")
        with pytest.raises(DiskError, match="no room"):
            await rig.targets.resize(MAC, "/client.qcow2", 5 << 20)
        assert rig.errors == [(MAC, "no room")]  # and the operator sees it
        rig.disks[0].error = ImageError("never becomes smaller")
        with pytest.raises(ImageError):
            await rig.targets.resize(MAC, "/client.qcow2", 512)
        assert len(rig.errors) == 1  # nothing is wrong with the disk
        assert target.units.units[0].size == rig.disks[0].size == 1 << 20
        rig.disks[0].error = None

    play(scene)


def test_a_disk_that_cannot_be_closed_is_told(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        target = await rig.targets.open(ONE)

        def close() -> None:
            raise OSError("no space left")

        rig.disks[0].close = close
        await rig.targets.close(target)
        assert list(rig.targets) == []

    assert play(scene).errors == [(MAC, "no space left")]


def test_counters_outlive_the_target(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        target = await rig.targets.open(ONE)
        target.tally.reads = 5
        await rig.targets.close(target)
        again = await rig.targets.open(ONE)
        assert again.tally is target.tally
        (row,) = rig.targets.counters()
        assert (row.mac, row.reads) == (MAC, 5)

    play(scene)


def test_a_worker_that_fails_says_what_with(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        target = await rig.targets.open(ONE)
        heard: list[Any] = []

        def stops() -> None:
            raise SystemExit("not an Exception")

        for job in (lambda: 1 // 0, stops):
            target.volumes[0].work(job, lambda result, error: heard.append((result, error)))
        await rig.until(lambda: len(heard) == 2)
        errors = {type(error) for _, error in heard}
        assert errors == {ZeroDivisionError, OSError} and not any(result for result, _ in heard)

    play(scene)


# What outlives the closing of a disk


class Notes:
    """What a disk remembers, in memory."""

    def __init__(self, text: bytes | Exception = b"") -> None:
        self.text = text
        self.born = 5
        self.lasting = True

    def put(self, text: bytes) -> None:
        self.text = text

    def left(self) -> bytes:
        if isinstance(self.text, Exception):
            raise self.text
        return self.text


def test_registrations_are_held_while_a_disk_is_closed(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        target = await rig.targets.open(TWO)
        for unit in target.units.units:
            unit.reservations.register("iqn.x", 7 + unit.number)
        await rig.targets.close(target)
        again = await rig.targets.open(TWO)
        assert [unit.reservations.keys["iqn.x"] for unit in again.units.units] == [7, 8]
        for unit in again.units.units:
            unit.reservations.register("iqn.x", 0)
        await rig.targets.close(again)
        third = await rig.targets.open(TWO)
        assert not any(unit.reservations.keys for unit in third.units.units)
        assert [unit.reservations.generation for unit in third.units.units] == [2, 2]
        await rig.targets.close(third)
        newer = replace(ONE, luns=(replace(ONE.luns[0], disk=replace(SPEC, generation=1)),))
        fresh = await rig.targets.open(newer)
        assert fresh.units.units[0].reservations.generation == 0

    play(scene)


def test_what_cannot_be_recalled_is_told_and_the_disk_is_open(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        notes = Notes(DiskError(Fault.MEDIUM, "ws1.scsi: is damaged"))
        rig.dress = lambda disk: setattr(disk, "notes", notes)
        target = await rig.targets.open(ONE)
        assert rig.errors == [(MAC, "ws1.scsi: is damaged")]
        assert target.tally.errors == 1
        assert target.units.units[0].barred is None

    play(scene)


def test_a_sanitize_operation_goes_on_and_keeps_the_disk_open(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        notes = Notes(encode(Reservations(), Operation(31, bytes(511) + b"z")))
        rig.dress = lambda disk: setattr(disk, "notes", notes)
        target = await rig.targets.open(ONE)
        (unit,) = target.units.units
        assert unit.barred is not None and target.units.sanitizing
        rig.targets.unused(target)
        await rig.until(lambda: unit.barred is None)
        assert notes.text == b"" and not target.units.sanitizing
        await rig.until(lambda: rig.disks[0].calls[-1] == ("close",))
        assert list(rig.targets) == []
        assert bytes(rig.disks[0].data) == (bytes(511) + b"z") * 2048

    play(scene)


def test_a_sanitize_operation_whose_disk_is_closed_is_not_forgotten(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        text = encode(Reservations(), Operation(31, bytes(511) + b"z"))
        notes = Notes(text)
        rig.dress = lambda disk: setattr(disk, "notes", notes)
        target = await rig.targets.open(ONE)
        await rig.targets.close(target)
        assert notes.text == text and rig.errors == []
        again = await rig.targets.open(ONE)
        await rig.until(lambda: again.units.units[0].barred is None)
        assert notes.text == b""

    play(scene)

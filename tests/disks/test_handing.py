"""Connections from one disk process to another, with several of them on one loop."""

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from netboot.disks import handing, wire
from netboot.disks.engine import owner
from netboot.disks.handing import Handing
from netboot.errors import ConfigError
from netboot.model import Knock, Portal

HERE = Portal("127.0.0.1", 3260, 2)


def knock_for(number: int, processes: int) -> Knock:
    """Somebody whom that process owns."""
    knocks = (Knock("iqn.i", f"iqn.t:{name}", "10.0.0.9") for name in range(1000))
    return next(knock for knock in knocks if owner(knock, processes) == number)


class Rig:
    """Some processes' doors, and what came by them."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder = folder
        self.came: list[tuple[int, bytes, Portal, bytes]] = []
        self.words: list[tuple[int, str]] = []
        self.pairs: list[socket.socket] = []
        self.doors = [self.door(number, processes) for number in range(processes)]

    def door(self, number: int, processes: int) -> Handing:
        def take(sock: socket.socket, portal: Portal, heard: bytes) -> None:
            with sock:
                self.came.append((number, sock.recv(100), portal, heard))

        def say(word: str) -> Callable[[], None]:
            return lambda: self.words.append((number, word))

        return Handing(self.folder, number, processes, take, say("needed"), say("deaf"))

    def connection(self, said: bytes) -> socket.socket:
        """Our end of one; ``said`` waits there to be read."""
        ours, theirs = socket.socketpair()
        theirs.send(said)
        self.pairs += [ours, theirs]
        return ours

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.002)


Scene = Callable[[Rig], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Rig]:
    """Runs a scene with so many processes, of which those in ``open_`` are there."""

    def run(scene: Scene, processes: int = 2, open_: tuple[int, ...] = (0, 1)) -> Rig:
        async def main() -> Rig:
            rig = Rig(tmp_path, processes)
            for number in open_:
                rig.doors[number].start()
            try:
                await scene(rig)
            finally:
                for door in rig.doors:
                    door.close()
                for sock in rig.pairs:
                    sock.close()
            assert not [*tmp_path.glob("*.door")]
            return rig

        return asyncio.run(main())

    return run


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_connection_gets_to_its_owner(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        for number in (0, 1):
            ours = rig.connection(b"more")
            knock = knock_for(number, 2)
            assert [door.mine(knock) for door in rig.doors] == [number == 0, number == 1]
            assert await rig.doors[1 - number].pass_on(knock, ours.fileno(), HERE, b"\0heard\n\n")
            assert ours.fileno() > 0, "that one stays ours"
        await rig.until(lambda: len(rig.came) == 2)

    assert play(scene).came == [(n, b"more", HERE, b"\0heard\n\n") for n in (0, 1)]


def test_only_its_owner_may_use_a_door_and_it_goes_with_us(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "disk-1.door").write_text("left behind")
        door = Handing(tmp_path, 1, 2, lambda *_: None)
        door.start()
        path = tmp_path / "disk-1.door"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.is_socket()
        door.close()
        door.close()
        assert not path.exists()

    asyncio.run(main())


def test_who_is_alone_has_no_door(tmp_path: Path) -> None:
    async def main() -> None:
        door = Handing(tmp_path, 0, 1, lambda *_: None)
        door.start()
        assert not list(tmp_path.iterdir())
        assert door.mine(knock_for(0, 1))
        door.tell(wire.Needed())
        door.close()

    asyncio.run(main())


def test_a_place_for_a_door_that_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match=r"disk-0\.door: no socket can be made there"):
            Handing(tmp_path / "nowhere", 0, 2, lambda *_: None).start()

    asyncio.run(main())


def test_an_owner_that_is_away_is_waited_for(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        knock = knock_for(1, 2)
        names = [b"%d" % number for number in range(30)]
        socks = [rig.connection(name) for name in names]
        passing = [
            asyncio.create_task(rig.doors[0].pass_on(knock, sock.fileno(), HERE, b""))
            for sock in socks
        ]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in passing)
        rig.doors[1].start()
        assert all(await asyncio.gather(*passing))
        await rig.until(lambda: len(rig.came) == 30)
        assert [said for _, said, _, _ in rig.came] == names, "in their order"

    play(scene, open_=(0,))


def test_who_does_not_come_is_not_waited_for_for_ever(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing, "PATIENCE", 0.1)

    async def scene(rig: Rig) -> None:
        knock, before = knock_for(1, 2), handles()
        ours = rig.connection(b"")
        given = [rig.doors[0].pass_on(knock, ours.fileno(), HERE, b"") for _ in range(3)]
        assert await asyncio.gather(*given) == [False] * 3
        rig.doors[1].start()
        rig.doors[1].close()
        (rig.folder / "disk-1.door").write_text("a killed one's, or anything")
        assert not await rig.doors[0].pass_on(knock, ours.fileno(), HERE, b"")
        (rig.folder / "disk-1.door").unlink()
        rig.doors[0].close()
        assert not await rig.doors[0].pass_on(knock, ours.fileno(), HERE, b"")
        assert handles() == before + 2 - 1, "the pair, and a door less"

    play(scene, open_=(0,))


def test_one_that_is_away_keeps_nobody_from_the_others(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        waiting = asyncio.create_task(
            rig.doors[0].pass_on(knock_for(1, 3), rig.connection(b"").fileno(), HERE, b"")
        )
        ours = rig.connection(b"x")
        assert await rig.doors[0].pass_on(knock_for(2, 3), ours.fileno(), HERE, b"")
        await rig.until(lambda: rig.came)
        assert not waiting.done()
        waiting.cancel()

    play(scene, 3, (0, 2))


def test_one_that_has_too_much_to_do_gets_it_later(play: Any) -> None:
    """A datagram socket holds some ten; whoever sends more waits until they are taken."""

    async def scene(rig: Rig) -> None:
        knock = knock_for(1, 2)
        loop = asyncio.get_running_loop()
        busy = rig.doors[1]._sock
        assert busy is not None
        loop.remove_reader(busy)
        socks = [rig.connection(b"x") for _ in range(700)]
        passing = [
            asyncio.create_task(rig.doors[0].pass_on(knock, sock.fileno(), HERE, b""))
            for sock in socks
        ]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in passing)
        loop.add_reader(busy, rig.doors[1]._come)
        assert all(await asyncio.gather(*passing))
        await rig.until(lambda: len(rig.came) == 700)

    play(scene)


def test_what_was_given_before_the_door_closes_is_taken(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(rig.doors[1]._sock)
        passing = [
            asyncio.create_task(
                rig.doors[0].pass_on(knock_for(1, 2), rig.connection(b"x").fileno(), HERE, b"")
            )
            for _ in range(5)
        ]
        await asyncio.sleep(0.01)
        assert not rig.came
        rig.doors[1].close()
        assert len(rig.came) == 5
        assert await asyncio.gather(*passing) == [True] * 5

    play(scene)


def test_what_a_process_took_to_its_grave_is_given_to_its_successor(play: Any) -> None:
    """A datagram in the queue of one that is killed is gone; the connection is not."""

    async def scene(rig: Rig) -> None:
        ours = rig.connection(b"x")
        path = rig.folder / "disk-1.door"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dying:
            dying.bind(str(path))
            passing = asyncio.create_task(
                rig.doors[0].pass_on(knock_for(1, 2), ours.fileno(), HERE, b"heard")
            )
            await asyncio.sleep(0.02)
            assert not passing.done()
        rig.doors[1].start()
        assert await passing
        assert rig.came == [(1, b"x", HERE, b"heard")]

    play(scene, open_=(0,))


def test_what_was_taken_is_not_taken_again(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has much to do is given it again, and takes it once."""
    monkeypatch.setattr(handing, "UNTAKEN", 0.01)

    async def scene(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(rig.doors[1]._sock)
        passing = [
            asyncio.create_task(
                rig.doors[0].pass_on(knock_for(1, 2), rig.connection(b"x").fileno(), HERE, b"")
            )
            for _ in range(3)
        ]
        await asyncio.sleep(0.1)
        loop.add_reader(rig.doors[1]._sock, rig.doors[1]._come)
        assert await asyncio.gather(*passing) == [True] * 3
        await asyncio.sleep(0.05)
        assert len(rig.came) == 3

    play(scene)


def test_what_was_taken_is_not_remembered_for_ever(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing, "REMEMBERED", 5)

    async def scene(rig: Rig) -> None:
        for _ in range(20):
            ours = rig.connection(b"x")
            assert await rig.doors[0].pass_on(knock_for(1, 2), ours.fileno(), HERE, b"")
        assert len(rig.came) == 20 and len(rig.doors[1]._had) == 5
        assert not rig.doors[0]._given

    play(scene)


def test_what_is_told_to_all_the_others(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        rig.doors[2].tell(wire.Needed())
        rig.doors[2].tell(wire.Deaf())
        await rig.until(lambda: len(rig.words) == 2)

    assert sorted(play(scene, 4, (0, 2)).words) == [(0, "deaf"), (0, "needed")]


def test_what_makes_no_sense_is_passed_over_and_leaves_nothing_open(
    play: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(rig: Rig) -> None:
        before = handles()
        line = wire.encode(wire.Passed(1, HERE))
        ours = rig.connection(b"x")
        odd: list[tuple[bytes, int]] = [
            *((b"", 1), (b"rubbish\n", 1), (b'{"type":"new"}\n', 2), (b'{"type":"passed"}\n', 1)),
            *((wire.encode(wire.Stop()), 0), (line, 0), (line, 2), (line, 9)),
            (line + bytes(handing.LIMIT), 1),
        ]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(str(rig.folder / "disk-0.door"))
            for data, count in odd:
                socket.send_fds(sock, [data], [ours.fileno()] * count)
                await asyncio.sleep(0.002)  # ten at once would be too many
        await rig.doors[1].pass_on(knock_for(0, 2), ours.fileno(), HERE, b"")
        await rig.until(lambda: len(rig.came) == 1)
        assert handles() == before + 2
        assert len(caplog.records) == len(odd)

    play(scene)

"""Starting, adopting, restarting and stopping real disk processes."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from netboot.disks import keeper as module
from netboot.disks import supervisor as several
from netboot.disks import wire
from netboot.disks.engine import owner
from netboot.disks.supervisor import Supervisor
from netboot.disks.wire import DiskEvent
from netboot.errors import ConfigError
from netboot.model import Admission, Counters, Knock, Portal, SessionLimits

WELCOME = Admission(0, "52:54:00:12:34:56", "iqn.t")


class Rig:
    """A state folder, and supervisors over it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.knocks: list[Knock] = []
        self.events: list[DiskEvent] = []
        self.all: list[Supervisor] = []

    def admit(self, knock: Knock) -> Admission:
        self.knocks.append(knock)
        if knock.initiator == "iqn.trouble":
            raise KeyError("a mistake of ours")
        name = knock.target.rpartition(":")[2]
        return Admission(0, name, knock.target) if ":" in knock.target else WELCOME

    def make(self, port: int = 0, processes: int = 1, sessions: int = 100) -> Supervisor:
        here, limits = [Portal("127.0.0.1", port)], SessionLimits(sessions, 16)
        self.all.append(
            Supervisor(
                *(self.state, here, self.admit, self.events.append),
                limits=limits,
                processes=processes,
            )
        )
        return self.all[-1]

    async def start(self, port: int = 0, processes: int = 1, sessions: int = 100) -> Supervisor:
        made = self.make(port, processes, sessions)
        await made.start()
        return made

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.01)


Scene = Callable[[Rig], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scene], Rig]:
    """Runs a scene; no disk process outlives it."""

    def run(scene: Scene) -> Rig:
        async def main() -> Rig:
            rig = Rig(tmp_path / "state")
            try:
                await scene(rig)
            finally:
                for made in rig.all:
                    await made.stop()
            return rig

        return asyncio.run(main())

    return run


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_start_and_stop(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        made = rig.make()
        assert not made.alive() and made.pid is None
        await made.start()
        assert made.alive() and made.pid and listens(made.port)
        pid, port = made.pid, made.port
        assert await made.refresh() == {} == made.counters()
        assert not await made.resize("52:54:00:12:34:56", "/o.qcow2", 1 << 20)  # no such disk
        await made.stop()
        assert not made.alive() and not listens(port) and not alive(pid)
        assert not (rig.state / "disk-0.sock").exists()
        await made.stop()  # twice is harmless
        await made.forget("52:54:00:12:34:56")  # nobody to ask: nothing to do
        assert not await made.resize("52:54:00:12:34:56", "/o.qcow2", 1 << 20)

    play(scene)


def test_only_an_answer_to_the_question_ends_it(play: Any) -> None:
    """Counters that come by themselves meanwhile are taken, and are not all there are."""

    async def scene(rig: Rig) -> None:
        made = await rig.start()
        (keeper,) = made._keepers
        keeper.counted.clear()
        made._heard(keeper, wire.Counted((Counters("a", reads=1),), more=True))
        assert not keeper.counted.is_set()
        made._heard(keeper, wire.Counted((Counters("b", reads=2),)))
        assert keeper.counted.is_set()
        assert {mac: row.reads for mac, row in made.counters().items()} == {"a": 1, "b": 2}

    play(scene)


def test_the_next_control_process_adopts_it(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        first = await rig.start()
        pid, port = first.pid, first.port
        await first.leave()
        assert not first.alive() and listens(port)
        second = await rig.start(port)
        assert second.pid == pid
        await second.stop()
        assert not listens(port)

    play(scene)


def test_a_process_at_another_address_is_replaced(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        first = await rig.start()
        pid, port = first.pid, first.port
        await first.leave()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            other = free.getsockname()[1]
        second = await rig.start(other)
        assert second.pid != pid and not listens(port) and listens(other)

    play(scene)


def test_several_portals_are_adopted_as_they_are_and_not_otherwise(tmp_path: Path) -> None:
    async def main() -> None:
        made: list[Supervisor] = []

        async def start(*portals: Portal) -> Supervisor:
            made.append(Supervisor(tmp_path, portals, lambda knock: WELCOME, lambda event: None))
            await made[-1].start()
            return made[-1]

        try:
            first = await start(Portal("127.0.0.1", 0, 1), Portal("::1", 0, 2))
            pid, (four, six) = first.pid, first.portals
            assert listens(four.port) and first.port == four.port
            assert (six.address, six.group) == ("::1", 2) and six.port
            await first.leave()
            again = await start(four, Portal("::1", 0, 2))
            assert again.pid == pid and again.portals == (four, six)
            for others in ((four,), (six, four), (four, Portal("::1", six.port, 3))):
                await made[-1].leave()
                other = await start(*others)
                assert other.pid != pid and other.portals == others
                pid = other.pid
        finally:
            for every in made:
                await every.stop()

    asyncio.run(main())


def test_one_portal_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        portals = [Portal("127.0.0.1", 0), Portal("192.0.2.1", 3260)]
        made = Supervisor(tmp_path, portals, lambda knock: WELCOME, lambda event: None)
        with pytest.raises(ConfigError, match=r"192\.0\.2\.1 port 3260: .* iscsi\.portals"):
            await made.start()
        assert not made.alive()

    asyncio.run(main())


def test_a_process_of_another_release_is_replaced(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(rig: Rig) -> None:
        first = await rig.start()
        pid, port = first.pid, first.port
        await first.leave()
        monkeypatch.setattr(wire, "PROTOCOL", wire.PROTOCOL + 1)
        second = await rig.start(port)
        assert second.pid != pid and not alive(pid) and listens(port)

    play(scene)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_is_restarted_on_its_port(play: Any, number: int) -> None:
    async def scene(rig: Rig) -> None:
        made = await rig.start()
        pid, port = made.pid, made.port
        assert pid is not None
        os.kill(pid, number)
        await rig.until(lambda: made.alive() and made.pid != pid)
        assert made.port == port and listens(port)
        assert made.restarts == 1

    play(scene)


def test_one_that_dies_again_and_again_is_restarted_more_and_more_slowly(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF", (0.0, 0.01, 0.02, 30.0))

    async def scene(rig: Rig) -> None:
        made = await rig.start()
        seen = set()
        for _ in range(3):
            await rig.until(made.alive)
            assert made.pid is not None
            seen.add(made.pid)
            os.kill(made.pid, signal.SIGKILL)
            await rig.until(lambda: not made.alive())
        assert len(seen) == 3  # the fourth would come after half a minute

    play(scene)


def test_a_port_in_use_is_one_clear_line(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError) as error:
                await rig.start(port)
        assert str(error.value) == (
            f"iSCSI cannot listen on 127.0.0.1 port {port}: Address already in use: stop who has "
            f"it (ss -ltnp 'sport = :{port}' names it), or change iscsi.port or iscsi.portals"
        )
        assert "\n" not in str(error.value)

    play(scene)


def test_a_python_that_cannot_run_it(tmp_path: Path) -> None:
    async def main() -> None:
        here = [Portal("127.0.0.1", 0)]
        made = Supervisor(tmp_path, here, lambda knock: WELCOME, lambda event: None, "/bin/false")
        with pytest.raises(ConfigError, match=r"did not start; see .*disk-0\.log"):
            await made.start()

    asyncio.run(main())


def test_a_state_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    async def main() -> None:
        deep = tmp_path / ("x" * 120)
        made = Supervisor(deep, [Portal("127.0.0.1", 0)], lambda knock: WELCOME, lambda event: None)
        with pytest.raises(ConfigError, match=r"choose a shorter \[site\] state"):
            await made.start()

    asyncio.run(main())


def test_a_log_that_has_grown_is_set_aside(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        rig.state.mkdir()
        (rig.state / "disk-0.log").write_bytes(b"x" * ((1 << 20) + 1))
        await rig.start()
        assert (rig.state / "disk-0.log").stat().st_size < 1 << 20
        assert (rig.state / "disk-0.log.1").stat().st_size > 1 << 20

    play(scene)


async def knock(port: int, initiator: str, target: str = "iqn.t", *, stay: bool = False) -> Any:
    """The status that a login of ``initiator`` is answered with; or (``stay``) its session."""
    text = f"InitiatorName={initiator}\0TargetName={target}\0SessionType=Normal\0".encode()
    head = bytearray(48)
    head[:8] = bytes((0x43, 0x87, 0, 0, 0)) + len(text).to_bytes(3, "big")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(bytes(head) + text + bytes(-len(text) % 4))
    answer = await asyncio.wait_for(reader.readexactly(48), 10)
    if stay:
        assert answer[36:38] == b"\0\0"
        return writer
    writer.close()
    await writer.wait_closed()
    return int.from_bytes(answer[36:38], "big")


def test_logins_are_asked_about_and_remembered(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        made = await rig.start()
        assert await knock(made.port, "iqn.a") == 0
        assert [row.initiator for row in rig.knocks] == ["iqn.a"]
        await rig.until(lambda: len(rig.events) == 2)
        assert [event.kind for event in rig.events] == ["login", "logout"]
        assert await knock(made.port, "iqn.trouble") == 0x0301  # our mistake: try again
        assert WELCOME.mac in await made.refresh()
        port = made.port
        await made.leave()
        assert await knock(port, "iqn.a") == 0
        assert await knock(port, "iqn.b") == 0x0301
        again = await rig.start(port)
        await again.forget(WELCOME.mac)
        await again.close(WELCOME.mac)
        await again.leave()
        assert await knock(port, "iqn.a") == 0x0301
        await rig.start(port)

    play(scene)


def owned_by(number: int, processes: int, count: int = 3) -> list[str]:
    """Targets that one of the processes serves."""
    names = (f"iqn.t:{n}" for n in range(1000))
    found = [name for name in names if owner(Knock("", name, ""), processes) == number]
    return found[:count]


def test_several_processes_at_one_port(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        made = await rig.start(processes=3)
        pids = [each.pid for each in made.processes]
        assert len({*pids}) == 3 and None not in pids and made.pid == pids[0]
        writers = []
        for number in range(3):
            for target in owned_by(number, 3, number + 1):
                for name in ("iqn.a", "iqn.b"):
                    writers.append(await knock(made.port, name, target, stay=True))
        await rig.until(lambda: len(rig.events) == 12)
        assert [each.sessions for each in made.processes] == [2, 4, 6]
        assert len(await made.refresh()) == 6
        for writer in writers:
            writer.close()
        await rig.until(lambda: not sum(each.sessions for each in made.processes))

    rig = play(scene)
    assert not [path for path in rig.state.iterdir() if path.suffix != ".log"]


def test_one_that_dies_leaves_the_others_alone(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        made = await rig.start(processes=3)
        before = [each.pid for each in made.processes]
        assert before[1] is not None
        os.kill(before[1], signal.SIGKILL)
        await rig.until(lambda: not made.alive())
        away = made.processes
        assert [each.pid for each in away] == [before[0], None, before[2]]
        # Its own client waits; the others do not, although it is still away.
        mine = asyncio.create_task(knock(made.port, "iqn.a", owned_by(1, 3)[0]))
        assert await knock(made.port, "iqn.a", owned_by(0, 3)[0]) == 0
        assert await mine == 0
        after = made.processes
        assert [each.pid for each in after][::2] == before[::2] and after[1].pid != before[1]
        assert [each.restarts for each in after] == [0, 1, 0] and made.restarts == 1

    play(scene)


@pytest.mark.parametrize("processes", [1, 2])
def test_who_connects_while_a_process_is_away_waits(play: Any, processes: int) -> None:
    """Nobody is refused, for the sockets are open all the time."""

    async def scene(rig: Rig) -> None:
        made = await rig.start(processes=processes)
        port = made.port
        for each in made.processes:
            assert each.pid is not None
            os.kill(each.pid, signal.SIGKILL)
        await rig.until(lambda: not any(each.pid for each in made.processes))
        assert await knock(port, "iqn.a") == 0

    play(scene)


def test_one_that_is_ended_by_somebody_else_hands_over(play: Any) -> None:
    """SIGTERM to one of several: whoever comes meanwhile is served by its successor."""

    async def scene(rig: Rig) -> None:
        made = await rig.start(processes=2)
        pid = made.processes[1].pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        while made.processes[1].restarts == 0:
            for number in (0, 1):
                assert await knock(made.port, "iqn.a", owned_by(number, 2)[0]) in (0, 0x0302)
        assert await knock(made.port, "iqn.a", owned_by(1, 2)[0]) == 0

    play(scene)


def test_several_are_adopted_and_can_be_restarted_by_who_did_not_start_them(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        first = await rig.start(processes=2)
        before, port = [each.pid for each in first.processes], first.port
        staying = await knock(port, "iqn.s", owned_by(0, 2)[0], stay=True)
        assert await knock(port, "iqn.a", owned_by(0, 2)[0]) == 0
        await first.leave()
        assert [await knock(port, "iqn.a", owned_by(n, 2)[0]) for n in (0, 1)] == [0, 0x0301]
        second = await rig.start(port, processes=2)
        assert [each.pid for each in second.processes] == before
        assert [each.sessions for each in second.processes] == [1, 0]
        assert before[1] is not None
        os.kill(before[1], signal.SIGKILL)
        await rig.until(lambda: second.processes[1].restarts)
        assert second.processes[0].pid == before[0]
        assert await knock(port, "iqn.a", owned_by(1, 2)[0]) == 0
        assert await second.refresh()
        staying.close()

    play(scene)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 2), (2, 1)])
def test_another_number_of_processes_replaces_them_all(play: Any, before: int, after: int) -> None:
    async def scene(rig: Rig) -> None:
        first = await rig.start(processes=before)
        pids, port = [each.pid for each in first.processes], first.port
        await first.leave()
        second = await rig.start(port, processes=after)
        assert len(second.processes) == after and second.alive()
        assert not [pid for pid in pids if pid and alive(pid)]
        assert await knock(port, "iqn.a") == 0

    play(scene)


def test_one_that_does_not_start_takes_those_that_did_with_it(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(rig: Rig) -> None:
        (rig.state / "disk-1.door").mkdir(parents=True)
        made = rig.make(processes=2)
        with pytest.raises(ConfigError, match=r"disk-1\.door: no socket can be made there"):
            await made.start()
        assert not made.alive() and not listens(made.port)
        assert not (rig.state / "disk-0.sock").exists()

    play(scene)


def test_running_disks_outlive_a_start_that_fails(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        first = await rig.start(processes=2)
        port, pids = first.port, [each.pid for each in first.processes]
        await first.leave()
        assert pids[1] is not None
        os.kill(pids[1], signal.SIGKILL)
        gone = pids[1]
        await rig.until(lambda: not alive(gone))
        (rig.state / "disk-1.door").unlink()
        (rig.state / "disk-1.door").mkdir()
        with pytest.raises(ConfigError):
            await rig.start(port, processes=2)
        assert pids[0] is not None and alive(pids[0]) and listens(port)
        (rig.state / "disk-1.door").rmdir()
        second = await rig.start(port, processes=2)
        assert second.pid == pids[0]

    play(scene)


def test_sessions_are_limited_in_all(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several, "SHARE_INTERVAL", 0.01)

    async def scene(rig: Rig) -> None:
        made = await rig.start(processes=2, sessions=3)
        staying = [
            await knock(made.port, f"iqn.{n}", target, stay=True)
            for n, target in enumerate(owned_by(0, 2))
        ]
        mine, other = owned_by(0, 2)[0], owned_by(1, 2)[0]
        async with asyncio.timeout(10):
            while await knock(made.port, "iqn.b", other) != 0x0302:
                await asyncio.sleep(0.01)
        assert await knock(made.port, "iqn.b", mine) == 0x0302
        staying.pop().close()
        async with asyncio.timeout(10):
            while await knock(made.port, "iqn.b", other):
                await asyncio.sleep(0.01)
        made.limit(SessionLimits(2, 16))
        async with asyncio.timeout(10):
            while await knock(made.port, "iqn.b", other) != 0x0302:
                await asyncio.sleep(0.01)
        for writer in staying:
            writer.close()

    play(scene)


def test_what_is_wanted_of_a_client_is_wanted_of_its_owner(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        made = await rig.start(processes=2)
        for number in (0, 1):
            target = owned_by(number, 2)[0]
            mac = target.rpartition(":")[2]
            staying = await knock(made.port, "iqn.a", target, stay=True)
            await made.forget(mac)
            await rig.until(lambda: rig.events and rig.events[-1].kind == "logout")
            assert rig.events[-1].mac == mac
            staying.close()
            assert not await made.resize(mac, "/o.qcow2", 1 << 20)

    play(scene)

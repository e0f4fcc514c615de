"""The disk process's end of the line, with a control process played by the test."""

import asyncio
import contextlib
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from netboot.disks import server, wire
from netboot.disks.server import Channel
from netboot.disks.wire import DiskEvent, Kind
from netboot.model import Admission, Counters, Knock, SessionLimits

KNOCK = Knock("iqn.a", "iqn.t", "10.0.0.9")
WELCOME = Admission(0, "52:54:00:12:34:56", "iqn.t")


class Control:
    """A control process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def hear(self) -> Any:
        return wire.decode(await asyncio.wait_for(self.reader.readline(), 10))

    async def hear_a(self, kind: type[Any]) -> Any:
        for _ in range(100):
            message = await self.hear()
            if type(message) is kind:
                return message
        raise AssertionError(kind)

    def say(self, *messages: Any) -> None:
        for message in messages:
            self.writer.write(message if isinstance(message, bytes) else wire.encode(message))

    async def leave(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Rig:
    """A channel and what it asked of its process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = [Counters("m", reads=1)]
        self.forgotten: list[str] = []
        self.stopped = 0
        self.controls: list[Control] = []
        self.polite: list[bool] = []
        self.resized: list[tuple[str, str, int]] = []
        self.limits: list[SessionLimits] = []
        self.channel = Channel(
            *(self.hello, lambda: list(self.rows), self.forget),
            *(self.limits.append, self.resize, self.stop),
        )

    def hello(self) -> wire.Hello:
        return wire.Hello(42, wire.PROTOCOL, "127.0.0.1", 3260)

    async def forget(self, mac: str, politely: bool) -> None:
        self.polite.append(politely)
        if mac == "trouble":
            raise OSError("no")
        self.forgotten.append(mac)

    async def resize(self, mac: str, path: str, size: int) -> bool:
        if mac == "trouble":
            raise OSError("no room")
        self.resized.append((mac, path, size))
        return mac == WELCOME.mac

    def stop(self) -> None:
        self.stopped += 1

    async def control(self) -> Control:
        control = Control(*await asyncio.open_unix_connection(str(self.path)))
        self.controls.append(control)
        assert await control.hear() == self.hello()
        return control

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.005)


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Rig], Awaitable[None]]], Rig]:
    def run(scene: Callable[[Rig], Awaitable[None]]) -> Rig:
        async def main() -> Rig:
            rig = Rig(tmp_path / "disk-0.sock")
            await rig.channel.start(rig.path)
            try:
                await scene(rig)
            finally:
                for control in rig.controls:
                    await control.leave()
                await rig.channel.close()
                await asyncio.sleep(0)
            return rig

        return asyncio.run(main())

    return run


def test_only_the_owner_may_open_the_socket_and_it_goes_with_us(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600

    assert not play(scene).path.exists()


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "disk-0.sock"
        path.write_text("left behind")
        rig = Rig(path)
        await rig.channel.start(path)
        await (await rig.control()).leave()
        await rig.channel.close()

    asyncio.run(main())


def test_a_login_is_asked_about(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        control = await rig.control()
        first = asyncio.create_task(rig.channel.ask(KNOCK))
        second = asyncio.create_task(rig.channel.ask(Knock("iqn.b", "iqn.t", "10.0.0.8")))
        one, two = await control.hear_a(wire.Asked), await control.hear_a(wire.Asked)
        assert one.knock == KNOCK and one.number != two.number
        control.say(
            wire.Admitted(two.number, Admission(0x0202)),
            wire.Admitted(999, WELCOME),  # an answer to nothing
            wire.Admitted(one.number, WELCOME),
        )
        assert (await first, (await second).status) == (WELCOME, 0x0202)

    play(scene)


def test_without_a_control_process_memory_answers(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_TIMEOUT", 0.05)

    async def scene(rig: Rig) -> None:
        assert (await rig.channel.ask(KNOCK)).status == 0x0301
        monkeypatch.setattr(server, "ANSWER_TIMEOUT", 30.0)
        control = await rig.control()
        asking = asyncio.create_task(rig.channel.ask(KNOCK))
        control.say(wire.Admitted((await control.hear_a(wire.Asked)).number, WELCOME))
        await asking
        await control.leave()
        await rig.until(lambda: not rig.channel.connected)
        assert await rig.channel.ask(KNOCK) == WELCOME

    play(scene)


def test_who_comes_before_the_first_control_process_waits_for_it(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        asking = asyncio.create_task(rig.channel.ask(KNOCK))
        await asyncio.sleep(0.05)
        assert not asking.done()
        control = await rig.control()
        control.say(wire.Admitted((await control.hear_a(wire.Asked)).number, WELCOME))
        assert await asking == WELCOME
        await control.leave()
        await rig.until(lambda: not rig.channel.connected)
        stranger = Knock("iqn.b", "iqn.t", "10.0.0.8")
        async with asyncio.timeout(2):  # one that was there, and is not, is not waited for
            assert (await rig.channel.ask(stranger)).status == 0x0301

    play(scene)


def test_the_sockets_go_along_with_the_first_line(tmp_path: Path) -> None:
    async def main() -> None:
        rig = Rig(tmp_path / "disk-0.sock")
        with socket.create_server(("127.0.0.1", 0)) as door:
            rig.channel._handles = lambda: [door.fileno()]
            await rig.channel.start(rig.path)
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(rig.path))
                data, (handle,), _, _ = await asyncio.to_thread(socket.recv_fds, line, 1 << 16, 9)
                with socket.socket(fileno=handle) as same:
                    assert same.getsockname() == door.getsockname()
                assert wire.decode(data) == rig.hello()
            await rig.channel.close()
            await asyncio.sleep(0)

    asyncio.run(main())


def test_a_control_process_that_dies_over_a_question(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        control = await rig.control()
        asking = asyncio.create_task(rig.channel.ask(KNOCK))
        await control.hear_a(wire.Asked)
        await control.leave()
        assert (await asking).status == 0x0301

    play(scene)


def test_a_control_process_that_does_not_answer(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWER_TIMEOUT", 0.05)

    async def scene(rig: Rig) -> None:
        await rig.control()
        assert (await rig.channel.ask(KNOCK)).status == 0x0301

    play(scene)


def test_the_newest_control_process_counts(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        old, new = await rig.control(), await rig.control()
        assert await old.reader.read() == b""
        asking = asyncio.create_task(rig.channel.ask(KNOCK))
        new.say(wire.Admitted((await new.hear_a(wire.Asked)).number, WELCOME))
        assert await asking == WELCOME
        assert rig.channel.connected

    play(scene)


def test_events_and_log_lines(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        event = DiskEvent("m", Kind.LOGIN, 1.5)
        rig.channel.tell(event)  # nobody listens: lost
        control = await rig.control()
        rig.channel.tell(event)
        rig.channel.log(40, "netboot", "trouble")
        assert await control.hear() == wire.Happened(event)
        assert await control.hear() == wire.Logged(40, "netboot", "trouble")

    play(scene)


def test_counters_on_request_and_when_they_change(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PUSH_INTERVAL", 0.01)

    async def scene(rig: Rig) -> None:
        control = await rig.control()
        assert await control.hear() == wire.Counted((Counters("m", reads=1),), more=True)
        rig.rows = [Counters("m", reads=1), Counters("n", reads=5)]
        assert await control.hear() == wire.Counted((Counters("n", reads=5),), more=True)
        control.say(wire.Count())
        assert await control.hear() == wire.Counted(tuple(rig.rows))
        rig.rows = []
        control.say(wire.Count())
        assert await control.hear() == wire.Counted()

    play(scene)


@pytest.mark.parametrize("asked", [False, True])
def test_counters_of_many_are_told_in_lines_of_which_none_is_too_long(
    play: Any, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(server, "PUSH_INTERVAL", 60.0 if asked else 0.01)

    async def scene(rig: Rig) -> None:
        rig.rows = [Counters(f"{n:017d}", *([1 << 60] * 7)) for n in range(12_000)]
        control = await rig.control()
        if asked:
            control.say(wire.Count())
        heard: list[Counters] = []
        while len(heard) < len(rig.rows):
            told = await control.hear()
            assert isinstance(told, wire.Counted)
            heard += told.counters
            assert told.more is (not asked or len(heard) < len(rig.rows))
        assert heard == rig.rows

    play(scene)


def test_forgetting(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        control = await rig.control()
        asking = asyncio.create_task(rig.channel.ask(KNOCK))
        control.say(wire.Admitted((await control.hear_a(wire.Asked)).number, WELCOME))
        await asking
        control.say(wire.Forget(1, WELCOME.mac, memory=False), wire.Forget(2, "trouble"))
        answers = {(await control.hear_a(wire.Forgotten)).number for _ in range(2)}
        assert answers == {1, 2} and rig.forgotten == [WELCOME.mac]
        assert rig.polite == [True, False]  # who may come back is asked to log out before
        assert rig.channel._memory.answer(KNOCK) == WELCOME
        control.say(wire.Forget(3, WELCOME.mac))
        await control.hear_a(wire.Forgotten)
        assert rig.channel._memory.answer(KNOCK).status == 0x0301

    play(scene)


def test_a_disk_that_grows(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        control = await rig.control()
        for number, mac in enumerate((WELCOME.mac, "nobody", "trouble")):
            control.say(wire.Resize(number, mac, "/o.qcow2", 8192))
            answer = await control.hear_a(wire.Resized)
            assert (
                answer
                == [
                    wire.Resized(0),
                    wire.Resized(1, open=False),
                    wire.Resized(2, error="no room"),
                ][number]
            )
        assert rig.resized == [(WELCOME.mac, "/o.qcow2", 8192), ("nobody", "/o.qcow2", 8192)]

    play(scene)


def test_limits(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        (await rig.control()).say(wire.Limit(SessionLimits(7, 2)))
        await rig.until(lambda: rig.limits == [SessionLimits(7, 2)])

    play(scene)


def test_stop(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        (await rig.control()).say(wire.Stop())
        await rig.until(lambda: rig.stopped == 1)

    play(scene)


def test_lines_that_make_no_sense_are_passed_over(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        control = await rig.control()
        control.say(b"rubbish\n", b'{"type":"new"}\n', b'{"type":"forget"}\n', wire.Stop())
        await rig.until(lambda: rig.stopped == 1)

    play(scene)


def test_a_line_without_end_hangs_up(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(rig: Rig) -> None:
        control = await rig.control()
        control.say(b"x" * (wire.LINE_LIMIT * 2 + 10))
        await rig.until(lambda: not rig.channel.connected)

    play(scene)


def test_a_control_process_that_does_not_read_is_given_up(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNREAD_LIMIT", 1 << 16)

    async def scene(rig: Rig) -> None:
        await rig.control()
        for _ in range(200):
            rig.channel.log(40, "netboot", "x" * 10_000)
        assert not rig.channel.connected
        assert (await rig.channel.ask(KNOCK)).status == 0x0301

    play(scene)

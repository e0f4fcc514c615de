"""The line to one disk process, which the test plays, or which is a few lines of Python."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from netboot.disks import keeper as module
from netboot.disks import wire
from netboot.disks.keeper import Keeper
from netboot.errors import ConfigError, NetbootError
from netboot.model import DiskProcess, Portal, SessionLimits

HERE = Portal("127.0.0.1", 3260)
HELLO = wire.Hello(os.getpid(), wire.PROTOCOL, "127.0.0.1", 3260, sessions=5, processes=2)


class Played:
    """A disk process that says what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: bytes | None = wire.encode(HELLO)
        self.handles: list[int] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.heard: list[Any] = []
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self.serve, self.path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        if self.first is not None:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
                socket.send_fds(sock, [self.first], self.handles)
        while line := await reader.readline():
            self.heard.append(wire.decode(line))
        writer.close()

    def say(self, data: bytes) -> None:
        self.writers[-1].write(data)

    async def stop(self) -> None:
        for writer in self.writers:
            writer.close()
        if self.server is not None:
            self.server.close()
        await asyncio.sleep(0.01)


class Rig:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.heard: list[tuple[int, Any]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.played = Played(state / "disk-0.sock")
        self.keepers: list[Keeper] = []

    def keeper(self, number: int = 0, python: str = sys.executable) -> Keeper:
        made = Keeper(
            self.state,
            number,
            2,
            lambda: [self.listener.fileno()],
            lambda keeper, message: self.heard.append((keeper.number, message)),
            lambda keeper: [wire.Limit(SessionLimits(keeper.sessions, 1))],
            python,
        )
        made.portals = (HERE,)
        self.keepers.append(made)
        return made

    def program(self, text: str) -> str:
        """A stand-in for Python that runs this instead of a disk process."""
        path = self.state / "program"
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
        return str(path)

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.005)


Scene = Callable[[Rig], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        async def main() -> None:
            rig = Rig(tmp_path)
            try:
                await scene(rig)
            finally:
                await rig.played.stop()
                for keeper in rig.keepers:
                    await (keeper.stop() if keeper.started else keeper.leave())
                rig.listener.close()

        before = len(os.listdir("/proc/self/fd"))
        asyncio.run(main())
        assert len(os.listdir("/proc/self/fd")) == before, "something was left open"

    return run


#: A disk process in a few lines: says hello, and whatever a test adds.
PROCESS = """
import json, os, socket, sys
path = sys.argv[sys.argv.index("--socket") + 1]
door = socket.socket(socket.AF_UNIX)
door.bind(path)
door.listen()
line, _ = door.accept()
hello = {"type": "hello", "pid": os.getpid(), "protocol": 1, "address": "127.0.0.1", "port": 3260}
hello |= {"processes": 2} | {}
line.sendall(json.dumps(hello).encode() + b"\\n")
"""
#: Until we hang up, or tell it to stop.
LISTENS = """
came = b""
while b'"stop"' not in came and (more := line.recv(999)):
    came += more
"""


def test_nobody_is_there(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        keeper = rig.keeper(1)
        assert await keeper.adopt() == []
        assert keeper.status == DiskProcess(1) and not keeper.alive() and not keeper.started
        assert await keeper.request(wire.Forgotten) is None
        keeper.send(wire.Stop())
        await keeper.stop()

    play(scene)


def test_one_that_fits_is_adopted_with_its_sockets(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        await rig.played.start()
        rig.played.handles = [rig.listener.fileno()] * 2
        keeper = rig.keeper()
        handles = await keeper.adopt()
        assert len(handles) == 2 and keeper.alive()
        assert keeper.listening == (HERE,)
        with socket.socket(fileno=handles[0]) as same, socket.socket(fileno=handles[1]):
            assert same.getsockname() == rig.listener.getsockname()
        assert keeper.status == DiskProcess(0, os.getpid(), 5)
        await rig.until(lambda: rig.played.heard)
        assert rig.played.heard == [wire.Limit(SessionLimits(5, 1))]

    play(scene)


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": wire.PROTOCOL + 1},
        {"number": 1},
        {"processes": 3},
        {"port": 3261},
    ],
)
def test_one_that_does_not_fit_is_ended(play: Any, other: dict[str, int]) -> None:
    async def scene(rig: Rig) -> None:
        keeper = rig.keeper()
        hello = PROCESS.replace("| {}", f"| {other}")
        program = rig.program(hello + LISTENS + "sys.exit(b'stop' not in came)")
        process = await asyncio.create_subprocess_exec(program, "--socket", str(keeper.path))
        await rig.until(keeper.path.exists)
        while keeper.path.exists() and process.returncode is None:  # it may not listen yet
            assert await keeper.adopt() == [] and not keeper.alive()
            await asyncio.sleep(0.01)
        assert await process.wait() == 0

    play(scene)


@pytest.mark.parametrize(
    "first",
    [b"rubbish\n", b'{"type":"stop"}\n', b'{"type":"new"}\n', b"x" * (wire.LINE_LIMIT + 9), None],
)
def test_what_is_no_disk_process(
    play: Any, monkeypatch: pytest.MonkeyPatch, first: bytes | None
) -> None:
    monkeypatch.setattr(module, "START_TIMEOUT", 0.2 if first is None else 20)

    async def scene(rig: Rig) -> None:
        await rig.played.start()
        if first is not None and len(first) > 1000:
            rig.played.first = first[:1000]
            sender = asyncio.create_task(flood(rig, first[1000:]))
        else:
            rig.played.first, sender = first, None
            rig.played.handles = [rig.listener.fileno()]
        assert await rig.keeper().adopt() == []
        if sender is not None:
            sender.cancel()

    async def flood(rig: Rig, data: bytes) -> None:
        await rig.until(lambda: rig.played.writers)
        rig.played.say(data)

    play(scene)


def test_the_first_line_in_pieces_and_what_is_behind_it(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        line = wire.encode(HELLO)
        rig.played.first = line[:20]
        rig.played.handles = [rig.listener.fileno()]
        await rig.played.start()
        keeper = rig.keeper()
        adopting = asyncio.create_task(keeper.adopt())
        await rig.until(lambda: rig.played.writers)
        await asyncio.sleep(0.02)
        rig.played.say(line[20:] + wire.encode(wire.Logged(40, "n", "a")) + b'{"type":"log')
        (handle,) = await adopting
        os.close(handle)
        keeper.keep()
        rig.played.say(b'ged","level":20,"name":"n","text":"b"}\n')
        await rig.until(lambda: len(rig.heard) == 2)
        assert [message.text for _, message in rig.heard] == ["a", "b"]

    play(scene)


def test_requests_and_what_is_no_answer(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        await rig.played.start()
        keeper = rig.keeper()
        await keeper.adopt()
        keeper.keep()
        first = asyncio.create_task(keeper.request(lambda n: wire.Forget(n, "m")))
        second = asyncio.create_task(keeper.request(lambda n: wire.Resize(n, "m", "/o", 1)))
        await rig.until(lambda: len(rig.played.heard) == 3)
        _, forget, resize = rig.played.heard
        rig.played.say(b'rubbish\n{"type":"new"}\n' + wire.encode(wire.Forgotten(99)))
        rig.played.say(wire.encode(wire.Resized(resize.number, False)))
        rig.played.say(wire.encode(wire.Forgotten(forget.number)))
        assert await first == wire.Forgotten(forget.number)
        assert await second == wire.Resized(resize.number, False)
        third = asyncio.create_task(keeper.request(lambda n: wire.Forget(n, "m")))
        await rig.until(lambda: len(rig.played.heard) == 4)
        assert rig.played.server is not None
        rig.played.server.close()
        rig.played.path.unlink()
        rig.played.writers[-1].close()
        assert await third is None, "its sessions ended with it"
        assert not rig.heard

    play(scene)


def test_who_does_not_answer(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT", 0.05)

    async def scene(rig: Rig) -> None:
        await rig.played.start()
        keeper = rig.keeper()
        await keeper.adopt()
        with pytest.raises(NetbootError, match="does not answer; see its log"):
            await keeper.request(lambda n: wire.Forget(n, "m"))

    play(scene)


def test_a_process_inherits_the_sockets(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        program = rig.program(
            "import sys\n"
            "options = dict(word.split('=') for word in sys.argv if '=' in word)\n"
            "from pathlib import Path\n"
            "from socket import socket\n"
            "sys.argv += [str(socket(fileno=int(options['--sockets'])).getsockname()[1])]\n"
            "(Path(sys.argv[4]).parent / 'words').write_text(repr(sys.argv))\n" + PROCESS + LISTENS
        )
        keeper = rig.keeper(1, program)
        await keeper.launch()
        assert keeper.alive() and keeper.started and keeper.pid
        words = eval((rig.state / "words").read_text())
        assert words[1:5] == ["-m", "netboot.disk_process", "--socket", str(keeper.path)]
        assert words[5] == f"--listen={HERE}" and words[7:9] == ["--number=1", "--processes=2"]
        assert int(words[9]) == rig.listener.getsockname()[1]

    play(scene)


def test_its_last_words_say_why_it_did_not_start(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        program = rig.program("import sys; sys.exit('x\\nnetboot: no room at the inn')")
        with pytest.raises(ConfigError, match=r"^no room at the inn$"):
            await rig.keeper(0, program).launch()
        with pytest.raises(ConfigError, match=r"did not start; see .*disk-0\.log"):
            await rig.keeper(0, "/bin/false").launch()

    play(scene)


def test_one_that_does_not_begin_in_time_is_ended(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_TIMEOUT", 0.3)

    async def scene(rig: Rig) -> None:
        program = rig.program("import time; print('I dream', flush=True); time.sleep(99)")
        with pytest.raises(ConfigError, match="I dream"):
            await rig.keeper(0, program).launch()

    play(scene)


def test_one_that_dies_is_replaced_and_one_that_cannot_be_is_tried_again(
    play: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "BACKOFF", (0.0, 0.01, 0.01))

    async def scene(rig: Rig) -> None:
        well = PROCESS + LISTENS
        program = rig.program(well)
        keeper = rig.keeper(0, program)
        await keeper.launch()
        keeper.keep()
        first = keeper.pid
        assert first is not None
        rig.program("import sys; sys.exit('no luck')")
        os.kill(first, signal.SIGKILL)
        await rig.until(lambda: caplog.text.count("cannot be restarted: no luck") >= 3)
        rig.program(well)
        await rig.until(keeper.alive)
        assert keeper.pid != first and keeper.restarts == 1
        assert f"the disk process {first} has died" in caplog.text

    play(scene)


def test_one_that_does_not_end_is_killed(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(rig: Rig) -> None:
        program = rig.program(PROCESS + "import time; time.sleep(99)")
        keeper = rig.keeper(0, program)
        await keeper.launch()
        pid = keeper.pid
        assert pid is not None
        monkeypatch.setattr(module, "STOP_TIMEOUT", 0.1)
        await keeper.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    play(scene)


def test_one_that_is_left_lives_on(play: Any) -> None:
    async def scene(rig: Rig) -> None:
        program = rig.program(PROCESS + LISTENS)
        keeper = rig.keeper(0, program)
        await keeper.launch()
        keeper.keep()
        pid = keeper.pid
        assert pid is not None
        await keeper.leave()
        os.kill(pid, 0)
        assert not keeper.alive() and not keeper.started
        await rig.until(lambda: os.waitpid(pid, os.WNOHANG)[0])  # it saw us hang up

    play(scene)

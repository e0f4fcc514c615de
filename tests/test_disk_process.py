"""The disk process as a whole: started, used, killed, left alone."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netboot import disk_process
from netboot.disks import wire
from netboot.disks.engine import owner
from netboot.model import Admission, DiskSpec, Knock, Lun, Portal

MAC = "52:54:00:12:34:56"
SIZE = 1 << 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:3260", Portal("127.0.0.1", 3260, 1)),
        ("[::1]:0,7", Portal("::1", 0, 7)),
    ],
)
def test_portals(text: str, expected: Portal) -> None:
    assert disk_process.portal(text) == expected


@pytest.mark.parametrize("text", ["", "3260", ":3260", "a:b", "127.0.0.1:65536", "[::1]:1,0"])
def test_what_is_no_portal(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        disk_process.portal(text)


def test_who_may_be_asked_to_log_out() -> None:
    """iPXE and EDK2 drop the session over a message that they did not ask for."""
    assert disk_process.is_os("00023d000001") and disk_process.is_os("400001370000")
    for isid in ("400027231234", "005254001234", "800000000000", ""):
        assert not disk_process.is_os(isid)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts disk processes with ``tmp_path/sock``; none outlives the test."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, listen: str = "127.0.0.1:0") -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "netboot.disk_process"),
                    *("--socket", str(tmp_path / "sock"), "--listen", listen, *arguments),
                ],
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate(timeout=10)


class Line:
    """A control process's end of the line, blocking."""

    def __init__(self, path: Path, port: int = 0) -> None:
        deadline = time.monotonic() + 20
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(str(path))
                break
            except OSError:
                self.sock.close()
                assert time.monotonic() < deadline, "nobody listens"
                time.sleep(0.01)
        self.sock.settimeout(10)
        self.file = self.sock.makefile("rb")
        hello = self.hear(wire.Hello)
        self.port: int = port or hello.port

    def hear(self, kind: type[Any]) -> Any:
        for _ in range(100):
            message = wire.decode(self.file.readline())
            if type(message) is kind:
                return message
        raise AssertionError(kind)

    def say(self, message: Any) -> None:
        self.sock.sendall(wire.encode(message))

    def close(self) -> None:
        self.file.close()
        self.sock.close()


class Initiator:
    """Just enough of one: logs in, writes and reads one block."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.cmd_sn = 0

    def pdu(self) -> tuple[bytes, bytes]:
        head = self._exactly(48)
        length = int.from_bytes(head[5:8], "big")
        return head, self._exactly(length + -length % 4)[:length]

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            assert more, "the connection was closed"
            data += more
        return data

    def knock(self) -> None:
        text = b"InitiatorName=iqn.a\0TargetName=iqn.t\0"
        head = bytearray(48)
        head[:8] = bytes((0x43, 0x87, 0, 0, 0)) + len(text).to_bytes(3, "big")
        head[8:14] = b"\x00\x02\x3d\0\0\1"
        self.sock.sendall(bytes(head) + text + bytes(-len(text) % 4))

    def command(self, cdb: bytes, flags: int = 0x80, data: bytes = b"", edtl: int = 0) -> Any:
        head = bytearray(48)
        head[:8] = bytes((0x01, flags, 0, 0, 0)) + len(data).to_bytes(3, "big")
        head[16:20] = head[24:28] = self.cmd_sn.to_bytes(4, "big")
        head[20:24] = (len(data) or edtl).to_bytes(4, "big")
        head[32 : 32 + len(cdb)] = cdb
        self.sock.sendall(bytes(head) + data)
        self.cmd_sn += 1
        return self.pdu()

    def write(self, lba: int, data: bytes) -> int:
        cdb = b"\x2a\0" + lba.to_bytes(4, "big") + b"\0\0\x01\0"
        return int(self.command(cdb, 0xA1, data)[0][3])

    def read(self, lba: int) -> bytes:
        cdb = b"\x28\0" + lba.to_bytes(4, "big") + b"\0\0\x01\0"
        return bytes(self.command(cdb, 0xC1, edtl=512)[1])

    def flush(self) -> int:
        return int(self.command(b"\x35".ljust(10, b"\0"))[0][3])


def admission(folder: Path, generation: int = 0) -> Admission:
    golden = folder / "golden.raw"
    if not golden.exists():
        golden.write_bytes(b"G" * SIZE)
    spec = DiskSpec(str(golden), SIZE, "sha256:golden", str(folder / "client.qcow2"), generation)
    return Admission(0, MAC, "iqn.t", (Lun(0, spec, "525400123456"),))


def enter(line: Line, folder: Path, generation: int = 0) -> Initiator:
    initiator = Initiator(line.port)
    initiator.knock()
    asked = line.hear(wire.Asked)
    line.say(wire.Admitted(asked.number, admission(folder, generation)))
    assert initiator.pdu()[0][36:38] == b"\0\0"
    initiator.command(bytes(6))  # takes the 29/00
    return initiator


def test_a_machine_at_its_disk(start: Start, tmp_path: Path) -> None:
    process = start()
    line = Line(tmp_path / "sock")
    initiator = enter(line, tmp_path)
    assert line.hear(wire.Happened).event.kind == "login"
    assert initiator.read(5) == b"G" * 512
    event = line.hear(wire.Happened).event
    assert (event.kind, event.mac, event.address) == ("reading", MAC, "127.0.0.1")
    assert abs(event.at - time.time()) < 60
    assert initiator.write(5, b"w" * 512) == 0 and initiator.flush() == 0
    assert initiator.read(5) == b"w" * 512
    line.say(wire.Count())
    (counters,) = line.hear(wire.Counted).counters
    assert (counters.mac, counters.reads, counters.write_bytes) == (MAC, 2, 512)
    initiator.sock.close()
    assert line.hear(wire.Happened).event.kind == "logout"
    again = enter(line, tmp_path)
    assert again.read(5) == b"w" * 512  # the same overlay
    again.sock.close()
    line.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert (tmp_path / "golden.raw").read_bytes() == b"G" * SIZE
    assert not (tmp_path / "sock").exists()


def test_a_new_generation_begins_afresh(start: Start, tmp_path: Path) -> None:
    start()
    line = Line(tmp_path / "sock")
    old = enter(line, tmp_path, generation=1)
    old.write(5, b"w" * 512)
    new = enter(line, tmp_path, generation=2)
    assert new.read(5) == b"G" * 512
    assert old.sock.recv(1) == b""
    new.sock.close()
    old.sock.close()
    line.close()


def test_a_disk_grows_under_a_machine(start: Start, tmp_path: Path) -> None:
    start()
    line = Line(tmp_path / "sock")
    initiator = enter(line, tmp_path)
    assert initiator.write(5, b"w" * 512) == 0
    path = admission(tmp_path).luns[0].disk.overlay
    assert path is not None
    line.say(wire.Resize(7, MAC, path, 3 * SIZE))
    assert line.hear(wire.Resized) == wire.Resized(7)
    head, sense = initiator.command(bytes(6))
    assert (head[3], sense[2 + 2] & 0x0F, sense[2 + 12 : 2 + 14]) == (2, 6, b"\x2a\x09")
    capacity = initiator.command(b"\x25".ljust(10, b"\0"), 0xC1, edtl=8)[1]
    assert capacity == (3 * SIZE // 512 - 1).to_bytes(4, "big") + b"\0\0\2\0"
    assert initiator.read(SIZE // 512 - 1) == b"G" * 512
    assert initiator.read(3 * SIZE // 512 - 1) == bytes(512)
    assert initiator.write(3 * SIZE // 512 - 1, b"e" * 512) == 0
    line.say(wire.Resize(8, MAC, path, SIZE))
    assert "never becomes smaller" in line.hear(wire.Resized).error
    line.say(wire.Resize(9, MAC, "/another.qcow2", SIZE))
    assert line.hear(wire.Resized) == wire.Resized(9, open=False)
    again = enter(line, tmp_path)  # the size that it is admitted with is that of a fresh one
    assert again.read(5) == b"w" * 512
    assert again.read(3 * SIZE // 512 - 1) == b"e" * 512
    for each in (again, initiator):
        each.sock.close()
    line.close()


def test_a_kill_while_a_disk_grows_loses_nothing(start: Start, tmp_path: Path) -> None:
    path = admission(tmp_path).luns[0].disk.overlay
    assert path is not None
    size = asked_for = SIZE
    for round_ in range(5):
        process = start()
        line = Line(tmp_path / "sock")
        initiator = enter(line, tmp_path)
        blocks = int.from_bytes(
            initiator.command(b"\x25".ljust(10, b"\0"), 0xC1, edtl=8)[1][:4], "big"
        )
        assert (blocks + 1) * 512 in (size, asked_for)
        size = (blocks + 1) * 512
        for lba in range(20 * round_):
            assert initiator.read(lba * 7)[:1] == bytes([lba]), "a write is lost"
        for lba in range(20 * round_, 20 * round_ + 20):
            assert initiator.write(lba * 7, bytes([lba]) * 512) == 0  # nobody flushes
        asked_for = size + (round_ + 1) * SIZE
        line.say(wire.Resize(round_, MAC, path, asked_for))
        time.sleep(0.002 * round_)  # before it, within it, or after it
        process.kill()
        process.wait(10)
        line.close()
        initiator.sock.close()
        (tmp_path / "sock").unlink()


def test_what_was_acknowledged_survives_a_kill(start: Start, tmp_path: Path) -> None:
    first = start()
    line = Line(tmp_path / "sock")
    initiator = enter(line, tmp_path)
    for lba in range(20):
        assert initiator.write(lba * 7, bytes([lba]) * 512) == 0
    first.kill()
    first.wait(10)
    line.close()
    initiator.sock.close()
    (tmp_path / "sock").unlink()
    start()
    line = Line(tmp_path / "sock")
    initiator = enter(line, tmp_path)
    assert [initiator.read(lba * 7)[:1] for lba in range(20)] == [bytes([n]) for n in range(20)]
    initiator.sock.close()
    line.close()


def test_a_golden_image_that_is_missing_is_told_and_the_process_lives(
    start: Start, tmp_path: Path
) -> None:
    start()
    line = Line(tmp_path / "sock")
    spec = DiskSpec(str(tmp_path / "nowhere.raw"), SIZE, "sha256:x")
    initiator = Initiator(line.port)
    initiator.knock()
    asked = line.hear(wire.Asked)
    line.say(wire.Admitted(asked.number, Admission(0, MAC, "iqn.t", (Lun(0, spec, "s"),))))
    assert initiator.pdu()[0][36:38] == b"\x03\x01"
    event = line.hear(wire.Happened).event
    assert event.kind == "error" and "nowhere.raw" in event.detail
    enter(line, tmp_path).sock.close()
    initiator.sock.close()
    line.close()


def test_nobody_needs_it(start: Start, tmp_path: Path) -> None:
    process = start("--orphan-timeout", "0.2")
    assert process.wait(20) == 0


def test_a_session_keeps_it_alive(start: Start, tmp_path: Path) -> None:
    process = start("--orphan-timeout", "0.4")
    line = Line(tmp_path / "sock")
    initiator = enter(line, tmp_path)
    line.close()
    time.sleep(1.0)
    assert process.poll() is None
    assert initiator.read(5) == b"G" * 512
    initiator.sock.close()
    assert process.wait(20) == 0


def test_sockets_that_it_is_given(tmp_path: Path) -> None:
    """It accepts there, and gives them on to whoever asks how it is."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port, path = door.getsockname()[1], tmp_path / "disk-1.sock"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "netboot.disk_process", "--socket", str(path)),
                *("--listen", f"127.0.0.1:{port},4", f"--sockets={door.fileno()}"),
                *("--number=1", "--processes=2"),
            ],
            pass_fds=[door.fileno()],
        )
    try:
        line = Line(path)
        line.close()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            data, (handle,), _, _ = socket.recv_fds(sock, 1 << 16, 9)
            with socket.socket(fileno=handle) as same:
                assert same.getsockname() == ("127.0.0.1", port)
            hello = wire.decode(data.splitlines()[0])
            assert isinstance(hello, wire.Hello)
            assert (hello.pid, hello.number, hello.processes) == (process.pid, 1, 2)
            assert hello.listening == (Portal("127.0.0.1", port, 4),)
        assert (tmp_path / "disk-1.door").is_socket()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not list(tmp_path.iterdir())
    finally:
        process.kill()
        process.wait(10)


def test_one_that_has_no_sessions_lives_on_while_another_has(tmp_path: Path) -> None:
    """Without a control process; else its machines could not come back while the others' can."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "netboot.disk_process", "--orphan-timeout=0.8"),
                    *("--socket", str(tmp_path / f"disk-{number}.sock")),
                    *("--listen", f"127.0.0.1:{port}", f"--sockets={door.fileno()}"),
                    *(f"--number={number}", "--processes=2"),
                ],
                pass_fds=[door.fileno()],
            )
            for number in (0, 1)
        ]
    try:
        lines = [Line(tmp_path / f"disk-{number}.sock", port) for number in (0, 1)]
        number = owner(Knock("iqn.a", "iqn.t", "127.0.0.1"), 2)
        initiator = enter(lines[number], tmp_path)
        for line in lines:
            line.close()
        time.sleep(2.0)
        assert [process.poll() for process in processes] == [None, None]
        assert initiator.read(5) == b"G" * 512
        initiator.sock.close()
        assert [process.wait(20) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


def test_a_port_in_use(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(listen=f"127.0.0.1:{port}")
        _, words = process.communicate(timeout=20)
    assert process.returncode == 2
    (line,) = words.strip().splitlines()
    assert line.startswith(f"netboot: iSCSI cannot listen on 127.0.0.1 port {port}: Address")


def test_a_place_for_the_socket_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        disk_process.main(["--listen", "127.0.0.1:0"])
    here = ["--socket", str(tmp_path / "no" / "where"), "--listen", "127.0.0.1:0"]
    assert disk_process.main(here) == 2
    assert "where: no socket can be made there" in capsys.readouterr().err


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "disk-0.log"
    with path.open("ab", buffering=0) as log:
        for size, kept in ((100, 100), (1, 0), (7, 7)):
            log.write(b"x" * size)
            disk_process.shorten_log(log.fileno(), limit=100)
            assert path.stat().st_size == kept
        assert (tmp_path / "disk-0.log.1").read_bytes() == b"x" * 101
        (tmp_path / "disk-0.log.1").unlink()
        (tmp_path / "disk-0.log.1").mkdir()
        log.write(b"y" * 200)
        disk_process.shorten_log(log.fileno(), limit=100)
        assert path.stat().st_size == 0
    reading, writing = os.pipe()
    os.write(writing, b"z" * 200)
    disk_process.shorten_log(writing, limit=100)
    assert os.read(reading, 300) == b"z" * 200
    os.close(reading)
    os.close(writing)


def test_log_lines_go_over_the_line_too() -> None:
    async def main() -> list[tuple[Any, ...]]:
        sent: list[tuple[Any, ...]] = []

        class Channel:
            def log(self, *line: Any) -> None:
                sent.append(line)

        handler = disk_process.ForwardLog(Channel(), asyncio.get_running_loop())  # type: ignore[arg-type]
        record = logging.LogRecord("netboot.x", 40, "", 0, "trouble %d", (5,), None)
        handler.handle(record)
        try:
            raise OSError("deeper")
        except OSError:
            record.exc_info = sys.exc_info()
        handler.handle(record)
        await asyncio.sleep(0)
        return sent

    first, second = asyncio.run(main())
    assert first == (40, "netboot.x", "trouble 5")
    assert second[2] == "trouble 5: OSError('deeper')"

"""Several disk processes at one port: whose machine is served where, and what a kill takes along.

Machines are played from addresses of their own (127.0.0.0/8) by a few lines of socket code, and by
libiscsi: in iscsi-inq, and in qemu-io, which comes back by itself as a guest's disk does.
"""

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netboot.disks.engine import owner
from netboot.model import Knock

pytestmark = pytest.mark.interop

PROCESSES = 3
MACS = [f"52:54:00:00:01:{n:02x}" for n in range(12)]


class Machine:
    """A session of one machine."""

    def __init__(self, port: int, target: str, source: str, name: str = "iqn.a:b") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
        self.cmd_sn = 0
        text = f"InitiatorName={name}\0TargetName={target}\0".encode()
        head = struct.pack(">BBHI6sHIHHII16x", 0x43, 0x87, 0, len(text), b"a", 0, 1, 0, 0, 0, 0)
        self.sock.sendall(head + text + bytes(-len(text) % 4))
        answer, _ = self.pdu()
        assert answer[36:38] == b"\0\0", answer[36:38].hex()
        self.command(bytes(6))  # takes the 29/00

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise ConnectionResetError("closed")
            data += more
        return data

    def pdu(self) -> tuple[bytes, bytes]:
        head = self.exactly(48)
        length = int.from_bytes(head[5:8], "big")
        return head, self.exactly(length + -length % 4)[:length]

    def command(self, cdb: bytes, flags: int = 0x80, data: bytes = b"", edtl: int = 0) -> Any:
        head = struct.pack(
            *(">BBHI8xIIII16s", 1, flags, 0, len(data), self.cmd_sn),
            *(len(data) or edtl, self.cmd_sn, 0, cdb.ljust(16, b"\0")),
        )
        self.cmd_sn += 1
        self.sock.sendall(head + data)
        return self.pdu()

    def read(self, lba: int) -> bytes:
        head, data = self.command(struct.pack(">BxIxHx", 0x28, lba, 1), 0xC1, edtl=512)
        assert head[0] == 0x25 and head[3] == 0
        return bytes(data)

    def write(self, lba: int, data: bytes) -> None:
        head, _ = self.command(struct.pack(">BxIxHx", 0x2A, lba, 1), 0xA1, data)
        assert head[0] == 0x21 and head[3] == 0

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def target(iscsi_with: Callable[..., Any]) -> Iterator[Any]:
    made = iscsi_with(processes=PROCESSES)
    for mac in MACS:
        made.let_in(mac)
    yield made


def name(mac: str) -> str:
    return f"iqn.2026-11.lab.netboot:{mac.replace(':', '-')}"


def serving(target: Any, mac: str) -> int:
    """The process that has a machine's overlay open: there is exactly one."""
    path = target.state / f"{mac.replace(':', '-')}.data"
    pids = []
    for each in target.disks.processes:
        for handle in Path(f"/proc/{each.pid}/fd").iterdir():
            if handle.is_symlink() and handle.readlink() == path:
                pids.append(each.pid)
                break
    (pid,) = pids
    return int(pid)


def pids(target: Any) -> list[int | None]:
    return [each.pid for each in target.disks.processes]


def until(true: Callable[[], object]) -> None:
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_firmware_and_system_meet_whatever_their_addresses(target: Any) -> None:
    """Another address for the same machine's operating system, even: another lease, IPv6."""
    for number, mac in enumerate(MACS[:6]):
        firmware = Machine(target.port, name(mac), f"127.0.1.{number + 1}", "iqn.a:firmware")
        system = Machine(target.port, name(mac), f"127.0.2.{number + 1}", "iqn.a:system")
        system.write(7, b"s" * 512)
        assert firmware.read(7) == b"s" * 512
        serving(target, mac)  # one process only
        firmware.close()
        system.close()


def test_machines_are_spread_over_the_processes(target: Any) -> None:
    words: list[int] = []
    machines = []
    for number, mac in enumerate(MACS):
        machines.append(Machine(target.port, name(mac), f"127.0.1.{number + 1}"))
        words.append(serving(target, mac))
        url = f"iscsi://127.0.0.1:{target.port}/{name(mac)}/0"
        done = subprocess.run(["iscsi-inq", url], capture_output=True, timeout=30)
        assert done.returncode == 0 and b"NETBOOT" in done.stdout
        assert serving(target, mac) == words[-1], "libiscsi's session came there too"
    expected = [pids(target)[owner(Knock("", name(mac), ""), PROCESSES)] for mac in MACS]
    assert words == expected and len({*words}) == PROCESSES
    until(lambda: sum(each.sessions for each in target.disks.processes) == len(MACS))
    listed = subprocess.run(
        ["iscsi-ls", f"iscsi://127.0.0.1:{target.port}"], capture_output=True, timeout=30
    )
    assert listed.returncode == 0, "whoever accepts it, a discovery is answered"
    counters = target.call(target.disks.refresh())
    assert {*MACS} <= {*counters}, "all of them are in one list"
    for machine in machines:
        machine.close()


def test_a_kill_leaves_the_others_alone(target: Any) -> None:
    machines = {
        mac: Machine(target.port, name(mac), f"127.0.1.{n + 1}") for n, mac in enumerate(MACS)
    }
    for number, (_, machine) in enumerate(machines.items()):
        machine.write(3, bytes([number]) * 512)
    before = pids(target)
    where = {mac: serving(target, mac) for mac in MACS}
    victim = where[MACS[0]]
    others = [mac for mac in MACS if where[mac] != victim]
    assert 0 < len(others) < len(MACS)

    answered = dict.fromkeys(others, 0)
    trouble: list[str] = []
    enough = threading.Event()

    def go_on(mac: str, expected: bytes) -> None:
        try:
            while not enough.is_set():
                assert machines[mac].read(3) == expected
                answered[mac] += 1
        except Exception as error:
            trouble.append(f"{mac}: {error!r}")

    threads = [
        threading.Thread(target=go_on, args=(mac, bytes([MACS.index(mac)]) * 512)) for mac in others
    ]
    for thread in threads:
        thread.start()
    until(lambda: all(answered.values()))
    os.kill(victim, signal.SIGKILL)
    at_the_kill = dict(answered)

    # Its own machines lose their connections, and come back to what they wrote: no flush needed.
    for number, mac in enumerate(MACS):
        if where[mac] == victim:
            with pytest.raises(ConnectionError):
                for _ in range(1000):
                    machines[mac].read(3)
            machines[mac].close()
            machines[mac] = Machine(target.port, name(mac), f"127.0.3.{number + 1}")
            assert machines[mac].read(3) == bytes([number]) * 512
            assert serving(target, mac) not in before
    until(lambda: all(answered[mac] > at_the_kill[mac] + 10 for mac in others))
    enough.set()
    for thread in threads:
        thread.join(20)
    assert not trouble
    after = pids(target)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
    for machine in machines.values():
        machine.close()


def test_a_virtual_machine_comes_back_by_itself(target: Any) -> None:
    """QEMU's initiator notices a lost connection and logs in again; nothing reaches the guest."""
    mac = MACS[0]
    url = f"iscsi://127.0.0.1:{target.port}/{name(mac)}/0"
    guest = subprocess.Popen(
        ["qemu-io", "-f", "raw", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert guest.stdin is not None and guest.stdout is not None
    killer = threading.Timer(50, guest.kill)
    killer.start()
    try:

        def say(words: str) -> str:
            """What it says to a command; the prompt ends no line, so that a second one is seen."""
            assert guest.stdin is not None and guest.stdout is not None
            guest.stdin.write(f"{words}\n")
            guest.stdin.flush()
            while "bytes" not in (line := guest.stdout.readline()):
                assert line and "fail" not in line, line
            return line

        assert "65536/65536" in say("write -P 0x5a 1M 64k")
        for _ in range(3):
            os.kill(serving(target, mac), signal.SIGKILL)
            assert "65536/65536" in say("read -P 0x5a 1M 64k")
        guest.stdin.write("quit\n")
        guest.stdin.close()
        assert guest.wait(20) == 0
        assert "verification failed" not in guest.stdout.read()
    finally:
        killer.cancel()
        guest.kill()
        guest.wait()
        guest.stdout.close()

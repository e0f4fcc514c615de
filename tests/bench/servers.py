"""The servers that are measured: ours, tgt in three settings, and the echo that is the limit."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from netboot.disks.supervisor import Supervisor
from netboot.errors import NetbootError
from netboot.model import Admission, DiskSpec, Knock, Lun, Portal

NAME = "iqn.2026-11.lab.netboot:bench"
#: Runs tgtadm with these words.
Tell: TypeAlias = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Server:
    """One side of the comparison: where it listens, and the process whose time counts."""

    name: str
    port: int
    pids: tuple[int, ...]
    lun: int = 0

    def cpu(self) -> float:
        """Processor seconds of all its threads so far (proc(5), schedstat)."""
        total = 0
        for pid in self.pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9


@asynccontextmanager
async def ours(folder: Path, golden: Path) -> AsyncIterator[Server]:
    """Our disk process. The target's name says what is behind it: ``…:golden`` or an overlay."""
    folder.mkdir()
    size = golden.stat().st_size

    def admit(knock: Knock) -> Admission:
        what = knock.target.rpartition(":")[2]
        overlay = None if what == "golden" else str(folder / f"{what}.qcow2")
        spec = DiskSpec(str(golden), size, "sha256:bench", overlay, read_only=overlay is None)
        return Admission(0, what, knock.target, (Lun(0, spec, "BENCH"),))

    async with disk_process(folder, admit) as (port, pid):
        yield Server("netboot", port, (pid,))


@asynccontextmanager
async def disk_process(
    folder: Path, admit: Callable[[Knock], Admission]
) -> AsyncIterator[tuple[int, int]]:
    """One disk process of ours, where ``admit`` says who may log in: its port and its pid."""
    disks = Supervisor(folder, [Portal("127.0.0.1", 0)], admit, lambda _: None)
    await disks.start()
    try:
        assert disks.pid is not None
        yield disks.port, disks.pid
    finally:
        await disks.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def tgtd(
    folder: Path, *words: str, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[int, int, Tell]]:
    """Debian's tgt without targets: its port, its process, and what to tell it with.

    NetbootError when it does not answer, or is not there at all.
    """
    if shutil.which("tgtd") is None:
        raise NetbootError("there is no tgtd: apt-get install tgt")
    folder.mkdir()
    port = port or free_port()
    # A control socket of its own, so that no other tgtd of this machine is met.
    environment = {**os.environ, "TGT_IPC_SOCKET": str(folder / "tgtd")}

    def tell(*words: str) -> None:
        command = ["tgtadm", "--lld", "iscsi", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=20, env=environment)

    with (folder / "log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            *("tgtd", "-f", "--iscsi", f"portal={address}:{port}", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
        try:
            for _ in range(100):
                try:
                    tell("--op", "show", "--mode", "sys")
                    break
                except subprocess.CalledProcessError:
                    await asyncio.sleep(0.1)
                if server.returncode is not None:
                    break
            else:
                raise NetbootError(f"tgtd does not answer; see {folder}/log")
            if server.returncode is not None:
                said = (folder / "log").read_text(errors="replace").strip()
                raise NetbootError(f"tgtd did not start: {said[-300:]}")
            yield port, server.pid, tell
        finally:
            if server.returncode is None:
                server.kill()  # it only listens to this one while it has sessions
            await server.wait()


def export(
    tell: Tell, number: int, name: str, *paths: Path, kind: str = "rdwr", words: Sequence[str] = ()
) -> None:
    """A target of tgt for everybody, with a unit for each file; it counts all of them from 1.

    ``words`` are the parameters of the units, where they have some.
    """
    target = ["--mode", "target", "--tid", str(number)]
    tell("--op", "new", *target, "-T", name)
    for lun, path in enumerate(paths, 1):
        unit = ["--mode", "logicalunit", "--tid", str(number), "--lun", str(lun)]
        tell("--op", "new", *unit, "-b", str(path), "--bstype", kind)
        if words:
            tell("--op", "update", *unit, "--params", words[lun - 1])
    tell("--op", "bind", *target, "-I", "ALL")


@asynccontextmanager
async def tgt(
    folder: Path, units: dict[str, Path], *words: str, kind: str = "rdwr", name: str = "tgt"
) -> AsyncIterator[Server]:
    """tgt with a target for each file."""
    async with tgtd(folder, *words) as (port, pid, tell):
        for number, (unit, path) in enumerate(units.items(), 1):
            export(tell, number, f"{NAME}:{unit}", path, kind=kind)
            for digest in ("HeaderDigest", "DataDigest"):  # as the initiator likes
                value = ["--name", digest, "--value", "None,CRC32C"]
                tell("--op", "update", "--mode", "target", "--tid", str(number), *value)
        yield Server(name, port, (pid,), 1)


@asynccontextmanager
async def limit(program: Path, answer: int) -> AsyncIterator[Server]:
    """The echo server in C."""
    port = free_port()
    server = await asyncio.create_subprocess_exec(str(program), str(port), str(answer))
    try:
        await asyncio.sleep(0.2)
        yield Server("limit", port, (server.pid,))
    finally:
        server.kill()
        await server.wait()

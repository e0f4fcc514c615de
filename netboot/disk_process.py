"""A disk process: one loop, the iSCSI portal, the disks, and the line to the control process.

Started by ``disks.supervisor``, alone or as one of several; lives on when the control process
ends, and ends itself when nobody has needed it for a minute. The composition root of everything
below it: only this module knows both the disks and the line.

    python -m netboot.disk_process --socket PATH --listen ADDRESS:PORT[,TAG] ...
"""

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from netboot import __version__
from netboot.boot.initiators import initiator_of
from netboot.disks import wire
from netboot.disks.handing import Handing
from netboot.disks.listening import inherited, listen
from netboot.disks.server import Channel
from netboot.disks.wire import DiskEvent
from netboot.errors import NetbootError
from netboot.iscsi.portal import Portals, Report
from netboot.iscsi.server import express_lane
from netboot.model import DiskSpec, Portal, SessionLimits, Stage
from netboot.storage.attach import Goldens, attach
from netboot.storage.disk import Disk

log = logging.getLogger(__name__)

#: Seconds without control process and sessions after which the process ends.
ORPHAN_TIMEOUT = 60.0
#: Bytes of log, of which as many again are kept beside it: it lies where the disks are.
LOG_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Which disk process this is, and where it serves."""

    socket: Path  #: where it listens for the control process; the others' are beside it
    portals: Sequence[Portal]
    sockets: Sequence[int] = ()  #: which listen at the portals already; else it does that itself
    number: int = 0
    processes: int = 1


class Others(Handing):
    """The other disk processes, as the portals know them."""

    def deaf(self) -> None:
        self.tell(wire.Deaf())


class ForwardLog(logging.Handler):
    """Hands warnings and errors to the control process's log too."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """May be called in a worker thread."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._channel.log, record.levelno, record.name, text)


def is_os(isid: str) -> bool:
    """Whether an operating system logs in with this ISID, and certainly no firmware."""
    found = initiator_of(isid)
    return found is not None and found.stage is Stage.OS


async def serve(place: Place, orphan_timeout: float) -> None:
    """Run until told to stop; ConfigError when an address cannot be had."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    needed = asyncio.Event()  #: another process has sessions
    goldens = Goldens()
    stopped_alone = True

    def open_disk(spec: DiskSpec) -> Disk:
        return attach(spec, goldens)

    def report(happened: Report) -> None:
        channel.tell(
            DiskEvent(
                happened.mac,
                wire.Kind(happened.kind.value),
                time.time(),
                happened.initiator,
                happened.address,
                happened.detail,
                happened.isid,
            )
        )

    def limit(limits: SessionLimits) -> None:
        portals.limits = limits

    async def end(mac: str, politely: bool) -> None:
        await portals.close(mac, politely=politely)

    def all_stop() -> None:
        nonlocal stopped_alone
        stopped_alone = False
        ending.set()

    others = Others(
        *(place.socket.parent, place.number, place.processes),
        take=lambda *given: portals.take(*given),
        needed=needed.set,
        deaf=lambda: portals.deaf(),
    )
    portals = Portals(open_disk, lambda knock: channel.ask(knock), report, is_os, others=others)
    found = inherited(place.portals, place.sockets) if place.sockets else listen(place.portals)
    handles = [sock.fileno() for _, sock in found]
    listening = await portals.start(found)
    first = listening[0]
    channel = Channel(
        lambda: wire.Hello(
            *(os.getpid(), wire.PROTOCOL, first.address, first.port),
            *(__version__, portals.sessions, listening),
            number=place.number,
            processes=place.processes,
        ),
        portals.counters,
        end,
        limit,
        portals.resize,
        all_stop,
        lambda: () if ending.is_set() else handles,
    )
    try:
        await channel.start(place.socket)
        others.start()
    except BaseException:
        await portals.stop()
        raise
    forward = ForwardLog(channel, loop)
    logging.getLogger().addHandler(forward)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    log.info("listening on %s", " ".join(map(str, listening)))
    log.info("the express lane runs %s", express_lane())

    def in_use() -> bool:
        """Whether anybody needs any disk process."""
        if portals.sessions and not channel.connected:
            others.tell(wire.Needed())
        used = bool(channel.connected or portals.sessions or needed.is_set())
        needed.clear()
        return used

    watch = asyncio.create_task(_orphaned(in_use, ending, orphan_timeout))
    await ending.wait()
    watch.cancel()
    log.info("stopping")
    if stopped_alone and place.processes > 1:  # who comes now waits for our successor
        portals.listen_no_more()
        others.close()
    await portals.stop()
    others.close()
    logging.getLogger().removeHandler(forward)
    await channel.close()


async def _orphaned(in_use: Callable[[], bool], ending: asyncio.Event, patience: float) -> None:
    """End the process when there has been nobody to serve for ``patience`` seconds; meanwhile,
    see to it that strangers at the door do not fill the disk with what we say of them."""
    alone = 0.0
    step = min(1.0, patience / 4)
    while alone < patience:
        await asyncio.sleep(step)
        shorten_log(sys.stderr.fileno())
        alone = 0.0 if in_use() else alone + step
    log.info("no control process and no sessions: ending")
    ending.set()


def shorten_log(handle: int, limit: int = LOG_LIMIT) -> None:
    """Move what a file open for appending holds to ``<file>.1`` when it is too much."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size <= limit:
        return
    path = Path(f"/proc/self/fd/{handle}").readlink()
    with contextlib.suppress(OSError):  # no room for it: then what is new counts more
        shutil.copyfile(path, f"{path}.1")
    os.ftruncate(handle, 0)


def portal(text: str) -> Portal:
    """``ADDRESS:PORT[,TAG]``, an IPv6 address in brackets."""
    try:
        return Portal.of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the process; the exit code is 2 when it cannot start."""
    parser = argparse.ArgumentParser(prog="netboot.disk_process", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where we listen for control")
    parser.add_argument(
        "--listen",
        type=portal,
        action="append",
        required=True,
        help="an iSCSI portal, ADDRESS:PORT[,TAG]; may be given several times",
    )
    parser.add_argument(
        "--sockets",
        type=lambda text: [int(handle) for handle in text.split(",")],
        default=[],
        metavar="HANDLE,...",
        help="the open sockets that listen at the portals, in their order",
    )
    parser.add_argument("--number", type=int, default=0, help="which disk process this is")
    parser.add_argument("--processes", type=int, default=1, help="how many there are")
    parser.add_argument(
        "--orphan-timeout",
        type=float,
        default=ORPHAN_TIMEOUT,
        help="seconds that the process lives on without control process and sessions",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        place = Place(
            *(options.socket, options.listen, options.sockets),
            *(options.number, options.processes),
        )
        uvloop.run(serve(place, options.orphan_timeout))
    except (NetbootError, OSError) as error:
        sys.stderr.write(f"netboot: {error}\n")
        return error.exit_code if isinstance(error, NetbootError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

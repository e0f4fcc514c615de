"""The disk process: one loop, the iSCSI portal, the disks, and the line to the control process.

Started by ``disks.supervisor``; lives on when the control process ends, and ends itself when
nobody has needed it for a minute. The composition root of everything below it: only this
module knows both the disks and the line.

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
from collections.abc import Sequence
from pathlib import Path

import uvloop

from netboot import __version__
from netboot.boot.initiators import initiator_of
from netboot.disks import wire
from netboot.disks.server import Channel
from netboot.disks.wire import DiskEvent
from netboot.errors import NetbootError
from netboot.iscsi.portal import Portals, Report
from netboot.model import DiskSpec, Portal, SessionLimits, Stage
from netboot.storage.attach import Goldens, attach
from netboot.storage.disk import Disk

log = logging.getLogger(__name__)

#: Seconds without control process and sessions after which the process ends.
ORPHAN_TIMEOUT = 60.0
#: Bytes of log, of which as many again are kept beside it: it lies where the disks are.
LOG_LIMIT = 8 << 20


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


async def serve(path: Path, listen: Sequence[Portal], orphan_timeout: float) -> None:
    """Run until told to stop; ConfigError when an address cannot be had."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    goldens = Goldens()

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

    portals = Portals(open_disk, lambda knock: channel.ask(knock), report, is_os)
    listening = await portals.start(listen)
    first = listening[0]
    channel = Channel(
        lambda: wire.Hello(
            *(os.getpid(), wire.PROTOCOL, first.address, first.port),
            *(__version__, portals.sessions, listening),
        ),
        portals.counters,
        end,
        limit,
        portals.resize,
        ending.set,
    )
    try:
        await channel.start(path)
    except BaseException:
        await portals.stop()
        raise
    forward = ForwardLog(channel, loop)
    logging.getLogger().addHandler(forward)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    log.info("listening on %s", " ".join(map(str, listening)))
    watch = asyncio.create_task(_orphaned(channel, portals, ending, orphan_timeout))
    await ending.wait()
    watch.cancel()
    log.info("stopping")
    await portals.stop()
    logging.getLogger().removeHandler(forward)
    await channel.close()


async def _orphaned(
    channel: Channel, portals: Portals, ending: asyncio.Event, patience: float
) -> None:
    """End the process when there has been nobody to serve for ``patience`` seconds; meanwhile,
    see to it that strangers at the door do not fill the disk with what we say of them."""
    alone = 0.0
    step = min(1.0, patience / 4)
    while alone < patience:
        await asyncio.sleep(step)
        shorten_log(sys.stderr.fileno())
        alone = 0.0 if channel.connected or portals.sessions else alone + step
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
        uvloop.run(serve(options.socket, options.listen, options.orphan_timeout))
    except (NetbootError, OSError) as error:
        sys.stderr.write(f"netboot: {error}\n")
        return error.exit_code if isinstance(error, NetbootError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

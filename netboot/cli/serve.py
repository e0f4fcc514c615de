"""``netboot serve``: the service."""

import logging
import os
import sys
from pathlib import Path

import click

from netboot.cli import options

_LEVELS = (logging.INFO, logging.DEBUG)


@click.command()
@options.config_file
@click.option("-v", "--verbose", count=True, help="Say more; twice: what libraries say, too.")
@click.option(
    "--leave-disks",
    is_flag=True,
    help="When this service ends, its disk process goes on serving for the next one.",
)
def serve(config: Path | None, verbose: int, leave_disks: bool) -> None:
    """Run the service.

    DHCP, TFTP, HTTP, DNS and the iSCSI target, until SIGTERM or Ctrl-C. SIGHUP reads the profiles
    and clients of the settings file again. It is ready when it says so, and when GET /healthz
    answers 200.
    """
    from netboot import app
    from netboot.config import DEFAULT_FILE

    listen_to(verbose)
    sys.exit(app.serve(config or DEFAULT_FILE, leave_disks=leave_disks))


def listen_to(verbose: int) -> None:
    """The log on stderr: with the time, but for journald, which has its own."""
    moment = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(
        level=_LEVELS[min(verbose, 1)] if verbose < 2 else logging.DEBUG,
        format=f"{moment}%(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if verbose < 2:
        for name in ("asyncio", "aiohttp", "sqlalchemy", "scapy"):
            logging.getLogger(name).setLevel(logging.WARNING)

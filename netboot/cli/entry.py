"""The ``netboot`` command: finds a command's module when it is wanted, and turns errors to exits.

Help must answer at once, so this module imports nothing but click and the errors, and a command's
module nothing heavy before it runs. An error that netboot raises on purpose is one line on stderr
and its own exit code; an interrupt is 130, and by then whatever was being made is gone.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

import click

from netboot import __version__
from netboot.errors import NetbootError


class Command(NamedTuple):
    """One word after ``netboot``: where its command lies, and what it is for."""

    name: str
    module: str
    help: str


#: In the order of a first day with netboot. The help is repeated here so that listing the
#: commands imports none of them; a test compares the two.
COMMANDS: Sequence[Command] = (
    Command("image", "netboot.cli.image", "Golden images: build, add, list, show, remove."),
    Command("boot", "netboot.cli.boot", "Boot an image in a virtual machine, diskless."),
    Command("lab", "netboot.cli.lab", "A private network of virtual machines."),
    Command("config", "netboot.cli.config", "The settings: check a file, show them."),
    Command("serve", "netboot.cli.serve", "Run the service."),
    Command("client", "netboot.cli.client", "The machines: list, show, secret."),
    Command("overlay", "netboot.cli.overlay", "The clients' own disks: list, reset, resize."),
    Command("explain", "netboot.cli.explain", "Say what a machine would boot, and why."),
)


class Lazy(click.Group):
    """A group whose commands are imported when they are run, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [row.name for row in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = next((row for row in COMMANDS if row.name == cmd_name), None)
        if row is None:
            return None
        command = getattr(importlib.import_module(row.module), row.name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(row.name, row.help) for row in COMMANDS])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="netboot", message="%(prog)s %(version)s")
def group() -> None:
    """Boot real machines with no disk of their own from one golden image."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, the error's own code, or 130 after an interrupt."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = group.main(arguments, prog_name="netboot", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except NetbootError as error:
        click.echo(f"netboot: {error}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("netboot: interrupted", err=True)
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM unwinds like an interrupt does, so that nothing half-made stays.

    Once: a second one, as from who ends a whole process group, would meet it half unwound.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)

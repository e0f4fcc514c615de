"""``netboot lab``: machines on a network that nobody else can see."""

from pathlib import Path

import click

from netboot.cli import options

_FIRMWARE = click.Choice(["bios", "uefi"])
_folder = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("netboot-lab"),
    show_default=True,
    help="The folder of the lab's logs, disks and status.",
)


@click.group()
def lab() -> None:
    """A private network of virtual machines."""


@lab.command()
@click.option("--image", default="debian", show_default=True, help="What the machines boot.")
@click.option("--machines", "count", type=click.IntRange(0, 50), default=1, show_default=True)
@click.option("--firmware", type=_FIRMWARE, default="bios", show_default=True)
@click.option(
    "--overlay",
    type=click.Choice(["persistent", "ephemeral"]),
    default="persistent",
    show_default=True,
)
@_folder
@options.state_folder
@options.as_json
@click.option("--hold", is_flag=True, hidden=True)
def up(
    image: str,
    count: int,
    firmware: str,
    overlay: str,
    folder: Path,
    state: Path | None,
    config: Path | None,
    as_json: bool,
    hold: bool,
) -> None:
    """Switch machines on, and leave them running in the background."""
    from netboot.lab import hold as holder
    from netboot.lab import namespace
    from netboot.lab.machine import Firmware
    from netboot.lab.run import borrow

    library = options.place(state, config).folder
    version = borrow(image, library)
    folder = folder.absolute()
    if not hold:
        namespace.check()
        words = ["lab", "up", "--hold", "--image", image, "--machines", str(count)]
        words += ["--firmware", firmware, "--overlay", overlay]
        words += ["--dir", str(folder), "--state", str(library)]
        _show(holder.start(folder, words), as_json)
        return

    import asyncio

    from netboot.lab.service import Settings

    machines = holder.machines(count, Firmware(firmware))
    settings = Settings(folder / "state", image, machines, overlay=overlay)
    asyncio.run(holder.hold(folder, settings, version))


@lab.command()
@_folder
@options.as_json
def down(folder: Path, as_json: bool) -> None:
    """End the lab; its disks and logs stay in its folder."""
    from netboot.cli.output import emit
    from netboot.lab import hold as holder

    was_up = holder.stop(folder.absolute())
    if as_json:
        emit({"was_up": was_up})
    else:
        click.echo("the lab is down" if was_up else f"no lab is up in {folder}")


@lab.command()
@_folder
@options.as_json
@click.pass_context
def status(context: click.Context, folder: Path, as_json: bool) -> None:
    """Show the machines and how far each has come; exit 1 when no lab is up."""
    from netboot.lab import hold as holder

    found = holder.read(folder.absolute())
    if found is None:
        if as_json:
            from netboot.cli.output import emit

            emit({"up": False})
        else:
            click.echo(f"no lab is up in {folder}: netboot lab up", err=True)
        context.exit(1)
    _show(found, as_json)


def _show(status: dict[str, object], as_json: bool) -> None:
    from netboot.cli.output import emit, table

    if as_json:
        emit({"up": True, **status})
        return
    machines = status["machines"]
    assert isinstance(machines, list)
    columns = ["name", "mac", "firmware", "on", "phase", "serial"]
    table(machines, columns, "the lab has no machines")
    click.echo(f"API inside: {status['api']}; enter: nsenter -t {status['pid']} -n", err=True)


@lab.command()
@click.option("--image", default="debian", show_default=True, help="Built when it is missing.")
@options.state_folder
@click.pass_context
def demo(context: click.Context, image: str, state: Path | None, config: Path | None) -> None:
    """Boot a BIOS and a UEFI machine side by side; each finds its own file after a reboot."""
    from netboot.lab import namespace

    place = options.place(state, config)
    if not namespace.inside():
        from netboot.cli.image import ensure

        namespace.check()
        ensure(place, image)
        context.exit(
            namespace.reenter(["lab", "demo", "--image", image, "--state", str(place.folder)])
        )

    import asyncio

    from rich.console import Console

    from netboot.lab.demo import demo as run
    from netboot.lab.run import borrow

    asyncio.run(run(borrow(image, place.folder), Console()))

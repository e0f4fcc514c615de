"""``netboot boot``: one image in one virtual machine without a disk, as a command for CI."""

from pathlib import Path

import click

from netboot.cli import options

_FIRMWARE = click.Choice(["bios", "uefi"])


@click.command()
@click.argument("image")
@click.option("--firmware", type=_FIRMWARE, default="bios", show_default=True)
@click.option(
    "--expect",
    default="login:",
    show_default=True,
    help="The text that the machine's serial line must show.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="Seconds that it has for that.",
)
@click.option(
    "--keep-overlay",
    "keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder: leave there, as qcow2 over the golden image, what the machine wrote.",
)
@options.state_folder
@options.as_json
@click.pass_context
def boot(
    context: click.Context,
    image: str,
    firmware: str,
    expect: str,
    timeout: float,
    keep: Path | None,
    state: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Boot an image in a virtual machine, diskless.

    Everything runs in namespaces of its own, without root too where the system allows that.
    Exit code 0: the serial line showed the text; 1: it did not; 2: the lab could not start.
    """
    from netboot.lab import namespace
    from netboot.lab.run import borrow

    library = options.place(state, config).folder
    version = borrow(image, library)
    if not namespace.inside():
        namespace.check()
        words = ["boot", image, "--firmware", firmware, "--expect", expect]
        words += ["--timeout", str(timeout), "--state", str(library)]
        words += ["--keep-overlay", str(keep.absolute())] if keep else []
        words += ["--json"] if as_json else []
        context.exit(namespace.reenter(words))

    import asyncio
    import time

    from netboot.cli.output import emit
    from netboot.lab.console import ConsoleError
    from netboot.lab.machine import Firmware
    from netboot.lab.run import boot as run

    begun, failure, kept = time.monotonic(), "", list[Path]()
    try:
        kept = asyncio.run(run(version, Firmware(firmware), expect, timeout, keep))
    except ConsoleError as error:
        failure = str(error)
    seconds = time.monotonic() - begun
    if as_json:
        facts = {"image": image, "version": version.number, "firmware": firmware}
        answer = {"ok": not failure, "seconds": round(seconds, 1), "failure": failure or None}
        emit(facts | answer | {"overlays": [str(path) for path in kept]})
    elif failure:
        click.echo(f"netboot: {failure}", err=True)
    else:
        click.echo(f"{image} version {version.number} showed {expect!r} after {seconds:.1f} s")
        for path in kept:
            click.echo(f"overlay: {path}")
    context.exit(1 if failure else 0)

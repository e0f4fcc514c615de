"""``netboot overlay``: the clients' own disks. Works whether the service runs or not."""

from dataclasses import asdict
from pathlib import Path

import click

from netboot.cli import options
from netboot.cli.output import emit, size, table, when

_COLUMNS = ("mac", "image", "version", "mode", "generation", "disk", "size", "in use", "trouble")


@click.group()
def overlay() -> None:
    """The clients' own disks: list, reset, resize."""


@overlay.command("list")
@options.state_folder
@options.as_json
def list_(state: Path | None, config: Path | None, as_json: bool) -> None:
    """List the overlays, who is logged in, and what last went wrong.

    DISK is what the machine sees, SIZE the room that it takes here.

    Trouble stays in the list until the overlay is reset, or begun afresh by its machine's next
    boot; the time tells whether it is over.
    """
    from netboot.service import ledger
    from netboot.storage.files import size_of

    store = options.place(state, config).store()
    try:
        found = store.overlays()
    finally:
        store.close()
    facts = [
        (each, size_of(each.path), ledger.allocated(each), ledger.in_use(each)) for each in found
    ]
    if as_json:
        emit(
            [
                {**asdict(each), "disk": large, "allocated": room, "in_use": used}
                for each, large, room, used in facts
            ]
        )
        return
    rows = []
    for each, large, room, used in facts:
        cells = (each.mac, each.image, each.version, each.mode.value, each.generation)
        seen = None if large is None else size(large)
        trouble = f"{when(each.troubled)} {each.trouble}" if each.troubled else ""
        rows.append(dict(zip(_COLUMNS, (*cells, seen, size(room), used, trouble), strict=True)))
    table(rows, _COLUMNS, "no client has an overlay yet: its first login makes one")


@overlay.command()
@click.argument("machine")
@click.option(
    "--force",
    is_flag=True,
    help="Also while it is logged in: the running service ends its sessions first.",
)
@options.state_folder
@options.as_json
def reset(
    machine: str, force: bool, state: Path | None, config: Path | None, as_json: bool
) -> None:
    """Throw away all that a machine has written; its next boot is fresh.

    MACHINE is a MAC address, or the name of a [[client]]. Refused while the machine is logged in.
    """
    from netboot.errors import ImageError
    from netboot.service import control, ledger, preflight

    named = options.file_there_is(config)
    mac = options.mac_of(machine, options.settings(named).to_site() if named else None)
    place = options.place(state, config)
    store = place.store()
    try:
        found = store.overlays(mac)
        if not found:
            raise ImageError(f"{mac} has no overlay: netboot overlay list shows who has")
        if force and preflight.running(place.folder) is not None:
            freed = sum(control.ask(place.folder, "reset", mac=mac))
        else:
            busy = [each for each in found if ledger.in_use(each)]
            # All or none: whoever is in use speaks up before the first is gone.
            freed = sum(ledger.discard(store, each) for each in (*busy, *found))
    finally:
        store.close()
    if as_json:
        emit({"mac": mac, "reset": [asdict(each) for each in found], "freed": freed})
    else:
        click.echo(f"{mac}: {len(found)} overlay(s) thrown away, {size(freed)} given back")


@overlay.command()
@click.argument("machine")
@click.argument("to", metavar="SIZE")
@click.option("--image", help="Which of its overlays, where it has some over several images.")
@options.state_folder
@options.as_json
def resize(
    machine: str,
    to: str,
    image: str | None,
    state: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Let a machine's disk grow, also while it is logged in; it never becomes smaller.

    MACHINE is a MAC address, or the name of a [[client]]; SIZE a number and M, G or T. What is new
    reads as zeros, and takes no room before it is written. The machine sees it when it looks at
    its disk again; partition and file system are its own to grow. An ephemeral overlay has that
    size until its machine's next boot: `disk` of its [[profile]] is for all of them.
    """
    from netboot import values
    from netboot.errors import ConfigError
    from netboot.service import control, growth, preflight

    try:
        wanted = int(values.size(to))
    except ValueError as error:
        raise ConfigError(f"SIZE {to} {error}: write a number and M, G or T, as 100G") from None
    named = options.file_there_is(config)
    mac = options.mac_of(machine, options.settings(named).to_site() if named else None)
    place = options.place(state, config)
    if preflight.running(place.folder) is not None:
        done = control.ask(place.folder, "resize", mac=mac, image=image, size=wanted)
    else:
        store = place.store()
        try:
            done = growth.alone(store, mac, image, wanted)
        finally:
            store.close()
    if as_json:
        emit({"mac": mac, "resized": done})
        return
    for each in done:
        before, after = size(each["before"]), size(each["size"])
        click.echo(f"{mac}: its disk over {each['image']} has {after} now, it had {before}")

"""``netboot image``: the golden images. Needs the state folder only, not a running service."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netboot.cli import options
from netboot.cli.output import emit, facts, progress, size, table, when

if TYPE_CHECKING:
    from netboot.cli.options import Place
    from netboot.model import Version
    from netboot.state.store import Store
    from netboot.storage.library import Library

#: Where recipes are looked for by name: the operator's, then the ones that come along.
RECIPES = (Path("/etc/netboot/images"), Path(__file__).resolve().parents[2] / "images")

_COLUMNS = ("image", "version", "size", "created", "in use by", "from")


@click.group()
def image() -> None:
    """Golden images: build, add, list, show, remove."""


@contextmanager
def _opened(place: "Place") -> Iterator[tuple["Library", "Store"]]:
    from netboot.storage.library import Library

    store = place.store()
    try:
        yield Library(place.folder / "images", store), store
    finally:
        store.close()


@image.command()
@click.argument("recipe")
@options.state_folder
@options.as_json
def build(recipe: str, state: Path | None, config: Path | None, as_json: bool) -> None:
    """Make the next version of an image from its recipe.

    RECIPE is the name of one that comes along, or a folder with an image.toml.
    """
    _made(_build(options.place(state, config), recipe), as_json)


def _build(place: "Place", recipe: str) -> "Version":
    with _opened(place) as (library, _), progress(f"building {recipe}") as tell:
        return library.build(_find(recipe), tell)


def ensure(place: "Place", name: str) -> "Version":
    """The newest version of an image, which is built when there is none yet."""
    store = place.store()
    try:
        found = store.latest(name)
    finally:
        store.close()
    return found or _build(place, name)


def _find(recipe: str) -> Path:
    from netboot.errors import ImageError

    if "/" in recipe or recipe in (".", ".."):
        return Path(recipe)
    for folder in RECIPES:
        if (folder / recipe / "image.toml").is_file():
            return folder / recipe
    known = {found.parent.name for folder in RECIPES for found in folder.glob("*/image.toml")}
    raise ImageError(
        f"there is no recipe {recipe}; there are: {', '.join(sorted(known)) or 'none'}; a folder "
        f"is given with a slash: ./{recipe}"
    )


@image.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", help="The image's name.  [the file's name without its ending]")
@options.state_folder
@options.as_json
def add(
    file: Path, name: str | None, state: Path | None, config: Path | None, as_json: bool
) -> None:
    """Take in a disk: raw, qcow2, vmdk, vhd or vhdx.

    It becomes the next version of the image; the file itself is left as it is.
    """
    called = name or file.name.partition(".")[0].lower()
    with (
        _opened(options.place(state, config)) as (library, _),
        progress(f"adding {file.name}") as tell,
    ):
        version = library.add(called, file.absolute(), tell)
    _made(version, as_json)


def _made(version: "Version", as_json: bool) -> None:
    if as_json:
        emit(asdict(version))
    else:
        click.echo(
            f"{version.image} version {version.number}: {size(version.size)}, {version.path}"
        )


@image.command("list")
@options.state_folder
@options.as_json
def list_(state: Path | None, config: Path | None, as_json: bool) -> None:
    """List the images and their versions."""
    from netboot.service.overview import image_views

    with _opened(options.place(state, config)) as (library, store):
        views = image_views(library.list(), store.overlays())
    if as_json:
        emit([asdict(view) for view in views])
        return
    rows = [
        dict(
            zip(
                _COLUMNS,
                (
                    view.name,
                    view.version,
                    size(view.size),
                    when(view.created),
                    view.used_by,
                    view.origin,
                ),
                strict=True,
            )
        )
        for view in views
    ]
    table(rows, _COLUMNS, "there are no images yet: netboot image build debian")


@image.command()
@click.argument("name")
@click.option("--version", "number", type=int, help="Another version than the newest.")
@click.option("--verify", is_flag=True, help="Read all its bytes, and compare their digest.")
@options.state_folder
@options.as_json
def show(
    name: str,
    number: int | None,
    verify: bool,
    state: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show a version of an image: where it lies, its digest, who uses it."""
    from netboot.service.overview import image_views

    with _opened(options.place(state, config)) as (library, store):
        version = library.show(name, number)
        if verify:
            with progress(f"reading {name}") as tell:
                library.verify(name, version.number, tell)
        (view,) = image_views([version], store.overlays_of(name, version.number))
    if as_json:
        emit({**asdict(version), "used_by": view.used_by, "verified": verify})
        return
    facts(
        {
            "image": version.image,
            "version": version.number,
            "file": version.path,
            "size": f"{size(version.size)} ({version.size} bytes)",
            "digest": version.digest + (" (verified)" if verify else ""),
            "created": when(version.created),
            "from": version.origin,
            "in use by": view.used_by,
        }
    )


@image.command()
@click.argument("name")
@click.option("--version", "number", type=int, help="Only this version.")
@options.state_folder
@options.as_json
def remove(
    name: str, number: int | None, state: Path | None, config: Path | None, as_json: bool
) -> None:
    """Delete an image, or one version of it.

    Refused while any client uses it, and of the last version while any profile names the image.
    """
    place = options.place(state, config)
    with _opened(place) as (library, store):
        found = (
            [library.show(name, number)] if number else library.list(name) or [library.show(name)]
        )
        # All or none: who uses any of them speaks up before the first is gone.
        _refuse_used(store, found)
        if len(found) == len(library.list(name)):
            _refuse_named(place, options.file_there_is(config), name)
        for version in found:
            library.remove(name, version.number)
    if as_json:
        emit({"image": name, "removed": [version.number for version in found]})
    else:
        numbers = ", ".join(str(version.number) for version in found)
        click.echo(f"{name}: removed version {numbers}")


def _refuse_used(store: "Store", versions: "list[Version]") -> None:
    from netboot.errors import ImageError

    for version in versions:
        users = sorted({o.mac for o in store.overlays_of(version.image, version.number)})
        if users:
            raise ImageError(
                f"image {version.image} version {version.number} is in use by "
                f"{', '.join(users)}; `netboot overlay reset` them first"
            )


def _refuse_named(place: "Place", file: Path | None, name: str) -> None:
    """Without any version of it, whoever boots this image would be refused from now on."""
    from netboot.config import load
    from netboot.errors import ConfigError
    from netboot.service import control, preflight

    with suppress(ConfigError):  # what cannot be read is not in force, here or anywhere
        settings = load(file) if file else None
        if file and settings and settings.site.state.resolve() == place.folder.resolve():
            images = {each.name: each.image for each in settings.profile}
            _refuse_profiles(images, name, str(file), "give it another image there first")
    if preflight.running(place.folder) is not None:
        images = control.ask(place.folder, "profiles")
        way_out = "give it another image in the settings and reload the service (SIGHUP) first"
        _refuse_profiles(images, name, "the running service", way_out)


def _refuse_profiles(images: Mapping[str, str], name: str, whose: str, way_out: str) -> None:
    from netboot.errors import ImageError

    profiles = ", ".join(profile for profile, booted in images.items() if booted == name)
    if profiles:
        raise ImageError(
            f"image {name}: profile {profiles} of {whose} boots it, and no version would be "
            f"left; {way_out}"
        )

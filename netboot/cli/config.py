"""``netboot config``: the settings."""

import sys
from pathlib import Path

import click

from netboot.cli import options
from netboot.cli.output import emit


@click.group()
def config() -> None:
    """The settings: check a file, show them."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@options.config_file
@options.as_json
def check(file: Path | None, config: Path | None, as_json: bool) -> None:
    """Name every mistake in a settings file; exit 2 when there is one.

    FILE or --config; without either, the default file.
    """
    from netboot.config import DEFAULT_FILE
    from netboot.errors import ConfigError

    path = file or config or DEFAULT_FILE
    try:
        settings = options.settings(path)
    except ConfigError as error:
        if as_json:
            emit({"file": str(path), "ok": False, "mistakes": str(error).splitlines()})
            sys.exit(error.exit_code)
        raise
    if as_json:
        emit({"file": str(path), "ok": True, "mistakes": []})
    else:
        clients, profiles = len(settings.client), len(settings.profile)
        click.echo(f"{path}: no mistakes ({profiles} profiles, {clients} clients)")


@config.command()
@click.option("--example", is_flag=True, help="A whole file with every setting explained.")
@click.option("--docs", is_flag=True, help="The tables of the documentation, in Markdown.")
@options.config_file
@options.as_json
def show(example: bool, docs: bool, config: Path | None, as_json: bool) -> None:
    """Print the settings in force, defaults and all."""
    from netboot.cli import settings_text
    from netboot.config import parse

    if docs:
        click.echo(settings_text.documentation(), nl=False)
    elif as_json:
        found = parse(settings_text.example(), "example") if example else options.settings(config)
        emit(settings_text.plain(found))
    elif example:
        click.echo(settings_text.example(), nl=False)
    else:
        click.echo(settings_text.in_force(options.settings(config)), nl=False)

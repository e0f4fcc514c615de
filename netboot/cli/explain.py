"""``netboot explain``: what a machine would boot, and why. Sends nothing, makes nothing."""

from pathlib import Path

import click

from netboot.cli import options
from netboot.cli.output import emit


@click.command()
@click.argument("machine")
@options.config_file
@options.as_json
def explain(machine: str, config: Path | None, as_json: bool) -> None:
    """Say what a machine would boot, and why.

    MACHINE is a MAC address, or the name of a [[client]]. Nothing is sent and nothing changes.
    """
    from netboot.boot.explain import as_text
    from netboot.boot.script import Scripts
    from netboot.http.views import jsonable
    from netboot.service.ledger import Ledger

    settings = options.settings(config)
    site = settings.to_site()
    mac = options.mac_of(machine, site)
    store = options.Place(settings.site.state, settings.site.url).store()
    try:
        scripts = Scripts([settings.http.templates] if settings.http.templates else [])
        ledger = Ledger(store, settings.site.state)
        found = ledger.explain(mac, site, scripts, store.lease_of)
    finally:
        store.close()
    if as_json:
        emit(jsonable(found))
    else:
        click.echo(as_text(found), nl=False)

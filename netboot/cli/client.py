"""``netboot client``: the machines, as settings and state know them; the service need not run."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netboot.cli import options
from netboot.cli.output import emit, facts, size, table, when

if TYPE_CHECKING:
    from netboot.boot.timeline import Timelines
    from netboot.http.views import ClientView
    from netboot.model import Chap, Counters, Site
    from netboot.service.vault import Vault

_COLUMNS = ("name", "mac", "address", "profile", "image", "version", "phase", "last boot")
#: Events of the past that are read to tell how far each machine came.
_PAST = 5000


@click.group()
def client() -> None:
    """The machines: list, show, secret."""


@dataclass(frozen=True, slots=True)
class _Known:
    site: "Site"
    state: Path
    vault: "Vault"
    timelines: "Timelines"
    views: "list[ClientView]"


@contextmanager
def _known(config: Path | None) -> Iterator[_Known]:
    from netboot.boot.timeline import Timelines
    from netboot.service.overview import Overview
    from netboot.service.vault import Vault

    settings = options.settings(config)
    site = settings.to_site()
    store = options.Place(settings.site.state, settings.site.url).store()
    try:
        timelines = Timelines(store.events(limit=_PAST))
        counters = _counters(settings.site.state)
        overview = Overview(lambda: site, store, timelines, store.lease_of, lambda: counters)
        vault = Vault(store, lambda: site, time.time)
        yield _Known(site, settings.site.state, vault, timelines, overview.clients())
    finally:
        store.close()


def _counters(state: Path) -> "Mapping[str, Counters]":
    """What the disks have done; only a running service knows."""
    from netboot.errors import NetbootError
    from netboot.model import Counters
    from netboot.service import control, preflight

    if preflight.running(state) is None:
        return {}
    try:
        found = control.ask(state, "counters")
    except NetbootError as error:
        click.echo(f"netboot: without counters: {error}", err=True)
        return {}
    return {mac: Counters(**row) for mac, row in found.items()}


@client.command("list")
@options.config_file
@options.as_json
def list_(config: Path | None, as_json: bool) -> None:
    """List the machines that the settings name, or that were ever seen."""
    from netboot.http.views import jsonable

    with _known(config) as known:
        if as_json:
            emit(jsonable(known.views))
            return
        rows = []
        for view in known.views:
            phase = view.phase.label if view.phase else None
            began = when(view.timeline[0].at) if view.timeline else None
            cells = (view.name, view.mac, view.address, view.profile, view.image, view.version)
            rows.append(dict(zip(_COLUMNS, (*cells, phase, began), strict=True)))
    table(rows, _COLUMNS, "no machine is named in the settings, and none was ever seen")


@client.command()
@click.argument("machine")
@click.option("--secrets", is_flag=True, help="Also what it proves at its login (CHAP).")
@options.config_file
@options.as_json
def show(machine: str, secrets: bool, config: Path | None, as_json: bool) -> None:
    """Show one machine: its last boot phase by phase, its disk, its counters.

    MACHINE is a MAC address, or the name of a [[client]].
    """
    from netboot.errors import ConfigError
    from netboot.http.views import jsonable

    with _known(config) as known:
        mac = options.mac_of(machine, known.site)
        view = next((view for view in known.views if view.mac == mac), None)
        if view is None:
            raise ConfigError(f"{mac} is in no [[client]], and was never seen")
        hint = known.timelines.of(mac).stuck(time.time())
        told = _chap(known.vault.shown(mac, make=False)) if secrets else None
    if as_json:
        plain = jsonable(view)
        assert isinstance(plain, dict)
        emit({**plain, "hint": hint, **({"chap": told} if secrets else {})})
        return
    facts({**_facts(view, hint), **(told or {})})


@client.command()
@click.argument("machine")
@click.option("--renew", is_flag=True, help="Make new ones; the next boot hands them out.")
@click.option(
    "--force",
    is_flag=True,
    help="With --renew, also while it is logged in: its sessions end, and it must boot anew.",
)
@options.config_file
@options.as_json
def secret(machine: str, renew: bool, force: bool, config: Path | None, as_json: bool) -> None:
    """Print what a machine proves at its login (CHAP), and what we prove to it.

    For firmware that logs in by itself and is not told by DHCP. MACHINE is a MAC address, or the
    name of a [[client]]. What is not there yet is made.
    """
    from netboot.service import control, preflight

    if force and not renew:
        raise click.UsageError("--force is of use only with --renew")
    with _known(config) as known:
        mac = options.mac_of(machine, known.site)
        if renew and preflight.running(known.state) is not None:
            control.ask(known.state, "renew", mac=mac, force=force)
        elif renew:
            known.vault.renew(mac, force=force)
        told = _chap(known.vault.shown(mac, make=True))
    if as_json:
        emit({"mac": mac, "chap": told})
    else:
        facts(told or {})


def _chap(known: "Chap | None") -> dict[str, object] | None:
    if known is None:
        return None
    told: dict[str, object] = {"user": known.name, "secret": known.secret}
    if known.mutual_secret:
        told |= {"our user": known.mutual_name, "our secret": known.mutual_secret}
    return told


def _facts(view: "ClientView", hint: str | None) -> dict[str, object]:
    image = f"{view.image} version {view.version}" if view.image else None
    told: dict[str, object] = {
        "name": view.name,
        "mac": view.mac,
        "address": view.address,
        "profile": view.profile,
        "image": image,
    }
    if view.overlay:
        kind = f"{view.overlay.mode}, generation {view.overlay.generation}"
        told["overlay"] = f"{view.overlay.path} ({kind}, {size(view.overlay.allocated)})"
    if view.counters:
        done = view.counters
        told["read"] = f"{size(done.read_bytes)} in {done.reads} commands"
        told["written"] = f"{size(done.write_bytes)} in {done.writes} commands"
        told["flushes"] = done.flushes
        told["errors"] = done.errors
    if view.timeline:
        told["last boot"] = when(view.timeline[0].at)
        steps = (f"{s.after:7.1f} s  {s.phase.label:<8} {s.detail}" for s in view.timeline)
        told["phases"] = list(steps)
    if hint:
        told["stuck?"] = hint
    return told

"""The options that many commands share, and what they mean: where the settings and state are."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from netboot.config import Settings
    from netboot.model import Site
    from netboot.state.store import Store

Function = TypeVar("Function", bound=Callable[..., Any])

_CONFIG = "/etc/netboot/netboot.toml"
_STATE = "/var/lib/netboot"

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
config_file = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="NETBOOT_CONFIG",
    help=f"The settings file.  [{_CONFIG}]",
)


def state_folder(function: Function) -> Function:
    """``--state`` and ``--config``, for commands that need only the state."""
    state = click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="NETBOOT_STATE",
        help=f"The state folder.  [that of the settings, else {_STATE}, or your own]",
    )
    return state(config_file(function))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the state is: its folder and its database."""

    folder: Path
    url: str

    def store(self) -> "Store":
        """Open the database; the folder is made when it is not there yet."""
        from netboot.errors import ConfigError
        from netboot.state.store import Store

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"state folder {self.folder}: {error.strerror}; run as root, or choose another "
                f"with --state"
            ) from None
        if self.url.startswith("sqlite") and not os.access(self.folder, os.W_OK):
            raise ConfigError(
                f"state folder {self.folder}: not writable; run as root, or choose another with "
                f"--state"
            )
        return Store(self.url)


def settings(config: Path | None) -> "Settings":
    """The settings that ``--config`` names, or the default file's."""
    from netboot.config import DEFAULT_FILE, load

    return load(config or DEFAULT_FILE)


def file_there_is(config: Path | None) -> Path | None:
    """The settings file that ``--config`` names, else the default one, if it is there."""
    from netboot.config import DEFAULT_FILE

    return config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


def place(state: Path | None, config: Path | None) -> Place:
    """``--state`` wins; then the settings file, where there is one; then the default.

    A user who is not root has a state of their own, below XDG_STATE_HOME: images for ``boot`` and
    ``lab``, which need no root either.
    """
    from netboot.config import load
    from netboot.sections import DEFAULT_STATE

    file = file_there_is(config)
    if state is None and file is not None:
        site = load(file).site
        return Place(site.state, site.url)
    folder = (state or (DEFAULT_STATE if os.geteuid() == 0 else _own_state())).absolute()
    return Place(folder, f"sqlite:///{folder}/netboot.sqlite")


def _own_state() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "netboot"


def mac_of(machine: str, site: "Site | None") -> str:
    """The MAC of a machine that is given by its MAC, or by its name in the settings."""
    from netboot.errors import ConfigError
    from netboot.model import canonical_mac

    named = [host.mac for host in site.hosts.values() if host.name == machine] if site else []
    if named:
        return named[0]
    try:
        return canonical_mac(machine)
    except ValueError as error:
        known = ", ".join(host.name for host in site.hosts.values()) if site else ""
        more = f", nor is it one of the clients {known}" if known else ""
        raise ConfigError(f"{error}{more}") from None

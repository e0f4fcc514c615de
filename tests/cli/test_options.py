"""Where settings and state are: the option, the environment, the file, the default."""

from ipaddress import IPv4Interface
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from netboot import config, sections
from netboot.cli import options
from netboot.errors import ConfigError
from netboot.model import Host, Site

SETTINGS = (
    '[site]\ninterface = "br0"\naddress = "10.0.0.1/24"\nstate = "{}"\n[dhcp]\nmode = "off"\n'
)


@pytest.fixture(autouse=True)
def no_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "none.toml")


def test_the_help_names_the_defaults_in_force() -> None:
    assert (options._CONFIG, options._STATE) == ("/etc/netboot/netboot.toml", "/var/lib/netboot")
    assert str(sections.DEFAULT_STATE) == options._STATE


def test_state_wins(tmp_path: Path) -> None:
    file = tmp_path / "netboot.toml"
    file.write_text(SETTINGS.format(tmp_path / "b"))
    found = options.place(tmp_path / "a", file)
    assert found == options.Place(tmp_path / "a", f"sqlite:///{tmp_path}/a/netboot.sqlite")


def test_else_the_settings_say(tmp_path: Path) -> None:
    file = tmp_path / "netboot.toml"
    file.write_text(SETTINGS.format(tmp_path / "b") + "")
    assert options.place(None, file).folder == tmp_path / "b"
    text = file.read_text().replace("[dhcp]", 'database = "sqlite:////srv/x.db"\n[dhcp]')
    file.write_text(text)
    assert options.place(None, file).url == "sqlite:////srv/x.db"


def test_else_the_default_file_then_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert options.place(None, None).folder == Path("/var/lib/netboot")
    file = tmp_path / "etc.toml"
    file.write_text(SETTINGS.format(tmp_path / "c"))
    monkeypatch.setattr(config, "DEFAULT_FILE", file)
    assert options.place(None, None).folder == tmp_path / "c"


def test_the_settings_file_is_the_one_named_else_the_default_if_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "etc.toml"
    assert options.file_there_is(None) is None
    monkeypatch.setattr(config, "DEFAULT_FILE", file)
    assert options.file_there_is(None) is None
    file.touch()
    assert options.file_there_is(None) == file
    assert options.file_there_is(tmp_path / "b.toml") == tmp_path / "b.toml"


def test_without_root_a_state_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert options.place(None, None).folder == Path("/xdg/netboot")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    assert options.place(None, None).folder == Path("/home/ann/.local/state/netboot")


def test_a_relative_state_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = options.place(Path("here"), None)
    assert found.folder == tmp_path / "here"
    found.store().close()
    assert (tmp_path / "here" / "netboot.sqlite").exists()


def test_a_state_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/state: Not a directory; run as root, or choose"):
        options.place(tmp_path / "file" / "state", None).store()


def test_a_state_folder_of_somebody_else_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(options.os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="not writable; run as root, or choose another"):
        options.place(tmp_path, None).store()


def test_the_environment_stands_in_for_options(tmp_path: Path) -> None:
    @click.command()
    @options.state_folder
    @options.as_json
    def tell(state: Path | None, config: Path | None, as_json: bool) -> None:
        click.echo(f"{state} {config} {as_json}")

    runner = CliRunner()
    environment = {"NETBOOT_STATE": "/a", "NETBOOT_CONFIG": "/b"}
    assert runner.invoke(tell, [], env=environment).output == "/a /b False\n"
    words = ["--state", "/c", "--config", "/d", "--json"]
    assert runner.invoke(tell, words, env=environment).output == "/c /d True\n"


def test_settings_without_a_file_say_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match=r"no such file; `netboot config show --example"):
        options.settings(None)


SITE = Site(
    interface="br0",
    address=IPv4Interface("10.0.0.1/24"),
    domain="lab",
    hosts={"52:54:00:00:00:01": Host("52:54:00:00:00:01", "ws1", "p")},
)


@pytest.mark.parametrize("machine", ["ws1", "52:54:00:00:00:01", "52-54-00-00-00-01"])
def test_a_machine_is_named_or_spelt(machine: str) -> None:
    assert options.mac_of(machine, SITE) == "52:54:00:00:00:01"


def test_a_machine_that_is_neither_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"'ws2' is not a MAC address .* the clients ws1"):
        options.mac_of("ws2", SITE)
    with pytest.raises(ConfigError, match="'ws1' is not a MAC address"):
        options.mac_of("ws1", None)

"""``netboot explain``: the whole answer, from the settings and the state alone."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from netboot.cli.entry import group
from netboot.errors import ConfigError
from netboot.state.store import Store

MAC = "52:54:00:00:00:01"
SETTINGS = """
[site]
interface = "br0"
address = "192.168.77.1/24"
domain = "lab.netboot"
state = "{state}"
[dhcp]
pool = "192.168.77.50-192.168.77.99"
[http]
templates = "{state}/mine"
[[profile]]
name = "p"
image = "debian"
script = "menu.ipxe"
[[client]]
mac = "52:54:00:00:00:01"
name = "ws1"
profile = "p"
address = "192.168.77.21"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "netboot.toml"
    path.write_text(SETTINGS.format(state=tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "menu.ipxe.j2").write_text("#!ipxe\necho hello {{ name }}\n")
    return path


def run(settings: Path, *words: str) -> Result:
    return CliRunner().invoke(group, ["explain", *words, "--config", str(settings)])


@pytest.mark.parametrize("machine", ["ws1", MAC, "52-54-00-00-00-01"])
def test_a_machine_is_explained(settings: Path, machine: str) -> None:
    done = run(settings, machine)
    assert done.exit_code == 0, done.exception
    assert done.output.startswith(f"{MAC}  ws1\n")
    assert "address  192.168.77.21 (reserved)" in done.output
    assert "BIOS (PXE): loader undionly.kpxe" in done.output
    assert "| echo hello ws1" in done.output  # the operator's own template
    assert "note       the image is not there yet: netboot image build debian" in done.output


def test_it_speaks_json(settings: Path) -> None:
    told = json.loads(run(settings, "ws1", "--json").output)
    assert (told["mac"], told["name"], told["profile"]) == (MAC, "ws1", "p")
    assert told["script"] == "#!ipxe\necho hello ws1\n"
    assert told["disk"]["mode"] == "persistent"


def test_a_stranger_is_explained_too(settings: Path) -> None:
    done = run(settings, "52:54:00:99:99:99")
    assert "unknown machines are ignored" in done.output
    assert "answer   none, at any stage" in done.output


def test_it_makes_nothing(settings: Path, tmp_path: Path) -> None:
    run(settings, "ws1")
    store = Store(f"sqlite:///{tmp_path}/netboot.sqlite")
    assert (store.overlays(), store.events(), store.leases()) == ([], [], [])
    store.close()


def test_what_is_no_machine_is_one_line(settings: Path) -> None:
    done = run(settings, "nobody")
    assert isinstance(done.exception, ConfigError)
    assert "\n" not in str(done.exception)

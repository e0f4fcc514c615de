"""``netboot image``: from files and recipes to versions, with only a state folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from netboot import config
from netboot.cli import image, options
from netboot.cli.entry import group
from netboot.errors import ImageError
from netboot.model import OverlayMode
from netboot.service.ledger import Ledger
from netboot.state.store import Store

MAC = "52:54:00:00:00:01"
BUILD = """#!/bin/sh
echo "50 half"
truncate -s "$NETBOOT_SIZE" "$1"
echo "100 done"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "My.disk.raw"
    path.write_bytes(b"\x11" * (1 << 20))
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes" / "tiny"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text('name = "tiny"\nsize = "1MiB"\nbuild = "build"\n')
    (folder / "build").write_text(BUILD)
    (folder / "build").chmod(0o755)
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(group, ["image", *map(str, words)])


def works(*words: object) -> str:
    done = run(*words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def refused(*words: object) -> str:
    done = run(*words)
    assert isinstance(done.exception, ImageError), (done.output, done.exception)
    return str(done.exception)


def test_a_file_becomes_a_version(state: Path, disk: Path) -> None:
    assert works("add", disk, "--state", state) == (
        f"my version 1: 1.0 MiB, {state}/images/my/1.raw\n"
    )
    told = json.loads(works("add", disk, "--name", "my", "--state", state, "--json"))
    assert (told["image"], told["number"], told["size"]) == ("my", 2, 1 << 20)
    assert Path(told["path"]).read_bytes() == disk.read_bytes()


def test_a_recipe_becomes_a_version(
    state: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert works("build", recipe, "--state", state).startswith("tiny version 1: 1.0 MiB, ")
    monkeypatch.setattr(image, "RECIPES", (state / "none", recipe.parent))
    assert works("build", "tiny", "--state", state).startswith("tiny version 2: ")


def test_the_recipes_that_come_along_are_found() -> None:
    assert image._find("debian").joinpath("image.toml").is_file()
    with pytest.raises(ImageError, match="there is no recipe windows; there are: debian"):
        image._find("windows")
    assert image._find("./windows") == Path("windows")


def test_ensure_builds_once(state: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "RECIPES", (recipe.parent,))
    place = options.place(state, None)
    first = image.ensure(place, "tiny")
    assert (first.image, first.number) == ("tiny", 1)
    (recipe / "build").unlink()
    assert image.ensure(place, "tiny") == first


def test_versions_are_listed_with_who_uses_them(state: Path, disk: Path) -> None:
    assert json.loads(works("list", "--state", state, "--json")) == []
    for _ in range(2):
        works("add", disk, "--name", "debian", "--state", state)
    store = Store(f"sqlite:///{state}/netboot.sqlite")
    Ledger(store, state).overlay_of(MAC, "debian", OverlayMode.PERSISTENT)
    store.close()
    lines = works("list", "--state", state).splitlines()
    assert lines[0].split() == ["IMAGE", "VERSION", "SIZE", "CREATED", "IN", "USE", "BY", "FROM"]
    assert lines[1].split()[:4] == ["debian", "1", "1.0", "MiB"]
    assert MAC in lines[2] and MAC not in lines[1]
    told = json.loads(works("list", "--state", state, "--json"))
    assert [(v["version"], v["current"], v["used_by"]) for v in told] == [
        (1, False, []),
        (2, True, [MAC]),
    ]


def test_no_image_says_how_to_get_one(state: Path) -> None:
    done = run("list", "--state", state)
    assert (done.stdout, done.exit_code) == ("", 0)
    assert "there are no images yet: netboot image build debian" in done.stderr


def test_a_version_is_shown(state: Path, disk: Path) -> None:
    works("add", disk, "--name", "debian", "--state", state)
    works("add", disk, "--name", "debian", "--state", state)
    assert "version    2\n" in works("show", "debian", "--state", state)
    shown = works("show", "debian", "--version", "1", "--state", state)
    assert "version    1\n" in shown
    assert "size       1.0 MiB (1048576 bytes)\n" in shown
    told = json.loads(works("show", "debian", "--verify", "--state", state, "--json"))
    assert told["verified"] is True
    assert told["digest"].startswith("sha256:")
    assert "no version 9, only 1, 2" in refused("show", "debian", "--version", 9, "--state", state)
    assert "there is no image arch, only debian" in refused("show", "arch", "--state", state)


def test_a_changed_golden_file_is_found_out(state: Path, disk: Path) -> None:
    works("add", disk, "--name", "debian", "--state", state)
    path = state / "images" / "debian" / "1.raw"
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"changed")
    assert "restore it" in refused("show", "debian", "--verify", "--state", state)


def test_what_is_in_use_is_not_removed(state: Path, disk: Path) -> None:
    works("add", disk, "--name", "debian", "--state", state)
    works("add", disk, "--name", "debian", "--state", state)
    store = Store(f"sqlite:///{state}/netboot.sqlite")
    overlay = Ledger(store, state).overlay_of(MAC, "debian", OverlayMode.PERSISTENT)
    assert f"debian version 2 is in use by {MAC}; " in refused("remove", "debian", "--state", state)
    assert len(store.versions()) == 2  # all or none
    assert works("remove", "debian", "--version", "1", "--state", state) == (
        "debian: removed version 1\n"
    )
    store.delete_overlay(overlay)
    told = json.loads(works("remove", "debian", "--state", state, "--json"))
    assert told == {"image": "debian", "removed": [2]}
    assert store.versions() == []
    store.close()
    assert list((state / "images" / "debian").glob("*.raw")) == []
    assert "there is no image debian" in refused("remove", "debian", "--state", state)


SETTINGS = """
[site]
interface = "br0"
address = "10.0.0.1/24"
state = "{}"
[dhcp]
mode = "off"
[[profile]]
name = "desk"
image = "debian"
[[profile]]
name = "lab"
image = "debian"
[[profile]]
name = "other"
image = "arch"
"""


def test_the_last_version_stays_while_a_profile_of_the_settings_names_it(
    state: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        works("add", disk, "--name", "debian", "--state", state)
    file = tmp_path / "netboot.toml"
    file.write_text(SETTINGS.format(state))
    told = (
        f"image debian: profile desk, lab of {file} boots it, and no version would be left; "
        "give it another image there first"
    )
    assert refused("remove", "debian", "--config", file) == told
    works("remove", "debian", "--version", 2, "--config", file)
    assert refused("remove", "debian", "--version", 1, "--config", file) == told
    monkeypatch.setattr(config, "DEFAULT_FILE", file)
    assert refused("remove", "debian", "--state", state) == told
    (tmp_path / "link").symlink_to(state)
    assert refused("remove", "debian", "--state", tmp_path / "link") == told
    file.write_text(SETTINGS.format(tmp_path / "elsewhere"))
    works("remove", "debian", "--state", state)  # they are the settings of another state


def test_settings_that_cannot_be_read_hold_nothing_up(
    state: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works("add", disk, "--name", "debian", "--state", state)
    file = tmp_path / "netboot.toml"
    file.write_text("[site")
    monkeypatch.setattr(config, "DEFAULT_FILE", file)
    works("remove", "debian", "--state", state)


def test_the_last_version_stays_while_a_profile_of_the_running_service_names_it(
    state: Path, disk: Path, beside_a_service: Any
) -> None:
    """It may run with settings that the file has no longer, until it is told to reload."""
    works("add", disk, "--name", "debian", "--state", state)
    told: list[str] = []

    def remove() -> None:
        told.append(refused("remove", "debian", "--state", state))

    asked = beside_a_service(state, "profiles", {"desk": "debian", "other": "arch"}, remove)
    assert asked == [{"do": "profiles"}]
    assert told == [
        "image debian: profile desk of the running service boots it, and no version would be left; "
        "give it another image in the settings and reload the service (SIGHUP) first"
    ]
    beside_a_service(
        *(state, "profiles", {"other": "arch"}),
        lambda: told.append(works("remove", "debian", "--state", state)),
    )
    assert told[1:] == ["debian: removed version 1\n"]


def test_what_is_no_image_is_one_line(state: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.qcow2"
    odd.write_bytes(b"QFI\xfb" + bytes(600))
    assert "\n" not in refused("add", odd, "--state", state)
    assert "allowed are lower-case letters" in refused(
        "add", odd, "--name", "Up/Down", "--state", state
    )
    assert run("add", tmp_path / "none", "--state", state).exit_code == 2

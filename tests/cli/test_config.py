"""``netboot config``: every mistake, the settings in force, the example, the documentation."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from netboot import config
from netboot.cli import settings_text
from netboot.cli.entry import group
from netboot.errors import ConfigError


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(settings_text.example())
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.toml"
    text = settings_text.example().replace('lease = "1h"', 'lease = "1"')
    path.write_text(text.replace("port = 8080", "port = 99999"))
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(group, ["config", *map(str, words)])


def test_a_good_file_is_told_so(good: Path) -> None:
    for words in ([good], ["--config", good]):
        done = run("check", *words)
        assert (done.exit_code, done.output) == (
            0,
            f"{good}: no mistakes (1 profiles, 1 clients)\n",
        )


def test_a_bad_file_is_told_all_its_mistakes(bad: Path) -> None:
    done = run("check", bad)
    assert isinstance(done.exception, ConfigError)
    lines = str(done.exception).splitlines()
    assert [line.split(" = ")[0] for line in lines] == [
        f"{bad}: dhcp.lease",
        f"{bad}: http.port",
    ]


def test_mistakes_in_json(good: Path, bad: Path) -> None:
    done = run("check", bad, "--json")
    told = json.loads(done.output)
    assert done.exit_code == 2
    assert (told["file"], told["ok"], len(told["mistakes"])) == (str(bad), False, 2)
    done = run("check", good, "--json")
    assert done.exit_code == 0
    assert json.loads(done.output) == {"file": str(good), "ok": True, "mistakes": []}


def test_without_a_file_the_default_is_checked(monkeypatch: pytest.MonkeyPatch, good: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", good)
    assert run("check").output.startswith(f"{good}: no mistakes")


def test_the_settings_in_force(good: Path) -> None:
    text = run("show", "--config", good).output
    assert config.parse(text, "shown") == config.load(good)
    assert json.loads(run("show", "--config", good, "--json").output)["http"]["port"] == 8080


def test_the_example_and_the_documentation() -> None:
    assert run("show", "--example").output == settings_text.example()
    assert run("show", "--docs").output == settings_text.documentation()
    assert json.loads(run("show", "--example", "--json").output)["site"]["interface"] == "br0"

"""The door: help that imports nothing, errors as one line, interrupts that leave nothing."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from netboot import __version__
from netboot.cli import entry
from netboot.errors import ConfigError, ImageError, LabError, NetbootError

#: What help must not wait for.
HEAVY = {"pydantic", "sqlalchemy", "aiohttp", "scapy", "jinja2", "rich", "asyncio", "dnslib"}
PATIENCE = 30


def run(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "netboot", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **more,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], *([row.name, "--help"] for row in entry.COMMANDS)],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = textwrap.dedent(f"""
        import sys
        from netboot.cli import main
        try:
            main({words!r})
        except SystemExit as end:
            assert not end.code, end.code
        print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


def test_help_names_every_command() -> None:
    done = run("--help")
    for row in entry.COMMANDS:
        assert f"  {row.name} " in done.stdout
        assert row.help in done.stdout


@pytest.mark.parametrize("row", entry.COMMANDS, ids=lambda row: row.name)
def test_the_listed_help_is_the_commands_own(row: entry.Command) -> None:
    command = getattr(importlib.import_module(row.module), row.name)
    assert isinstance(command, click.Command)
    assert (command.help or "").strip().splitlines()[0] == row.help


def test_every_leaf_command_has_help_and_speaks_json() -> None:
    """``serve`` runs, ``demo`` shows: they answer nothing."""

    def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            found = []
            for name in command.list_commands(click.Context(command)):
                inner = command.get_command(click.Context(command), name)
                assert inner is not None
                found += leaves(inner, f"{path} {name}")
            return found
        return [(path, command)]

    for path, command in leaves(entry.group, "netboot"):
        assert command.help, path
        options = {option for parameter in command.params for option in parameter.opts}
        assert ("--json" in options) == (path not in ("netboot serve", "netboot lab demo")), path


def test_the_version_is_one_line() -> None:
    assert run("--version").stdout == f"netboot {__version__}\n"


@pytest.mark.parametrize("words", [["dance"], ["image", "dance"], ["--dance"], ["explain"]])
def test_words_that_mean_nothing_exit_2(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage: netboot" in done.stderr


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """What ``main`` exits with when a command raises."""

    def command(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(entry.group, "main", command)
    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        entry.main([])
    return caught.value.code


@pytest.mark.parametrize("kind", [NetbootError, ConfigError, ImageError, LabError])
def test_our_errors_are_one_line_and_2(
    kind: type[NetbootError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(kind("it is so"), monkeypatch) == 2
    assert capsys.readouterr() == ("", "netboot: it is so\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_130(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error, monkeypatch) == 130
    assert capsys.readouterr().err == "netboot: interrupted\n"


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(entry.group, "main", command)
    with pytest.raises(ZeroDivisionError):
        entry.main([])


def test_a_reader_that_went_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m netboot config show --example | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.startswith("# netboot.toml")
    assert done.stderr == ""


#: A recipe that says when it has begun, and then never ends.
SLOW = """#!/bin/sh
echo half-made > "$1"
echo begun > "{begun}"
echo "10 working"
exec sleep 600
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_half_made_stays(tmp_path: Path, number: signal.Signals, code: int) -> None:
    recipe, state, begun = tmp_path / "slow", tmp_path / "state", tmp_path / "begun"
    recipe.mkdir()
    os.mkfifo(begun)
    (recipe / "image.toml").write_text('name = "slow"\nsize = "1MiB"\nbuild = "build"\n')
    (recipe / "build").write_text(SLOW.format(begun=begun))
    (recipe / "build").chmod(0o755)
    words = [sys.executable, "-m", "netboot", "image", "build", str(recipe), "--state", str(state)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert begun.read_text() == "begun\n"  # waits for the recipe
        process.send_signal(number)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == code
    assert "Traceback" not in errors
    left = [path.name for path in (state / "images" / "slow").iterdir()]
    assert [name for name in left if name.endswith((".raw", ".part"))] == []
    assert run("image", "list", "--state", state, "--json").stdout.strip() == "[]"


def test_the_group_lists_its_commands_in_the_order_of_the_table() -> None:
    runner = CliRunner()
    shown = runner.invoke(entry.group, ["--help"]).output
    places = [shown.index(f"\n  {row.name} ") for row in entry.COMMANDS]
    assert places == sorted(places)
    assert entry.group.get_command(click.Context(entry.group), "dance") is None

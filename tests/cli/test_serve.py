"""``netboot serve``: its words. That it serves is held by ``test_app``."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from netboot import app, config
from netboot.cli import serve
from netboot.cli.entry import group


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """The log as it was before, whatever a test does to it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "aiohttp", "sqlalchemy")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def listen_to(verbose: int) -> None:
    """As in a process of its own, where nobody listens yet."""
    logging.getLogger().handlers[:] = []
    serve.listen_to(verbose)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (Path("/etc/netboot/netboot.toml"), False, 0)),
        (["--config", "/x.toml", "--leave-disks"], (Path("/x.toml"), True, 0)),
        (["--config", "/x.toml"], (Path("/x.toml"), False, 130)),
    ],
)
def test_its_words_reach_the_service_and_its_code_comes_back(
    words: list[str], expected: tuple[Path, bool, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[Path, bool]] = []

    def service(path: Path, *, leave_disks: bool) -> int:
        called.append((path, leave_disks))
        return expected[2]

    monkeypatch.setattr(app, "serve", service)
    done = CliRunner().invoke(group, ["serve", *words])
    assert called == [expected[:2]]
    assert done.exit_code == expected[2]


def test_the_default_file_is_the_one_of_the_settings() -> None:
    assert Path("/etc/netboot/netboot.toml") == config.DEFAULT_FILE


@pytest.mark.parametrize(
    ("verbose", "ours", "theirs"),
    [
        (0, logging.INFO, logging.WARNING),
        (1, logging.DEBUG, logging.WARNING),
        (2, logging.DEBUG, logging.DEBUG),
    ],
)
def test_how_much_is_said(
    verbose: int, ours: int, theirs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("asyncio", "aiohttp", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    listen_to(verbose)
    assert logging.getLogger("netboot.dhcp.server").getEffectiveLevel() == ours
    assert logging.getLogger("sqlalchemy").getEffectiveLevel() == theirs


@pytest.mark.parametrize(("journal", "dated"), [(None, True), ("8:1234", False)])
def test_journald_has_its_own_clock(
    journal: str | None, dated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if journal:
        monkeypatch.setenv("JOURNAL_STREAM", journal)
    listen_to(0)
    record = logging.LogRecord("netboot.x", logging.INFO, "", 0, "hello", None, None)
    line = logging.getLogger().handlers[0].format(record)
    assert line.endswith("INFO    netboot.x: hello")
    assert line[:4].isdigit() == dated

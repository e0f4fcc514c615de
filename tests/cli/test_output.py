"""JSON for programs, a table for people, plain lines for a pipe; colours only on a terminal."""

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from netboot.cli import output

ROWS = [
    {"name": "ws1", "size": 5, "users": ["a", "b"], "on": True},
    {"name": "workstation-2", "size": None, "users": [], "on": False},
]
COLUMNS = ("name", "size", "users", "on")


def test_a_pipe_gets_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(ROWS, COLUMNS, "none")
    assert capsys.readouterr().out == (
        "NAME           SIZE  USERS  ON\n"
        "ws1            5     a, b   yes\n"
        "workstation-2  -     -      no\n"
    )


def test_no_rows_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([], COLUMNS, "there are none: netboot image build debian")
    assert capsys.readouterr() == ("", "there are none: netboot image build debian\n")


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": [1, None], "b": "ü"})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None], "b": "ü"}


def test_facts_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.facts({"name": "ws1", "none": None, "phases": ["one", "two"], "empty": []})
    assert capsys.readouterr().out == (
        "name    ws1\nnone    -\nphases  one\n        two\nempty   -\n"
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 62, "20480.0 PiB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert output.size(count) == shown


def test_times_are_local_and_to_the_second() -> None:
    local = datetime(2026, 11, 20, 6, 5, 4, tzinfo=UTC).astimezone()
    assert output.when(local.timestamp() + 0.9) == local.strftime("%Y-%m-%d %H:%M:%S")


def test_no_terminal_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("building") as tell:
        tell(50, "half")
    assert capsys.readouterr() == ("", "")


CODE = """
from netboot.cli import output
output.table([{"name": "w[bold]s1", "size": 5}], ("name", "size"), "none")
with output.progress("building [x]") as tell:
    tell(50, "half [y]")
    import time; time.sleep(0.3)
"""


WIDE = """
from netboot.cli import output
row = {"name": "n" * 60, "mac": "52:54:00:12:34:56", "address": "192.168.77.199"}
output.table([row], tuple(row), "none")
"""


def on_a_terminal(code: str = CODE, **environment: str) -> str:
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**clean, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the terminal's other end is closed
                break
            if not part:
                break
            shown += part
        os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def test_a_terminal_gets_colours_and_a_bar() -> None:
    shown = on_a_terminal()
    assert "\x1b[1m" in shown
    assert "w[bold]s1" in shown
    assert "building [x]: half [y]" in shown
    assert "50 %" in shown


def test_what_is_copied_stays_on_one_line() -> None:
    shown = on_a_terminal(WIDE)
    assert "52:54:00:12:34:56" in shown
    assert "192.168.77.199" in shown


def test_no_color_is_respected() -> None:
    shown = on_a_terminal(NO_COLOR="1")
    assert "w[bold]s1" in shown
    assert "\x1b[3" not in shown  # no colour; a cursor may still move

"""How every command speaks: JSON for programs, a table for people, plain lines for a pipe.

Colours and boxes only on a terminal, and not under NO_COLOR. Results go to stdout; progress and
everything else to stderr.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeAlias

import click

Row: TypeAlias = Mapping[str, object]
#: Called with the percent that is done, and with what is being done.
Progress: TypeAlias = Callable[[int, str], None]

#: Columns that nobody can copy from two lines.
_WHOLE = {"mac", "address"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def emit(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, default=str))


def table(rows: Sequence[Row], columns: Sequence[str], empty: str) -> None:
    """The rows for people; ``empty`` says what to do when there are none."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if not rows:
        click.echo(empty, err=True)
    elif sys.stdout.isatty():
        _drawn(cells, columns)
    else:
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for line in ([name.upper() for name in columns], *cells):
            pairs = zip(line, widths, strict=True)
            click.echo("  ".join(cell.ljust(width) for cell, width in pairs).rstrip())


def _drawn(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(header_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in columns:
        drawn.add_column(name, overflow="fold", no_wrap=name in _WHOLE)
    for line in cells:
        drawn.add_row(*(Text(cell) for cell in line))
    Console().print(drawn)


def facts(row: Row) -> None:
    """One thing for people: a line for each of its facts."""
    width = max((len(name) for name in row), default=0)
    for name, value in row.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            lines = [_cell(item) for item in value] or ["-"]
        else:
            lines = [_cell(value)]
        for index, line in enumerate(lines):
            click.echo(f"{'' if index else name:<{width}}  {line}".rstrip())


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_cell(item) for item in value) or "-"
    return str(value)


def size(count: int) -> str:
    """``3.2 GiB``."""
    number, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"


def when(at: float) -> str:
    """Seconds since the epoch as local time, to the second."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A bar on stderr while something long runs; nothing at all where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _percent, _text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=100)
        yield lambda percent, text: bar.update(
            task, completed=percent, description=f"{title}: {text}"
        )

"""What a lab tells a person: each machine's timeline, sizes, and where a failure left off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from netboot.model import Version
from netboot.storage.parts import usage


def size(count: float) -> str:
    """Bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def allocated(path: Path) -> int:
    """Bytes that a (sparse) file takes on the disk; 0 when there is none."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def timeline(client: Mapping[str, Any]) -> Group:
    """Phases with seconds since the machine's first packet, and what its disk did."""
    counters = client.get("counters") or {}
    title = f"{client['name']} {client['mac']} {client.get('address') or ''}".rstrip()
    read, wrote = counters.get("read_bytes", 0), counters.get("write_bytes", 0)
    table = Table()
    table.add_column("phase")
    table.add_column("seconds", justify="right")
    table.add_column("what", overflow="fold")
    for step in client.get("timeline") or ():
        table.add_row(step["phase"], f"{step['after']:.1f}", step.get("detail") or "")
    return Group(Text(title), table, Text(f"read {size(read)}, wrote {size(wrote)}\n"))


def sizes(version: Version, state: Path) -> Table:
    """The golden image beside what the machines wrote over it."""
    table = Table()
    table.add_column("file")
    table.add_column("apparent", justify="right")
    table.add_column("allocated", justify="right")
    golden = Path(version.path)
    name = f"golden {version.image} version {version.number}"
    table.add_row(name, size(golden.stat().st_size), size(allocated(golden)))
    for overlay in sorted(state.glob("overlays/*.qcow2")):
        data = overlay.with_suffix(".data")
        apparent = overlay.stat().st_size + (data.stat().st_size if data.exists() else 0)
        table.add_row(f"overlay {overlay.stem}", size(apparent), size(usage(str(overlay))))
    return table

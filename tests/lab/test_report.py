"""What a person reads after a lab."""

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from netboot.lab.report import allocated, size, sizes, timeline
from netboot.model import Version


def text(drawn: RenderableType) -> str:
    screen = Console(width=120, file=io.StringIO())
    with screen.capture() as captured:
        screen.print(drawn)
    return captured.get()


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 << 10, "1.5 MiB"),
        (5 << 30, "5.00 GiB"),
    ],
)
def test_sizes_for_people(count: int, words: str) -> None:
    assert size(count) == words


def test_a_timeline_shows_phases_seconds_and_bytes() -> None:
    shown = text(
        timeline(
            {
                "mac": "52:54:00:00:00:01",
                "name": "ws1",
                "address": "192.168.77.50",
                "timeline": [
                    {"phase": "seen", "at": 100.0, "after": 0.0, "detail": ""},
                    {"phase": "ready", "at": 161.26, "after": 61.26, "detail": "said so"},
                ],
                "counters": {"read_bytes": 3 << 20, "write_bytes": 2048},
            }
        )
    )
    assert "ws1 52:54:00:00:00:01 192.168.77.50" in shown
    assert "61.3" in shown
    assert "said so" in shown
    assert "read 3.0 MiB, wrote 2.0 KiB" in shown


def test_a_machine_that_never_spoke_has_an_empty_timeline() -> None:
    assert "read 0 B, wrote 0 B" in text(timeline({"mac": "m", "name": "n"}))


def test_sizes_count_what_sparse_files_really_take(tmp_path: Path) -> None:
    golden = tmp_path / "golden.raw"
    overlays = tmp_path / "overlays"
    overlays.mkdir()
    for path, length in ((golden, 64 << 20), (overlays / "a.data", 64 << 20)):
        with path.open("wb") as file:
            file.write(b"x" * 8192)
            file.truncate(length)
    (overlays / "a.qcow2").write_bytes(b"q" * 4096)
    assert allocated(tmp_path / "none") == 0
    assert allocated(golden) < 1 << 20
    shown = text(sizes(Version("debian", 3, str(golden), 64 << 20, "sha256:0", 0.0), tmp_path))
    assert "golden debian version 3" in shown
    assert "overlay a" in shown
    assert "64.0 MiB" in shown

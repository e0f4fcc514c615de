"""What belongs to an overlay: its size on disk, and how it is thrown away, whenever that ends."""

import os
from pathlib import Path
from typing import Any

import pytest

from netboot.errors import ImageError
from netboot.storage import locks, parts
from netboot.storage.parts import SIDES, InUse, claim, discard, is_at, punch, sibling, usage
from tests.storage.conftest import Bench, content, kill


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def written(bench: Bench) -> Bench:
    """A machine's own disk, not open, with all that may lie beside it."""
    disk = bench.attach()
    disk.write(0, b"w" * 8192)
    disk.flush()
    disk.write(65536, b"n" * 4096)
    disk.intend(0, b"i" * 512)
    kill(bench.disks.pop())
    names = {name for name in os.listdir(bench.folder) if name.startswith("client.")}
    assert names == {"client.qcow2", "client.data", "client.live", "client.intent"}
    for suffix in SIDES:
        with open(sibling(str(bench.path), suffix), "ab"):
            pass
    return bench


def left(bench: Bench) -> list[str]:
    return sorted(name for name in os.listdir(bench.folder) if name.startswith("client."))


def test_names_that_go_together() -> None:
    assert sibling("/o/ws1.qcow2", ".data") == "/o/ws1.data"
    assert sibling("/o/ws1", ".live") == "/o/ws1.live"


def test_usage(written: Bench) -> None:
    path = str(written.path)
    each = [sibling(path, suffix) for suffix in SIDES]
    assert usage(path) == sum(Path(name).stat().st_blocks * 512 for name in (path, *each)) > 8192
    before = usage(path)
    with open(written.data, "r+b") as file:
        os.pwrite(file.fileno(), b"x" * 65536, 2 * 131072)
        os.fsync(file.fileno())
        assert usage(path) == before + 65536
        punch(file.fileno(), 2 * 131072, 65536)
        assert usage(path) == before
    assert usage(path + "x") == 0


def test_a_hole_that_cannot_be_punched_is_no_error() -> None:
    reader, writer = os.pipe()
    punch(reader, 0, 4096)
    os.close(reader)
    os.close(writer)


def test_whoever_claims_a_name_has_it_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "c.qcow2")
    Path(path + ".new").write_bytes(b"what a killed maker left")
    first = claim(path, over=False)
    assert os.fstat(first).st_size == 0 and is_at(path + ".new", first)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileExistsError):
        claim(path, over=False)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(first)
    os.close(claim(path, over=False))


def test_a_file_with_two_names_is_not_emptied(tmp_path: Path) -> None:
    path = tmp_path / "c.qcow2"
    path.write_bytes(b"whole")
    os.link(path, f"{path}.new")
    with pytest.raises(FileExistsError):
        claim(str(path), over=False)
    assert path.read_bytes() == b"whole"
    os.close(claim(str(path), over=True))
    assert path.read_bytes() == b"whole"


def test_discard(written: Bench) -> None:
    before = usage(str(written.path))
    assert discard(str(written.path)) == before
    assert left(written) == []
    assert content(written.attach()) == written.content


def test_discard_what_is_open(bench: Bench) -> None:
    disk = bench.attach()
    disk.write(0, b"w" * 512)
    before = left(bench)
    with pytest.raises(InUse, match="in use; shut the machine down first"):
        discard(str(bench.path))
    assert left(bench) == before
    assert content(disk, 0, 512) == b"w" * 512


def test_discard_what_is_not_there(tmp_path: Path) -> None:
    assert discard(str(tmp_path / "c.qcow2")) == 0
    assert discard(str(tmp_path / "no" / "folder" / "c.qcow2")) == 0
    assert os.listdir(tmp_path) == []
    Path(tmp_path / "c.data").write_bytes(b"d" * 4096)
    assert discard(str(tmp_path / "c.qcow2")) == 4096
    assert os.listdir(tmp_path) == []


def test_discard_what_is_just_being_begun(bench: Bench) -> None:
    maker = claim(str(bench.path), over=False)
    with pytest.raises(InUse, match="being replaced"):
        discard(str(bench.path))
    os.close(maker)
    discard(str(bench.path))


def test_discard_while_somebody_begins_it_anew(written: Bench, monkeypatch: Any) -> None:
    """Who renamed a fresh overlay into place while we opened the old one keeps it."""
    own, taken = locks.own, []

    def own_late(fd: int) -> bool:
        if not taken:
            taken.append(None)
            taken.append(written.attach(generation=1))
        return own(fd)

    monkeypatch.setattr(locks, "own", own_late)
    with pytest.raises(InUse, match="in use"):
        discard(str(written.path))
    taken[1].write(0, b"z" * 512)
    taken[1].close()
    assert content(written.attach(generation=1), 0, 512) == b"z" * 512


def test_discard_where_nothing_can_be_removed(written: Bench, monkeypatch: Any) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(ImageError, match=r"client\.qcow2: cannot be removed: Operation not"):
            discard(str(written.path))
    assert content(written.attach(), 0, 512) == b"i" * 512


@pytest.mark.parametrize("step", range(len(SIDES) + 7))
def test_killed_at_each_step_it_is_the_old_one_or_none(
    written: Bench, monkeypatch: Any, step: int
) -> None:
    """Never a mixture, and never one that is refused."""
    old = bytearray(written.content)
    old[:8192] = b"i" * 512 + b"w" * 7680
    old[65536 : 65536 + 4096] = b"n" * 4096
    calls = []

    def dying(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if len(calls) == step:
                raise KeyboardInterrupt
            calls.append(real)
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", dying(os.unlink))
        patch.setattr(parts, "sync_folder", dying(parts.sync_folder))
        try:
            discard(str(written.path))
        except KeyboardInterrupt:
            assert step < len(SIDES) + 5
    found = content(written.attach())
    assert found in (bytes(old), written.content)
    if len(calls) > 1:  # .new of nobody, then the tables
        assert found == written.content
    written.disks.pop().close()
    discard(str(written.path))
    assert left(written) == []

"""The parts of a lab that need no machine: what is borrowed, lent, kept and thrown away."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from netboot.errors import ImageError, LabError
from netboot.lab import namespace
from netboot.lab.console import ConsoleError
from netboot.lab.run import Lab, borrow, keep_overlays, lend, scratch
from netboot.lab.service import Settings
from netboot.model import Version


@pytest.fixture
def version(tmp_path: Path) -> Version:
    golden = tmp_path / "golden.raw"
    golden.write_bytes(bytes(1 << 20))
    return Version("debian", 4, str(golden), 1 << 20, "sha256:00", 1.0)


def test_a_version_lent_to_a_lab_is_the_librarys_own(tmp_path: Path, version: Version) -> None:
    lend(version, tmp_path / "lab")
    lend(version, tmp_path / "lab")
    assert borrow("debian", tmp_path / "lab") == version


def test_an_image_that_is_not_there_says_how_to_get_it(tmp_path: Path, version: Version) -> None:
    with pytest.raises(ImageError, match="netboot image build debian"):
        borrow("debian", tmp_path)
    lend(version, tmp_path)
    Path(version.path).unlink()
    with pytest.raises(ImageError, match="netboot image build debian"):
        borrow("debian", tmp_path)


def test_scratch_goes_away_unless_the_lab_failed(tmp_path: Path) -> None:
    with scratch("netboot-test-") as folder:
        (folder / "log").touch()
    assert not folder.exists()
    with pytest.raises(KeyboardInterrupt), scratch("netboot-test-") as folder:
        raise KeyboardInterrupt
    assert not folder.exists()
    with (
        pytest.raises(LabError, match="no luck; logs and capture: "),
        scratch("netboot-test-") as f,
    ):
        folder = f
        raise LabError("no luck")
    assert folder.is_dir()
    folder.rmdir()


def test_a_machine_that_failed_stays_another_thing_than_a_lab_that_failed() -> None:
    with pytest.raises(ConsoleError, match="logs and capture: "), scratch("netboot-test-") as f:
        folder = f
        raise ConsoleError("machine1: silent")
    folder.rmdir()


def test_a_lab_outside_its_namespaces_is_refused(
    tmp_path: Path, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(namespace.MARK, raising=False)

    async def main() -> None:
        async with Lab(tmp_path, Settings(tmp_path / "state", "debian", []), version):
            pass

    with pytest.raises(LabError, match="inside its own namespaces"):
        asyncio.run(main())


@pytest.mark.interop
def test_kept_overlays_stand_alone_over_the_golden_image(tmp_path: Path, version: Version) -> None:
    overlays = tmp_path / "state" / "overlays"
    overlays.mkdir(parents=True)
    made = overlays / "52-54-00-00-00-01.qcow2"
    backing = ["-b", version.path, "-F", "raw"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, made], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 7 4096 4096", made], check=True, capture_output=True)
    (kept,) = keep_overlays(tmp_path / "state", Path(version.path), tmp_path / "kept")
    assert kept == tmp_path / "kept" / made.name
    same = subprocess.run(["qemu-img", "compare", made, kept], capture_output=True, text=True)
    assert same.returncode == 0, same.stdout
    assert kept.stat().st_size < 1 << 20

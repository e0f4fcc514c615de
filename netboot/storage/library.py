"""The image library: golden images by name and number, immutable, each with its digest.

    <root>/<image>/<number>.raw       the bytes, mode 0444
    <root>/<image>/<number>.raw.id    what the file was when it was hashed (see ``identity``)
    <root>/<image>/.<something>.part  being made; whoever makes it holds a lock on it
    <root>/<image>/build.log          what the recipe last said
    <root>/<image>/.lock              whoever takes a number, or the folder away, holds a lock on it
    <root>/.cache/                    what recipes keep

The catalogue (which versions there are) is kept elsewhere, behind ``Catalog``. A version is
whole before it gets its name, and named before it is in the catalogue: an interruption at any
point leaves a catalogue that is true, and at worst a file that the next ``add`` replaces.
Nothing here ever writes to a version again.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from netboot.errors import ImageError
from netboot.model import Overlay, Version
from netboot.storage import locks, qcow2
from netboot.storage.convert import Progress, digest_of, to_raw
from netboot.storage.identity import Identity, identity_path, write_identity
from netboot.storage.prefetch import learned_path
from netboot.storage.recipe import NAME, load_recipe, run_recipe

_LOCK, _BUILD_LOG = ".lock", "build.log"
_TRIES = 100  #: until somebody who takes the folder away again and again is a mistake


class Catalog(Protocol):
    """What the library wants of the state."""

    def versions(self, image: str | None = None) -> list[Version]:
        """Of one image, or of all; by image and number."""

    def next_number(self, image: str) -> int:
        """A number that no version of the image ever had."""

    def add_version(self, version: Version) -> None:
        """Remember; ImageError when the number was ever taken."""

    def remove_version(self, image: str, number: int) -> None:
        """Forget; ImageError while an overlay stands on it."""

    def overlays_of(self, image: str, version: int | None = None) -> Sequence[Overlay]:
        """Those that stand on an image, or on one version of it."""


def quiet(percent: int, text: str) -> None:
    """A Progress that tells nobody."""


class Library:
    """The versions below ``root``, as ``catalog`` knows them."""

    def __init__(self, root: Path, catalog: Catalog) -> None:
        self.root = root.absolute()
        self._catalog = catalog

    def list(self, name: str | None = None) -> list[Version]:
        """All versions, or those of one image."""
        return self._catalog.versions(name)

    def show(self, name: str, number: int | None = None) -> Version:
        """One version, the newest unless a number is given; ImageError when there is none."""
        versions = self._catalog.versions(name)
        for version in reversed(versions):
            if number in (None, version.number):
                return version
        if versions:
            have = ", ".join(str(version.number) for version in versions)
            raise ImageError(f"image {name} has no version {number}, only {have}")
        names = sorted({version.image for version in self._catalog.versions()})
        raise ImageError(
            f"there is no image {name}"
            + (f", only {', '.join(names)}" if names else "; `netboot image build` makes one")
        )

    def add(self, name: str, file: Path, progress: Progress = quiet) -> Version:
        """Take in a raw, qcow2, vmdk, vhd or vhdx file as the next version of ``name``."""
        with self._part(name) as part:
            digest = to_raw(file, part, progress)
            return self._finish(name, part, digest, str(file))

    def build(self, folder: Path, progress: Progress = quiet) -> Version:
        """Run the recipe in ``folder``; what it makes is the next version of its image."""
        recipe = load_recipe(folder)
        with self._part(recipe.name) as part:
            log = self.root / recipe.name / _BUILD_LOG
            cache = self.root / ".cache" / recipe.name
            run_recipe(recipe, part, cache, log, lambda p, text: progress(p * 95 // 100, text))
            digest = digest_of(part, lambda p, text: progress(95 + p // 20, text))
            return self._finish(recipe.name, part, digest, f"recipe {folder}")

    def verify(self, name: str, number: int | None = None, progress: Progress = quiet) -> Version:
        """Hash a version again; ImageError when its bytes are not what they were.

        This is the way back when a file was restored from a backup: the same bytes, but to
        ``attach`` another file.
        """
        version = self.show(name, number)
        path = Path(version.path)
        try:
            stat = path.stat()
            digest = digest_of(path, progress)
            if digest != version.digest or stat.st_size != version.size:
                raise ImageError(
                    f"{path}: its bytes are {digest}, they were {version.digest}; "
                    "restore it from a backup"
                )
            path.chmod(0o444)
            write_identity(version.path, Identity.of(digest, stat))
        except OSError as problem:
            raise ImageError(f"{path}: {problem.strerror}") from problem
        return version

    def remove(self, name: str, number: int) -> None:
        """Delete a version; ImageError while an overlay stands on it or a disk has it open."""
        version = self.show(name, number)
        users = sorted(overlay.mac for overlay in self._catalog.overlays_of(name, number))
        if users:
            raise ImageError(
                f"image {name} version {number} is in use by {', '.join(users)}; "
                "`netboot overlay reset` them first"
            )
        path = Path(version.path)
        if _is_open(path):
            raise ImageError(f"image {name} version {number}: a disk has it open")
        self._catalog.remove_version(name, number)
        path.unlink(missing_ok=True)
        identity_path(version.path).unlink(missing_ok=True)
        learned_path(version.path).unlink(missing_ok=True)
        if not self._catalog.versions(name):
            self._clear(name)

    def _clear(self, name: str) -> None:
        """Take away the folder of an image without versions, unless one is being made there."""
        folder = self.root / name
        with suppress(OSError), _locked(folder):
            if {entry.name for entry in folder.iterdir()} <= {_LOCK, _BUILD_LOG}:
                (folder / _BUILD_LOG).unlink(missing_ok=True)
                (folder / _LOCK).unlink()
                folder.rmdir()

    @contextmanager
    def _part(self, name: str) -> Iterator[Path]:
        """A file to make a version in; gone afterwards, unless it got a name."""
        if not NAME.fullmatch(name):
            raise ImageError(f"image {name!r}: allowed are lower-case letters, digits, . _ -")
        folder = self.root / name
        try:
            fd, made = _made_in(folder)
        except OSError as problem:
            raise ImageError(f"{folder}: {problem.strerror}") from problem
        part = Path(made)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield part
        except OSError as problem:
            where = problem.filename or folder
            raise ImageError(f"image {name}: {where}: {problem.strerror}") from problem
        finally:
            part.unlink(missing_ok=True)
            os.close(fd)
            with suppress(OSError):  # not empty, mostly
                folder.rmdir()

    def _finish(self, name: str, part: Path, digest: str, origin: str) -> Version:
        """Make a complete part durable, name it, and enter it in the catalogue."""
        size = part.stat().st_size
        if size > qcow2.MAX_SIZE:
            raise ImageError(f"image {name}: {size} bytes, more than {qcow2.MAX_SIZE >> 40} TiB")
        part.chmod(0o444)
        _sync(part)
        folder = part.parent
        with _locked(folder):  # the number must stay ours until it is taken
            number = self._catalog.next_number(name)
            path = folder / f"{number}.raw"
            write_identity(str(path), Identity.of(digest, part.stat()))
            part.rename(path)
            _sync(folder)
            version = Version(name, number, str(path), size, digest, time.time(), origin)
            try:
                self._catalog.add_version(version)
            except BaseException:
                path.unlink()
                identity_path(str(path)).unlink()
                raise
        return version


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _made_in(folder: Path) -> tuple[int, str]:
    """A new part in ``folder``, which is made too: it may be taken away as we come."""
    for _ in range(_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        with suppress(FileNotFoundError):
            return tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    raise ImageError(f"{folder}: taken away again and again; is an `image remove` running?")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an image's folder; OSError when there is no such folder.

    The one before us may have taken the file away: a lock on what is no longer there excludes
    nobody.
    """
    for _ in range(_TRIES):
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _still_there(lock.fileno(), folder / _LOCK):
                yield
                return
    raise ImageError(f"{folder}: cannot be locked; is an `image remove` running?")


def _still_there(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _is_open(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return locks.in_use(fd)
    finally:
        os.close(fd)


def _sweep(folder: Path) -> None:
    """Delete parts whose maker was killed: nobody has their lock any more."""
    for part in folder.glob(".*.part"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()

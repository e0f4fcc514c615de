"""From a DiskSpec to a Disk: open, check, lock.

The checks cost microseconds, not gigabytes. Beside a golden image lies ``<image>.id``, made
when its bytes were last hashed (see ``identity``). If the file is another one now, or was
written to, it is refused here, before anything is read through it, and overlays are not
touched. An overlay in turn names the digest it was begun over, and has a size of its own.

``attach`` may wait a few milliseconds for the disk when it makes a persistent overlay, or
recovers much of one: call it in a worker thread.
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from netboot.errors import ImageError
from netboot.model import DiskSpec
from netboot.storage import prefetch, qcow2
from netboot.storage.disk import Buffer, Disk, Sight
from netboot.storage.files import open_overlay
from netboot.storage.filters import Filter
from netboot.storage.identity import check_identity
from netboot.storage.overlay import Overlay
from netboot.storage.parts import sibling
from netboot.storage.raw import Golden


class Goldens:
    """The golden images that one process has open, each once for all its overlays.

    A mapping of its own for each of a thousand overlays would cost a thousand sets of page
    tables. Give one instance to every ``attach`` of a process.
    """

    def __init__(self) -> None:
        self._open: dict[_Key, list[Golden]] = {}  #: as often in the list as it was taken
        self._lock = threading.Lock()

    def take(self, path: str, size: int) -> Golden:
        """The open image; ``give_back`` it as often as it was taken."""
        with self._lock:
            try:
                users = self._open.get(_key(path, Path(path).stat()))
            except FileNotFoundError:
                raise ImageError(
                    f"{path}: the golden image is gone; bring it back. No overlay was touched"
                ) from None
            except OSError as problem:
                raise ImageError(f"{path}: {problem.strerror}") from problem
            if users is None or users[0].size != size:
                golden = Golden(path, size)
                users = self._open.setdefault(_key(path, golden.stat), [])
                users.append(golden)
            else:
                users.append(users[0])
            golden = users[-1]
            lesson = golden.lesson()
        self._keep(golden, lesson)
        return golden

    def give_back(self, golden: Golden) -> None:
        """Close it with its last user."""
        with self._lock:
            key = _key(golden.path, golden.stat)
            users = self._open[key]
            users.remove(golden)
            lesson = golden.lesson(ending=golden not in users)
            if golden not in users:
                golden.close()
            if not users:
                del self._open[key]
        self._keep(golden, lesson)

    @staticmethod
    def _keep(golden: Golden, lesson: Sequence[int]) -> None:
        if lesson:
            prefetch.keep(golden.path, golden.size, lesson)


_Key: TypeAlias = tuple[str, int, int]


def _key(path: str, stat: os.stat_result) -> _Key:
    """What tells a changed file from the one that is open."""
    return path, stat.st_ino, stat.st_mtime_ns


class Borrowed(Filter):
    """A disk that others use too: closing it gives it back, once."""

    def __init__(self, inner: Disk, release: Callable[[], None]) -> None:
        super().__init__(inner)
        self._release: Callable[[], None] | None = release

    @property
    def sight(self) -> Sight | None:
        return self.inner.sight

    def at_once(self, offset: int, length: int) -> Buffer | None:
        return self.inner.at_once(offset, length)

    def close(self) -> None:
        if self._release:
            release, self._release = self._release, None
            release()


def attach(spec: DiskSpec, goldens: Goldens | None = None) -> Disk:
    """Open what ``spec`` names; ImageError says what is missing, changed or in use.

    A missing overlay is made; one of an older generation is begun afresh.
    """
    goldens = goldens or Goldens()
    golden_path = str(Path(spec.golden).absolute())
    golden = goldens.take(golden_path, spec.size)
    try:
        check_identity(golden, spec.digest)
        if spec.overlay is None:
            return Borrowed(golden, lambda: goldens.give_back(golden))
        path = str(Path(spec.overlay).absolute())
        size = max(spec.size, spec.room)
        wanted = qcow2.Meta(size, golden_path, sibling(path, ".data"), spec.digest, spec.generation)
        files = open_overlay(path, wanted, ephemeral=spec.ephemeral, least=spec.size)
        try:
            return Overlay(
                golden,
                files,
                ephemeral=spec.ephemeral,
                read_only=spec.read_only,
                release=lambda: goldens.give_back(golden),
            )
        except BaseException:
            files.close()
            raise
    except BaseException:
        goldens.give_back(golden)
        raise

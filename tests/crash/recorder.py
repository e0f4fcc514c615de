"""Listens below the file calls of this process, and can break one thing in them on purpose."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from netboot.storage import durable, qcow2
from tests.crash.platter import Event, File, Replay

#: What is broken on purpose, and what that is.
CONTROLS = {
    "late-data": "data is synced only after the entries that speak of it",
    "no-data-sync": "the data file is never synced",
    "no-entry-sync": "entries are never synced",
    "no-names": "the folder is never synced",
    "stray-entry": "an entry of 16 bytes lands 8 bytes late",
    "late-punch": "a hole is punched when what it was in has been written again",
    "late-header": "the header of a disk that grows has its name before it is synced",
    "no-size-sync": "the header of a disk that grows speaks of more data than there is",
    "tables-last": "a reset takes the data away before the tables that speak of it",
    "no-intent-sync": "what an atomic write means to write is never synced",
    "no-take-back": "that an atomic write is over is never synced",
}


class Recorder:
    """Listens below the file calls of this process, and writes down what concerns ``folder``."""

    def __init__(self, folder: Path, broken: str = "") -> None:
        self.folder = str(folder)
        self.broken = broken
        self.events: list[Event] = []
        self.calls: list[int] = []  #: which events are calls: the power may fail before each
        self._files: dict[int, int] = {}  #: descriptor → number of the file
        self._inodes: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._late: list[int] = []
        self._held: list[Event] = []
        self.begun: set[int] = set()  #: synced once: a header is there
        self.data: set[int] = set()  #: which files hold the disk's bytes
        self.tables: set[int] = set()  #: and which their tables
        self.before_sync = self.after_write = lambda number: None
        self.is_full: Callable[[int, int], bool] = lambda number, offset: False

    def note(self, event: Event) -> None:
        self.events.append(event)

    def call(self, event: Event) -> None:
        self.calls.append(len(self.events))
        self.events.append(event)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        names = ("open", "close", "pwrite", "ftruncate", "fdatasync", "fsync")
        names += ("link", "rename", "unlink")
        with contextlib.ExitStack() as stack:
            for name in names:
                hook = getattr(self, f"_{name}")
                stack.enter_context(mock.patch.object(os, name, self._around(hook, name)))
            punch = self._around(self._punch, "", durable.punch)
            stack.enter_context(mock.patch.object(durable, "punch", punch))
            yield

    def _around(self, hook: Any, name: str, real: Any = None) -> Any:
        real = real or getattr(os, name)
        return lambda *arguments, **options: hook(real, *arguments, **options)

    def _inside(self, path: Any) -> str | None:
        folder, name = os.path.split(str(path))
        return name if folder == self.folder else None

    def _open(self, real: Any, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        name = self._inside(path)
        fresh = name is not None and flags & os.O_CREAT and not os.path.exists(path)
        handle: int = real(path, flags, *rest, **options)
        if str(path) == self.folder:
            self._files[handle] = -1
        if name is None:
            return handle
        inode = os.fstat(handle).st_ino
        if fresh:
            number = self._inodes[inode] = len(self.events)
            self._names[number] = name
            if name.endswith(".data"):
                self.data.add(number)
            elif name.endswith(".qcow2.new"):
                self.tables.add(number)

            def create(at: Replay) -> None:
                at.files[number] = File()
                at.folder.put(name, at.files[number])

            self.call(create)
        number = self._files[handle] = self._inodes[inode]
        if flags & os.O_TRUNC:
            self.call(lambda at: at.files[number].truncate(0))
        return handle

    def _close(self, real: Any, handle: int) -> None:
        self._files.pop(handle, None)
        real(handle)

    def _pwrite(self, real: Any, handle: int, data: Any, offset: int) -> int:
        number = self._files.get(handle)
        if number is not None and self.is_full(number, offset):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done: int = real(handle, data, offset)
        if number is not None:
            copy, at = bytes(data)[:done], offset
            if self.broken == "stray-entry" and offset >= qcow2.L2 and number in self.tables:
                at += 8
            self.call(lambda replay: replay.files[number].write(at, copy))
            if number in self.data:
                self._release()
            self.after_write(number)
        return done

    def _ftruncate(self, real: Any, handle: int, size: int) -> None:
        real(handle, size)
        number = self._files.get(handle)
        if number is not None:
            self.call(lambda at: at.files[number].truncate(size))

    def _fdatasync(self, real: Any, handle: int) -> None:
        number = self._files.get(handle)
        if number is None:
            real(handle)  # nothing to learn from the real platter: it would only take its time
            return
        self.before_sync(number)
        is_data = number in self.data
        if self.broken == "late-data" and is_data:
            self._late.append(number)
        elif not (
            (self.broken == "no-data-sync" and is_data)
            or (self.broken == "no-entry-sync" and number in self.tables and number in self.begun)
        ):
            self.begun.add(number)
            self.call(lambda at: at.files[number].sync())
            for late in self._late:
                self.call(lambda at, late=late: at.files[late].sync())
            self._late.clear()

    def _fsync(self, real: Any, handle: int) -> None:
        number = self._files.get(handle)
        if number == -1:
            if self.broken != "no-names" and not self._held:
                self.call(lambda at: at.folder.sync())
        elif number is None or not self._is_forgotten(number, handle):
            self._fdatasync(real, handle)

    def _is_forgotten(self, number: int, handle: int) -> bool:
        """Whether this sync is the one that is left out. Only what grows is synced by fsync."""
        match self.broken:
            case "late-header":
                return number in self.tables
            case "no-size-sync":
                return number in self.data
            case "no-intent-sync":
                return self._names[number].endswith(".intent") and os.fstat(handle).st_size > 0
            case "no-take-back":
                return self._names[number].endswith(".intent") and os.fstat(handle).st_size == 0
        return False

    def _release(self) -> None:
        """What was held back happens now."""
        for event in self._held:
            self.call(event)
        self._held.clear()

    def _link(self, real: Any, old: Any, new: Any) -> None:
        real(old, new)
        self._named(self._inside(old), self._inside(new))

    def _rename(self, real: Any, old: Any, new: Any) -> None:
        real(old, new)
        before, after = self._inside(old), self._inside(new)

        def rename(at: Replay) -> None:
            at.folder.put(after or "", at.folder.find(before or ""))
            at.folder.put(before or "", None)

        self.call(rename)

    def _named(self, old: str | None, new: str | None) -> None:
        self.call(lambda at: at.folder.put(new or "", at.folder.find(old or "")))

    def _unlink(self, real: Any, path: Any, **options: Any) -> None:
        real(path, **options)
        name = self._inside(path)
        if name is None:
            return

        def unlink(at: Replay) -> None:
            at.folder.put(name, None)

        if self.broken == "tables-last" and name.endswith(".qcow2"):
            self._held.append(unlink)
            return
        self.call(unlink)
        if name.endswith(".data"):
            self._release()

    def _punch(self, real: Any, handle: int, offset: int, length: int) -> None:
        real(handle, offset, length)
        number = self._files.get(handle)
        if number is None:
            return

        def punch(at: Replay) -> None:
            at.files[number].write(offset, bytes(length))

        if self.broken == "late-punch":
            self._held.append(punch)
        else:
            self.call(punch)

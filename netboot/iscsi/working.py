"""What a worker must do before a command can be answered, while the others go on.

Looking at blocks that are not in memory, measuring, working in steps (``jobs``). All that is
decided is decided on the loop, when the worker is done, by what is so then. Must never answer a
task that was aborted meanwhile.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from netboot.iscsi import jobs
from netboot.iscsi.compare import after_reading
from netboot.iscsi.ending import Ending
from netboot.iscsi.management import clear
from netboot.iscsi.session import Task
from netboot.scsi.action import Action, Compare, Merge, Sanitize, Space, Status, Verify


class Working(Ending):
    """One session's commands that take their time; ``perform`` does what follows from them."""

    _volumes: Mapping[int, Any]  #: by LUN field

    @abstractmethod
    def perform(self, task: Task, volume: Any, action: Action, taken: int) -> None:
        """Do what a command wants; ``taken`` is what it took of the initiator's data."""

    def look(self, task: Task, volume: Any, action: Compare | Merge | Verify, taken: int) -> None:
        """Read the range of an action, perhaps in a worker; then decide, on the loop."""
        disk, offset = volume.disk, action.offset
        length = action.length if isinstance(action, Verify) else len(action.data)

        def decide() -> None:
            here = b"".join(disk.read(offset, length))
            self.perform(task, volume, after_reading(action, here), taken)

        if disk.resident(offset, length):
            decide()
            return

        def done(_: object, error: Exception | None) -> None:
            if task.aborted:
                return
            try:
                if error is not None:
                    raise error
                decide()  # reads again: a write may have come between, and this is atomic
            except Exception as problem:
                self.fail(task, volume, problem, writing=False)
            self._send()

        self.wait(task, volume)
        volume.work(lambda: disk.read(offset, length), done)

    def measure(self, task: Task, volume: Any, action: Space, taken: int) -> None:
        def done(found: Any, error: Exception | None) -> None:
            if task.aborted:
                return
            if error is not None:
                self.fail(task, volume, error, writing=False)
            else:
                self.perform(task, volume, action.then(*found), taken)
            self._send()

        self.wait(task, volume)
        volume.work(volume.space, done)

    def begin(self, task: Task, volume: Any, action: Action, taken: int) -> None:
        """A command that takes long: others go on meanwhile, and it answers at its end."""
        answered = False

        def done(then: Action) -> None:
            if not (task.aborted or answered):
                self.perform(task, volume, then, taken)
                self._send()

        def begun(sanitize: Sanitize) -> None:
            nonlocal answered
            if sanitize.begins is not None:
                clear(volume, sanitize.begins, but=task)
            if sanitize.immediate and not task.aborted:
                answered = True
                self.status(task, volume, Status.GOOD, taken)
                self._send()

        def closed(number: int) -> bool:
            unit = self._units.find(number)
            return unit is None or unit.barred is not None

        self.wait(task, volume)
        disks = {lun >> 48 & 0x3FFF: other.disk for lun, other in self._volumes.items()}
        errand = jobs.Errand(
            *(volume, volume.disk, disks, done, lambda: task.aborted, begun, closed)
        )
        errand.go(action)

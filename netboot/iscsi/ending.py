"""How a task of a session ends: its status or its sense, and those that had waited for it.

Also how it comes not to end at once: then the others at its disk may see it, order themselves
by it and abort it. Knows no disk. Must never answer a task twice, nor start what waited from
within itself: a thousand tasks behind one would be a thousand calls deep.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from netboot.iscsi.engine import Connection
from netboot.iscsi.session import Task
from netboot.iscsi.volume import Shared
from netboot.scsi.action import Status
from netboot.scsi.sense import Sense, for_fault
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Nexus


class Ending(ABC):
    """One session's answers; ``send`` sends what the engine has."""

    def __init__(
        self, engine: Connection, units: LogicalUnits, nexus: Nexus, send: Callable[[], None]
    ) -> None:
        self.engine = engine
        self.nexus = nexus
        self._units = units
        self._send = send

    def status(self, task: Task, volume: Shared[Any], status: int, taken: int = 0) -> None:
        """End a task without data; ``taken`` is what it took of the initiator's data."""
        self.engine.complete(task, status, b"", taken)
        self.finish(task, volume)

    def check(self, task: Task, volume: Shared[Any] | None, sense: Sense) -> None:
        """End a task with CHECK CONDITION."""
        data = self._units.sense_bytes(task.lun, sense)
        self.engine.complete(task, Status.CHECK_CONDITION, data)
        if volume is not None:
            self.finish(task, volume)

    def fail(self, task: Task, volume: Shared[Any], error: Exception, *, writing: bool) -> None:
        """End a task over a fault of the storage below, and report that."""
        volume.failed(error)
        fault = str(getattr(error, "fault", "failed"))
        self.check(task, volume, for_fault(fault, writing=writing))

    def wait(self, task: Task, volume: Shared[Any]) -> None:
        """The task is not finished at once: others may see it, order themselves, abort it."""
        self.engine.defer(task)
        if task not in volume.tasks.running:
            volume.tasks.started(task, self)

    def finish(self, task: Task, volume: Shared[Any]) -> None:
        """The task was answered."""
        if task in volume.tasks.running:
            self.over(task, volume)

    def over(self, task: Task, volume: Shared[Any]) -> None:
        """A task that others may have waited for is over: run those. Never recursively."""
        volume.ready.extend(volume.tasks.finished(task))
        if volume.draining:
            return
        volume.draining = True
        try:
            while volume.ready:
                waiting, side = volume.ready.popleft()
                if not waiting.aborted:
                    side.run(waiting, volume)
                    side._send()
        finally:
            volume.draining = False

    @abstractmethod
    def run(self, task: Task, volume: Any) -> None:
        """Do what the task wants."""

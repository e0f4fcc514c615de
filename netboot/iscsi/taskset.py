"""The order of tasks at one logical unit (SAM-5 section 8): simple, ordered, head of queue.

Nearly every task is answered in the breath it comes in and is never entered here. Those that
wait (for write data, a cold block, a flush) are; an ORDERED task runs after all older ones and
before all younger ones, a HEAD OF QUEUE task at once.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from netboot.iscsi.session import Task
from netboot.iscsi.wire import Order

Owner = TypeVar("Owner")


@dataclass(slots=True)
class TaskSet(Generic[Owner]):
    """The tasks of all sessions at one unit that were not finished at once, with their owners."""

    running: dict[Task, Owner] = field(default_factory=dict)
    waiting: deque[tuple[Task, Owner]] = field(default_factory=deque)
    barrier: Task | None = None  #: the ORDERED task that is running
    clear: bool = True  #: a simple task may run: nothing waits, and nothing ordered runs

    def may_run(self, task: Task, owner: Owner) -> bool:
        """Whether a new task runs now; if not it waits here until ``finished`` returns it."""
        if task.order in (Order.HEAD, Order.ACA) or self._free(task):
            return True
        self.waiting.append((task, owner))
        self.clear = False
        return False

    def started(self, task: Task, owner: Owner) -> None:
        """A task runs and is not finished at once."""
        self.running[task] = owner
        if task.order == Order.ORDERED:
            self.barrier = task
            self.clear = False

    def finished(self, task: Task) -> list[tuple[Task, Owner]]:
        """A task is over, or was aborted; returns those that run now, in this order.

        The caller runs each of them and tells ``started`` if it does not finish at once. An
        ordered one is always the last of the list: call ``finished`` for it, also when it was
        never started.
        """
        self.running.pop(task, None)
        if self.barrier is task:
            self.barrier = None
        for entry in [entry for entry in self.waiting if entry[0] is task]:
            self.waiting.remove(entry)
        free: list[tuple[Task, Owner]] = []
        while self.waiting and self._next_is_free(free):
            entry = self.waiting.popleft()
            free.append(entry)
            self.started(*entry)
        self.clear = not self.waiting and self.barrier is None
        return free

    def of(self, owner: Owner) -> list[Task]:
        """The tasks of one owner, running or waiting."""
        return [task for task, other in self.all() if other is owner]

    def all(self) -> list[tuple[Task, Owner]]:
        """Every task here."""
        return [*self.running.items(), *self.waiting]

    def _free(self, task: Task) -> bool:
        if self.waiting or self.barrier is not None:
            return False
        return task.order != Order.ORDERED or not self.running

    def _next_is_free(self, free: list[tuple[Task, Owner]]) -> bool:
        if self.barrier is not None:
            return False
        task = self.waiting[0][0]
        return task.order != Order.ORDERED or not self.running

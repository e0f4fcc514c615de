"""Task management: which tasks end, and what the logical units learn of it (RFC 7143 11.5).

The tasks are the sessions' and their order the volumes'; here they are found and aborted. An
aborted task is never answered. Must never abort what it was not asked to.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from netboot.iscsi.requests import Management
from netboot.iscsi.session import Task
from netboot.iscsi.volume import Shared
from netboot.iscsi.wire import Function, FunctionAnswer
from netboot.scsi.sense import Sense
from netboot.scsi.target import LogicalUnits
from netboot.scsi.unit import Nexus


class Side(Protocol):
    """A session's side of the volumes: what can be aborted."""

    nexus: Nexus

    def abort(self, task: Task) -> None:
        """End a pending task without an answer."""

    def end(self, task: Task, sense: Sense) -> None:
        """End a pending task with CHECK CONDITION."""


S = TypeVar("S", bound=Side)


def abort_all(volume: Shared[S], which: Callable[[S], bool], but: Task | None = None) -> list[S]:
    """Abort the pending tasks of some sessions at a volume; the sessions that had any."""
    found = [(task, side) for task, side in volume.tasks.all() if which(side) and task is not but]
    for task, side in found:
        side.abort(task)
    return list(dict.fromkeys(side for _, side in found))


def forget(side: Side, pending: Mapping[int, Task], which: Callable[[Task], bool]) -> None:
    """Abort what is over at its volume, but whose status waits for data that is under way."""
    for task in [task for task in pending.values() if which(task)]:
        side.abort(task)


def clear(volume: Shared[S], sense: Sense, but: Task | None = None) -> None:
    """End the pending tasks of all sessions at a volume; those who sent them are told why."""
    for task, side in list(volume.tasks.all()):
        # One that ends may let others run, and end too.
        if task is not but and any(task is other for other, _ in volume.tasks.all()):
            side.end(task, sense)


def manage(
    request: Management,
    side: S,
    pending: Mapping[int, Task],
    units: LogicalUnits,
    volumes: Mapping[int, Shared[S]],
) -> FunctionAnswer:
    """Do what a request asks for; ``pending`` are the tasks of its session, by tag."""
    volume = volumes.get(request.lun)
    match request.function:
        case Function.ABORT_TASK:
            task = pending.get(request.referenced)
            if task is not None and task.lun == request.lun:
                side.abort(task)
            elif not request.forestalled:
                return FunctionAnswer.NO_TASK
        case Function.ABORT_TASK_SET | Function.CLEAR_TASK_SET | Function.LUN_RESET:
            if volume is None:
                return FunctionAnswer.NO_LUN
            only_mine = request.function == Function.ABORT_TASK_SET
            victims = abort_all(volume, lambda other: other is side or not only_mine)
            forget(side, pending, lambda task: volumes.get(task.lun) is volume)
            if request.function == Function.CLEAR_TASK_SET:
                others = [other.nexus for other in victims if other is not side]
                units.commands_cleared(request.lun, others)
            elif request.function == Function.LUN_RESET:
                units.reset_unit(request.lun)
        case Function.WARM_RESET | Function.COLD_RESET:
            for every in dict.fromkeys(volumes.values()):
                abort_all(every, lambda other: True)
            forget(side, pending, lambda task: True)
            units.reset_target(cold=request.function == Function.COLD_RESET)
        case Function.REASSIGN:
            return FunctionAnswer.NO_REASSIGN
        case _:
            return FunctionAnswer.NOT_SUPPORTED
    return FunctionAnswer.COMPLETE

"""Simple, ordered and head-of-queue tasks, at one unit and from several sessions."""

from hypothesis import given
from hypothesis import strategies as st

from netboot.iscsi.session import Task
from netboot.iscsi.taskset import TaskSet
from netboot.iscsi.wire import Order

SIMPLE, ORDERED, HEAD = Order.SIMPLE, Order.ORDERED, Order.HEAD


def task(order: int = SIMPLE) -> Task:
    return Task(1, 0, 0x80 | order, 0, bytes(16), b"", False)


def run(tasks: TaskSet[str], order: int, owner: str = "a") -> Task | None:
    """Enter a task that takes its time; None when it must wait."""
    made = task(order)
    if not tasks.may_run(made, owner):
        return None
    tasks.started(made, owner)
    return made


def test_simple_tasks_run_beside_each_other() -> None:
    tasks = TaskSet[str]()
    assert run(tasks, SIMPLE) and run(tasks, SIMPLE, "b") and tasks.clear


def test_an_ordered_task_waits_for_the_older_and_stops_the_younger() -> None:
    tasks = TaskSet[str]()
    older = run(tasks, SIMPLE)
    assert older is not None
    ordered, younger = task(ORDERED), task()
    assert not tasks.may_run(ordered, "a") and not tasks.clear
    assert not tasks.may_run(younger, "b")
    assert tasks.finished(older) == [(ordered, "a")]
    assert tasks.barrier is ordered and not tasks.clear
    assert tasks.finished(ordered) == [(younger, "b")]
    assert tasks.clear and tasks.running == {younger: "b"}


def test_an_ordered_task_with_nothing_before_it_runs() -> None:
    tasks = TaskSet[str]()
    ordered = run(tasks, ORDERED)
    assert ordered is not None and not tasks.clear
    assert run(tasks, SIMPLE) is None
    assert len(tasks.finished(ordered)) == 1


def test_two_ordered_tasks_in_a_row() -> None:
    tasks = TaskSet[str]()
    first = run(tasks, ORDERED)
    assert first is not None
    second, third = task(ORDERED), task()
    assert not tasks.may_run(second, "a") and not tasks.may_run(third, "a")
    assert tasks.finished(first) == [(second, "a")]
    assert tasks.finished(second) == [(third, "a")]


def test_head_of_queue_overtakes() -> None:
    tasks = TaskSet[str]()
    assert run(tasks, ORDERED) and run(tasks, SIMPLE) is None
    assert run(tasks, HEAD) is not None


def test_an_aborted_task_that_waits_frees_those_behind_it() -> None:
    tasks = TaskSet[str]()
    older = run(tasks, SIMPLE)
    ordered, younger = task(ORDERED), task()
    tasks.may_run(ordered, "a")
    tasks.may_run(younger, "a")
    assert tasks.finished(ordered) == [(younger, "a")]
    assert tasks.clear and older in tasks.running


def test_finishing_a_stranger_changes_nothing() -> None:
    tasks = TaskSet[str]()
    run(tasks, SIMPLE)
    assert tasks.finished(task()) == [] and len(tasks.running) == 1


def test_whose_tasks_they_are() -> None:
    tasks = TaskSet[str]()
    mine, theirs = run(tasks, SIMPLE, "a"), run(tasks, SIMPLE, "b")
    waiting = task(ORDERED)
    tasks.may_run(waiting, "a")
    assert tasks.of("a") == [mine, waiting]
    assert tasks.of("b") == [theirs]
    assert len(tasks.all()) == 3


@given(
    st.lists(st.tuples(st.sampled_from([SIMPLE, ORDERED, HEAD]), st.integers(0, 5)), max_size=40)
)
def test_order_holds_whatever_comes(script: list[tuple[int, int]]) -> None:
    """Every task runs once; no task runs beside an older or younger ordered one."""
    tasks = TaskSet[str]()
    entered: list[Task] = []
    began: list[Task] = []
    running: list[Task] = []

    def begin(made: Task) -> None:
        began.append(made)
        running.append(made)
        if made.order == ORDERED:
            beside = [other for other in running if other is not made and other.order != HEAD]
            assert not [o for o in beside if entered.index(o) < entered.index(made)]

    def finish(at: int) -> None:
        done = running.pop(at % len(running))
        for freed, _ in tasks.finished(done):
            begin(freed)

    for order, finishing in script:
        made = task(order)
        entered.append(made)
        if tasks.may_run(made, "a"):
            tasks.started(made, "a")
            begin(made)
        if finishing and running:
            finish(finishing)
    while running:
        finish(0)
    assert sorted(map(id, began)) == sorted(map(id, entered))
    assert tasks.clear and not tasks.all()
    # Simple tasks never pass an older ordered one.
    for index, made in enumerate(entered):
        if made.order == SIMPLE:
            older = [o for o in entered[:index] if o.order == ORDERED]
            assert all(began.index(o) < began.index(made) for o in older)

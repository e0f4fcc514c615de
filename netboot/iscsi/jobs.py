"""Commands that take long, in steps: EXTENDED COPY, SANITIZE and WRITE ATOMIC.

A job is a generator: between two ``yield`` it runs on the loop, and may write; what it yields a
worker does meanwhile (None: nothing but letting others go first; FLUSH: a flush in its turn).
Knows no sockets and no files. Must never keep the loop for longer than one step.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from netboot.iscsi.volume import Shared
from netboot.scsi.action import Action, Atomic, Check, Copy, Reply, Sanitize
from netboot.scsi.sense import for_fault

#: Bytes that are written, and that are unmapped, in one step.
STEP: Final = 1 << 20
UNMAP_STEP: Final = 256 << 20
#: Steps between two flushes: a disk that is overwritten must not fill the page cache, which
#: every other client's disk lives in.
FLUSH_EVERY: Final = 16


class Writable(Protocol):
    """The verbs of a disk that jobs use."""

    def read(self, offset: int, length: int) -> Iterable[Any]:
        """Buffers that together are the range."""

    def write(self, offset: int, data: Any) -> None:
        """Write ``data``."""

    def unmap(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""

    def intend(self, offset: int, data: Any) -> None:
        """Put down what is about to be written; in a worker."""

    def settle(self) -> None:
        """What was intended is over; in a worker."""


#: The Actions that are done here.
Long: TypeAlias = Sanitize | Copy | Atomic
FLUSH: Final = "flush"
Want: TypeAlias = "Callable[[], object] | str | None"
Job: TypeAlias = Generator[Want, Any, None]


class StoppedError(Exception):
    """The disk is closing, or nobody waits for the job any more."""


def run(
    volume: Shared[Any],
    job: Job,
    done: Callable[[Exception | None], None],
    unwanted: Callable[[], bool] = lambda: False,
) -> None:
    """Drive ``job`` to its end; it is given up when ``unwanted``, or when its disk closes."""

    def resume(result: object, error: Exception | None) -> None:
        if error is None and (unwanted() or volume.on_idle is not None):
            error = StoppedError("the disk is closing")
        try:
            want = job.send(result) if error is None else job.throw(error)
        except StopIteration:
            done(None)
        except Exception as problem:
            done(problem)
        else:
            if want == FLUSH:
                volume.flush(lambda error: resume(None, error))
            else:
                volume.work(want if callable(want) else _nothing, resume)

    resume(None, None)


def begin(
    action: Long,
    volume: Shared[Any],
    disk: Writable,
    disks: Mapping[int, Writable],
    done: Callable[[Action], None],
    unwanted: Callable[[], bool],
) -> None:
    """Do what ``action`` wants of ``disk``, or of the target's ``disks`` by LUN.

    ``done`` hears what to answer. A copy ends when it is ``unwanted``; nobody can stop a
    sanitize operation, as nobody could say what is left of the data then.
    """
    copied = 0

    def progress(number: int) -> None:
        nonlocal copied
        copied = number

    def ended(error: Exception | None) -> None:
        if error is not None and not isinstance(error, StoppedError):
            volume.failed(error)
        if isinstance(action, Copy):
            done(action.then(copied, error is not None))
        elif isinstance(action, Atomic):
            fault = str(getattr(error, "fault", "failed"))
            done(Check(for_fault(fault, writing=True)) if error is not None else Reply())
        else:
            done(action.then(error is None))

    if isinstance(action, Copy):
        run(volume, copying(action, disks, progress), ended, unwanted)
    elif isinstance(action, Atomic):
        in_turn(volume, lambda over: run(volume, writing(action, disk), over), ended)
    else:
        run(volume, sanitizing(action, disk), ended)


def _nothing() -> None:
    """A breath for the others."""


Over: TypeAlias = Callable[[Exception | None], None]


def in_turn(volume: Shared[Any], start: Callable[[Over], None], ended: Over) -> None:
    """Start an atomic write when those before it are over: a disk has one intent at a time."""

    def over(error: Exception | None) -> None:
        volume.atomic.popleft()
        if volume.atomic:
            volume.atomic[0]()
        ended(error)

    volume.atomic.append(lambda: start(over))
    if len(volume.atomic) == 1:
        volume.atomic[0]()


def writing(action: Atomic, disk: Writable) -> Job:
    """Put down what is meant, write and flush it, and let go of what was put down."""
    yield lambda: disk.intend(action.offset, action.data)
    try:
        disk.write(action.offset, action.data)
    except Exception:
        yield disk.settle
        raise
    yield FLUSH
    yield disk.settle


def sanitizing(action: Sanitize, disk: Writable) -> Job:
    """Overwrite all of a disk pass by pass, or unmap it; then flush."""
    step = STEP if action.patterns else UNMAP_STEP
    for pattern in action.patterns or (b"",):
        data = memoryview(pattern * -(-STEP // len(pattern))) if pattern else memoryview(b"")
        for number, offset in enumerate(range(0, action.size, step), 1):
            length = min(step, action.size - offset)
            if pattern:
                disk.write(offset, data[:length])
            else:
                disk.unmap(offset, length)
            yield FLUSH if number % FLUSH_EVERY == 0 else None
        yield FLUSH


def copying(action: Copy, disks: Mapping[int, Writable], progress: Callable[[int], None]) -> Job:
    """Copy all segments, in order; ``progress`` hears how many are done."""
    for number, (source, start, destination, to, length) in enumerate(action.segments, 1):
        here, there = disks[source], disks[destination]
        for offset in range(0, length, STEP):
            size = min(STEP, length - offset)
            there.write(to + offset, (yield _reader(here, start + offset, size)))
        progress(number)


def _reader(disk: Writable, offset: int, length: int) -> Callable[[], bytes]:
    return lambda: b"".join(disk.read(offset, length))

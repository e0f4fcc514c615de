"""A command of ours that is told to end (SIGTERM, SIGINT) ends what it has started first.

    ending.run(measure(...))    for what runs in a loop: its task is cancelled, and unwinds
    ending.unwinds()            for what does not: SystemExit is raised where the signal finds it

Either exits with 128 + the signal's number. A shell has the background jobs of a script ignore
SIGINT; here it counts there, too. Only the first signal does: whoever is already leaving is not
disturbed by the next one.
"""

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, NoReturn, TypeVar

SIGNALS = (signal.SIGTERM, signal.SIGINT)
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` that a signal ends in order."""
    told: list[int] = []
    unwinds()

    async def whole() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def end(number: int) -> None:
            if not told:
                task.cancel()
            told.append(number)

        for number in SIGNALS:
            loop.add_signal_handler(number, end, number)
        return await work

    try:
        return asyncio.run(whole())
    except asyncio.CancelledError:
        if told:
            raise SystemExit(128 + told[0]) from None
        raise
    finally:  # a loop leaves the defaults behind, and what is made outside it still stands
        _ignored() if told else unwinds()


def unwinds() -> None:
    """From now on a signal raises SystemExit in the main thread, once."""
    for number in SIGNALS:
        signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    _ignored()
    raise SystemExit(128 + number)


def _ignored() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)

"""SQLite's write-ahead log, so kept that a commit which a machine waits for is one short write.

Two things made some commits slow. A log that grows has its new length journalled by the file
system with each sync: it gets its room once, in advance. And every thousand pages whoever committed
carried the log over into the database file, with two more syncs, while everybody behind waited: a
thread beside does that now, which holds up no writer.

Neither touches what makes a commit durable. What lies behind the last commit in a log was always
ignored by SQLite, which writes a log over from its beginning once it is carried over; zeros are no
different from that. And a log that nobody has carried over yet is only longer.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

#: Bytes that are made ready for a log, and transactions after which it is carried over: of a new
#: lease each, which is three pages, they fill half of it.
ROOM = 8 << 20
EVERY = 256
#: Pages after which the committing thread does it after all: who commits without a pause leaves
#: the other no moment in which it is done, and the log would grow for ever.
AT_LAST = 4096


def reserve(path: str) -> None:
    """Make room in the log of the database at ``path``; the caller holds the writer's lock.

    It is written, for a hole or a promise (``fallocate``) is journalled like growth. Where there
    is no room on the disk the log grows as it always did.
    """
    with contextlib.suppress(OSError):
        handle = os.open(path + "-wal", os.O_WRONLY | os.O_CLOEXEC)
        try:
            length = os.fstat(handle).st_size
            if length < ROOM:
                os.pwrite(handle, bytes(ROOM - length), length)
                os.fsync(handle)
        finally:
            os.close(handle)


class Carrier:
    """Carries the log over beside those who write it; ``committed`` from any one thread at a time.

    >>> carrier = Carrier(checkpoint)  # PRAGMA wal_checkpoint(PASSIVE), on a connection of its own
    >>> carrier.committed()
    """

    def __init__(self, carry: Callable[[], None]) -> None:
        """``carry`` runs in our thread, which is made when there is something to do."""
        self._carry = carry
        self._count = 0
        self._due = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """One transaction more. Never waits."""
        self._count += 1
        if self._count < EVERY:
            return
        self._count = 0
        self._due.set()
        if self._thread is None and not self._ending:
            self._thread = threading.Thread(target=self._work, name="wal", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End after what is being done; twice is harmless."""
        self._ending = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._ending:
                return
            try:
                self._carry()
            except Exception as error:  # the log grows, until whoever commits carries it over
                log.warning("the log of the database was not carried over: %s", error)

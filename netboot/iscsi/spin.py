"""Looking for the next request a little longer before the loop goes to sleep.

A machine that sends one command at a time (firmware, a boot loader) lets the server sleep after
each answer, and being woken costs more than the answer did. So when requests follow one another
quickly the loop looks again without sleeping. That is worth it only while the next one is soon
here for it, and while there is nothing else to do: it ends when nothing came in time, when what
comes is slow all the same, or when one look finds several, because then nobody sleeps anyway.
Must never keep a loop awake to which nothing comes, nor cost those who have much to do anything.
"""

from collections.abc import Callable
from typing import Final

#: Requests (wake-ups of the loop, not commands) after which is looked at how fast they come; a
#: power of two, less one.
EVERY: Final = 15
#: Seconds from one to the next, on average, between which it is tried: faster than that, the
#: loop does not sleep; slower, the way is long.
BUSY: Final = 12e-6
NEAR: Final = 100e-6
#: Seconds from one to the next, at most, for which it goes on.
WORTH: Final = 60e-6
#: Seconds of one look, in which nothing else has its turn: as long as a machine takes for its next
#: request at the least, and several times what a round of the loop costs.
LOOK: Final = 25e-6
#: Seconds until it is tried again when it was not worth it, and when one request alone was late:
#: that happens whenever something else has the processor for a moment.
PAUSE: Final = 0.05
HICCUP: Final = 0.001


class Spin:
    """Of one event loop: ``soon`` has a function called in its next round; ``clock`` is in
    seconds."""

    def __init__(
        self, soon: Callable[[Callable[[], None]], object], clock: Callable[[], float]
    ) -> None:
        self.came = 0  #: requests so far; who counts one up calls ``consider`` when due
        self.awake = False  #: whether the loop is kept from sleeping
        #: Waits so many seconds at most, reads what comes, and says from how many at once; until
        #: somebody can, the loop's rounds are all there is to it.
        self.look: Callable[[float], int] = lambda seconds: 0
        self._soon = soon
        self._clock = clock
        self._seen = 0  #: of those that came, at the last look
        self._last = 0.0  #: when one was seen last
        self._considered = 0.0
        self._not_before = 0.0

    def consider(self) -> None:
        """``EVERY`` + 1 requests have come since this was called last: how fast?"""
        now = self._clock()
        pace = (now - self._considered) / (EVERY + 1)
        self._considered = now
        if self.awake:
            if pace > WORTH:
                self._stop(now + PAUSE)
        elif BUSY < pace < NEAR and now >= self._not_before:
            self.awake = True
            self._seen, self._last = self.came, now
            self._soon(self._look)

    def _look(self) -> None:
        """Once in each round of the loop, which does not sleep because of it."""
        if not self.awake:
            return
        read = self.came - self._seen  # by the loop
        found = self.look(LOOK)
        now, self._seen = self._clock(), self.came
        if read > 1 or found > 1:
            self._stop(now + PAUSE)
        elif read or found:
            self._last = now
            self._soon(self._look)
        elif now - self._last > NEAR:
            self._stop(now + HICCUP)
        else:
            self._soon(self._look)

    def _stop(self, not_before: float) -> None:
        self.awake = False
        self._not_before = not_before

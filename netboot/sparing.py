"""How often to say the same: once a minute for each kind, with the count of what was left out.

For lines that strangers can provoke as fast as they send. Pure: the time is an argument. It must
never be asked about anything that an operator has to see each time.
"""

#: Seconds from one line of a kind to the next.
INTERVAL = 60.0


class Sparing:
    """Counts what is not said; the kinds are the caller's, and few."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def more(self, kind: str, now: float) -> str | None:
        """What to append to a line of this kind, often nothing; None: do not say it now."""
        said = self._said.get(kind)
        if said is not None and said <= now < said + self._interval:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return None
        self._said[kind] = now
        count = self._unsaid.pop(kind, 0)
        return f" ({count} more since the last such line)" if count else ""

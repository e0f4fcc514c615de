class Nearby:
    """The lines of the cache that some objects lie in; ``len`` is how many."""

    def __init__(self, *objects: object) -> None: ...
    def __len__(self) -> int: ...
    def fetch(self) -> None:
        """Ask for all of them; does not wait."""

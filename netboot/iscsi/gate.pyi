from netboot.iscsi.inlet import Inlet

class Gate:
    """The connections whose sessions have begun; ``fd`` is readable when something has come."""

    fd: int
    def add(self, fd: int, inlet: Inlet) -> None:
        """Read what comes by this socket, for this inlet."""

    def remove(self, fd: int, inlet: Inlet) -> None:
        """Read it no more; harmless when it is not, or another inlet has the number by now."""

    def turn(self) -> int:
        """Read once from each that something has come from; from how many."""

    def look(self, seconds: float) -> int:
        """Wait at most so long for something, without sleeping, and read it; from how many."""

    def close(self) -> None:
        """Let go of all."""

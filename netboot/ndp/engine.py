"""Which router solicitations we answer, and with what. Pure.

Only machines that we boot are answered, so that on a network with real IPv6 routers nobody
else ever hears of us.
"""

from collections import Counter
from collections.abc import Callable

from netboot.errors import WireError
from netboot.ndp.wire import no_router, solicitation_mac


class Engine:
    """``known`` says of a canonical MAC whether it is a machine that boots from us."""

    def __init__(self, mac: bytes, known: Callable[[str], bool]) -> None:
        self.counters: Counter[str] = Counter()
        self._answer = no_router(mac)
        self._known = known

    def receive(self, data: bytes, hop_limit: int) -> bytes | None:
        """The ICMPv6 message to send to all nodes, or None.

        A hop limit below 255 was forwarded by somebody, and is discarded (section 6.1.1).
        """
        try:
            mac = solicitation_mac(data)
        except WireError:
            self.counters["malformed"] += 1
            return None
        if hop_limit != 255:
            self.counters["forwarded"] += 1
            return None
        if mac is None or not self._known(mac):
            self.counters["not ours"] += 1
            return None
        self.counters["answered"] += 1
        return self._answer

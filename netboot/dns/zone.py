"""What names mean here: our domain and the reverse names of our subnet (RFC 1034, RFC 1035).

Pure: the names come from a callable, asked anew for each lookup, so that a lease has its name
the moment it exists. A name that a client gave itself never displaces the server's own names
nor a name that came earlier in the list: whoever hands the list in puts reservations first.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeAlias

#: Host name (bare, or with our domain) and address; the most trusted first.
Names: TypeAlias = Callable[[], Iterable[tuple[str, IPv4Address]]]

#: The server's own name below the domain.
SERVER_LABEL = "netboot"

#: RFC 1123 section 2.1, and the underscore that Windows allows itself.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_OCTET = re.compile(r"0|[1-9][0-9]{0,2}")
_REVERSE = "in-addr.arpa"


@dataclass(frozen=True, slots=True)
class Node:
    """What is known of one name of ours. All names are lower case, without a final dot."""

    apex: str  #: of the zone the name lies in: the owner of its SOA
    exists: bool  #: False: NXDOMAIN
    addresses: tuple[IPv4Address, ...] = ()
    pointer: str | None = None
    is_apex: bool = False


class Zone:
    """The names under ``domain``, and the reverse names of ``server``'s subnet.

    ``server`` is this machine's address with its prefix. ``ttl`` and ``negative_ttl`` are
    seconds: short, because a lease may move, and a machine that is not there yet may come up.
    """

    def __init__(
        self,
        domain: str,
        server: IPv4Interface,
        names: Names,
        *,
        ttl: int = 30,
        negative_ttl: int = 5,
    ) -> None:
        self.domain = domain.strip(".").lower()
        self.server_name = f"{SERVER_LABEL}.{self.domain}"
        self.ttl = ttl
        self.negative_ttl = negative_ttl
        self._server = server
        self._names = names
        self._reverse_apex = _reverse_apex(server.network)

    def lookup(self, name: str) -> Node | None:
        """What ``name`` is; None when it is not ours to say. A final dot and case do not matter."""
        name = name.rstrip(".").lower()
        if name == self.domain:
            return Node(self.domain, True, (self._server.ip,), is_apex=True)
        if name.endswith("." + self.domain):
            return self._host(name.removesuffix("." + self.domain))
        if name.endswith("." + _REVERSE):
            return self._reverse(name)
        return None

    def _host(self, label: str) -> Node:
        if label == SERVER_LABEL:
            return Node(self.domain, True, (self._server.ip,))
        for known, address in self._hosts():
            if known == label:
                return Node(self.domain, True, (address,))
        return Node(self.domain, False)

    def _reverse(self, name: str) -> Node | None:
        octets = name.removesuffix("." + _REVERSE).split(".")[::-1]
        if len(octets) > 4 or not all(_OCTET.fullmatch(octet) for octet in octets):
            return None
        try:
            padded = ".".join(octets + ["0"] * (4 - len(octets)))
            block = IPv4Network(f"{padded}/{8 * len(octets)}")
        except ValueError:
            return None
        if not block.subnet_of(self._server.network):
            return None
        if len(octets) < 4:
            return Node(self._reverse_apex, True, is_apex=name == self._reverse_apex)
        pointer = self._name_of(block.network_address)
        return Node(self._reverse_apex, pointer is not None, pointer=pointer)

    def _name_of(self, address: IPv4Address) -> str | None:
        if address == self._server.ip:
            return self.server_name
        for label, known in self._hosts():
            if known == address:
                return f"{label}.{self.domain}"
        return None

    def _hosts(self) -> Iterator[tuple[str, IPv4Address]]:
        """The names handed in, as labels of our domain, each once.

        What can be no label is left out. A name that two machines claim is the first one's in
        both directions: no PTR says what no A record confirms.
        """
        taken = {SERVER_LABEL}
        for name, address in self._names():
            label = name.rstrip(".").lower().removesuffix("." + self.domain)
            if label not in taken and _LABEL.fullmatch(label):
                taken.add(label)
                yield label, address


def _reverse_apex(network: IPv4Network) -> str:
    """The reverse zone that holds the subnet, cut at a whole octet."""
    octets = str(network.network_address).split(".")[: network.prefixlen // 8]
    return ".".join([*octets[::-1], _REVERSE])

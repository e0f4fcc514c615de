"""The pool of addresses, and who holds which (RFC 2131 sections 3 and 4.3.1).

Keyed on the MAC alone, so that the firmware, iPXE and the operating system of one machine get
one address whatever client identifiers they send. Pure: time is an argument (seconds since the
epoch), and what must outlive us is returned for others to persist. It never hands out our own
address, the network's, a declined one, or one that is reserved for another machine. Whoever
invents machines cannot use up the pool with offers: those give way to machines that we know.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from netboot.model import Lease, LeaseState

#: How long an offer keeps its address from others: longer than any client takes to REQUEST it
#: (PXE 2.1 gives its users 60 s for all four rounds).
OFFER_HOLD = 60.0
#: A stranger's offer gives way to another stranger after this, if nothing else is free: by then
#: who wants the address has asked for it, or DISCOVERs again (PXE 2.1 waits 4 s, then 8 s).
YIELDS_AFTER = 10.0
#: How long an address that somebody else was found to use stays out of the pool.
DECLINED_HOLD = 3600.0


class Leases:
    """Every address that we gave, promised, or must not give."""

    def __init__(
        self,
        network: IPv4Network,
        pool: tuple[IPv4Address, IPv4Address],
        *,
        excluded: Iterable[IPv4Address] = (),
        reserved: Mapping[str, IPv4Address] | None = None,
        leases: Iterable[Lease] = (),
    ) -> None:
        """``pool``: first and last address; ``reserved``: by MAC; ``leases``: from before."""
        self.network = network
        self._first, self._last = (int(address) for address in pool)
        self._excluded = {*excluded, network.network_address, network.broadcast_address}
        self._reserved = dict(reserved or {})
        self._reserver = {address: mac for mac, address in self._reserved.items()}
        self._next = self._first  #: below it, every address of the pool has come by
        self._freed: dict[IPv4Address, None] = {}  # an ordered set
        self._leases: dict[str, Lease] = {}  # BOUND or RELEASED, by MAC
        self._owner: dict[IPv4Address, str] = {}
        self._offers: dict[str, Lease] = {}
        self._promised: dict[IPv4Address, str] = {}
        self._declined: dict[IPv4Address, Lease] = {}
        for lease in sorted(leases, key=lambda lease: lease.expires):
            if lease.state is LeaseState.DECLINED:
                self._declined[lease.address] = lease
            elif lease.state is not LeaseState.OFFERED:
                self._put(lease)

    # What is: asked by the engine, the names, the disks and the API.

    def by_mac(self, mac: str) -> Lease | None:
        """The lease of a machine, current or past; else what it was offered."""
        return self._leases.get(mac) or self._offers.get(mac)

    def by_address(self, address: IPv4Address) -> Lease | None:
        """Who has ``address``, or had it last; a DECLINED lease where nobody may."""
        if address in self._declined:
            return self._declined[address]
        mac = self._owner.get(address)
        if mac is not None:
            return self._leases[mac]
        mac = self._promised.get(address)
        return self._offers[mac] if mac is not None else None

    def all(self) -> tuple[Lease, ...]:
        """Every lease, offer and declined address, by address."""
        found = {**self._offers, **self._leases}
        both = [*found.values(), *self._declined.values()]
        return tuple(sorted(both, key=lambda lease: int(lease.address)))

    def had(self, mac: str, address: IPv4Address, now: float) -> bool:
        """``mac`` has, had, or was just offered ``address``, and nobody else got it since."""
        lease, offer = self._leases.get(mac), self._offers.get(mac)
        mine = lease is not None and lease.address == address
        promised = offer is not None and offer.address == address and offer.expires > now
        return (mine or promised) and not self._taken(mac, address, now)

    def may_have(self, mac: str, address: IPv4Address, now: float) -> bool:
        """``address`` is ours to give to ``mac``, and free."""
        return self._ours(mac, address) and not self._taken(mac, address, now)

    def denied(self, mac: str, address: IPv4Address, now: float) -> bool:
        """``mac`` certainly must not use ``address``: wrong network, or another's."""
        if address not in self.network or address in self._excluded:
            return True
        return self._taken(mac, address, now) or self._reserver.get(address, mac) != mac

    # What becomes of it.

    def choose(
        self,
        mac: str,
        now: float,
        *,
        reserved: IPv4Address | None = None,
        wanted: IPv4Address | None = None,
        running: bool = False,
        named: Collection[str] = (),
    ) -> IPv4Address | None:
        """The address to offer; None when the pool is exhausted.

        A reservation first, then what it has or had, then what it wants (option 50), then one
        nobody ever had, then the one unused for longest, then the oldest offer to a stranger: a
        machine that is neither in ``named`` nor ever had a lease. A ``running`` operating system
        keeps the address its disk is attached from, whatever the settings have become meanwhile.
        """
        lease, offer = self._leases.get(mac), self._offers.get(mac)
        if (
            running
            and lease is not None
            and lease.state is LeaseState.BOUND
            and lease.expires > now
            and not self._taken(mac, lease.address, now)
            and lease.address in self.network
            and lease.address not in self._excluded
        ):
            return lease.address
        if reserved is not None:
            self._reserve(mac, reserved)
        own = reserved or self._reserved.get(mac)
        if own is not None and self._ours(mac, own) and self._yields(own, now, named):
            return own
        for address in (
            own,
            lease.address if lease is not None else None,
            offer.address if offer is not None else None,
            wanted,
        ):
            if address is not None and self.may_have(mac, address, now):
                return address
        return self._fresh(mac, now) or self._yielding(mac, now, named)

    def offer(self, mac: str, address: IPv4Address, now: float, hostname: str = "") -> Lease:
        """Keep ``address`` for ``mac`` while it makes up its mind."""
        self.withdraw(mac)
        self._displace(mac, address)
        offer = Lease(mac, address, now + OFFER_HOLD, LeaseState.OFFERED, hostname)
        self._offers[mac], self._promised[address] = offer, mac
        return offer

    def withdraw(self, mac: str) -> None:
        """Forget what ``mac`` was offered: it chose another server, or it got its lease."""
        offer = self._offers.pop(mac, None)
        if offer is not None:
            self._promised.pop(offer.address, None)
            self._free(offer.address)

    def bind(
        self, mac: str, address: IPv4Address, now: float, seconds: int, hostname: str = ""
    ) -> list[Lease]:
        """Lease ``address`` to ``mac``; returns what must be persisted, in order."""
        old = self._leases.get(mac)
        self._displace(mac, address)
        lease = Lease(mac, address, now + seconds, LeaseState.BOUND, hostname)
        self._put(lease)
        self.withdraw(mac)
        if old is not None and old.address != address:
            return [replace(old, expires=now, state=LeaseState.RELEASED), lease]
        return [lease]

    def release(self, mac: str, address: IPv4Address, now: float) -> list[Lease]:
        """``mac`` gives ``address`` back; it is remembered, and gets it again if it is free."""
        lease = self._leases.get(mac)
        if lease is None or lease.address != address or lease.state is not LeaseState.BOUND:
            return []
        self._leases[mac] = replace(lease, expires=now, state=LeaseState.RELEASED)
        return [self._leases[mac]]

    def decline(self, mac: str, address: IPv4Address, now: float) -> list[Lease]:
        """``address``, given or offered to ``mac``, is used by somebody unknown."""
        if not self.had(mac, address, now):
            return []
        if self._owner.get(address) == mac:
            del self._leases[mac], self._owner[address]
        if self._promised.get(address) == mac:
            del self._offers[mac], self._promised[address]
        declined = Lease(mac, address, now + DECLINED_HOLD, LeaseState.DECLINED)
        self._declined[address] = declined
        return [declined]

    def _ours(self, mac: str, address: IPv4Address) -> bool:
        if address in self._excluded or address not in self.network:
            return False
        reserver = self._reserver.get(address)
        if reserver is not None:
            return reserver == mac
        return self._first <= int(address) <= self._last

    def _taken(self, mac: str, address: IPv4Address, now: float) -> bool:
        declined = self._declined.get(address)
        if declined is not None and declined.expires > now:
            return True
        owner, promised = self._owner.get(address), self._promised.get(address)
        if owner not in (None, mac) and self._leases[str(owner)].expires > now:
            return True
        return promised not in (None, mac) and self._offers[str(promised)].expires > now

    def reserve(self, reserved: Mapping[str, IPv4Address]) -> None:
        """From now on these are the reservations; running leases are left as they are."""
        before = self._reserver
        self._reserved = dict(reserved)
        self._reserver = {address: mac for mac, address in self._reserved.items()}
        for address in before.keys() - self._reserver.keys():
            self._free(address)

    def _reserve(self, mac: str, address: IPv4Address) -> None:
        """A reservation that came with the plan counts like one of the settings."""
        if self._reserved.get(mac) != address and address not in self._reserver:
            self._reserver.pop(self._reserved.get(mac, address), None)
            self._reserved[mac], self._reserver[address] = address, mac

    def _put(self, lease: Lease) -> None:
        old = self._leases.get(lease.mac)
        if old is not None and self._owner.get(old.address) == lease.mac:
            del self._owner[old.address]
            if old.address != lease.address:
                self._free(old.address)
        other = self._owner.get(lease.address)
        if other is not None:
            del self._leases[other]
        self._leases[lease.mac], self._owner[lease.address] = lease, lease.mac

    def _displace(self, mac: str, address: IPv4Address) -> None:
        """Forget the expired claims of others, for ``mac`` is about to get ``address``."""
        owner, promised = self._owner.get(address), self._promised.get(address)
        if owner is not None and owner != mac:
            del self._leases[owner], self._owner[address]
        if promised is not None and promised != mac:
            del self._offers[promised], self._promised[address]
        self._declined.pop(address, None)

    def _free(self, address: IPv4Address) -> None:
        if address not in self._owner and address not in self._promised:
            self._freed[address] = None

    def _fresh(self, mac: str, now: float) -> IPv4Address | None:
        """One that nobody had, then one given back, then the one unused for longest."""
        while self._next <= self._last:  # whoever is passed over is in a record, or never ours
            address = IPv4Address(self._next)
            if self.by_address(address) is None and self._ours(mac, address):
                return address
            self._next += 1
        while self._freed:
            address = next(reversed(self._freed))
            if self.by_address(address) is None and self._ours(mac, address):
                return address
            del self._freed[address]
        known = (*self._leases.values(), *self._offers.values(), *self._declined.values())
        stale = [lease for lease in known if self.may_have(mac, lease.address, now)]
        return min(stale, key=lambda lease: lease.expires).address if stale else None

    def _yielding(self, mac: str, now: float, named: Collection[str]) -> IPv4Address | None:
        """The oldest offer that gives way to ``mac``; a lease never does."""
        known = self._known(mac, named)
        for offer in self._offers.values():  # in the order in which they were made
            if not known and offer.expires - OFFER_HOLD + YIELDS_AFTER > now:
                break
            if self._ours(mac, offer.address) and self._yields(offer.address, now, named):
                return offer.address
        return None

    def _yields(self, address: IPv4Address, now: float, named: Collection[str]) -> bool:
        """``address`` is taken by nothing but an offer to a stranger."""
        mac = self._promised.get(address)
        return (
            mac is not None and not self._known(mac, named) and not self._taken(mac, address, now)
        )

    def _known(self, mac: str, named: Collection[str]) -> bool:
        return mac in named or mac in self._reserved or mac in self._leases

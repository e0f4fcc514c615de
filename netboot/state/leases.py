"""The leases: which address belongs to which machine. One is on disk before its ACK leaves."""

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import Row, and_, delete, select

from netboot.model import Lease, LeaseState
from netboot.state import schema
from netboot.state.database import Database, Execute

#: Every ACK waits for these, which SQLite and PostgreSQL both take. Most leases are of a machine
#: that has the address already: that writes one page, for it changes what no index holds.
_AGAIN = (
    "UPDATE lease SET expires = ?, state = ?, hostname = ?"
    " WHERE address = ? AND mac = ? AND state <> ?"
)
_MOVED = "DELETE FROM lease WHERE mac = ? AND state <> ? AND address <> ?"
_KEPT = (
    "INSERT INTO lease (address, mac, expires, state, hostname) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (address) DO UPDATE SET mac = excluded.mac, expires = excluded.expires,"
    " state = excluded.state, hostname = excluded.hostname"
)

#: What ``.value`` says, which is a call.
_STATES = {state: state.value for state in LeaseState}
_DECLINED = LeaseState.DECLINED.value


class Leases(Database):
    """The table ``lease``."""

    def leases(self) -> list[Lease]:
        """All of them, also those that have run out, in order of address."""
        with self._reading() as connection:
            found = [_lease(row) for row in connection.execute(select(schema.lease))]
        return sorted(found, key=lambda lease: lease.address)

    def lease_of(self, mac: str) -> Lease | None:
        """The address of a machine, whether it has run out or not."""
        held = and_(schema.lease.c.mac == mac, schema.lease.c.state != LeaseState.DECLINED.value)
        with self._reading() as connection:
            row = connection.execute(select(schema.lease).where(held)).first()
        return _lease(row) if row else None

    def forget_leases(self, addresses: Iterable[IPv4Address]) -> None:
        """These addresses are free again."""
        with self._writing() as connection:
            for address in addresses:
                gone = schema.lease.c.address == str(address)
                connection.execute(delete(schema.lease).where(gone))


def save(execute: Execute, lease: Lease) -> None:
    """Remember a lease, within a transaction.

    A MAC that moves to another address gives its old one up; an address that is given to another
    MAC is taken from the old one.
    """
    address, state = str(lease.address), _STATES[lease.state]
    if lease.state is not LeaseState.DECLINED:
        told = (lease.expires, state, lease.hostname, address, lease.mac, _DECLINED)
        if execute(_AGAIN, told):
            return
        execute(_MOVED, (lease.mac, _DECLINED, address))
    execute(_KEPT, (address, lease.mac, lease.expires, state, lease.hostname))


def _lease(row: Row[Any]) -> Lease:
    return Lease(
        mac=row.mac,
        address=IPv4Address(row.address),
        expires=row.expires,
        state=LeaseState(row.state),
        hostname=row.hostname,
    )

"""The store: what the service remembers, in one database that the command line shares.

Each of its parts is a module beside this one; ``database`` has what holds for all of them: every
call is one transaction, and a call that returns has reached the disk.
"""

from collections.abc import Iterable

from netboot.model import Lease, Overlay
from netboot.state import catalogue, leases
from netboot.state.catalogue import Catalogue
from netboot.state.credentials import Credentials
from netboot.state.history import History, Seen
from netboot.state.leases import Leases

__all__ = ["Seen", "Store"]


class Store(Leases, Catalogue, History, Credentials):
    """Opens (and brings up to date) the database at a SQLAlchemy URL.

    >>> store = Store("sqlite:////var/lib/netboot/netboot.sqlite")
    >>> store.keep([lease])
    """

    def keep(self, records: Iterable[Lease | Overlay]) -> None:
        """Remember what machines wait for, in one transaction that is on disk when this returns:
        leases, and overlays that begin anew."""
        with self._swiftly() as execute:
            for record in records:
                if isinstance(record, Lease):
                    leases.save(execute, record)
                else:
                    catalogue.renew(execute, record)

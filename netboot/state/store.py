"""The store: what the service remembers, in one database that the command line shares.

Every call is one transaction, and a call that returns has reached the disk (WAL with
synchronous=FULL): a lease is on it before its ACK leaves. Callers may be on several threads and
in several processes; a writer waits for another up to ``BUSY`` seconds. Errors of the database
come out as NetbootError with the file's name.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    and_,
    create_engine,
    delete,
    event,
    select,
    update,
)
from sqlalchemy import insert as plain_insert
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from netboot.errors import ConfigError, ImageError, NetbootError
from netboot.events import BootEvent, Phase
from netboot.model import Lease, LeaseState, Overlay, OverlayMode, Version
from netboot.state import schema

#: Seconds that a writer waits for another process's transaction.
BUSY = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine that once asked for something; times are seconds since the epoch."""

    mac: str
    first_seen: float
    last_seen: float
    boots: int  #: fresh boots
    phase: Phase  #: the last one it reached


class Store:
    """Opens (and brings up to date) the database at a SQLAlchemy URL.

    >>> store = Store("sqlite:////var/lib/netboot/netboot.sqlite")
    >>> store.save_leases([lease])
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = _engine(url)
            with self._writing() as connection:
                schema.migrate(connection)
        except SQLAlchemyError as error:
            raise ConfigError(f"[site] database cannot be opened: {_reason(error)}") from None

    def close(self) -> None:
        """Give back all connections. Twice is harmless."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.execution_options(netboot_writes=True).begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection

    # Leases.

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

    def save_leases(self, leases: Iterable[Lease]) -> None:
        """Remember these, in one transaction that is on disk when this returns.

        A MAC that moves to another address gives its old one up; an address that is given to
        another MAC is taken from the old one.
        """
        table = schema.lease
        with self._writing() as connection:
            for lease in leases:
                gone = table.c.address == str(lease.address)
                if lease.state != LeaseState.DECLINED:
                    gone |= (table.c.mac == lease.mac) & (
                        table.c.state != LeaseState.DECLINED.value
                    )
                connection.execute(delete(table).where(gone))
                connection.execute(plain_insert(table).values(**_lease_row(lease)))

    def forget_leases(self, addresses: Iterable[IPv4Address]) -> None:
        """These addresses are free again."""
        with self._writing() as connection:
            for address in addresses:
                gone = schema.lease.c.address == str(address)
                connection.execute(delete(schema.lease).where(gone))

    # The image catalogue.

    def versions(self, image: str | None = None) -> list[Version]:
        """Of one image, or of all; by image and number."""
        table = schema.version
        query = select(table).order_by(table.c.image, table.c.number)
        if image is not None:
            query = query.where(table.c.image == image)
        with self._reading() as connection:
            return [Version(**row._mapping) for row in connection.execute(query)]

    def version(self, image: str, number: int) -> Version | None:
        """One version, or None."""
        return next((v for v in self.versions(image) if v.number == number), None)

    def latest(self, image: str) -> Version | None:
        """The version with the highest number, or None."""
        found = self.versions(image)
        return found[-1] if found else None

    def next_number(self, image: str) -> int:
        """What the image's next version will be called: a number is never used twice."""
        query = select(schema.image.c.last_number).where(schema.image.c.name == image)
        with self._reading() as connection:
            return int(connection.execute(query).scalar() or 0) + 1

    def add_version(self, version: Version) -> None:
        """Remember a version; ImageError when its number was ever used before."""
        table = schema.image
        with self._writing() as connection:
            query = select(table.c.last_number).where(table.c.name == version.image)
            last = connection.execute(query).scalar()
            if last is not None and last >= version.number:
                raise ImageError(
                    f"image {version.image} version {version.number}: the number is taken; "
                    f"the next one is {last + 1}"
                )
            if last is None:
                row = {"name": version.image, "last_number": version.number}
                connection.execute(plain_insert(table).values(row))
            else:
                named = table.c.name == version.image
                connection.execute(update(table).where(named).values(last_number=version.number))
            connection.execute(plain_insert(schema.version).values(asdict(version)))

    def remove_version(self, image: str, number: int) -> None:
        """Forget a version; ImageError while an overlay stands on it, or there is none."""
        table = schema.version
        named = and_(table.c.image == image, table.c.number == number)
        with self._writing() as connection:
            users = _users(connection, image, number)
            if users:
                raise ImageError(
                    f"image {image} version {number} is in use by {', '.join(users)}; "
                    f"`netboot overlay reset` them first"
                )
            if connection.execute(delete(table).where(named)).rowcount == 0:
                raise ImageError(f"image {image} has no version {number}")

    # Overlays.

    def overlay(self, mac: str, image: str, mode: OverlayMode) -> Overlay | None:
        """A client's writes over an image, or None when it has none yet."""
        query = select(schema.overlay).where(_named(mac, image, mode))
        with self._reading() as connection:
            row = connection.execute(query).first()
        return _overlay(row) if row else None

    def overlays(self, mac: str | None = None) -> list[Overlay]:
        """One client's, or all; by MAC, image and mode."""
        table = schema.overlay
        query = select(table).order_by(table.c.mac, table.c.image, table.c.mode)
        if mac is not None:
            query = query.where(table.c.mac == mac)
        with self._reading() as connection:
            return [_overlay(row) for row in connection.execute(query)]

    def overlays_of(self, image: str, version: int | None = None) -> list[Overlay]:
        """Those that stand on an image, or on one version of it."""
        table = schema.overlay
        query = select(table).where(table.c.image == image).order_by(table.c.mac, table.c.mode)
        if version is not None:
            query = query.where(table.c.version == version)
        with self._reading() as connection:
            return [_overlay(row) for row in connection.execute(query)]

    def save_overlay(self, overlay: Overlay) -> None:
        """Remember an overlay in place of the one that this client has there in that mode.

        ImageError when its version is not in the catalogue.
        """
        table = schema.overlay
        row = {**asdict(overlay), "mode": overlay.mode.value}
        named = _named(overlay.mac, overlay.image, overlay.mode)
        try:
            with self._writing() as connection:
                connection.execute(delete(table).where(named))
                connection.execute(plain_insert(table).values(row))
        except IntegrityError:
            raise ImageError(
                f"image {overlay.image} has no version {overlay.version} "
                f"for the overlay of {overlay.mac}"
            ) from None

    def note_trouble(self, path: str, text: str, at: float) -> None:
        """Remember what went wrong with the overlay at ``path``; harmless when there is none."""
        table = schema.overlay
        values = {"trouble": text, "troubled": at}
        with self._writing() as connection:
            connection.execute(update(table).where(table.c.path == path).values(values))

    def delete_overlay(self, overlay: Overlay) -> bool:
        """Forget an overlay; whether there was one. Its files are the caller's."""
        named = _named(overlay.mac, overlay.image, overlay.mode)
        with self._writing() as connection:
            return connection.execute(delete(schema.overlay).where(named)).rowcount > 0

    # What happened.

    def add_events(self, events: Sequence[BootEvent]) -> None:
        """Remember events, and when each machine was seen, in one transaction."""
        if not events:
            return
        with self._writing() as connection:
            rows = [
                {
                    "mac": happened.mac,
                    "at": happened.at,
                    "phase": int(happened.phase),
                    "detail": happened.detail,
                    "fresh": happened.fresh,
                }
                for happened in events
            ]
            connection.execute(plain_insert(schema.event), rows)
            for happened in events:
                _seen(connection, happened)

    def events(self, mac: str | None = None, limit: int = 100) -> list[BootEvent]:
        """The newest ``limit`` of one machine, or of all; oldest first."""
        table = schema.event
        query = select(table).order_by(table.c.id.desc()).limit(limit)
        if mac is not None:
            query = query.where(table.c.mac == mac)
        with self._reading() as connection:
            found = [
                BootEvent(row.mac, row.at, Phase(row.phase), row.detail, bool(row.fresh))
                for row in connection.execute(query)
            ]
        return found[::-1]

    def prune_events(self, before: float, keep: int) -> int:
        """Forget events older than ``before`` and all but the newest ``keep``; how many."""
        table = schema.event
        with self._writing() as connection:
            newest = select(table.c.id).order_by(table.c.id.desc()).limit(1).offset(keep)
            edge = connection.execute(newest).scalar() or 0
            gone = (table.c.at < before) | (table.c.id <= edge)
            return connection.execute(delete(table).where(gone)).rowcount

    def prune_clients(self, keep: int) -> int:
        """Forget when machines were seen, but for the ``keep`` seen last; how many."""
        table = schema.client
        with self._writing() as connection:
            latest = select(table.c.last_seen).order_by(table.c.last_seen.desc())
            edge = connection.execute(latest.limit(1).offset(keep)).scalar()
            if edge is None:
                return 0
            return connection.execute(delete(table).where(table.c.last_seen <= edge)).rowcount

    def seen(self) -> list[Seen]:
        """Every machine that asked and is not pruned, by MAC."""
        table = schema.client
        with self._reading() as connection:
            return [
                Seen(row.mac, row.first_seen, row.last_seen, row.boots, Phase(row.phase))
                for row in connection.execute(select(table).order_by(table.c.mac))
            ]


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    event.listen(engine, "handle_error", _on_error)
    return engine


def _on_connect(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it would do so after our reads, and
    # never before a CREATE TABLE. _on_begin does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {int(BUSY * 1000)}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    """A writer takes the lock at once: a reader that turns writer midway cannot wait for it."""
    writes = connection.get_execution_options().get("netboot_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _on_error(context: Any) -> None:
    error = context.sqlalchemy_exception
    if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
        raise NetbootError(f"the database {context.engine.url}: {_reason(error)}") from error


def _reason(error: SQLAlchemyError) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) else str(error).splitlines()[0]


def _lease(row: Row[Any]) -> Lease:
    return Lease(
        mac=row.mac,
        address=IPv4Address(row.address),
        expires=row.expires,
        state=LeaseState(row.state),
        hostname=row.hostname,
    )


def _lease_row(lease: Lease) -> dict[str, object]:
    return {
        "address": str(lease.address),
        "mac": lease.mac,
        "expires": lease.expires,
        "state": lease.state.value,
        "hostname": lease.hostname,
    }


def _overlay(row: Row[Any]) -> Overlay:
    return Overlay(
        mac=row.mac,
        image=row.image,
        version=row.version,
        mode=OverlayMode(row.mode),
        generation=row.generation,
        path=row.path,
        trouble=row.trouble,
        troubled=row.troubled,
    )


def _named(mac: str, image: str, mode: OverlayMode) -> ColumnElement[bool]:
    table = schema.overlay
    return and_(table.c.mac == mac, table.c.image == image, table.c.mode == mode.value)


def _users(connection: Connection, image: str, number: int) -> list[str]:
    table = schema.overlay
    named = and_(table.c.image == image, table.c.version == number)
    query = select(table.c.mac).where(named).order_by(table.c.mac).distinct()
    return [str(mac) for mac in connection.execute(query).scalars()]


def _seen(connection: Connection, happened: BootEvent) -> None:
    table = schema.client
    known = table.c.mac == happened.mac
    row = connection.execute(select(table).where(known)).first()
    values = {
        "last_seen": max(happened.at, row.last_seen) if row else happened.at,
        "boots": (row.boots if row else 0) + happened.fresh,
        "phase": int(happened.phase),
    }
    if row:
        connection.execute(update(table).where(known).values(values))
    else:
        first = {"mac": happened.mac, "first_seen": happened.at, **values}
        connection.execute(plain_insert(table).values(first))

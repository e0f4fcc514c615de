"""What happened: boot events, and which machines were ever seen; whoever adds prunes."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from netboot.events import BootEvent, Phase
from netboot.state import schema
from netboot.state.database import Database


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine that once asked for something; times are seconds since the epoch."""

    mac: str
    first_seen: float
    last_seen: float
    boots: int  #: fresh boots
    phase: Phase  #: the last one it reached


class History(Database):
    """The tables ``event`` and ``client``."""

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
            connection.execute(insert(schema.event), rows)
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
        connection.execute(insert(table).values(first))

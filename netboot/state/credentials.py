"""The secrets of CHAP: one pair for each machine that was ever told one.

They lie here as they are, for CHAP needs them in the clear on both sides; ``database`` sees to it
that nobody else reads them. Where they come from is the caller's business.
"""

from sqlalchemy import delete, exists, insert, select
from sqlalchemy.exc import IntegrityError

from netboot.model import Secrets
from netboot.state import schema
from netboot.state.database import Database


class Credentials(Database):
    """The table ``secret``."""

    def secrets(self, mac: str) -> Secrets | None:
        """A machine's, or None when it has none yet."""
        table = schema.secret
        with self._reading() as connection:
            row = connection.execute(select(table).where(table.c.mac == mac)).first()
        return Secrets(**row._mapping) if row else None

    def add_secrets(self, fresh: Secrets) -> Secrets:
        """Remember ``fresh`` unless the machine has secrets already; those that it has now."""
        try:
            with self._writing() as connection:
                connection.execute(insert(schema.secret).values(_row(fresh)))
        except IntegrityError:
            return self.secrets(fresh.mac) or fresh
        return fresh

    def replace_secrets(self, fresh: Secrets) -> None:
        """Remember ``fresh`` in place of what the machine had."""
        table = schema.secret
        with self._writing() as connection:
            connection.execute(delete(table).where(table.c.mac == fresh.mac))
            connection.execute(insert(table).values(_row(fresh)))

    def prune_secrets(self, keep: int) -> int:
        """Forget secrets of machines without a disk here, but for the ``keep`` newest.

        Anybody can invent MACs. A machine that has a disk may be running from it, and comes back
        with the secret that it was told when it booted: that one is never forgotten.
        """
        table, overlay = schema.secret, schema.overlay
        strangers = ~exists().where(overlay.c.mac == table.c.mac)
        with self._writing() as connection:
            newest = select(table.c.made).where(strangers).order_by(table.c.made.desc())
            edge = connection.execute(newest.limit(1).offset(keep)).scalar()
            if edge is None:
                return 0
            return connection.execute(
                delete(table).where(strangers & (table.c.made <= edge))
            ).rowcount


def _row(secrets: Secrets) -> dict[str, object]:
    return {
        "mac": secrets.mac,
        "secret": secrets.secret,
        "reverse": secrets.reverse,
        "made": secrets.made,
    }

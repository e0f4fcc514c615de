"""The catalogue: the versions of the golden images, and whose overlay stands on which.

A version's number is never used twice, and a version stays while an overlay stands on it. No
file is touched here.
"""

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from netboot.errors import ImageError
from netboot.model import Overlay, OverlayMode, Version
from netboot.state import schema
from netboot.state.database import Database, Execute

#: The OFFER of each boot waits for it.
_RENEWED = (
    "UPDATE overlay SET version = ?, generation = ?, path = ?, trouble = ?, troubled = ?"
    " WHERE mac = ? AND image = ? AND mode = ?"
)


class Catalogue(Database):
    """The tables ``image``, ``version`` and ``overlay``."""

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
                connection.execute(insert(table).values(row))
            else:
                named = table.c.name == version.image
                connection.execute(update(table).where(named).values(last_number=version.number))
            connection.execute(insert(schema.version).values(asdict(version)))

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
                connection.execute(insert(table).values(row))
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


def renew(execute: Execute, overlay: Overlay) -> None:
    """An overlay begins anew, within a transaction; harmless when it is gone meanwhile."""
    told = overlay.version, overlay.generation, overlay.path, overlay.trouble, overlay.troubled
    execute(_RENEWED, (*told, overlay.mac, overlay.image, overlay.mode.value))


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

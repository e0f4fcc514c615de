"""The tables, and the numbered steps that bring any older database to them.

A step, once released, never changes: it is plain SQL that SQLite and PostgreSQL both take. The
``Table`` objects say what the last step leaves behind, and a test holds the two together. A
database of a newer release is refused, because an older program would not know what it breaks.
"""

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    func,
    insert,
    inspect,
    select,
)

from netboot.errors import ConfigError

metadata = MetaData()

schema_version = Table(
    "schema_version", metadata, Column("number", Integer, primary_key=True, autoincrement=False)
)

#: One row an address; a MAC has one row that is not ``declined``, which ``store`` sees to.
lease = Table(
    "lease",
    metadata,
    Column("address", Text, primary_key=True),
    Column("mac", Text, nullable=False),
    Column("expires", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("hostname", Text, nullable=False),
    Index("lease_mac", "mac"),
)

#: The number that an image's next version gets: a number is never used twice.
image = Table(
    "image",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last_number", Integer, nullable=False),
)

version = Table(
    "version",
    metadata,
    Column("image", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("origin", Text, nullable=False),
    Column("parent", Integer),
)

#: A client's writes over each image it ever booted; the version must stay while it is here. What
#: it wrote in one mode waits untouched while the operator tries the other.
overlay = Table(
    "overlay",
    metadata,
    Column("mac", Text, primary_key=True),
    Column("image", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("trouble", Text, nullable=False, server_default=""),
    Column("troubled", Float),
    ForeignKeyConstraint(["image", "version"], ["version.image", "version.number"]),
    Index("overlay_version", "image", "version"),
)

event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("mac", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("phase", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Column("fresh", Boolean, nullable=False),
    Index("event_mac", "mac", "id"),
)

#: The machines that asked, also after their events are pruned.
client = Table(
    "client",
    metadata,
    Column("mac", Text, primary_key=True),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("boots", Integer, nullable=False),
    Column("phase", Integer, nullable=False),
)

#: What a machine (``secret``) and we (``reverse``) prove each other by at a login.
secret = Table(
    "secret",
    metadata,
    Column("mac", Text, primary_key=True),
    Column("secret", Text, nullable=False),
    Column("reverse", Text, nullable=False),
    Column("made", Float, nullable=False),
)

#: Step n (from 1) leads from version n - 1 to version n.
STEPS: Sequence[Sequence[str]] = (
    # 1: what an address and an image need
    (
        "CREATE TABLE lease (address TEXT NOT NULL PRIMARY KEY, mac TEXT NOT NULL,"
        " expires DOUBLE PRECISION NOT NULL, state TEXT NOT NULL, hostname TEXT NOT NULL)",
        "CREATE INDEX lease_mac ON lease (mac)",
        "CREATE TABLE image (name TEXT NOT NULL PRIMARY KEY, last_number INTEGER NOT NULL)",
        "CREATE TABLE version (image TEXT NOT NULL, number INTEGER NOT NULL, path TEXT NOT NULL,"
        " size BIGINT NOT NULL, digest TEXT NOT NULL, created DOUBLE PRECISION NOT NULL,"
        " origin TEXT NOT NULL, parent INTEGER, PRIMARY KEY (image, number))",
    ),
    # 2: a disk for each client
    (
        "CREATE TABLE overlay (mac TEXT NOT NULL, image TEXT NOT NULL, mode TEXT NOT NULL,"
        " version INTEGER NOT NULL, generation INTEGER NOT NULL, path TEXT NOT NULL,"
        " PRIMARY KEY (mac, image, mode),"
        " FOREIGN KEY (image, version) REFERENCES version (image, number))",
        "CREATE INDEX overlay_version ON overlay (image, version)",
    ),
    # 3: how each boot went
    (
        "CREATE TABLE event (id INTEGER NOT NULL PRIMARY KEY {autoincrement}, mac TEXT NOT NULL,"
        " at DOUBLE PRECISION NOT NULL, phase INTEGER NOT NULL, detail TEXT NOT NULL,"
        " fresh BOOLEAN NOT NULL)",
        "CREATE INDEX event_mac ON event (mac, id)",
        "CREATE TABLE client (mac TEXT NOT NULL PRIMARY KEY,"
        " first_seen DOUBLE PRECISION NOT NULL, last_seen DOUBLE PRECISION NOT NULL,"
        " boots INTEGER NOT NULL, phase INTEGER NOT NULL)",
    ),
    # 4: what last went wrong with a disk
    (
        "ALTER TABLE overlay ADD COLUMN trouble TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE overlay ADD COLUMN troubled DOUBLE PRECISION",
    ),
    # 5: who proves at a login that it is itself
    (
        "CREATE TABLE secret (mac TEXT NOT NULL PRIMARY KEY, secret TEXT NOT NULL,"
        " reverse TEXT NOT NULL, made DOUBLE PRECISION NOT NULL)",
    ),
)
#: How each database numbers rows by itself.
_AUTOINCREMENT = {"sqlite": "AUTOINCREMENT", "postgresql": "GENERATED BY DEFAULT AS IDENTITY"}

LATEST = len(STEPS)


def current(connection: Connection) -> int:
    """The version of this database; 0 for an empty one."""
    if not inspect(connection).has_table("schema_version"):
        return 0
    return connection.execute(select(func.max(schema_version.c.number))).scalar() or 0


def migrate(connection: Connection, upto: int = LATEST) -> int:
    """Take the missing steps, in the caller's transaction; how many there were.

    ConfigError when the database is of a newer release than this program.
    """
    found = current(connection)
    if found > LATEST:
        raise ConfigError(
            f"the database {connection.engine.url!r} is of a newer netboot (schema {found}, this "
            f"one knows {LATEST}); install that release again, or restore a backup"
        )
    if found == 0:
        schema_version.create(connection, checkfirst=True)
    words = {"autoincrement": _AUTOINCREMENT.get(connection.dialect.name, "")}
    for number in range(found + 1, upto + 1):
        for statement in STEPS[number - 1]:
            connection.exec_driver_sql(statement.format(**words))
        connection.execute(insert(schema_version).values(number=number))
    return max(0, upto - found)

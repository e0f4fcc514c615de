"""The database under the store: opened, brought up to date, one transaction a call.

A call that returns has reached the disk (WAL with synchronous=FULL). Callers may be on several
threads and in several processes; a writer waits for another up to ``BUSY`` seconds. Errors of the
database come out as NetbootError with the file's name. What it holds is nobody's business but
ours: an SQLite file that others may read is closed to them before anything is written to it.
"""

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from netboot.errors import ConfigError, NetbootError
from netboot.state import schema, wal

#: Seconds that a writer waits for another process's transaction.
BUSY = 10.0
#: How often within them it is tried to give a new file its WAL.
_TRIES = 500
#: What SQLite keeps beside its file; it gives a new one the mode of the file itself.
_BESIDE = ("", "-wal", "-shm")
#: Databases that are none.
_NO_FILE = (None, "", ":memory:")


#: Runs SQL with ``?`` for values within a transaction; returns how many rows it changed.
Execute = Callable[[str, Sequence[object]], int]


class Database:
    """Opens (and brings up to date) the database at a SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        self._swift: PoolProxiedConnection | None = None
        self._cursor: Any = None  #: of that connection
        #: Held by whoever writes in this process: SQLite itself lets the next one sleep for whole
        #: milliseconds before it looks again.
        self._writer = threading.Lock()
        self._carrier = wal.Carrier(self._carry)
        try:
            self._engine = _engine(url)
            self._sqlite = self._engine.dialect.name == "sqlite"
            _keep_to_ourselves(self._engine)
            with self._writing() as connection:
                schema.migrate(connection)
        except SQLAlchemyError as error:
            raise ConfigError(f"[site] database cannot be opened: {_reason(error)}") from None

    def close(self) -> None:
        """Give back all connections. Twice is harmless."""
        self._carrier.close()
        with self._writer:
            self._let_go()
        self._engine.dispose()

    def prepare(self) -> None:
        """For what machines will wait for: so the first does not wait longer than others."""
        with self._swiftly():
            pass

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        writes = self._engine.execution_options(netboot_writes=True)
        with self._writer:
            with writes.begin() as connection:
                yield connection
            self._count()

    @contextmanager
    def _swiftly(self) -> Iterator[Execute]:
        """One transaction, for what a machine waits for.

        On a connection and a cursor of the driver's that are kept for it: taking one and
        SQLAlchemy's execute take three times as long as the whole transaction does. One thread at
        a time.
        """
        driver: Any = self._engine.dialect.dbapi
        sqlite = self._sqlite
        with self._writer:
            try:
                cursor = self._cursor or self._prepare()
                if sqlite:
                    cursor.execute("BEGIN IMMEDIATE")

                def execute(sql: str, values: Sequence[object]) -> int:
                    cursor.execute(sql if sqlite else sql.replace("?", "%s"), values)
                    return int(cursor.rowcount)

                yield execute
                if sqlite:
                    cursor.execute("COMMIT")  # the driver's commit() parses it each time
                else:
                    cursor.connection.commit()
                self._count()
            except BaseException as error:
                self._let_go()
                if isinstance(error, driver.Error):
                    text = f"the database {self._engine.url}: {error}"
                    raise NetbootError(text) from error
                raise

    def _count(self) -> None:
        """A commit more; who carries it over is none of those who wait for the writer's lock."""
        if self._sqlite:
            self._carrier.committed()

    def _prepare(self) -> Any:
        """The cursor that is kept."""
        self._swift = self._engine.raw_connection()
        self._cursor = cursor = self._swift.cursor()
        path = self._engine.url.database
        if self._sqlite and path not in _NO_FILE:
            assert path is not None
            cursor.execute("BEGIN IMMEDIATE")
            wal.reserve(path)
            cursor.execute("COMMIT")
        return cursor

    def _carry(self) -> None:
        with contextlib.closing(self._engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").close()

    def _let_go(self) -> None:
        """Of the connection that is kept, with what was not committed: the next one is sound."""
        if self._swift is not None:
            self._swift.invalidate()
            self._swift = self._cursor = None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
    event.listen(engine, "handle_error", _on_error)
    return engine


def _keep_to_ourselves(engine: Engine) -> None:
    """An SQLite file is its owner's alone from its first byte on: leases, and secrets of CHAP."""
    if engine.dialect.name != "sqlite" or engine.url.database in _NO_FILE:
        return
    assert engine.url.database is not None
    with contextlib.suppress(OSError):  # it is there, or SQLite will say why it cannot be
        os.close(os.open(engine.url.database, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    for suffix in _BESIDE:
        path = Path(engine.url.database + suffix)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                path.chmod(mode & 0o700)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(
                f"[site] database {path}: it holds secrets and others may read it; "
                f"`chmod 600` it, or run as its owner ({error.strerror})"
            ) from None


def _on_connect(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it would do so after our reads, and
    # never before a CREATE TABLE. _on_begin does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(BUSY * 1000)}")
    _into_wal(cursor)
    wanted = ("synchronous = FULL", "foreign_keys = ON", f"wal_autocheckpoint = {wal.AT_LAST}")
    for pragma in wanted:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _into_wal(cursor: Any) -> None:
    """A new file has to be turned into one with a WAL, for which SQLite does not wait: of two who
    open it at one moment, the service and the command line, one was told that it is locked."""
    for left in reversed(range(_TRIES)):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not left:
                raise
            time.sleep(BUSY / _TRIES)


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

"""The steps lead from any older database to the tables, and keep what was in it."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect

from netboot.errors import ConfigError
from netboot.state import schema
from netboot.state.store import Store


def at_version(path: Path, number: int) -> str:
    """A database as the release that knew ``number`` steps left it."""
    url = f"sqlite:///{path}"
    engine = create_engine(url)
    with engine.begin() as connection:
        schema.migrate(connection, number)
    engine.dispose()
    return url


def dump(path: Path) -> list[str]:
    raw = sqlite3.connect(path)
    lines = list(raw.iterdump())
    raw.close()
    return lines


def shape(connection: Connection) -> dict[str, object]:
    """Tables, columns, keys and indexes, as the database itself tells them."""
    inspector = inspect(connection)
    return {
        table: (
            sorted((c["name"], bool(c["nullable"])) for c in inspector.get_columns(table)),
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(table)),
            [
                (k["constrained_columns"], k["referred_table"], k["referred_columns"])
                for k in inspector.get_foreign_keys(table)
            ],
        )
        for table in sorted(inspector.get_table_names())
        if not table.startswith("sqlite_")
    }


def test_the_steps_lead_to_the_tables(tmp_path: Path) -> None:
    stepped = create_engine(at_version(tmp_path / "a", schema.LATEST))
    drawn = create_engine(f"sqlite:///{tmp_path}/b")
    schema.metadata.create_all(drawn)
    with stepped.connect() as one, drawn.connect() as other:
        assert shape(one) == shape(other)
    stepped.dispose()
    drawn.dispose()


def test_an_empty_database_takes_every_step_once(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/db")
    with engine.begin() as connection:
        assert schema.current(connection) == 0
        assert schema.migrate(connection) == schema.LATEST
        assert schema.current(connection) == schema.LATEST
        assert schema.migrate(connection) == 0
    engine.dispose()


@pytest.mark.parametrize("number", range(1, schema.LATEST + 1))
def test_an_old_database_keeps_its_rows(tmp_path: Path, number: int) -> None:
    url = at_version(tmp_path / "db", number)
    with sqlite3.connect(tmp_path / "db") as raw:
        raw.execute("INSERT INTO lease VALUES ('10.0.0.9', '52:54:00:00:00:01', 5.0, 'bound', 'a')")
        raw.execute("INSERT INTO image VALUES ('debian', 2)")
        raw.execute("INSERT INTO version VALUES ('debian', 2, '/g', 512, 'sha256:0', 1.0, '', 1)")
        if number >= 2:
            raw.execute(
                "INSERT INTO overlay (mac, image, mode, version, generation, path) VALUES"
                " ('52:54:00:00:00:01', 'debian', 'persistent', 2, 0, '/o')"
            )
    raw.close()
    store = Store(url)
    assert [lease.mac for lease in store.leases()] == ["52:54:00:00:00:01"]
    assert [(v.image, v.number, v.parent) for v in store.versions()] == [("debian", 2, 1)]
    assert store.next_number("debian") == 3
    assert len(store.overlays()) == (1 if number >= 2 else 0)
    assert store.events() == []
    store.close()


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    url = at_version(tmp_path / "db", schema.LATEST)
    with sqlite3.connect(tmp_path / "db") as raw:
        raw.execute("INSERT INTO schema_version VALUES (99)")
    raw.close()
    before = dump(tmp_path / "db")
    with pytest.raises(ConfigError, match=r"of a newer netboot \(schema 99, this one knows \d+\)"):
        Store(url)
    assert dump(tmp_path / "db") == before


def test_a_step_that_fails_leaves_the_version_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = at_version(tmp_path / "db", 1)
    broken = (*schema.STEPS[:1], (*schema.STEPS[1], "CREATE NONSENSE"), *schema.STEPS[2:])
    monkeypatch.setattr(schema, "STEPS", broken)
    with pytest.raises(Exception, match="NONSENSE"):
        Store(url)
    monkeypatch.undo()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert schema.current(connection) == 1
        assert not inspect(connection).has_table("overlay")
    engine.dispose()
    Store(url).close()


def test_steps_are_written_for_both_databases() -> None:
    for step in schema.STEPS:
        for statement in step:
            for words in schema._AUTOINCREMENT.values():
                assert "{" not in statement.format(autoincrement=words)

"""How the job store's database is opened."""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine

from leadline.server.jobs.tables import metadata

# How long a statement waits, in seconds, for another process that holds the file.
_BUSY_TIMEOUT = 5.0

# Counts up with every change of the tables.
_SCHEMA = 1


# The execution option of an engine whose transactions write.
WRITES = "leadline_writes"


class SchemaError(Exception):
    """The database was written by another version of Leadline."""


def open_database(path: Path, *, busy_timeout: float = _BUSY_TIMEOUT) -> Engine:
    """Opens the SQLite file at `path`, made where it is missing.

    A transaction that has committed survives a loss of power: the journal is
    written ahead and synced at every commit.

    Raises:
        sqlalchemy.exc.DatabaseError: the file is no database, is damaged, or
            cannot be written.
        SchemaError: the file was written by another version of Leadline.
    """
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": busy_timeout})
    sqlalchemy.event.listen(engine, "connect", _configure)
    sqlalchemy.event.listen(engine, "begin", _begin)
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        if sqlalchemy.inspect(connection).get_table_names():
            _check_schema(connection)
        else:
            metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version={_SCHEMA}")
    return engine


def _check_schema(connection: Connection) -> None:
    found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if found != _SCHEMA:
        raise SchemaError(
            f"it has the schema {found}, and this version of Leadline needs {_SCHEMA}"
        )


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    # Python's own transaction handling begins too late for a read before a
    # write to be safe: switch it off and begin ourselves.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    # A transaction that reads and then writes must hold the file from its
    # beginning: were another process to write in between, it would fail at once.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

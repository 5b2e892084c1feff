"""How the job store's database is opened."""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine

from leadline.server.jobs.tables import metadata

# How long a statement waits for another process that holds the file.
_BUSY_TIMEOUT_MS = 5_000


def open_database(path: Path) -> Engine:
    """Opens the SQLite file at `path`, made where it is missing.

    A transaction that has committed survives a loss of power: the journal is
    written ahead and synced at every commit.

    Raises:
        sqlalchemy.exc.DatabaseError: the file is no database, is damaged, or
            cannot be written.
    """
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    sqlalchemy.event.listen(engine, "connect", _configure)
    sqlalchemy.event.listen(engine, "begin", _begin)
    metadata.create_all(engine)
    return engine


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    # Python's own transaction handling begins too late for a read before a
    # write to be safe: switch it off and begin ourselves.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")

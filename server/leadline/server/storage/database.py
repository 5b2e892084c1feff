"""How the job store's database is opened."""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine

from leadline.server.storage.tables import metadata

# How long a statement waits, in seconds, for another process that holds the file.
_BUSY_TIMEOUT = 5.0

# Counts up with every change of the tables.
_SCHEMA = 3

# Schema 1 knew neither sweeps nor residual networks.
_FROM_1 = (
    """
    CREATE TABLE sweeps (
        number INTEGER NOT NULL PRIMARY KEY,
        sweep_id VARCHAR(32) NOT NULL UNIQUE,
        request_id VARCHAR(36) UNIQUE,
        grid TEXT NOT NULL,
        options TEXT NOT NULL,
        median_stopping TEXT,
        is_cancelled BOOLEAN NOT NULL,
        create_time BIGINT NOT NULL,
        end_time BIGINT,
        latest_sequence INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE sweep_events (
        sweep_id VARCHAR(32) NOT NULL REFERENCES sweeps (sweep_id),
        sequence INTEGER NOT NULL,
        create_time BIGINT NOT NULL,
        body TEXT,
        job_number INTEGER REFERENCES jobs (number),
        job_sequence INTEGER,
        PRIMARY KEY (sweep_id, sequence)
    )
    """,
    "ALTER TABLE jobs ADD COLUMN sweep_id VARCHAR(32) REFERENCES sweeps (sweep_id)",
    "ALTER TABLE jobs ADD COLUMN cancel_reason VARCHAR(64)",
    "ALTER TABLE jobs ADD COLUMN cancel_message TEXT",
    "ALTER TABLE events ADD COLUMN test_accuracy FLOAT",
    """
    UPDATE jobs SET cancel_reason = 'REQUESTED', cancel_message = 'a caller cancelled it'
    WHERE state = 'cancelled'
    """,
    "CREATE INDEX jobs_by_sweep ON jobs (sweep_id, number)",
    "ALTER TABLE jobs ADD COLUMN residual BOOLEAN NOT NULL DEFAULT 0",
    "DROP INDEX jobs_by_variant",
    """
    CREATE INDEX jobs_by_variant
    ON jobs (dataset, blocks, batch_norm, residual, best_test_accuracy)
    """,
)

# Schema 2 knew blocks of two convolutions only, and did not say so.
_FROM_2 = (
    "ALTER TABLE jobs ADD COLUMN block_convolutions INTEGER NOT NULL DEFAULT 2",
    "UPDATE jobs SET spec = json_set(spec, '$.block_convolutions', 2)",
    "UPDATE sweeps SET grid = json_set(grid, '$.spec.block_convolutions', 2)",
    """
    UPDATE sweep_events SET body = json_set(body, '$.grid.spec.block_convolutions', 2)
    WHERE json_extract(body, '$.grid') IS NOT NULL
    """,
    """
    UPDATE events SET body = json_set(body, '$.spec.block_convolutions', 2)
    WHERE kind = 'queued'
    """,
    "DROP INDEX jobs_by_variant",
    """
    CREATE INDEX jobs_by_variant
    ON jobs (dataset, blocks, block_convolutions, batch_norm, residual, best_test_accuracy)
    """,
)

# Statements that turn a schema into the next one, by the schema they start from.
_MIGRATIONS = {1: _FROM_1, 2: _FROM_2}


# The execution option of an engine whose transactions write.
WRITES = "leadline_writes"


class SchemaError(Exception):
    """The database was written by a newer version of Leadline."""


def open_database(path: Path, *, busy_timeout: float = _BUSY_TIMEOUT) -> Engine:
    """Opens the SQLite file at `path`, made where it is missing, brought up to date where old.

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
            _bring_up_to_date(connection)
        else:
            metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version={_SCHEMA}")
    return engine


def _bring_up_to_date(connection: Connection) -> None:
    schema = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if not 1 <= schema <= _SCHEMA:
        raise SchemaError(
            f"it has the schema {schema}, and this version of Leadline needs {_SCHEMA}"
        )
    for step in range(schema, _SCHEMA):
        for statement in _MIGRATIONS[step]:
            connection.exec_driver_sql(statement)


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

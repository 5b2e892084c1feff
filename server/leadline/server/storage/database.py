"""Opens the database, and provides read snapshots and write transactions."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine

from leadline.server.errors import StorageError
from leadline.server.storage.migrations import SCHEMA, migrate
from leadline.server.storage.sqlite_errors import translate_errors
from leadline.server.storage.tables import metadata
from leadline.server.thread_pool import check_abandoned, is_abandoned

# Seconds that a statement waits for another process that holds the file.
_BUSY_TIMEOUT = 5.0

# The number of SQLite's virtual instructions between two checks whether a reading
# call is abandoned.
_STEPS_A_LOOK = 20_000

# The execution options of an engine for transactions that write, or check references.
_WRITES = "leadline_writes"
_CHECKS = "leadline_checks_references"

# One number, in memory that processes may share. Every prediction reads it first, so a read
# must be cheap.
Revision = list[int] | memoryview


@dataclass(frozen=True)
class UnitOfWork:
    """A write transaction: all its statements are committed together, or none.

    Attributes:
        connection: executes its statements.
        now: the time of all its changes, in UTC.
    """

    connection: Connection
    now: datetime


class Database:
    """Read snapshots and write transactions on one engine, for any number of threads."""

    def __init__(
        self,
        engine: Engine,
        *,
        now: Callable[[], datetime] | None = None,
        revision: Revision | None = None,
    ) -> None:
        self._engine = engine
        self._writing_engine = engine.execution_options(**{_WRITES: True})
        self._unchecked_engine = self._writing_engine.execution_options(**{_CHECKS: False})
        self._now = now or (lambda: datetime.now(UTC))
        # SQLite allows one writer at a time; a second one would block its thread anyway.
        self._writer = threading.Lock()
        self._revision: Revision = [0] if revision is None else revision
        self._last_write_failed = False

    @property
    def revision(self) -> int:
        """Increases with every write; results of the same revision are still valid."""
        return self._revision[0]

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot to read from.

        Raises:
            StorageError: the database failed.
            AbandonedError: the call that reads was abandoned.
        """
        check_abandoned()
        try:
            with (
                translate_errors(),
                self._engine.connect() as connection,
                _interrupted_if_abandoned(connection),
            ):
                yield connection
        except StorageError:
            check_abandoned()
            raise

    @contextmanager
    def write(self, *, checks_references: bool = True) -> Iterator[UnitOfWork]:
        """A transaction, committed at the end of the block, rolled back on an exception.

        Args:
            checks_references: whether references to deleted rows are errors.

        Raises:
            StorageError: the database failed, and nothing was written.
        """
        with self._writer:
            try:
                engine = self._writing_engine if checks_references else self._unchecked_engine
                with translate_errors(), engine.begin() as connection:
                    yield UnitOfWork(connection, self._now())
            except StorageError:
                self._last_write_failed = True
                raise
            else:
                self._last_write_failed = False
            finally:
                self._revision[0] += 1

    def check_reads(self) -> None:
        """Checks that the database can be read.

        Raises:
            StorageError: the database failed.
        """
        with self.read() as connection:
            connection.exec_driver_sql("SELECT number FROM jobs LIMIT 1").all()

    def check_writes(self) -> None:
        """Checks that the lock of a write is available; after a failed write, also writes.

        A sync of the disk in each check would cost too much.

        Raises:
            StorageError: the database failed.
        """
        with self._writer, translate_errors(), self._writing_engine.begin() as connection:
            if self._last_write_failed:
                # Writes the file's first page, although the number does not change.
                connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA}")
        self._last_write_failed = False


def open_database(path: Path, *, busy_timeout: float = _BUSY_TIMEOUT) -> Engine:
    """Opens the SQLite file at `path`; creates a missing one, and migrates an older one.

    A committed transaction survives a power loss, because SQLite syncs its
    write-ahead log at every commit.

    Raises:
        sqlalchemy.exc.DatabaseError: the file is not a database, is damaged, or
            cannot be written.
        SchemaError: a newer version of Leadline wrote the file.
    """
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": busy_timeout})
    sqlalchemy.event.listen(engine, "connect", _configure)
    sqlalchemy.event.listen(engine, "begin", _begin)
    with engine.execution_options(**{_WRITES: True}).begin() as connection:
        if sqlalchemy.inspect(connection).get_table_names():
            migrate(connection)
        else:
            metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA}")
    return engine


def open_for_reading(path: Path, *, busy_timeout: float = _BUSY_TIMEOUT) -> Engine:
    """Opens the SQLite file at `path`, which another process writes to, for reading only.

    Raises:
        sqlalchemy.exc.DatabaseError: the file is not a database, or is damaged.
    """
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": busy_timeout})
    sqlalchemy.event.listen(engine, "connect", _allow_reads)
    sqlalchemy.event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def _interrupted_if_abandoned(connection: Connection) -> Iterator[None]:
    """Interrupts statements of the block within about a millisecond if the call is abandoned."""
    database: Any = connection.connection.driver_connection
    database.set_progress_handler(is_abandoned, _STEPS_A_LOOK)
    try:
        yield
    finally:
        database.set_progress_handler(None, 0)


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    # Python's own transactions begin too late to include a read before a write: so
    # this disables them and begins transactions itself.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _allow_reads(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON").close()


def _begin(connection: Connection) -> None:
    # A transaction that reads and then writes locks the file from its start. Otherwise
    # SQLite would reject the write if another process wrote in between.
    options = connection.get_execution_options()
    writes = options.get(_WRITES, False)
    if writes:  # SQLite ignores this within a transaction
        connection.exec_driver_sql(f"PRAGMA foreign_keys={int(options.get(_CHECKS, True))}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

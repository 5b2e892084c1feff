"""Converts SQLite's errors to StorageError, with a reason for programs and advice."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError

from leadline.server.errors import StorageError

# A part of SQLite's message, then reason and advice. https://www.sqlite.org/rescode.html
_ERRORS = (
    ("disk is full", "STORAGE_FULL", "the disk is full: free some space"),
    ("disk i/o error", "STORAGE_FULL", "the disk takes no writes: free some space, check it"),
    ("readonly", "STORAGE_READ_ONLY", "the data directory is read-only: make it writable"),
    ("locked", "STORAGE_LOCKED", "another program holds the database: end it"),
    ("malformed", "STORAGE_DAMAGED", "the database is damaged: restore it from a copy"),
    ("not a database", "STORAGE_DAMAGED", "the database is damaged: restore it from a copy"),
    ("unable to open", "STORAGE_UNREADABLE", "the database cannot be opened: check the disk"),
)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Converts database errors that the block raises.

    Raises:
        StorageError: the database failed, and rolled back the transaction.
    """
    try:
        yield
    except DatabaseError as error:
        message = str(error.orig)
        for part, reason, advice in _ERRORS:
            if part in message.lower():
                raise StorageError(f"{advice} ({message})", reason=reason) from error
        raise StorageError(f"the job database failed: {message}", reason="STORAGE_FAULT") from error

"""Faults of the disk and of the database, told apart by what helps."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError

from leadline.server.errors import StorageError

# What SQLite says, and what it means. https://www.sqlite.org/rescode.html
_FAULTS = (
    ("disk is full", "STORAGE_FULL", "the disk is full: free some space"),
    ("disk i/o error", "STORAGE_FULL", "the disk takes no writes: free some space, check it"),
    ("readonly", "STORAGE_READ_ONLY", "the data directory is read-only: make it writable"),
    ("locked", "STORAGE_LOCKED", "another program holds the database: end it"),
    ("malformed", "STORAGE_DAMAGED", "the database is damaged: restore it from a copy"),
    ("not a database", "STORAGE_DAMAGED", "the database is damaged: restore it from a copy"),
    ("unable to open", "STORAGE_UNREADABLE", "the database cannot be opened: check the disk"),
)


@contextmanager
def storage_faults() -> Iterator[None]:
    """Around what uses the database.

    Raises:
        StorageError: the database failed; what was not committed did not happen.
    """
    try:
        yield
    except DatabaseError as error:
        said = str(error.orig)
        for words, reason, advice in _FAULTS:
            if words in said.lower():
                raise StorageError(f"{advice} ({said})", reason=reason) from error
        raise StorageError(f"the job database failed: {said}", reason="STORAGE_FAULT") from error

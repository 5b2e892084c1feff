"""Prepares the server's data directory, store and ready file."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import structlog
from sqlalchemy.exc import SQLAlchemyError

from leadline.server.access.control import AccessControl
from leadline.server.access.exposure import exposure
from leadline.server.access.tokens import AccessFileError
from leadline.server.processes.protocol import SharedRevision
from leadline.server.settings import Settings
from leadline.server.storage.database import open_database
from leadline.server.storage.migrations import SchemaError
from leadline.server.storage.store import Store
from leadline.server.tls import TlsCertificates, TlsError, load_certificates

_LOG = structlog.get_logger(__name__)


class StartupError(Exception):
    """The server cannot start; the message says why and what to do."""


class DataDir:
    """The paths of everything that the server stores."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = root / "leadline.db"  # jobs, sweeps and events
        self.models = root / "models"  # checkpoints, one folder per job
        self.datasets = root / "datasets"  # decoded datasets, one folder per fingerprint
        self.page_key = root / "page-token.key"  # signs page tokens

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder and locks it: no two servers share one.

        Raises:
            StartupError: another server has the lock, or the folder cannot be written.
        """
        try:
            for folder in (self.root, self.models, self.datasets):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock: TextIO = (self.root / "lock").open("a+")
        except OSError as error:
            raise StartupError(
                f"the data directory {self.root} cannot be written: {error.strerror}; "
                "name another with --data-dir"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StartupError(
                    f"another server uses the data directory {self.root}: "
                    "stop it, or name another with --data-dir"
                ) from error
            yield


def open_store(data: DataDir, revision: SharedRevision | None = None) -> Store:
    """Opens the database of a data directory, and migrates an older one.

    Args:
        data: the data directory.
        revision: the store's revision, if other processes read it.

    Raises:
        StartupError: it cannot be opened.
    """
    try:
        view = None if revision is None else revision.view
        return Store(open_database(data.database), revision=view)
    except (SQLAlchemyError, SchemaError) as error:
        raise StartupError(
            f"the job database {data.database} cannot be opened: {error}; "
            "restore it from a copy, or name another folder with --data-dir"
        ) from error


def load_access(settings: Settings) -> AccessControl:
    """Loads the identities, and refuses to serve other machines in the open.

    Raises:
        StartupError: a file of identities is damaged, or the server would be open.
    """
    access = AccessControl(settings)
    try:
        access.load()
    except AccessFileError as error:
        raise StartupError(str(error)) from error
    if exposed := exposure(settings, requires_identities=access.is_required):
        if not settings.insecure:
            raise StartupError(exposed)
        _LOG.warning("other machines are served in the open", why=exposed)
    return access


def load_tls(settings: Settings) -> TlsCertificates | None:
    """Loads the certificates; None without TLS.

    Raises:
        StartupError: an option is missing, or the files cannot be used.
    """
    try:
        return load_certificates(settings)
    except TlsError as error:
        raise StartupError(str(error)) from error


def check_ready_file(path: Path | None) -> None:
    """Checks that the ready file can be written.

    Raises:
        StartupError: the file's folder cannot be written.
    """
    if path is not None and not os.access(path.parent, os.W_OK):
        raise StartupError(
            f"{path} cannot be written: name a file in a folder that can, with --ready-file"
        )


@contextmanager
def ready_file(path: Path | None, values: Mapping[str, object]) -> Iterator[None]:
    """Writes `values` as JSON to `path`, if any; removes the file at the end of the block."""
    if path is None:
        yield
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({**values, "pid": os.getpid()}))
    partial.replace(path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()

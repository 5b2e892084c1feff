"""The store: the repositories of one database.

Every method of a repository is one transaction and blocks its thread: call it
through `leadline.server.thread_pool`, never on the event loop. A change and its
event are committed together. On a database error nothing changes, and the
method raises StorageError.
"""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine

from leadline.server.storage.attempts import AttemptRepository
from leadline.server.storage.database import Database, Revision
from leadline.server.storage.jobs import JobRepository
from leadline.server.storage.models import ModelRepository
from leadline.server.storage.sweeps import SweepRepository


class Store:
    """Jobs, sweeps and models in an SQLAlchemy database."""

    def __init__(
        self,
        engine: Engine,
        *,
        now: Callable[[], datetime] | None = None,
        revision: Revision | None = None,
    ) -> None:
        """Makes the store of a database.

        Args:
            engine: the database.
            now: returns the time of a change; None for the clock.
            revision: the revision that processes share; None for a private one.
        """
        self._database = Database(engine, now=now, revision=revision)
        self.jobs = JobRepository(self._database)
        self.attempts = AttemptRepository(self._database)
        self.sweeps = SweepRepository(self._database)
        self.models = ModelRepository(self._database)
        self.check_reads = self._database.check_reads
        self.check_writes = self._database.check_writes

    @property
    def revision(self) -> int:
        """Increases with every write; results of the same revision are still valid."""
        return self._database.revision

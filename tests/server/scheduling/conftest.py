"""A queued job of a real store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import Job
from leadline.server.jobs.options import JobOptions
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    engine = open_database(tmp_path / "jobs.db")
    yield Store(engine)
    engine.dispose()


@pytest.fixture
def ordinary(store: Store) -> Job:
    """The queued job "a", without a sweep."""
    job, _ = store.jobs.create(
        TrainingSpec(), JobOptions(), job_id="a", request_id=None, max_queued=1
    )
    return job

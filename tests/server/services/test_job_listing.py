"""The number of queries for a page of jobs."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Engine

from leadline.models.spec import TrainingSpec
from leadline.server.access.control import AccessControl
from leadline.server.application import Core, _make_scheduler, _make_training_services
from leadline.server.datasets import KnownDatasets
from leadline.server.jobs.options import JobOptions
from leadline.server.services.jobs import JobService, JobView
from leadline.server.settings import Settings
from leadline.server.startup import DataDir
from leadline.server.storage.store import Store


@pytest.fixture
def queries(engine: Engine) -> list[str]:
    """Records the executed SELECT statements."""
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    sqlalchemy.event.listen(engine, "before_cursor_execute", record)
    return statements


@pytest.fixture
def service(engine: Engine, tmp_path: Path) -> Iterator[JobService]:
    settings = Settings(devices="cpu")
    core = Core(
        settings,
        DataDir(tmp_path),
        Store(engine),
        KnownDatasets(sources={}, fingerprints={}),
        AccessControl(settings),
    )
    jobs, _ = _make_training_services(core, _make_scheduler(core))
    yield jobs
    core.close()


def first_of(limit: int, views: Iterable[JobView]) -> list[JobView]:
    return list(islice(views, limit))


async def test_a_page_takes_as_many_queries_however_many_of_its_jobs_are_queued(
    engine: Engine, queries: list[str], service: JobService
) -> None:
    store = Store(engine)
    for number in range(40):
        options = JobOptions(priority=number % 2)
        store.jobs.create(
            TrainingSpec(), options, job_id=f"j{number}", request_id=None, max_queued=40
        )
    store.attempts.claim("j1", device="cpu")

    pages: list[list[JobView]] = []
    counts = []
    for limit in (2, 40):
        queries.clear()
        first = partial(first_of, limit)
        pages.append(
            await service.list_jobs(first, states=(), before=None, limit=limit, caller="me")
        )
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 5
    positions = {view.job.job_id: view.queue_position for view in pages[1]}
    assert [positions[job_id] for job_id in ("j3", "j39", "j0", "j38", "j1")] == [0, 18, 19, 38, 0]
    assert [view.queue_position for view in pages[0]] == [18, 38]

"""The repository of models, which are read from the rows of jobs and their events."""

import dataclasses
from typing import Any

from sqlalchemy import Select, select

from leadline.server.errors import NotFoundError
from leadline.server.jobs.job import Job, Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.storage.database import Database
from leadline.server.storage.queries import find_job, newest_first
from leadline.server.storage.records import read_jobs, read_model
from leadline.server.storage.tables import jobs

_HAS_MODEL = jobs.c.completed_epochs > 0


class ModelRepository:
    """Models; each method reads one snapshot, and blocks its thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, job_id: str) -> Model:
        """The model that a job has trained.

        Raises:
            NotFoundError: there is no such job, or it has no epoch yet.
        """
        with self._database.read() as connection:
            job = find_job(connection, (jobs.c.job_id == job_id) & _HAS_MODEL)
            if job is None:
                raise NotFoundError(
                    "model",
                    f"models/{job_id}",
                    "a model exists from its job's first completed epoch on",
                )
            return read_model(connection, job)

    def find(
        self, variant: VariantFilter, *, before: int | None = None, limit: int | None = None
    ) -> list[Model]:
        """Models of a variant, whose jobs are numbered below `before`, newest first."""
        query = _of_variant(variant, newest_first(jobs, before=before, limit=limit))
        with self._database.read() as connection:
            return [read_model(connection, job) for job in read_jobs(connection, query)]

    def find_best(self, variant: VariantFilter) -> Model | None:
        """The model of a variant with the highest test accuracy, the newest of equals."""
        with self._database.read() as connection:
            best = read_jobs(connection, _best_first(variant, limit=1))
            return read_model(connection, best[0]) if best else None

    def find_most_accurate_jobs(self, *, limit: int) -> list[Job]:
        """At most `limit` jobs that have models, the highest test accuracy first."""
        with self._database.read() as connection:
            return read_jobs(connection, _best_first(VariantFilter(), limit=limit))


def _best_first(variant: VariantFilter, *, limit: int) -> Select[Any]:
    best_first = (jobs.c.best_test_accuracy.desc(), jobs.c.number.desc())
    return _of_variant(variant, select(jobs)).order_by(*best_first).limit(limit)


def _of_variant(variant: VariantFilter, query: Select[Any]) -> Select[Any]:
    values = dataclasses.asdict(variant).items()
    conditions = [jobs.c[name] == value for name, value in values if value is not None]
    return query.where(_HAS_MODEL, *conditions)

"""The repository of models, which it reads from the rows of jobs and their events."""

import dataclasses
from typing import Any, NamedTuple

from sqlalchemy import Select, select

from leadline.server.errors import NotFoundError
from leadline.server.jobs.job import Job, Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.storage.database import Database
from leadline.server.storage.queries import find_job, newest_first
from leadline.server.storage.records import read_jobs, read_model
from leadline.server.storage.tables import jobs

_HAS_MODEL = jobs.c.completed_epochs > 0

_VARIANT = [jobs.c[field.name] for field in dataclasses.fields(VariantFilter)]


class ModelName(NamedTuple):
    """A model by its job's id, and its best epoch."""

    job_id: str
    best_epoch: int


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
        """Models of a variant, newest first; `before` bounds the numbers of their jobs."""
        query = _of_variant(variant, newest_first(jobs, before=before, limit=limit))
        with self._database.read() as connection:
            return [read_model(connection, job) for job in read_jobs(connection, query)]

    def find_best(self, variant: VariantFilter) -> Model | None:
        """The model of a variant with the highest test accuracy; the newest among equals."""
        with self._database.read() as connection:
            best = read_jobs(connection, _best_first(variant, limit=1))
            return read_model(connection, best[0]) if best else None

    def find_best_of_variants(self, dataset: str | None = None) -> list[Job]:
        """The job with the best model of each variant, the most accurate first.

        Args:
            dataset: only variants that were trained on this dataset; None for all.
        """
        variants = select(*_VARIANT).distinct()
        if dataset is not None:
            variants = variants.where(jobs.c.dataset == dataset)
        with self._database.read() as connection:
            best = [
                job
                for row in connection.execute(variants).mappings().all()
                for job in read_jobs(connection, _best_first(VariantFilter(**row), limit=1))
            ]
        return sorted(best, key=lambda job: (-job.best_test_accuracy, -job.number))

    def find_names(self, *, limit: int) -> list[ModelName]:
        """The names of the newest models, at most `limit`, without their epochs."""
        query = newest_first(jobs, before=None, limit=limit).with_only_columns(
            jobs.c.job_id, jobs.c.best_epoch
        )
        with self._database.read() as connection:
            return [ModelName(*row) for row in connection.execute(query.where(_HAS_MODEL))]

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

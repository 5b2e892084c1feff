"""The repository of models, which it reads from the rows of jobs and their events."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, select, text, true, tuple_

from leadline.server.errors import NotFoundError
from leadline.server.jobs.job import Job, Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.storage.database import Database
from leadline.server.storage.queries import find_job, newest_first, newest_of_any
from leadline.server.storage.records import read_jobs, read_model
from leadline.server.storage.tables import HAS_MODEL, jobs

_HAS_MODEL = text(HAS_MODEL)

_VARIANT = [jobs.c[field.name] for field in dataclasses.fields(VariantFilter)]

# Higher than every accuracy, which is a fraction.
_ABOVE_ALL = 2.0

# If a filter matches more variants than this, it reads the newest models until enough match.
_MAX_SEARCHES = 100


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
            return read_model(connection, _find_job(connection, job_id))

    def count_epochs(self, job_id: str) -> int:
        """The number of epochs of a model, without reading them.

        Raises:
            NotFoundError: there is no such job, or it has no epoch yet.
        """
        with self._database.read() as connection:
            return _find_job(connection, job_id).completed_epochs

    def find(
        self,
        variant: VariantFilter,
        *,
        owner: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[Model]:
        """Models of a variant, newest first.

        Args:
            variant: the filter.
            owner: only models of this owner; None for all.
            before: only models whose job has a lower number; None for no bound.
            limit: the most models.
        """
        with self._database.read() as connection:
            conditions = _conditions(connection, variant, owner)
            if not conditions:
                return []
            query = newest_of_any(conditions, before=before, limit=limit)
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
        with self._database.read() as connection:
            best = [
                job
                for variant in _variants(connection, dataset)
                for job in read_jobs(connection, _best_first(variant, limit=1))
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


def _find_job(connection: Connection, job_id: str) -> Job:
    """The job of a model; raises NotFoundError if there is no model."""
    job = find_job(connection, and_(jobs.c.job_id == job_id, _HAS_MODEL))
    if job is None:
        raise NotFoundError(
            "model",
            f"models/{job_id}",
            "a model exists from its job's first completed epoch on",
        )
    return job


def _best_first(variant: VariantFilter, *, limit: int) -> Select[Any]:
    best_first = (jobs.c.best_test_accuracy.desc(), jobs.c.number.desc())
    return select(jobs).where(_matches(variant)).order_by(*best_first).limit(limit)


def _conditions(
    connection: Connection, variant: VariantFilter, owner: str | None
) -> list[ColumnElement[bool]]:
    """Conditions with an index each; the models of a variant meet any of them."""
    is_owned = jobs.c.owner == owner if owner is not None else true()
    if variant == VariantFilter(dataset=variant.dataset if owner is None else None):
        return [_matches(variant) & is_owned]
    given = [(name, value) for name, value in vars(variant).items() if value is not None]
    matching: list[ColumnElement[bool]] = [
        _matches(other) & is_owned
        for other in _variants(connection, variant.dataset)
        if all(getattr(other, name) == value for name, value in given)
    ]
    return matching if len(matching) <= _MAX_SEARCHES else [_matches(variant) & is_owned]


def _variants(connection: Connection, dataset: str | None) -> Iterator[VariantFilter]:
    """The variants of one or all datasets that have models; each takes one index search."""
    key = [*_VARIANT, jobs.c.best_test_accuracy]
    query = select(*_VARIANT).where(_HAS_MODEL).order_by(*key).limit(1)
    after: tuple[Any, ...] = (dataset or "", -1, 0, False, False)
    while row := (
        connection.execute(query.where(tuple_(*key) > tuple_(*after, _ABOVE_ALL)))
        .mappings()
        .one_or_none()
    ):
        if dataset is not None and row["dataset"] != dataset:
            return
        yield VariantFilter(**row)
        after = tuple(row.values())


def _matches(variant: VariantFilter) -> ColumnElement[bool]:
    values = dataclasses.asdict(variant).items()
    return and_(_HAS_MODEL, *(jobs.c[name] == value for name, value in values if value is not None))

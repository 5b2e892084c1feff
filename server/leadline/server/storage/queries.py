"""What can be asked of the job store: read-only, one snapshot a question."""

import dataclasses
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, select

from leadline.server.errors import NotFoundError
from leadline.server.jobs.job import Event, Job, Model, Started
from leadline.server.jobs.states import JobState
from leadline.server.storage.records import (
    from_timestamp,
    read_event,
    read_jobs,
    read_model,
    read_started,
    to_timestamp,
)
from leadline.server.storage.sqlite_errors import storage_faults
from leadline.server.storage.tables import events, jobs

IS_QUEUED = jobs.c.state == JobState.QUEUED.value
_FINAL = [state.value for state in JobState if state.is_final]

# In which order waiting jobs start.
_TURN = (jobs.c.priority.desc(), jobs.c.number)

# Of models the most accurate first, of equals the newest.
_BEST = (jobs.c.best_test_accuracy.desc(), jobs.c.number.desc())


@dataclass(frozen=True, kw_only=True)
class VariantFilter:
    """Which models to find, by columns of the table of jobs; None stands for any."""

    dataset: str | None = None
    blocks: int | None = None
    block_convolutions: int | None = None
    batch_norm: bool | None = None
    residual: bool | None = None


class JobQueries:
    """Questions to a database of jobs and events. They block."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._revision = 0

    @property
    def revision(self) -> int:
        """Changes with every write: what was read since it last changed is still so."""
        return self._revision

    def get(self, job_id: str) -> Job:
        """The job as it stands.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._reading() as connection:
            return get_job(connection, job_id)

    def list_jobs(
        self,
        *,
        states: Collection[JobState] = (),
        sweep_id: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        """Jobs in `states` (empty: any), of a sweep, numbered below `before`, newest first."""
        query = select(jobs).order_by(jobs.c.number.desc()).limit(limit)
        if states:
            query = query.where(jobs.c.state.in_([state.value for state in states]))
        if sweep_id is not None:
            query = query.where(jobs.c.sweep_id == sweep_id)
        if before is not None:
            query = query.where(jobs.c.number < before)
        with self._reading() as connection:
            return read_jobs(connection, query)

    def job_ids(self) -> set[str]:
        """The ids of all jobs."""
        with self._reading() as connection:
            return set(connection.execute(select(jobs.c.job_id)).scalars())

    def next_queued(self, *, in_sweep: bool | None = None) -> Job | None:
        """The job whose turn it is: the oldest of the highest priority.

        Of all, or of those that are, or are not, a part of a sweep.
        """
        query = select(jobs).where(IS_QUEUED).order_by(*_TURN).limit(1)
        if in_sweep is not None:
            query = query.where((jobs.c.sweep_id.is_not(None)) == in_sweep)
        with self._reading() as connection:
            return next(iter(read_jobs(connection, query)), None)

    def waiting_jobs(self, *, limit: int) -> list[Job]:
        """The first `limit` queued jobs, in the order in which they will start."""
        query = select(jobs).where(IS_QUEUED).order_by(*_TURN).limit(limit)
        with self._reading() as connection:
            return read_jobs(connection, query)

    def queue_position(self, job: Job) -> int:
        """How many jobs will start before a queued one."""
        with self._reading() as connection:
            return count_before(connection, job)

    def overdue(self, now: datetime) -> list[Job]:
        """The jobs that are not finished although their deadline has passed."""
        query = select(jobs).where(
            jobs.c.deadline <= to_timestamp(now), jobs.c.state.not_in(_FINAL)
        )
        with self._reading() as connection:
            return read_jobs(connection, query)

    def next_deadline(self) -> datetime | None:
        """The earliest deadline of a job that is not finished."""
        query = select(func.min(jobs.c.deadline)).where(jobs.c.state.not_in(_FINAL))
        with self._reading() as connection:
            earliest: int | None = connection.execute(query).scalar_one()
        return None if earliest is None else from_timestamp(earliest)

    def count_by_state(self) -> dict[JobState, int]:
        """How many jobs there are in each state, zeros included."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with self._reading() as connection:
            found = {JobState(state): count for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """At most `limit` events after the sequence `after`, in order."""
        query = (
            select(events)
            .join(jobs, jobs.c.number == events.c.job_number)
            .where(jobs.c.job_id == job_id, events.c.sequence > after)
            .order_by(events.c.sequence)
            .limit(limit)
        )
        with self._reading() as connection:
            return [read_event(job_id, row) for row in connection.execute(query)]

    # Models

    def get_started(self, job_id: str) -> Started | None:
        """Returns what the job's first worker found, None before there was one.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._reading() as connection:
            return read_started(connection, get_job(connection, job_id))

    def get_model(self, job_id: str) -> Model:
        """What the job has trained.

        Raises:
            NotFoundError: there is no such job, or it has no epoch yet.
        """
        with self._reading() as connection:
            job = find_job(connection, (jobs.c.job_id == job_id) & (jobs.c.completed_epochs > 0))
            if job is None:
                raise NotFoundError(
                    "model",
                    f"models/{job_id}",
                    "a model exists from its job's first completed epoch on",
                )
            return read_model(connection, job)

    def list_models(
        self, wanted: VariantFilter, *, before: int | None = None, limit: int | None = None
    ) -> list[Model]:
        """Models that match, whose jobs are numbered below `before`, newest first."""
        query = _matching(wanted).order_by(jobs.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(jobs.c.number < before)
        with self._reading() as connection:
            return [read_model(connection, job) for job in read_jobs(connection, query)]

    def most_accurate_jobs(self, *, limit: int) -> list[Job]:
        """At most `limit` jobs that have models, the highest test accuracy first."""
        query = _matching(VariantFilter()).order_by(*_BEST).limit(limit)
        with self._reading() as connection:
            return read_jobs(connection, query)

    def best_of_variant(self, wanted: VariantFilter) -> Model | None:
        """The matching model with the highest test accuracy, the newest of equals."""
        query = _matching(wanted).order_by(*_BEST).limit(1)
        with self._reading() as connection:
            best = next(iter(read_jobs(connection, query)), None)
            return None if best is None else read_model(connection, best)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with storage_faults(), self._engine.connect() as connection:
            yield connection


def find_job(connection: Connection, condition: Any) -> Job | None:
    """The job that a condition on the table of jobs finds."""
    found = read_jobs(connection, select(jobs).where(condition))
    return found[0] if found else None


def get_job(connection: Connection, job_id: str) -> Job:
    """The job as it stands.

    Raises:
        NotFoundError: there is no such job.
    """
    job = find_job(connection, jobs.c.job_id == job_id)
    if job is None:
        raise NotFoundError("job", f"jobs/{job_id}", "ListJobs names those there are")
    return job


def count_jobs(connection: Connection, condition: Any) -> int:
    """How many jobs meet a condition on the table of jobs."""
    query = select(func.count()).select_from(jobs).where(condition)
    return connection.execute(query).scalar_one()


def count_before(connection: Connection, job: Job) -> int:
    """How many queued jobs will start before this one."""
    priority = job.options.priority
    is_before = (jobs.c.priority > priority) | (
        (jobs.c.priority == priority) & (jobs.c.number < job.number)
    )
    return count_jobs(connection, IS_QUEUED & is_before)


def _matching(wanted: VariantFilter) -> Select[Any]:
    query = select(jobs).where(jobs.c.completed_epochs > 0)
    for name, value in dataclasses.asdict(wanted).items():
        if value is not None:
            query = query.where(jobs.c[name] == value)
    return query

"""Queries on the table of jobs that several repositories share."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    func,
    or_,
    select,
    union_all,
)

from leadline.server.errors import NotFoundError
from leadline.server.jobs.job import Job
from leadline.server.jobs.states import JobState
from leadline.server.storage.records import read_jobs
from leadline.server.storage.tables import jobs

IS_QUEUED = jobs.c.state == JobState.QUEUED.value
# Lists the states, because an index on the state does not serve a negation.
IS_UNFINISHED = jobs.c.state.in_([state.value for state in JobState if not state.is_final])

# The order in which queued jobs start.
QUEUE_ORDER = (jobs.c.priority.desc(), jobs.c.number)


def newest_first(table: Table, *, before: int | None, limit: int | None) -> Select[Any]:
    """Selects at most `limit` rows numbered below `before`, the highest number first."""
    query = select(table).order_by(table.c.number.desc()).limit(limit)
    return query if before is None else query.where(table.c.number < before)


def newest_of_any(
    conditions: Sequence[ColumnElement[bool]], *, before: int | None, limit: int | None
) -> Select[Any]:
    """Selects at most `limit` jobs that meet any of these conditions, the highest number first.

    Each condition needs an index. Selects the newest for each condition first: a simple query
    would read every job that meets one.
    """
    if len(conditions) == 1 or limit is None:
        return newest_first(jobs, before=before, limit=limit).where(or_(*conditions))
    newest = [
        newest_first(jobs, before=before, limit=limit)
        .with_only_columns(jobs.c.number)
        .where(condition)
        .subquery()
        for condition in conditions
    ]
    numbers = union_all(*(select(part.c.number) for part in newest))
    return newest_first(jobs, before=None, limit=limit).where(jobs.c.number.in_(numbers))


def find_job(connection: Connection, condition: Any) -> Job | None:
    """The first job that meets a condition on the table of jobs."""
    return next(iter(read_jobs(connection, select(jobs).where(condition).limit(1))), None)


def get_job(connection: Connection, job_id: str) -> Job:
    """The current state of a job.

    Raises:
        NotFoundError: there is no such job.
    """
    job = find_job(connection, jobs.c.job_id == job_id)
    if job is None:
        raise _no_job(job_id)
    return job


def get_owner(connection: Connection, job_id: str) -> str:
    """The name of a job's owner.

    Raises:
        NotFoundError: there is no such job.
    """
    query = select(jobs.c.owner).where(jobs.c.job_id == job_id)
    owner: str | None = connection.execute(query).scalar_one_or_none()
    if owner is None:
        raise _no_job(job_id)
    return owner


def _no_job(job_id: str) -> NotFoundError:
    return NotFoundError("job", f"jobs/{job_id}", "ListJobs and `leadline jobs` list them")


def count_jobs(connection: Connection, condition: Any) -> int:
    """How many jobs meet a condition on the table of jobs."""
    query = select(func.count()).select_from(jobs).where(condition)
    return connection.execute(query).scalar_one()


def queue_positions(connection: Connection, job_ids: Collection[str]) -> dict[str, int]:
    """How many jobs start before each of these jobs; omits jobs that are not queued."""
    query = select(jobs.c.number).where(IS_QUEUED).order_by(*QUEUE_ORDER)
    positions = {
        number: position for position, number in enumerate(connection.execute(query).scalars())
    }
    numbers = select(jobs.c.job_id, jobs.c.number).where(jobs.c.job_id.in_(job_ids))
    return {
        job_id: positions[number]
        for job_id, number in connection.execute(numbers)
        if number in positions
    }


def count_running(connection: Connection) -> dict[str, int]:
    """The number of running jobs of each owner that has any."""
    query = select(jobs.c.owner, func.count()).group_by(jobs.c.owner)
    return dict(connection.execute(query.where(jobs.c.state == JobState.RUNNING.value)).all())


def owners_in_queue(connection: Connection) -> Iterator[str]:
    """The owners of queued jobs; each takes one index search."""
    query = select(jobs.c.owner).where(IS_QUEUED).order_by(jobs.c.owner).limit(1)
    # Always with a bound, or SQLite would choose another index and sort.
    bound = jobs.c.owner >= ""
    while (owner := connection.execute(query.where(bound)).scalar_one_or_none()) is not None:
        yield owner
        bound = jobs.c.owner > owner


def first_in_queue(connection: Connection, owner: str, *, in_sweep: bool | None) -> Any:
    """The row of an owner's first queued job, with its priority and number; None without one."""
    query = select(jobs.c.priority, jobs.c.number).where(IS_QUEUED, jobs.c.owner == owner)
    if in_sweep is not None:
        query = query.where((jobs.c.sweep_id.is_not(None)) == in_sweep)
    return connection.execute(query.order_by(*QUEUE_ORDER).limit(1)).one_or_none()

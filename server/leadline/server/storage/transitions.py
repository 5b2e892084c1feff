"""Changes the states of jobs within a unit of work, each with its event."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import Cancellation, Failure, Finished, Job, Paused, Resumed
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState, check_move
from leadline.server.jobs.variants import VariantFilter
from leadline.server.storage import event_log, queries, records, sweep_records
from leadline.server.storage.database import UnitOfWork
from leadline.server.storage.tables import deleted_jobs, jobs, sweeps
from leadline.server.sweeps.sweep import SweepFinished


def new_job_row(
    work: UnitOfWork, job_id: str, spec: TrainingSpec, options: JobOptions
) -> dict[str, Any]:
    """The row of a new job."""
    limit = options.time_limit
    deadline = None if limit is None else records.to_timestamp(work.now + timedelta(seconds=limit))
    return {
        "job_id": job_id,
        "spec": json.dumps(spec.to_dict()),
        **{column.name: getattr(spec, column.name) for column in fields(VariantFilter)},
        "options": json.dumps(options.to_dict()),
        "priority": options.priority,
        "deadline": deadline,
        "state": JobState.QUEUED.value,
        "create_time": records.to_timestamp(work.now),
    }


def next_number(work: UnitOfWork) -> int:
    """The number of the next job: higher than that of any job that still has events."""
    highest = [select(func.max(table.c.number)).scalar_subquery() for table in (jobs, deleted_jobs)]
    row = work.connection.execute(select(*highest)).one()
    return max(number or 0 for number in row) + 1


def update_job(work: UnitOfWork, job: Job, **values: Any) -> None:
    """Sets columns of a job."""
    work.connection.execute(update(jobs).where(jobs.c.number == job.number).values(**values))


def move_job(work: UnitOfWork, job: Job, state: JobState, **values: Any) -> Job:
    """Moves a job to another state, sets columns, and returns the job with its new state.

    Raises:
        FailedPreconditionError: the move is not legal.
    """
    check_move(job.job_id, job.state, state)
    update_job(work, job, state=state.value, **values)
    return replace(job, state=state)


def pause_jobs(work: UnitOfWork, paused: Sequence[Job], pause: Paused) -> None:
    """Pauses queued or running jobs."""
    for job in paused:
        event_log.append_event(work, move_job(work, job, JobState.PAUSED), pause)


def resume_jobs(work: UnitOfWork, resumed: Sequence[Job]) -> None:
    """Queues paused jobs again."""
    queued = [move_job(work, job, JobState.QUEUED) for job in resumed]
    positions = queries.queue_positions(work.connection, [job.job_id for job in queued])
    for job in queued:
        body = Resumed(completed_epochs=job.completed_epochs, queue_position=positions[job.job_id])
        event_log.append_event(work, job, body)


def finish_job(
    work: UnitOfWork,
    job: Job,
    state: JobState,
    *,
    failure: Failure | None = None,
    cancellation: Cancellation | None = None,
) -> None:
    """Moves a job to a final state; `finish_sweep` updates its sweep."""
    job = move_job(
        work,
        job,
        state,
        end_time=records.to_timestamp(work.now),
        failure_reason=failure and failure.reason,
        failure_message=failure and failure.message,
        cancel_reason=cancellation and cancellation.reason,
        cancel_message=cancellation and cancellation.message,
    )
    finished = Finished(
        state=state,
        completed_epochs=job.completed_epochs,
        best_epoch=job.best_epoch,
        best_test_accuracy=job.best_test_accuracy,
        stopped_early=state is JobState.SUCCEEDED and job.completed_epochs < job.spec.epochs,
        failure=failure,
        cancellation=cancellation,
    )
    event_log.append_event(work, job, finished)


def finish_sweep(work: UnitOfWork, sweep_id: str | None) -> None:
    """Finishes a sweep if all its jobs are final; does nothing for None."""
    is_unfinished = (jobs.c.sweep_id == sweep_id) & queries.IS_UNFINISHED
    if sweep_id is None or queries.count_jobs(work.connection, is_unfinished):
        return
    view = sweep_records.view_sweep(work.connection, sweep_id)
    work.connection.execute(
        update(sweeps)
        .where(sweeps.c.sweep_id == sweep_id)
        .values(end_time=records.to_timestamp(work.now))
    )
    finished = SweepFinished(state=view.sweep.state, counts=view.sweep.counts, table=view.table)
    event_log.append_sweep_event(work, sweep_id, finished)


def delete_jobs(work: UnitOfWork, condition: Any, mark: Callable[[str], None]) -> list[str]:
    """Deletes the jobs that meet a condition, and returns their ids.

    Calls `mark` with each id. `JobRepository.purge` removes the events, so the unit of work
    must not check references.
    """
    deleted = list(work.connection.execute(select(jobs.c.job_id).where(condition)).scalars())
    for job_id in deleted:
        mark(job_id)
    numbers = select(jobs.c.number).where(condition)
    work.connection.execute(insert(deleted_jobs).from_select(["number"], numbers))
    work.connection.execute(delete(jobs).where(condition))
    return deleted


def ignore(_job_id: str) -> None:
    """Does nothing, for jobs whose files are not deleted."""

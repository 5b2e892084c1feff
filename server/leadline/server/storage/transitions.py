"""Changes the states of jobs within a unit of work, each with its event."""

import json
from collections.abc import Sequence
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
from leadline.server.storage.tables import deleted_jobs, jobs, sweep_counts, sweeps
from leadline.server.sweeps.sweep import SweepFinished, SweepState


def new_job_row(
    work: UnitOfWork, job_id: str, spec: TrainingSpec, options: JobOptions, owner: str = ""
) -> dict[str, Any]:
    """The row of a new job."""
    limit = options.time_limit
    deadline = None if limit is None else records.to_timestamp(work.now + timedelta(seconds=limit))
    return {
        "job_id": job_id,
        "owner": owner,
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


def move_jobs(work: UnitOfWork, moved: Sequence[Job], state: JobState, **values: Any) -> list[Job]:
    """Moves jobs to another state, sets columns, and returns the jobs with their new state.

    Raises:
        FailedPreconditionError: a move is not legal.
    """
    for job in moved:
        check_move(job.job_id, job.state, state)
    numbers = [job.number for job in moved]
    work.connection.execute(
        update(jobs).where(jobs.c.number.in_(numbers)).values(state=state.value, **values)
    )
    return [replace(job, state=state) for job in moved]


def pause_jobs(work: UnitOfWork, paused: Sequence[Job], pause: Paused) -> None:
    """Pauses queued or running jobs."""
    moved = move_jobs(work, paused, JobState.PAUSED)
    event_log.append_events(work, [(job, pause) for job in moved])


def resume_jobs(work: UnitOfWork, resumed: Sequence[Job]) -> None:
    """Queues paused jobs again."""
    queued = move_jobs(work, resumed, JobState.QUEUED)
    positions = queries.queue_positions(work.connection, [job.job_id for job in queued])
    bodies = [
        (job, Resumed(completed_epochs=job.completed_epochs, queue_position=positions[job.job_id]))
        for job in queued
    ]
    event_log.append_events(work, bodies)


def finish_jobs(
    work: UnitOfWork,
    finished: Sequence[Job],
    state: JobState,
    *,
    failure: Failure | None = None,
    cancellation: Cancellation | None = None,
) -> None:
    """Moves jobs to a final state; `finish_sweep` updates their sweep."""
    moved = move_jobs(
        work,
        finished,
        state,
        end_time=records.to_timestamp(work.now),
        failure_reason=failure and failure.reason,
        failure_message=failure and failure.message,
        cancel_reason=cancellation and cancellation.reason,
        cancel_message=cancellation and cancellation.message,
    )
    bodies = [
        Finished(
            state=state,
            completed_epochs=job.completed_epochs,
            best_epoch=job.best_epoch,
            best_test_accuracy=job.best_test_accuracy,
            stopped_early=state is JobState.SUCCEEDED and job.completed_epochs < job.spec.epochs,
            failure=failure,
            cancellation=cancellation,
        )
        for job in moved
    ]
    event_log.append_events(work, list(zip(moved, bodies, strict=True)))


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
    count_ended_sweep(work, view.sweep.state, 1)
    finished = SweepFinished(state=view.sweep.state, counts=view.sweep.counts, table=view.table)
    event_log.append_sweep_event(work, sweep_id, finished)


def count_ended_sweep(work: UnitOfWork, state: SweepState, change: int) -> None:
    """Adds to the count of the sweeps that have ended in a state."""
    is_state = sweep_counts.c.state == state.value
    added = {"sweeps": sweep_counts.c.sweeps + change}
    if not work.connection.execute(update(sweep_counts).where(is_state).values(added)).rowcount:
        work.connection.execute(insert(sweep_counts).values(state=state.value, sweeps=change))


def delete_jobs(work: UnitOfWork, condition: Any) -> list[str]:
    """Deletes the jobs that meet a condition on their table, and returns their ids.

    `JobRepository.purge` removes the events, so the unit of work must not check references.
    """
    deleted = work.connection.execute(select(jobs.c.number, jobs.c.job_id).where(condition)).all()
    rows = [{"number": number, "job_id": job_id} for number, job_id in deleted]
    work.connection.execute(insert(deleted_jobs), rows)
    work.connection.execute(delete(jobs).where(condition))
    return [job_id for _, job_id in deleted]

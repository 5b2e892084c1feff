"""Applies a sweep's median stopping rule, in the transaction that records an epoch."""

import json

from sqlalchemy import Connection, func, select

from leadline.server.jobs.job import Cancellation, Job
from leadline.server.jobs.states import JobState
from leadline.server.storage.database import UnitOfWork
from leadline.server.storage.tables import events, jobs, sweeps
from leadline.server.storage.transitions import finish_jobs, finish_sweep
from leadline.server.sweeps.median_stopping import MedianStopping
from leadline.server.sweeps.sweep import MEDIAN_STOPPED


def cancel_if_hopeless(work: UnitOfWork, job: Job) -> None:
    """Cancels a job of a sweep if it is below the sweep's median after its latest epoch."""
    query = select(sweeps.c.median_stopping).where(sweeps.c.sweep_id == job.sweep_id)
    settings = work.connection.execute(query).scalar_one()
    if settings is None or job.completed_epochs >= job.spec.epochs:
        return
    means = _completed_means(work.connection, job)
    bar = MedianStopping.from_dict(json.loads(settings)).bar(job.completed_epochs, means)
    if bar is None or job.best_test_accuracy >= bar:
        return
    cancellation = Cancellation(
        reason=MEDIAN_STOPPED,
        message=f"its best test accuracy by epoch {job.completed_epochs}, "
        f"{job.best_test_accuracy:.2%}, is below the median of its sweep's {len(means)} "
        f"completed jobs, {bar:.2%}",
    )
    finish_jobs(work, [job], JobState.CANCELLED, cancellation=cancellation)
    finish_sweep(work, job.sweep_id)


def _completed_means(connection: Connection, job: Job) -> list[float]:
    """The mean test accuracies of the sweep's completed jobs up to the job's latest epoch."""
    is_completed = (jobs.c.state == JobState.SUCCEEDED.value) | (
        jobs.c.cancel_reason == MEDIAN_STOPPED
    )
    query = (
        select(func.avg(events.c.test_accuracy))
        .join(jobs, jobs.c.number == events.c.job_number)
        .where(
            jobs.c.sweep_id == job.sweep_id,
            is_completed,
            events.c.kind == "epoch",
            events.c.epoch <= job.completed_epochs,
        )
        .group_by(events.c.job_number)
    )
    return list(connection.execute(query).scalars())

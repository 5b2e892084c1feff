"""Converts rows of the tables of jobs and events to values."""

import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import (
    EVENT_KINDS,
    Cancellation,
    EpochCompleted,
    Event,
    EventBody,
    Failure,
    Job,
    Model,
    ModelEpoch,
    Paused,
    Started,
)
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage.tables import events, jobs

_MICROSECONDS = 1_000_000


def to_timestamp(moment: datetime) -> int:
    """Converts a time to microseconds since 1970 UTC."""
    return int(moment.replace(microsecond=0).timestamp()) * _MICROSECONDS + moment.microsecond


def from_timestamp(timestamp: int) -> datetime:
    """Converts the result of `to_timestamp` to a time in UTC."""
    seconds, microseconds = divmod(timestamp, _MICROSECONDS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


def read_jobs(connection: Connection, query: Select[Any]) -> list[Job]:
    """The jobs that a query on the table of jobs selects."""
    rows = connection.execute(query).all()
    if not rows:
        return []
    bodies = _bodies_of(connection, [row.number for row in rows])
    return [_job(row, bodies.get(row.number, {})) for row in rows]


def read_event(job_id: str, row: Row[Any]) -> Event:
    """The event of a row."""
    return Event(
        job_id=job_id,
        sequence=row.sequence,
        create_time=from_timestamp(row.create_time),
        body=_body(row),
    )


def read_model(connection: Connection, job: Job) -> Model:
    """The model of a job with at least one completed epoch."""
    first, *rows = connection.execute(
        select(events)
        .where(events.c.job_number == job.number, events.c.kind.in_(["started", "epoch"]))
        .order_by(events.c.sequence)
    )
    started = _body(first)
    if not isinstance(started, Started):
        raise TypeError(f"the epochs of job {job.job_id} precede its start")
    return Model(
        job=job,
        started=started,
        create_time=from_timestamp(rows[0].create_time),
        epochs=tuple(_model_epoch(row) for row in rows),
    )


def read_started(connection: Connection, job: Job) -> Started | None:
    """The report of the job's first worker; None before it has started."""
    return _bodies_of(connection, [job.number]).get(job.number, {}).get(Started)


def _model_epoch(row: Row[Any]) -> ModelEpoch:
    result = EpochCompleted.from_dict(json.loads(row.body))
    return ModelEpoch(result=result, attempt=row.attempt, is_kept=row.is_kept)


def _body(row: Row[Any]) -> EventBody:
    return EVENT_KINDS[row.kind].from_dict(json.loads(row.body))


def _bodies_of(
    connection: Connection, numbers: Collection[int]
) -> dict[int, dict[type[EventBody], Any]]:
    """The newest start, epoch and pause of each job, by its number."""
    # Two queries that use an index; a single query would read every epoch of each job.
    starts = select(events).where(
        events.c.job_number.in_(numbers), events.c.kind.in_(["started", "paused"])
    )
    latest = (
        select(events)
        .join(jobs, jobs.c.number == events.c.job_number)
        .where(
            jobs.c.number.in_(numbers),
            events.c.kind == "epoch",
            events.c.epoch == jobs.c.completed_epochs,
        )
    )
    bodies: dict[int, dict[type[EventBody], Any]] = {}
    for query in (starts.order_by(events.c.sequence), latest):
        for row in connection.execute(query):
            body = _body(row)
            bodies.setdefault(row.job_number, {})[type(body)] = body
    return bodies


def _job(row: Row[Any], bodies: dict[type[EventBody], Any]) -> Job:
    failure, cancellation = None, None
    if row.failure_reason:
        failure = Failure(reason=row.failure_reason, message=row.failure_message)
    if row.cancel_reason:
        cancellation = Cancellation(reason=row.cancel_reason, message=row.cancel_message)
    state = JobState(row.state)
    started: Started | None = bodies.get(Started)
    return Job(
        number=row.number,
        job_id=row.job_id,
        owner=row.owner,
        sweep_id=row.sweep_id,
        spec=TrainingSpec.from_dict(json.loads(row.spec)),
        options=JobOptions.from_dict(json.loads(row.options)),
        deadline=moment(row.deadline),
        state=state,
        create_time=from_timestamp(row.create_time),
        start_time=moment(row.start_time),
        end_time=moment(row.end_time),
        completed_epochs=row.completed_epochs,
        best_epoch=row.best_epoch,
        best_test_accuracy=row.best_test_accuracy,
        latest_epoch=bodies.get(EpochCompleted),
        failure=failure,
        cancellation=cancellation,
        pause=bodies.get(Paused) if state is JobState.PAUSED else None,
        environment=started.environment if started else None,
        device=row.device,
        attempts=row.attempts,
        latest_sequence=row.latest_sequence,
    )


def moment(timestamp: int | None) -> datetime | None:
    """Converts a timestamp that may be unset."""
    return None if timestamp is None else from_timestamp(timestamp)

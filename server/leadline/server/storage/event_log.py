"""The event logs of jobs and sweeps: gapless sequences, in the transaction of each change."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from leadline.server.jobs.job import KIND_OF_EVENT, EpochCompleted, Event, EventBody, Job
from leadline.server.storage.database import UnitOfWork
from leadline.server.storage.records import from_timestamp, read_event, to_timestamp
from leadline.server.storage.tables import events, jobs, sweep_events, sweeps
from leadline.server.sweeps.sweep import SweepEvent, SweepFinished, SweepQueued

_SET_LATEST = (
    update(jobs)
    .where(jobs.c.number == bindparam("of_job"))
    .values(latest_sequence=bindparam("newest"))
)


def append_event(
    work: UnitOfWork, job: Job, body: EventBody, *, attempt: int | None = None
) -> Event:
    """Appends an event to the logs of a job and its sweep; `attempt` wrote the checkpoint."""
    (event,) = append_events(work, [(job, body)], attempt=attempt)
    return event


def append_events(
    work: UnitOfWork, bodies: Sequence[tuple[Job, EventBody]], *, attempt: int | None = None
) -> list[Event]:
    """Appends one event per job to the logs of the jobs and of their sweeps."""
    appended = [
        Event(job_id=job.job_id, sequence=job.latest_sequence + 1, create_time=work.now, body=body)
        for job, body in bodies
    ]
    if not appended:
        return []
    numbers = [job.number for job, _ in bodies]
    rows = [
        event_row(number, event, attempt) for number, event in zip(numbers, appended, strict=True)
    ]
    work.connection.execute(insert(events), rows)
    newest = [
        {"of_job": number, "newest": event.sequence}
        for number, event in zip(numbers, appended, strict=True)
    ]
    work.connection.execute(_SET_LATEST, newest)
    of_sweeps: dict[str, list[dict[str, Any]]] = {}
    for (job, _), event in zip(bodies, appended, strict=True):
        if job.sweep_id is not None:
            reference = {"job_number": job.number, "job_sequence": event.sequence}
            of_sweeps.setdefault(job.sweep_id, []).append(reference)
    for sweep_id, references in of_sweeps.items():
        _append_sweep_rows(work, sweep_id, references)
    return appended


def append_sweep_event(work: UnitOfWork, sweep_id: str, body: SweepQueued | SweepFinished) -> None:
    """Appends an event of the sweep itself to its log."""
    _append_sweep_rows(work, sweep_id, [{"body": json.dumps(body.to_dict())}])


def event_row(job_number: int, event: Event, attempt: int | None) -> dict[str, Any]:
    """The row of a job's event; `attempt` is the worker that completed an epoch."""
    epoch = event.body if isinstance(event.body, EpochCompleted) else None
    return {
        "job_number": job_number,
        "sequence": event.sequence,
        "create_time": to_timestamp(event.create_time),
        "kind": KIND_OF_EVENT[type(event.body)],
        "epoch": epoch and epoch.epoch,
        "test_accuracy": epoch and epoch.test_accuracy,
        "attempt": attempt,
        "is_kept": True if epoch else None,
        "body": json.dumps(event.body.to_dict()),
    }


def read_events(connection: Connection, job_id: str, *, after: int, limit: int) -> list[Event]:
    """At most `limit` events of a job after the sequence `after`, in order."""
    query = (
        select(events)
        .join(jobs, jobs.c.number == events.c.job_number)
        .where(jobs.c.job_id == job_id, events.c.sequence > after)
        .order_by(events.c.sequence)
        .limit(limit)
    )
    return [read_event(job_id, row) for row in connection.execute(query)]


def read_sweep_events(
    connection: Connection, sweep_id: str, *, after: int, limit: int
) -> list[SweepEvent]:
    """At most `limit` events of a sweep after the sequence `after`, in order."""
    query = (
        select(sweep_events)
        .join(sweeps, sweeps.c.sweep_id == sweep_events.c.sweep_id)  # unless it is deleted
        .where(sweep_events.c.sweep_id == sweep_id, sweep_events.c.sequence > after)
        .order_by(sweep_events.c.sequence)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    job_events = _job_events(connection, rows)
    return [
        SweepEvent(
            sweep_id=sweep_id,
            sequence=row.sequence,
            create_time=from_timestamp(row.create_time),
            body=_sweep_body(row) if row.job_number is None else job_events[row.sequence],
        )
        for row in rows
    ]


def _append_sweep_rows(work: UnitOfWork, sweep_id: str, values: list[dict[str, Any]]) -> None:
    last = work.connection.execute(
        update(sweeps)
        .where(sweeps.c.sweep_id == sweep_id)
        .values(latest_sequence=sweeps.c.latest_sequence + len(values))
        .returning(sweeps.c.latest_sequence)
    ).scalar_one()
    shared = {"sweep_id": sweep_id, "create_time": to_timestamp(work.now)}
    rows = [
        {**shared, "sequence": sequence, **row}
        for sequence, row in enumerate(values, last - len(values) + 1)
    ]
    work.connection.execute(insert(sweep_events), rows)


def _job_events(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, Event]:
    """The job events that rows of a sweep's log refer to, by their sequence in that log."""
    if not rows:
        return {}
    query = (
        select(events, jobs.c.job_id, sweep_events.c.sequence.label("sweep_sequence"))
        .join(jobs, jobs.c.number == events.c.job_number)
        .join(
            sweep_events,
            (sweep_events.c.job_number == events.c.job_number)
            & (sweep_events.c.job_sequence == events.c.sequence),
        )
        .where(
            sweep_events.c.sweep_id == rows[0].sweep_id,
            sweep_events.c.sequence.between(rows[0].sequence, rows[-1].sequence),
        )
    )
    return {row.sweep_sequence: read_event(row.job_id, row) for row in connection.execute(query)}


def _sweep_body(row: Row[Any]) -> SweepQueued | SweepFinished:
    values = json.loads(row.body)
    return (SweepQueued if row.sequence == 1 else SweepFinished).from_dict(values)

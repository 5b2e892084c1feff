"""The event logs of jobs and sweeps: gapless sequences, in the transaction of each change."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from leadline.server.jobs.job import KIND_OF_EVENT, EpochCompleted, Event, EventBody, Job
from leadline.server.storage.database import UnitOfWork
from leadline.server.storage.records import from_timestamp, read_event, to_timestamp
from leadline.server.storage.tables import events, jobs, sweep_events, sweeps
from leadline.server.sweeps.sweep import SweepEvent, SweepFinished, SweepQueued


def append_event(
    work: UnitOfWork, job: Job, body: EventBody, *, attempt: int | None = None
) -> Event:
    """Appends an event to the logs of a job and its sweep; `attempt` wrote the checkpoint."""
    event = Event(
        job_id=job.job_id, sequence=job.latest_sequence + 1, create_time=work.now, body=body
    )
    work.connection.execute(insert(events).values(event_row(job.number, event, attempt)))
    work.connection.execute(
        update(jobs).where(jobs.c.number == job.number).values(latest_sequence=event.sequence)
    )
    if job.sweep_id is not None:
        reference = {"job_number": job.number, "job_sequence": event.sequence}
        _append_sweep_row(work, job.sweep_id, reference)
    return event


def append_sweep_event(work: UnitOfWork, sweep_id: str, body: SweepQueued | SweepFinished) -> None:
    """Appends an event of the sweep itself to its log."""
    _append_sweep_row(work, sweep_id, {"body": json.dumps(body.to_dict())})


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


def _append_sweep_row(work: UnitOfWork, sweep_id: str, values: dict[str, Any]) -> None:
    sequence = work.connection.execute(
        update(sweeps)
        .where(sweeps.c.sweep_id == sweep_id)
        .values(latest_sequence=sweeps.c.latest_sequence + 1)
        .returning(sweeps.c.latest_sequence)
    ).scalar_one()
    row = {"sweep_id": sweep_id, "sequence": sequence, "create_time": to_timestamp(work.now)}
    work.connection.execute(insert(sweep_events).values(**row, **values))


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

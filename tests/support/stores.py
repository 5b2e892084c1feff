"""Stores with many jobs, written without a worker, a server or files of weights."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, insert

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import Event, EventBody, Finished, Paused, Queued
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage import event_log, transitions
from leadline.server.storage.database import UnitOfWork, open_database
from leadline.server.storage.tables import events, jobs, sweep_events, sweeps
from leadline.server.sweeps.grid import Grid, SweepAxis
from leadline.server.sweeps.sweep import SweepQueued, SweepState
from support.reports import STARTED, an_epoch

# The statement for the expected contents of the table of counts.
COUNTS = """
    SELECT id, state, count(*), count(start_time),
        count(*) FILTER (WHERE cancel_reason = 'MEDIAN_STOPPED')
    FROM (SELECT sweep_id AS id, * FROM jobs UNION ALL SELECT '', * FROM jobs)
    WHERE id IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
"""

# The number of jobs per write: some tens of megabytes of rows.
_JOBS_A_WRITE = 500


def fill_database(path: Path, count: int, **options: Any) -> list[str]:
    """Fills the database of a stopped server; see `fill`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = open_database(path)
    try:
        return fill(engine, count, **options)
    finally:
        engine.dispose()


def fill(
    engine: Engine,
    count: int,
    *,
    epochs: int = 2,
    dataset: str = "tiny",
    state: JobState = JobState.SUCCEEDED,
    variants: int = 4,
    sweep_id: str | None = None,
    prefix: str = "f",
) -> list[str]:
    """Writes jobs with all their events, about a thousand a second, and returns their ids.

    They have no checkpoints on disk. Their blocks cycle from 1 to `variants`, and later jobs are
    more accurate.

    Args:
        engine: the engine of a database with Leadline's tables.
        count: the number of jobs.
        epochs: the epochs of each job; queued or paused jobs have trained none of them.
        dataset: their dataset.
        state: a final state, `queued` or `paused`.
        variants: the number of variants.
        sweep_id: the sweep of all the jobs, over their seeds; None: no sweep.
        prefix: the prefix of the jobs' ids, before their number.
    """
    ids = [f"{prefix}{number}" for number in range(count)]
    spec = TrainingSpec(dataset=dataset, epochs=epochs)
    blocks = variants if sweep_id is None else 1
    with engine.begin() as connection:
        work = UnitOfWork(connection, datetime(2026, 1, 1, tzinfo=UTC))
        if sweep_id is not None:
            _write_sweep(connection, sweep_id, spec, count)
            transitions.count_ended_sweep(work, SweepState(state.value), 1)
        for start in range(0, count, _JOBS_A_WRITE):
            made = [
                _job(work, job_id, replace(spec, blocks=1 + number % blocks, seed=number), state)
                for number, job_id in enumerate(ids[start : start + _JOBS_A_WRITE], start)
            ]
            _write_jobs(connection, made, sweep_id)
        if sweep_id is not None:
            _write_sweep_events(connection, sweep_id, spec, ids)
    return ids


def _job(
    work: UnitOfWork, job_id: str, spec: TrainingSpec, state: JobState
) -> tuple[dict[str, Any], list[Event]]:
    """Returns the row of a job and its events."""
    accuracy = 0.9 * (spec.seed + 1) / (spec.seed + 1_000)
    bodies = list(_bodies(spec, state, accuracy))
    trained = spec.epochs if state.is_final else 0
    row = {
        **transitions.new_job_row(work, job_id, spec, JobOptions()),
        "state": state.value,
        "end_time": 1 if state.is_final else None,
        "completed_epochs": trained,
        "best_epoch": trained,
        "best_test_accuracy": accuracy if trained else 0.0,
        "attempts": 1 if trained else 0,
        "latest_sequence": len(bodies),
    }
    log = [
        Event(job_id=job_id, sequence=sequence, create_time=work.now, body=body)
        for sequence, body in enumerate(bodies, 1)
    ]
    return row, log


def _bodies(spec: TrainingSpec, state: JobState, accuracy: float) -> Iterator[EventBody]:
    yield Queued(spec=spec, queue_position=0)
    if state is JobState.PAUSED:
        yield Paused(reason="REQUESTED", message="a caller paused it")
    if not state.is_final:
        return
    yield STARTED
    for epoch in range(1, spec.epochs + 1):
        yield an_epoch(epoch, accuracy * epoch / spec.epochs)
    yield Finished(
        state=state,
        completed_epochs=spec.epochs,
        best_epoch=spec.epochs,
        best_test_accuracy=accuracy,
    )


def _write_jobs(
    connection: Connection, made: Sequence[tuple[dict[str, Any], list[Event]]], sweep_id: str | None
) -> None:
    connection.execute(insert(jobs), [{**row, "sweep_id": sweep_id} for row, _ in made])
    first, last = (made[index][0]["job_id"] for index in (0, -1))
    begin, end = (_number_of(connection, job_id) for job_id in (first, last))
    rows = [
        event_log.event_row(number, event, 1)
        for number, (_, log) in zip(range(begin, end + 1), made, strict=True)
        for event in log
    ]
    connection.execute(insert(events), rows)


def _write_sweep(connection: Connection, sweep_id: str, spec: TrainingSpec, count: int) -> None:
    connection.execute(
        insert(sweeps).values(
            sweep_id=sweep_id,
            grid=json.dumps(_grid(spec, count).to_dict()),
            options=json.dumps(JobOptions().to_dict()),
            create_time=1,
            end_time=1,
        )
    )


def _write_sweep_events(
    connection: Connection, sweep_id: str, spec: TrainingSpec, ids: Sequence[str]
) -> None:
    """Writes the sweep's log: its own first event, then all events of its jobs except the first."""
    grid = _grid(spec, len(ids))
    accepted = SweepQueued(grid=grid, jobs=tuple(zip(ids, grid.points(), strict=True)))
    begin = _number_of(connection, ids[0])
    referred = (
        (number, sequence)
        for number in range(begin, begin + len(ids))
        for sequence in range(2, spec.epochs + 4)
    )
    rows: list[dict[str, Any]] = [
        {"body": json.dumps(accepted.to_dict()), "job_number": None, "job_sequence": None},
        *(
            {"body": None, "job_number": number, "job_sequence": sequence}
            for number, sequence in referred
        ),
    ]
    numbered = [
        {"sweep_id": sweep_id, "sequence": sequence, "create_time": 1, **row}
        for sequence, row in enumerate(rows, 1)
    ]
    connection.execute(insert(sweep_events), numbered)
    connection.execute(
        sweeps.update().where(sweeps.c.sweep_id == sweep_id).values(latest_sequence=len(rows))
    )


def _grid(spec: TrainingSpec, count: int) -> Grid:
    return Grid(spec=spec, axes=(SweepAxis(field="seed", values=tuple(range(count))),))


def _number_of(connection: Connection, job_id: str) -> int:
    return int(connection.execute(jobs.select().where(jobs.c.job_id == job_id)).one().number)

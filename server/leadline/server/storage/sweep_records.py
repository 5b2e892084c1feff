"""Converts rows of the table of sweeps to values, and counts their jobs."""

import json
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from leadline.server.errors import NotFoundError
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage.records import from_timestamp, moment, read_jobs
from leadline.server.storage.tables import job_counts, jobs, sweeps
from leadline.server.sweeps.grid import Grid
from leadline.server.sweeps.median_stopping import MedianStopping
from leadline.server.sweeps.sweep import (
    Sweep,
    SweepCounts,
    SweepRequest,
    SweepView,
)
from leadline.server.sweeps.table import SweepTable


def find_sweep(connection: Connection, condition: Any) -> Sweep | None:
    """The sweep that meets a condition on the table of sweeps."""
    return next(iter(read_sweeps(connection, select(sweeps).where(condition))), None)


def get_sweep(connection: Connection, sweep_id: str) -> Sweep:
    """The current state of a sweep.

    Raises:
        NotFoundError: there is no such sweep.
    """
    sweep = find_sweep(connection, sweeps.c.sweep_id == sweep_id)
    if sweep is None:
        raise NotFoundError(
            "sweep", f"sweeps/{sweep_id}", "ListSweeps and `leadline sweeps` list them"
        )
    return sweep


def view_sweep(connection: Connection, sweep_id: str) -> SweepView:
    """The sweep, its jobs and its table.

    Raises:
        NotFoundError: there is no such sweep.
    """
    sweep = get_sweep(connection, sweep_id)
    query = select(jobs).where(jobs.c.sweep_id == sweep_id).order_by(jobs.c.number)
    members = tuple(read_jobs(connection, query))
    return SweepView(sweep=sweep, jobs=members, table=SweepTable.of(sweep.request.grid, members))


def read_sweeps(connection: Connection, query: Select[Any]) -> list[Sweep]:
    """The sweeps that a query on the table of sweeps selects."""
    rows = connection.execute(query).all()
    counts = count_sweep_jobs(connection, job_counts.c.sweep_id.in_([row.sweep_id for row in rows]))
    return [_sweep(row, counts[row.sweep_id]) for row in rows]


def count_sweep_jobs(connection: Connection, condition: Any) -> dict[str, SweepCounts]:
    """The job counts of the sweeps that meet a condition on their table, by sweep id."""
    rows: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(select(job_counts).where(condition)):
        rows.setdefault(row.sweep_id, []).append(row)
    return {
        sweep_id: SweepCounts(
            by_state={
                **dict.fromkeys(JobState, 0),
                **{JobState(row.state): row.jobs for row in group},
            },
            begun=sum(row.begun for row in group),
            median_stopped=sum(row.median_stopped for row in group),
        )
        for sweep_id, group in rows.items()
    }


def _sweep(row: Row[Any], counts: SweepCounts) -> Sweep:
    rule = row.median_stopping
    return Sweep(
        number=row.number,
        sweep_id=row.sweep_id,
        owner=row.owner,
        request=SweepRequest(
            grid=Grid.from_dict(json.loads(row.grid)),
            options=JobOptions.from_dict(json.loads(row.options)),
            median_stopping=MedianStopping.from_dict(json.loads(rule)) if rule else None,
        ),
        state=counts.state(is_cancelled=row.is_cancelled),
        create_time=from_timestamp(row.create_time),
        end_time=moment(row.end_time),
        counts=counts,
        latest_sequence=row.latest_sequence,
    )

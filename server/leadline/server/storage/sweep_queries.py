"""What can be asked of the store about sweeps: read-only, one snapshot a question."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from leadline.server.errors import NotFoundError
from leadline.server.jobs.job import Event
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage.queries import JobQueries
from leadline.server.storage.records import from_timestamp, moment, read_event, read_jobs
from leadline.server.storage.tables import events, jobs, sweep_events, sweeps
from leadline.server.sweeps.grid import Grid
from leadline.server.sweeps.median_stopping import MedianStopping
from leadline.server.sweeps.sweep import (
    MEDIAN_STOPPED,
    Sweep,
    SweepCounts,
    SweepEvent,
    SweepFinished,
    SweepQueued,
    SweepRequest,
    SweepState,
    SweepView,
)
from leadline.server.sweeps.table import SweepTable


class SweepQueries(JobQueries):
    """Questions to a database of jobs, sweeps and events. They block."""

    def get_sweep(self, sweep_id: str) -> Sweep:
        """The sweep as it stands.

        Raises:
            NotFoundError: there is no such sweep.
        """
        with self._reading() as connection:
            return get_sweep(connection, sweep_id)

    def view_sweep(self, sweep_id: str) -> SweepView:
        """The sweep, its jobs and its table.

        Raises:
            NotFoundError: there is no such sweep.
        """
        with self._reading() as connection:
            return view_sweep(connection, sweep_id)

    def list_sweeps(self, *, before: int | None = None, limit: int | None = None) -> list[Sweep]:
        """Sweeps numbered below `before`, newest first."""
        query = select(sweeps).order_by(sweeps.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(sweeps.c.number < before)
        with self._reading() as connection:
            return read_sweeps(connection, query)

    def sweep_events(self, sweep_id: str, *, after: int, limit: int) -> list[SweepEvent]:
        """At most `limit` events after the sequence `after`, in order."""
        query = (
            select(sweep_events)
            .where(sweep_events.c.sweep_id == sweep_id, sweep_events.c.sequence > after)
            .order_by(sweep_events.c.sequence)
            .limit(limit)
        )
        with self._reading() as connection:
            rows = connection.execute(query).all()
            return _read_sweep_events(connection, rows)

    def count_sweeps_by_state(self) -> dict[SweepState, int]:
        """How many sweeps there are in each state, zeros included."""
        found = dict.fromkeys(SweepState, 0)
        with self._reading() as connection:
            rows = connection.execute(select(sweeps.c.sweep_id, sweeps.c.is_cancelled)).all()
            counts = _counts(connection, jobs.c.sweep_id.is_not(None))
        for row in rows:
            found[counts[row.sweep_id].state(is_cancelled=row.is_cancelled)] += 1
        return found


def get_sweep(connection: Connection, sweep_id: str) -> Sweep:
    """The sweep as it stands.

    Raises:
        NotFoundError: there is no such sweep.
    """
    found = read_sweeps(connection, select(sweeps).where(sweeps.c.sweep_id == sweep_id))
    if not found:
        raise NotFoundError("sweep", f"sweeps/{sweep_id}", "ListSweeps names those there are")
    return found[0]


def view_sweep(connection: Connection, sweep_id: str) -> SweepView:
    """The sweep, its jobs and its table.

    Raises:
        NotFoundError: there is no such sweep.
    """
    sweep = get_sweep(connection, sweep_id)
    query = select(jobs).where(jobs.c.sweep_id == sweep_id).order_by(jobs.c.number)
    found = tuple(read_jobs(connection, query))
    return SweepView(sweep=sweep, jobs=found, table=SweepTable.of(sweep.request.grid, found))


def read_sweeps(connection: Connection, query: Select[Any]) -> list[Sweep]:
    """The sweeps that a selection from the table of sweeps finds."""
    rows = connection.execute(query).all()
    counts = _counts(connection, jobs.c.sweep_id.in_([row.sweep_id for row in rows]))
    return [_sweep(row, counts[row.sweep_id]) for row in rows]


def _counts(connection: Connection, condition: Any) -> dict[str, SweepCounts]:
    """What the jobs that meet a condition count up to, by their sweep's id."""
    stopped = func.count().filter(jobs.c.cancel_reason == MEDIAN_STOPPED)
    query = (
        select(jobs.c.sweep_id, jobs.c.state, func.count(), func.count(jobs.c.start_time), stopped)
        .where(condition)
        .group_by(jobs.c.sweep_id, jobs.c.state)
    )
    rows: dict[str, list[tuple[JobState, int, int, int]]] = {}
    for sweep_id, state, *numbers in connection.execute(query):
        rows.setdefault(sweep_id, []).append((JobState(state), *numbers))
    return {
        sweep_id: SweepCounts(
            by_state={**dict.fromkeys(JobState, 0), **{state: count for state, count, *_ in found}},
            begun=sum(begun for _, _, begun, _ in found),
            median_stopped=sum(stopped for *_, stopped in found),
        )
        for sweep_id, found in rows.items()
    }


def _sweep(row: Row[Any], counts: SweepCounts) -> Sweep:
    rule = row.median_stopping
    return Sweep(
        number=row.number,
        sweep_id=row.sweep_id,
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


def _read_sweep_events(connection: Connection, rows: Sequence[Row[Any]]) -> list[SweepEvent]:
    bodies: dict[int, Event] = {}
    if rows:
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
        bodies = {
            row.sweep_sequence: read_event(row.job_id, row) for row in connection.execute(query)
        }
    return [
        SweepEvent(
            sweep_id=row.sweep_id,
            sequence=row.sequence,
            create_time=from_timestamp(row.create_time),
            body=_own_body(row) if row.job_number is None else bodies[row.sequence],
        )
        for row in rows
    ]


def _own_body(row: Row[Any]) -> SweepQueued | SweepFinished:
    values = json.loads(row.body)
    return (SweepQueued if row.sequence == 1 else SweepFinished).from_dict(values)

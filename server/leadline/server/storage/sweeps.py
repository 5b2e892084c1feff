"""The repository of sweeps: each method is one transaction, including the sweep's jobs."""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from leadline.server.access.quotas import NOBODY, Owner, nobody
from leadline.server.errors import FailedPreconditionError
from leadline.server.jobs.job import Cancellation, Event, Job, Paused, Queued
from leadline.server.jobs.states import JobState
from leadline.server.storage import (
    event_log,
    preconditions,
    queries,
    records,
    sweep_records,
    transitions,
)
from leadline.server.storage.database import Database, UnitOfWork
from leadline.server.storage.tables import (
    events,
    job_counts,
    jobs,
    sweep_counts,
    sweep_events,
    sweeps,
)
from leadline.server.sweeps.sweep import (
    Sweep,
    SweepEvent,
    SweepQueued,
    SweepRequest,
    SweepState,
    SweepView,
)

_REQUESTED = Cancellation(reason="REQUESTED", message="a caller cancelled its sweep")


class SweepRepository:
    """Sweeps and their events.

    A method for one sweep raises NotFoundError if there is no such sweep. `cancel`,
    `pause` and `resume` return the sweep, and the ids of the jobs that they changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Queries

    def get(self, sweep_id: str) -> Sweep:
        """The current state of a sweep."""
        with self._database.read() as connection:
            return sweep_records.get_sweep(connection, sweep_id)

    def owner(self, sweep_id: str) -> str:
        """The name of a sweep's owner."""
        return self.get(sweep_id).owner

    def view(self, sweep_id: str) -> SweepView:
        """The sweep, its jobs and its table."""
        with self._database.read() as connection:
            return sweep_records.view_sweep(connection, sweep_id)

    def find(
        self, *, owner: str | None = None, before: int | None = None, limit: int | None = None
    ) -> list[Sweep]:
        """Sweeps, newest first, of one owner or all; `before` bounds their numbers."""
        query = queries.newest_first(sweeps, before=before, limit=limit)
        if owner is not None:
            query = query.where(sweeps.c.owner == owner)
        with self._database.read() as connection:
            return sweep_records.read_sweeps(connection, query)

    def count_by_state(self) -> dict[SweepState, int]:
        """How many sweeps there are in each state, including zeros."""
        is_unfinished = sweeps.c.end_time.is_(None)
        unfinished = select(sweeps.c.sweep_id).where(is_unfinished)
        with self._database.read() as connection:
            ended: dict[str, int] = dict(connection.execute(select(sweep_counts)).all())
            rows = connection.execute(unfinished.add_columns(sweeps.c.is_cancelled)).all()
            counts = sweep_records.count_sweep_jobs(
                connection, job_counts.c.sweep_id.in_(unfinished)
            )
        by_state = {state: ended.get(state.value, 0) for state in SweepState}
        for row in rows:
            by_state[counts[row.sweep_id].state(is_cancelled=row.is_cancelled)] += 1
        return by_state

    def events(self, sweep_id: str, *, after: int, limit: int) -> list[SweepEvent]:
        """At most `limit` events after the sequence `after`, in order."""
        with self._database.read() as connection:
            return event_log.read_sweep_events(connection, sweep_id, after=after, limit=limit)

    # Requests of callers

    def create(
        self,
        request: SweepRequest,
        *,
        sweep_id: str,
        job_ids: Sequence[str],
        request_id: str | None,
        max_queued: int,
        owner: Owner = NOBODY,
    ) -> tuple[Sweep, bool]:
        """Creates a sweep and all its jobs, or returns the owner's sweep of this `request_id`.

        Args:
            request: what to train.
            sweep_id: the new sweep's id.
            job_ids: an id for each point of the grid.
            request_id: makes the call idempotent; None if the caller sent none.
            max_queued: the most queued jobs.
            owner: whom the sweep and its jobs belong to.

        Returns:
            The sweep, and whether it is new.

        Raises:
            AlreadyExistsError: `request_id` belongs to a sweep of another request.
            ResourceExhaustedError: the queue has no room for all jobs, or the owner's quotas
                are used up.
        """
        key = preconditions.request_key(request_id, owner.name)
        with self._database.write() as work:
            is_request = sweeps.c.request_id == key
            same = sweep_records.find_sweep(work.connection, is_request) if key else None
            if same:
                name = f"sweeps/{same.sweep_id}"
                preconditions.check_same_request(request_id, name, is_same=same.request == request)
                return same, False
            preconditions.check_queue_room(
                work.connection, len(job_ids), owner, max_queued=max_queued
            )
            row = _new_sweep_row(work, request, sweep_id) | {"owner": owner.name}
            work.connection.execute(insert(sweeps).values(request_id=key, **row))
            _create_jobs(work, request, sweep_id, job_ids, owner.name)
            return sweep_records.get_sweep(work.connection, sweep_id), True

    def cancel(self, sweep_id: str) -> tuple[SweepView, list[str]]:
        """Cancels all unfinished jobs; does nothing if the sweep is cancelled.

        Raises:
            FailedPreconditionError: the sweep has succeeded or failed.
        """
        with self._database.write() as work:
            sweep = sweep_records.get_sweep(work.connection, sweep_id)
            if sweep.state is SweepState.CANCELLED:
                return sweep_records.view_sweep(work.connection, sweep_id), []
            _check_unfinished(sweep, "cancelled")
            work.connection.execute(
                update(sweeps).where(sweeps.c.number == sweep.number).values(is_cancelled=True)
            )
            unfinished = [state for state in JobState if not state.is_final]
            cancelled = _jobs_in(work.connection, sweep_id, unfinished)
            transitions.finish_jobs(work, cancelled, JobState.CANCELLED, cancellation=_REQUESTED)
            transitions.finish_sweep(work, sweep_id)
            return _changed(work, sweep_id, cancelled)

    def pause(self, sweep_id: str, pause: Paused) -> tuple[SweepView, list[str]]:
        """Pauses all queued and running jobs; does nothing if there are none.

        Raises:
            FailedPreconditionError: the sweep is in a final state.
        """
        with self._database.write() as work:
            _check_unfinished(sweep_records.get_sweep(work.connection, sweep_id), "paused")
            states = (JobState.QUEUED, JobState.RUNNING)
            paused = _jobs_in(work.connection, sweep_id, states)
            transitions.pause_jobs(work, paused, pause)
            return _changed(work, sweep_id, paused)

    def resume(
        self, sweep_id: str, owner_of: Callable[[str], Owner] = nobody
    ) -> tuple[SweepView, list[str]]:
        """Queues all paused jobs again; does nothing if there are none.

        Args:
            sweep_id: the sweep.
            owner_of: returns an owner by its name, with its limits.

        Raises:
            FailedPreconditionError: the sweep is in a final state.
            ResourceExhaustedError: the quotas of its owner are used up.
        """
        with self._database.write() as work:
            sweep = sweep_records.get_sweep(work.connection, sweep_id)
            _check_unfinished(sweep, "resumed")
            resumed = _jobs_in(work.connection, sweep_id, [JobState.PAUSED])
            transitions.resume_jobs(work, resumed)
            if resumed:
                preconditions.check_quotas(work.connection, 0, owner_of(sweep.owner))
            return _changed(work, sweep_id, resumed)

    def delete(self, sweep_id: str) -> list[str]:
        """Deletes a sweep in a final state and its jobs; `JobRepository.purge` removes the events.

        Returns:
            The ids of the jobs.

        Raises:
            FailedPreconditionError: the sweep is not in a final state.
        """
        with self._database.write(checks_references=False) as work:
            sweep = sweep_records.get_sweep(work.connection, sweep_id)
            preconditions.check_deletable(
                "sweep", f"sweeps/{sweep_id}", sweep.state, reason="SWEEP_NOT_FINISHED"
            )
            # The other events are those of its jobs.
            own = sweep_events.c.sequence.in_((1, sweep.latest_sequence))
            work.connection.execute(
                delete(sweep_events).where(sweep_events.c.sweep_id == sweep_id, own)
            )
            transitions.count_ended_sweep(work, sweep.state, -1)
            deleted = transitions.delete_jobs(work, jobs.c.sweep_id == sweep_id)
            work.connection.execute(delete(sweeps).where(sweeps.c.sweep_id == sweep_id))
            return deleted


def _new_sweep_row(work: UnitOfWork, request: SweepRequest, sweep_id: str) -> dict[str, Any]:
    rule = request.median_stopping
    return {
        "sweep_id": sweep_id,
        "grid": json.dumps(request.grid.to_dict()),
        "options": json.dumps(request.options.to_dict()),
        "median_stopping": rule and json.dumps(rule.to_dict()),
        "create_time": records.to_timestamp(work.now),
    }


def _create_jobs(
    work: UnitOfWork, request: SweepRequest, sweep_id: str, job_ids: Sequence[str], owner: str
) -> None:
    points = request.grid.points()
    rows = [
        {
            **transitions.new_job_row(
                work, job_id, request.grid.spec_at(point), request.options, owner
            ),
            "number": number,
            "sweep_id": sweep_id,
            "latest_sequence": 1,
        }
        for number, job_id, point in zip(
            itertools.count(transitions.next_number(work)), job_ids, points, strict=False
        )
    ]
    work.connection.execute(insert(jobs), rows)
    created = _jobs_in(work.connection, sweep_id, [JobState.QUEUED])
    positions = queries.queue_positions(work.connection, job_ids)
    queued_events = []
    for job in created:
        body = Queued(spec=job.spec, queue_position=positions[job.job_id])
        event = Event(job_id=job.job_id, sequence=1, create_time=job.create_time, body=body)
        queued_events.append(event_log.event_row(job.number, event, None))
    work.connection.execute(insert(events), queued_events)
    accepted = SweepQueued(grid=request.grid, jobs=tuple(zip(job_ids, points, strict=True)))
    event_log.append_sweep_event(work, sweep_id, accepted)


def _jobs_in(connection: Connection, sweep_id: str, states: Sequence[JobState]) -> list[Job]:
    """A sweep's jobs in these states, in the order of the grid."""
    return records.read_jobs(
        connection,
        select(jobs)
        .where(jobs.c.sweep_id == sweep_id, jobs.c.state.in_([state.value for state in states]))
        .order_by(jobs.c.number),
    )


def _changed(
    work: UnitOfWork, sweep_id: str, changed: Sequence[Job]
) -> tuple[SweepView, list[str]]:
    return sweep_records.view_sweep(work.connection, sweep_id), [job.job_id for job in changed]


def _check_unfinished(sweep: Sweep, target: str) -> None:
    if sweep.state.is_final:
        raise FailedPreconditionError(
            f"sweep sweeps/{sweep.sweep_id} is in the state {sweep.state}: it cannot be {target}",
            reason="ILLEGAL_SWEEP_STATE",
            metadata={"sweep": f"sweeps/{sweep.sweep_id}", "state": sweep.state.value},
        )

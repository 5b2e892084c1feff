"""Where sweeps are kept: each method is one transaction, which its jobs take part in."""

import json
from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select, update

from leadline.server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    ResourceExhaustedError,
)
from leadline.server.jobs.job import Cancellation, Event, Job, Paused, Queued, Resumed
from leadline.server.jobs.states import JobState
from leadline.server.storage.queries import IS_QUEUED, count_before, count_jobs
from leadline.server.storage.records import read_jobs, to_timestamp
from leadline.server.storage.sweep_queries import get_sweep, read_sweeps, view_sweep
from leadline.server.storage.tables import events, jobs, sweep_events, sweeps
from leadline.server.storage.transactions import Transactions, event_row
from leadline.server.sweeps.median_stopping import MedianStopping
from leadline.server.sweeps.sweep import (
    MEDIAN_STOPPED,
    Sweep,
    SweepQueued,
    SweepRequest,
    SweepState,
    SweepView,
)

_REQUESTED = Cancellation(reason="REQUESTED", message="a caller cancelled its sweep")


class SweepStore(Transactions):
    """Sweeps, in the database of their jobs."""

    def create_sweep(
        self,
        request: SweepRequest,
        *,
        sweep_id: str,
        job_ids: Sequence[str],
        request_id: str | None,
        max_queued: int,
    ) -> tuple[Sweep, bool]:
        """Accepts a sweep and all its jobs, or finds the one that `request_id` stands for.

        Args:
            request: what to train.
            sweep_id: the new sweep's id.
            job_ids: an id for each point of the grid.
            request_id: what makes the call repeatable; None: nothing.
            max_queued: how many jobs may wait.

        Returns:
            The sweep, and whether it is new.

        Raises:
            AlreadyExistsError: `request_id` stands for a sweep of another
                request.
            ResourceExhaustedError: there is no room for all jobs in the queue.
        """
        with self._writing() as connection:
            query = select(sweeps).where(sweeps.c.request_id == request_id)
            known = read_sweeps(connection, query) if request_id else []
            if known:
                return _same_request(known[0], request, request_id), False
            waiting = count_jobs(connection, IS_QUEUED)
            if waiting + len(job_ids) > max_queued:
                raise ResourceExhaustedError(
                    f"{waiting} jobs are queued, and {len(job_ids)} more would be above the "
                    f"limit of {max_queued}: try again later",
                    reason="JOB_QUEUE_FULL",
                    retry_after=30.0,
                )
            rule = request.median_stopping
            connection.execute(
                insert(sweeps).values(
                    sweep_id=sweep_id,
                    request_id=request_id or None,
                    grid=json.dumps(request.grid.to_dict()),
                    options=json.dumps(request.options.to_dict()),
                    median_stopping=rule and json.dumps(rule.to_dict()),
                    create_time=to_timestamp(self._now()),
                )
            )
            self._create_jobs(connection, request, sweep_id, job_ids)
            return get_sweep(connection, sweep_id), True

    def cancel_sweep(self, sweep_id: str) -> tuple[SweepView, list[str]]:
        """Cancels all jobs that are not final; a sweep that is cancelled stays so.

        Returns:
            The sweep, and the ids of the jobs that it has changed.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep has succeeded or failed.
        """
        with self._writing() as connection:
            sweep = get_sweep(connection, sweep_id)
            changed: list[Job] = []
            if sweep.state is not SweepState.CANCELLED:
                _check_open(sweep, "cancelled")
                connection.execute(
                    update(sweeps).where(sweeps.c.number == sweep.number).values(is_cancelled=True)
                )
                changed = _open_jobs(connection, sweep_id)
                for job in changed:
                    self._finish_job(connection, job, JobState.CANCELLED, cancellation=_REQUESTED)
                self._finish_sweep(connection, sweep_id)
            return view_sweep(connection, sweep_id), [job.job_id for job in changed]

    def pause_sweep(self, sweep_id: str, pause: Paused) -> tuple[SweepView, list[str]]:
        """Sets all jobs aside that wait or run; where there is none, nothing changes.

        Returns:
            The sweep, and the ids of the jobs that it has changed.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is in a final state.
        """
        with self._writing() as connection:
            _check_open(get_sweep(connection, sweep_id), "paused")
            changed = _open_jobs(connection, sweep_id, JobState.QUEUED, JobState.RUNNING)
            for job in changed:
                self._append(connection, self._move(connection, job, JobState.PAUSED), pause)
            return view_sweep(connection, sweep_id), [job.job_id for job in changed]

    def resume_sweep(self, sweep_id: str) -> tuple[SweepView, list[str]]:
        """Queues all paused jobs again; where there is none, nothing changes.

        Returns:
            The sweep, and the ids of the jobs that it has changed.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is in a final state.
        """
        with self._writing() as connection:
            _check_open(get_sweep(connection, sweep_id), "resumed")
            changed = _open_jobs(connection, sweep_id, JobState.PAUSED)
            for job in changed:
                queued = self._move(connection, job, JobState.QUEUED)
                resumed = Resumed(
                    completed_epochs=job.completed_epochs,
                    queue_position=count_before(connection, queued),
                )
                self._append(connection, queued, resumed)
            return view_sweep(connection, sweep_id), [job.job_id for job in changed]

    def delete_sweep(self, sweep_id: str) -> None:
        """Deletes a sweep in its final state, its jobs, and all their events.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is not in a final state.
        """
        with self._writing() as connection:
            sweep = get_sweep(connection, sweep_id)
            if not sweep.state.is_final:
                raise FailedPreconditionError(
                    f"sweep sweeps/{sweep_id} is {sweep.state}: cancel it before you delete it",
                    reason="SWEEP_NOT_FINISHED",
                    metadata={"sweep": f"sweeps/{sweep_id}", "state": sweep.state.value},
                )
            numbers = select(jobs.c.number).where(jobs.c.sweep_id == sweep_id)
            connection.execute(delete(sweep_events).where(sweep_events.c.sweep_id == sweep_id))
            connection.execute(delete(events).where(events.c.job_number.in_(numbers)))
            connection.execute(delete(jobs).where(jobs.c.sweep_id == sweep_id))
            connection.execute(delete(sweeps).where(sweeps.c.sweep_id == sweep_id))

    # Within a transaction

    def _create_jobs(
        self,
        connection: Connection,
        request: SweepRequest,
        sweep_id: str,
        job_ids: Sequence[str],
    ) -> None:
        grid = request.grid
        points = grid.points()
        specs = [grid.spec_at(point) for point in points]
        rows = [
            {
                **self._new_job(job_id, spec, request.options),
                "sweep_id": sweep_id,
                "latest_sequence": 1,
            }
            for job_id, spec in zip(job_ids, specs, strict=True)
        ]
        connection.execute(insert(jobs), rows)
        created = _open_jobs(connection, sweep_id)
        position = count_before(connection, created[0])
        queued = [
            Event(
                job_id=job.job_id,
                sequence=1,
                create_time=job.create_time,
                body=Queued(spec=job.spec, queue_position=position + index),
            )
            for index, job in enumerate(created)
        ]
        connection.execute(
            insert(events),
            [
                event_row(job.number, event, None)
                for job, event in zip(created, queued, strict=True)
            ],
        )
        accepted = SweepQueued(grid=grid, jobs=tuple(zip(job_ids, points, strict=True)))
        self._append_to_sweep(connection, sweep_id, accepted)

    def _stop_if_hopeless(self, connection: Connection, job: Job) -> None:
        """Ends a job of a sweep, one of whose epochs was just told, by the median stopping rule."""
        query = select(sweeps.c.median_stopping).where(sweeps.c.sweep_id == job.sweep_id)
        settings = connection.execute(query).scalar_one()
        if settings is None or job.completed_epochs >= job.spec.epochs:
            return
        rule = MedianStopping.from_dict(json.loads(settings))
        means = _completed_means(connection, job)
        bar = rule.bar(job.completed_epochs, means)
        if bar is None or job.best_test_accuracy >= bar:
            return
        cancellation = Cancellation(
            reason=MEDIAN_STOPPED,
            message=f"its best test accuracy by epoch {job.completed_epochs}, "
            f"{job.best_test_accuracy:.2%}, is below the median of its sweep's {len(means)} "
            f"completed jobs, {bar:.2%}",
        )
        self._finish(connection, job, JobState.CANCELLED, cancellation=cancellation)


def _completed_means(connection: Connection, job: Job) -> list[float]:
    """The mean test accuracies, up to a job's epoch, of the completed jobs of its sweep."""
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


def _open_jobs(connection: Connection, sweep_id: str, *states: JobState) -> list[Job]:
    """A sweep's jobs in some states, any but the final ones if none is given, in its order."""
    wanted = states or [state for state in JobState if not state.is_final]
    return read_jobs(
        connection,
        select(jobs)
        .where(jobs.c.sweep_id == sweep_id, jobs.c.state.in_([state.value for state in wanted]))
        .order_by(jobs.c.number),
    )


def _check_open(sweep: Sweep, target: str) -> None:
    if sweep.state.is_final:
        raise FailedPreconditionError(
            f"sweep sweeps/{sweep.sweep_id} is {sweep.state} and cannot be {target}",
            reason="ILLEGAL_SWEEP_STATE",
            metadata={"sweep": f"sweeps/{sweep.sweep_id}", "state": sweep.state.value},
        )


def _same_request(known: Sweep, request: SweepRequest, request_id: str | None) -> Sweep:
    if known.request == request:
        return known
    raise AlreadyExistsError(
        f"request id {request_id} stands for sweeps/{known.sweep_id}, which has another grid or "
        "other options: use a new id for a new sweep",
        reason="REQUEST_ID_REUSED",
        resource_name=f"sweeps/{known.sweep_id}",
    )

"""What changes of jobs are made of: a change and the event that tells of it, committed together."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, insert, update

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import (
    KIND_OF_EVENT,
    Cancellation,
    EpochCompleted,
    Event,
    EventBody,
    Failure,
    Finished,
    Job,
)
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState, check_move
from leadline.server.storage.database import WRITES
from leadline.server.storage.queries import count_jobs
from leadline.server.storage.records import to_timestamp
from leadline.server.storage.sqlite_errors import storage_faults
from leadline.server.storage.sweep_queries import SweepQueries, view_sweep
from leadline.server.storage.tables import events, jobs, sweep_events, sweeps
from leadline.server.sweeps.sweep import SweepFinished, SweepQueued

_FINAL = [state.value for state in JobState if state.is_final]


class Transactions(SweepQueries):
    """The parts of a transaction, which the stores put together."""

    def __init__(self, engine: Engine, *, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(engine)
        self._writing_engine = engine.execution_options(**{WRITES: True})
        self._now = now or (lambda: datetime.now(UTC))
        # One writer at a time: SQLite knows no more, and would make the second
        # wait in a thread of its own anyway.
        self._writer = threading.Lock()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._writer:
            try:
                with storage_faults(), self._writing_engine.begin() as connection:
                    yield connection
            finally:
                self._revision += 1

    def _new_job(self, job_id: str, spec: TrainingSpec, options: JobOptions) -> dict[str, Any]:
        """The row of a job that is accepted now."""
        now = self._now()
        limit = options.time_limit
        return {
            "job_id": job_id,
            "spec": json.dumps(spec.to_dict()),
            "dataset": spec.dataset,
            "blocks": spec.blocks,
            "block_convolutions": spec.block_convolutions,
            "batch_norm": spec.batch_norm,
            "residual": spec.residual,
            "options": json.dumps(options.to_dict()),
            "priority": options.priority,
            "deadline": None if limit is None else to_timestamp(now + timedelta(seconds=limit)),
            "state": JobState.QUEUED.value,
            "create_time": to_timestamp(now),
        }

    def _move(self, connection: Connection, job: Job, state: JobState, **values: Any) -> Job:
        check_move(job.job_id, job.state, state)
        self._update(connection, job, state=state.value, **values)
        return replace(job, state=state)

    def _finish(
        self,
        connection: Connection,
        job: Job,
        state: JobState,
        *,
        failure: Failure | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Moves a job into its final state, and its sweep where the job was the last of it."""
        self._finish_job(connection, job, state, failure=failure, cancellation=cancellation)
        if job.sweep_id is not None:
            self._finish_sweep(connection, job.sweep_id)

    def _finish_job(
        self,
        connection: Connection,
        job: Job,
        state: JobState,
        *,
        failure: Failure | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        job = self._move(
            connection,
            job,
            state,
            end_time=to_timestamp(self._now()),
            failure_reason=failure and failure.reason,
            failure_message=failure and failure.message,
            cancel_reason=cancellation and cancellation.reason,
            cancel_message=cancellation and cancellation.message,
        )
        finished = Finished(
            state=state,
            completed_epochs=job.completed_epochs,
            best_epoch=job.best_epoch,
            best_test_accuracy=job.best_test_accuracy,
            stopped_early=state is JobState.SUCCEEDED and job.completed_epochs < job.spec.epochs,
            failure=failure,
            cancellation=cancellation,
        )
        self._append(connection, job, finished)

    def _finish_sweep(self, connection: Connection, sweep_id: str) -> None:
        """Ends a sweep whose jobs all have."""
        is_open = (jobs.c.sweep_id == sweep_id) & jobs.c.state.not_in(_FINAL)
        if count_jobs(connection, is_open):
            return
        view = view_sweep(connection, sweep_id)
        connection.execute(
            update(sweeps)
            .where(sweeps.c.sweep_id == sweep_id)
            .values(end_time=to_timestamp(self._now()))
        )
        finished = SweepFinished(state=view.sweep.state, counts=view.sweep.counts, table=view.table)
        self._append_to_sweep(connection, sweep_id, finished)

    def _update(self, connection: Connection, job: Job, **values: Any) -> None:
        connection.execute(update(jobs).where(jobs.c.number == job.number).values(**values))

    def _append(
        self, connection: Connection, job: Job, body: EventBody, *, attempt: int | None = None
    ) -> Event:
        event = Event(
            job_id=job.job_id,
            sequence=job.latest_sequence + 1,
            create_time=self._now(),
            body=body,
        )
        connection.execute(insert(events).values(event_row(job.number, event, attempt)))
        self._update(connection, job, latest_sequence=event.sequence)
        if job.sweep_id is not None:
            self._append_to_sweep(connection, job.sweep_id, event, job_number=job.number)
        return event

    def _append_to_sweep(
        self,
        connection: Connection,
        sweep_id: str,
        body: SweepQueued | Event | SweepFinished,
        *,
        job_number: int | None = None,
    ) -> None:
        sequence = connection.execute(
            update(sweeps)
            .where(sweeps.c.sweep_id == sweep_id)
            .values(latest_sequence=sweeps.c.latest_sequence + 1)
            .returning(sweeps.c.latest_sequence)
        ).scalar_one()
        values: dict[str, Any]
        if isinstance(body, Event):
            values = {"job_number": job_number, "job_sequence": body.sequence}
        else:
            values = {"body": json.dumps(body.to_dict())}
        connection.execute(
            insert(sweep_events).values(
                sweep_id=sweep_id,
                sequence=sequence,
                create_time=to_timestamp(self._now()),
                **values,
            )
        )


def event_row(job_number: int, event: Event, attempt: int | None) -> dict[str, Any]:
    """The row of an event of a job; `attempt` is of the worker that told of an epoch."""
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

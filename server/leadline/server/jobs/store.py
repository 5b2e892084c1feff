"""Where jobs and their events are kept.

Every method is one transaction, and blocks: call it off the event loop (see
`leadline.server.jobs.threads`). A change of a job and the event that tells of it are
committed together, so that neither is ever seen without the other.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, func, insert, select, update

from leadline.models.spec import TrainingSpec
from leadline.server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
)
from leadline.server.jobs.job import (
    EVENT_KINDS,
    KIND_OF_EVENT,
    EpochCompleted,
    Event,
    EventBody,
    Failure,
    Finished,
    Job,
    Model,
    Queued,
    Started,
)
from leadline.server.jobs.states import JobState, check_move
from leadline.server.jobs.tables import events, jobs

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class VariantFilter:
    """Which models to find; None stands for any."""

    dataset: str | None = None
    blocks: int | None = None
    batch_norm: bool | None = None


class JobStore:
    """Jobs and events in a database that SQLAlchemy reaches."""

    def __init__(self, engine: Engine, *, now: Callable[[], datetime] | None = None) -> None:
        self._engine = engine
        self._now = now or (lambda: datetime.now(UTC))
        # One writer at a time: SQLite knows no more, and would make the second
        # wait in a thread of its own anyway.
        self._writer = threading.Lock()

    # Submission

    def create(
        self, spec: TrainingSpec, *, job_id: str, request_id: str | None, max_queued: int
    ) -> tuple[Job, bool]:
        """Accepts a job, or finds the one that `request_id` stands for.

        Returns:
            The job, and whether it is new.

        Raises:
            AlreadyExistsError: `request_id` stands for a job of another spec.
            ResourceExhaustedError: `max_queued` jobs wait already.
        """
        with self._writing() as connection:
            known = request_id and self._find(connection, jobs.c.request_id == request_id)
            if known:
                return _same_spec(known, spec, request_id), False
            waiting = _count_queued(connection)
            if waiting >= max_queued:
                raise ResourceExhaustedError(
                    f"{waiting} jobs are queued, which is the limit: try again later",
                    reason="JOB_QUEUE_FULL",
                    retry_after=30.0,
                )
            inserted = connection.execute(
                insert(jobs).values(
                    job_id=job_id,
                    request_id=request_id or None,
                    spec=json.dumps(spec.to_dict()),
                    dataset=spec.dataset,
                    blocks=spec.blocks,
                    batch_norm=spec.batch_norm,
                    state=JobState.QUEUED.value,
                    create_time=self._timestamp(),
                )
            ).inserted_primary_key
            number = inserted[0] if inserted else 0
            self._append(connection, number, 0, Queued(spec=spec, queue_position=waiting))
            return self._get(connection, job_id), True

    # A worker's life

    def claim(self, job_id: str, *, device: str) -> Job:
        """Gives a queued job to a new worker, and fences off any before it.

        Raises:
            FailedPreconditionError: the job is no longer queued.
        """
        with self._writing() as connection:
            job = self._move(
                connection,
                job_id,
                JobState.RUNNING,
                device=device,
                attempts=jobs.c.attempts + 1,
                start_time=func.coalesce(jobs.c.start_time, self._timestamp()),
            )
            return self._get(connection, job.job_id)

    def record_started(self, job_id: str, attempt: int, started: Started) -> None:
        """Keeps what the first worker found; a later worker's is the same.

        Raises:
            FailedPreconditionError: the worker no longer has the job.
        """
        with self._writing() as connection:
            job = self._held(connection, job_id, attempt)
            if self._event_of_kind(connection, job.number, "started") is None:
                self._append(connection, job.number, job.latest_sequence, started)

    def record_epoch(self, job_id: str, attempt: int, epoch: EpochCompleted) -> None:
        """Keeps a completed epoch, whose checkpoint must be durable already.

        Raises:
            FailedPreconditionError: the worker no longer has the job, or the
                epoch is not the next.
        """
        with self._writing() as connection:
            job = self._held(connection, job_id, attempt)
            if epoch.epoch != job.completed_epochs + 1:
                raise FailedPreconditionError(
                    f"job jobs/{job_id} has {job.completed_epochs} epochs: {epoch.epoch} "
                    "is not the next",
                    reason="EPOCH_OUT_OF_ORDER",
                )
            best = job.best_epoch == 0 or epoch.test_accuracy > job.best_test_accuracy
            self._update(
                connection,
                job,
                completed_epochs=epoch.epoch,
                best_epoch=epoch.epoch if best else job.best_epoch,
                best_test_accuracy=epoch.test_accuracy if best else job.best_test_accuracy,
            )
            self._append(connection, job.number, job.latest_sequence, epoch)

    def finish(
        self,
        job_id: str,
        state: JobState,
        *,
        failure: Failure | None = None,
        attempt: int | None = None,
    ) -> Job:
        """Moves a job into its final state.

        Args:
            job_id: the job.
            state: the final state.
            failure: why, where the state is FAILED.
            attempt: the worker that says so; None where no worker does.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job is in a final state already, or
                that worker no longer has it.
        """
        with self._writing() as connection:
            if attempt is not None:
                self._held(connection, job_id, attempt)
            job = self._move(
                connection,
                job_id,
                state,
                end_time=self._timestamp(),
                failure_reason=failure and failure.reason,
                failure_message=failure and failure.message,
            )
            finished = Finished(
                state=state,
                completed_epochs=job.completed_epochs,
                best_epoch=job.best_epoch,
                best_test_accuracy=job.best_test_accuracy,
                failure=failure,
            )
            self._append(connection, job.number, job.latest_sequence, finished)
            return self._get(connection, job_id)

    def hand_back(self, job_id: str) -> None:
        """Queues a running job again, in its old place.

        Raises:
            FailedPreconditionError: the job is not running.
        """
        with self._writing() as connection:
            self._move(connection, job_id, JobState.QUEUED)

    def recover(self) -> Sequence[str]:
        """Queues all running jobs again: their workers went with a former server."""
        running = self.list_jobs(states=[JobState.RUNNING])
        for job in running:
            self.hand_back(job.job_id)
        return [job.job_id for job in running]

    # Questions

    def get(self, job_id: str) -> Job:
        """The job as it stands.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._engine.connect() as connection:
            return self._get(connection, job_id)

    def list_jobs(
        self,
        *,
        states: Collection[JobState] = (),
        before: int | None = None,
        limit: int | None = None,
    ) -> list[Job]:
        """Jobs in `states` (empty: any) numbered below `before`, newest first."""
        query = select(jobs).order_by(jobs.c.number.desc()).limit(limit)
        if states:
            query = query.where(jobs.c.state.in_([state.value for state in states]))
        if before is not None:
            query = query.where(jobs.c.number < before)
        with self._engine.connect() as connection:
            return self._read_jobs(connection, query)

    def next_queued(self) -> Job | None:
        """The job that has waited longest."""
        query = (
            select(jobs)
            .where(jobs.c.state == JobState.QUEUED.value)
            .order_by(jobs.c.number)
            .limit(1)
        )
        with self._engine.connect() as connection:
            return next(iter(self._read_jobs(connection, query)), None)

    def queue_position(self, job: Job) -> int:
        """How many jobs will start before a queued one."""
        query = (
            select(func.count())
            .select_from(jobs)
            .where(jobs.c.state == JobState.QUEUED.value, jobs.c.number < job.number)
        )
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def count_by_state(self) -> dict[JobState, int]:
        """How many jobs there are in each state, zeros included."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with self._engine.connect() as connection:
            found = {JobState(state): count for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """At most `limit` events after the sequence `after`, in order."""
        query = (
            select(events)
            .join(jobs, jobs.c.number == events.c.job_number)
            .where(jobs.c.job_id == job_id, events.c.sequence > after)
            .order_by(events.c.sequence)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [_event(job_id, row) for row in connection.execute(query)]

    # Models

    def get_model(self, job_id: str) -> Model:
        """What the job has trained.

        Raises:
            NotFoundError: there is no such job, or it has no epoch yet.
        """
        with self._engine.connect() as connection:
            job = self._find(connection, (jobs.c.job_id == job_id) & (jobs.c.completed_epochs > 0))
            if job is None:
                raise NotFoundError(
                    "model",
                    f"models/{job_id}",
                    "a model exists from its job's first completed epoch on",
                )
            return self._model(connection, job)

    def list_models(
        self, wanted: VariantFilter, *, before: int | None = None, limit: int | None = None
    ) -> list[Model]:
        """Models that match, whose jobs are numbered below `before`, newest first."""
        query = _matching(wanted).order_by(jobs.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(jobs.c.number < before)
        with self._engine.connect() as connection:
            return [self._model(connection, job) for job in self._read_jobs(connection, query)]

    def best_of_variant(self, wanted: VariantFilter) -> Model | None:
        """The matching model with the highest test accuracy, the newest of equals."""
        query = (
            _matching(wanted)
            .order_by(jobs.c.best_test_accuracy.desc(), jobs.c.number.desc())
            .limit(1)
        )
        with self._engine.connect() as connection:
            best = next(iter(self._read_jobs(connection, query)), None)
            return None if best is None else self._model(connection, best)

    def _model(self, connection: Connection, job: Job) -> Model:
        rows = connection.execute(
            select(events)
            .where(events.c.job_number == job.number, events.c.kind.in_(["started", "epoch"]))
            .order_by(events.c.sequence)
        )
        started, *epochs = (_event(job.job_id, row) for row in rows)
        bodies = tuple(event.body for event in epochs if isinstance(event.body, EpochCompleted))
        if not isinstance(started.body, Started):
            raise TypeError(f"the events of job {job.job_id} do not begin with its start")
        return Model(
            job=job, started=started.body, create_time=epochs[0].create_time, epochs=bodies
        )

    # Within a transaction

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._writer, self._engine.begin() as connection:
            yield connection

    def _timestamp(self) -> int:
        return _to_timestamp(self._now())

    def _find(self, connection: Connection, condition: Any) -> Job | None:
        found = self._read_jobs(connection, select(jobs).where(condition))
        return found[0] if found else None

    def _get(self, connection: Connection, job_id: str) -> Job:
        job = self._find(connection, jobs.c.job_id == job_id)
        if job is None:
            raise NotFoundError("job", f"jobs/{job_id}", "ListJobs names those there are")
        return job

    def _held(self, connection: Connection, job_id: str, attempt: int) -> Job:
        job = self._get(connection, job_id)
        if job.state is JobState.RUNNING and job.attempts == attempt:
            return job
        raise FailedPreconditionError(
            f"attempt {attempt} no longer has job jobs/{job_id}: it is {job.state}, "
            f"at attempt {job.attempts}",
            reason="WORKER_FENCED_OFF",
        )

    def _move(self, connection: Connection, job_id: str, state: JobState, **values: Any) -> Job:
        job = self._get(connection, job_id)
        check_move(job_id, job.state, state)
        self._update(connection, job, state=state.value, **values)
        return replace(job, state=state)

    def _update(self, connection: Connection, job: Job, **values: Any) -> None:
        connection.execute(update(jobs).where(jobs.c.number == job.number).values(**values))

    def _append(self, connection: Connection, number: int, latest: int, body: EventBody) -> None:
        sequence = latest + 1
        connection.execute(
            insert(events).values(
                job_number=number,
                sequence=sequence,
                create_time=self._timestamp(),
                kind=KIND_OF_EVENT[type(body)],
                epoch=body.epoch if isinstance(body, EpochCompleted) else None,
                body=json.dumps(body.to_dict()),
            )
        )
        connection.execute(
            update(jobs).where(jobs.c.number == number).values(latest_sequence=sequence)
        )

    def _event_of_kind(self, connection: Connection, number: int, kind: str) -> Row[Any] | None:
        return connection.execute(
            select(events).where(events.c.job_number == number, events.c.kind == kind).limit(1)
        ).one_or_none()

    def _read_jobs(self, connection: Connection, query: Select[Any]) -> list[Job]:
        rows = connection.execute(query).all()
        latest = _latest_epochs(connection, [row.number for row in rows])
        return [_job(row, latest.get(row.number)) for row in rows]


def _same_spec(known: Job, spec: TrainingSpec, request_id: str | None) -> Job:
    if known.spec == spec:
        return known
    raise AlreadyExistsError(
        f"request id {request_id} stands for jobs/{known.job_id}, which has another spec: "
        "use a new id for a new job",
        reason="REQUEST_ID_REUSED",
        resource_name=f"jobs/{known.job_id}",
    )


def _count_queued(connection: Connection) -> int:
    return connection.execute(
        select(func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED.value)
    ).scalar_one()


def _matching(wanted: VariantFilter) -> Select[Any]:
    query = select(jobs).where(jobs.c.completed_epochs > 0)
    if wanted.dataset is not None:
        query = query.where(jobs.c.dataset == wanted.dataset)
    if wanted.blocks is not None:
        query = query.where(jobs.c.blocks == wanted.blocks)
    if wanted.batch_norm is not None:
        query = query.where(jobs.c.batch_norm == wanted.batch_norm)
    return query


def _latest_epochs(connection: Connection, numbers: Collection[int]) -> dict[int, EpochCompleted]:
    query = (
        select(events.c.job_number, events.c.body)
        .join(jobs, jobs.c.number == events.c.job_number)
        .where(
            events.c.job_number.in_(numbers),
            events.c.kind == "epoch",
            events.c.epoch == jobs.c.completed_epochs,
        )
    )
    return {
        number: EpochCompleted.from_dict(json.loads(body))
        for number, body in connection.execute(query)
    }


def _job(row: Row[Any], latest_epoch: EpochCompleted | None) -> Job:
    failure = row.failure_reason and Failure(reason=row.failure_reason, message=row.failure_message)
    return Job(
        number=row.number,
        job_id=row.job_id,
        spec=TrainingSpec.from_dict(json.loads(row.spec)),
        state=JobState(row.state),
        create_time=_from_timestamp(row.create_time),
        start_time=row.start_time and _from_timestamp(row.start_time),
        end_time=row.end_time and _from_timestamp(row.end_time),
        completed_epochs=row.completed_epochs,
        best_epoch=row.best_epoch,
        best_test_accuracy=row.best_test_accuracy,
        latest_epoch=latest_epoch,
        failure=failure or None,
        device=row.device,
        attempts=row.attempts,
        latest_sequence=row.latest_sequence,
    )


def _event(job_id: str, row: Row[Any]) -> Event:
    return Event(
        job_id=job_id,
        sequence=row.sequence,
        create_time=_from_timestamp(row.create_time),
        body=EVENT_KINDS[row.kind].from_dict(json.loads(row.body)),
    )


def _to_timestamp(moment: datetime) -> int:
    seconds, microseconds = int(moment.replace(microsecond=0).timestamp()), moment.microsecond
    return seconds * _MICROSECONDS + microseconds


def _from_timestamp(timestamp: int) -> datetime:
    seconds, microseconds = divmod(timestamp, _MICROSECONDS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)

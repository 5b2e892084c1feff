"""Where jobs, sweeps and their events are kept.

Every method is one transaction, and blocks: call it off the event loop, by way
of `leadline.server.thread_pool`. A change of a job and the event that tells of it
are committed together, so that neither is ever seen without the other. Where
the disk or the database fails, StorageError comes out and nothing has changed.
"""

from collections.abc import Collection

from sqlalchemy import Connection, delete, func, insert, update

from leadline.models.spec import TrainingSpec
from leadline.server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    ResourceExhaustedError,
)
from leadline.server.jobs.job import (
    Cancellation,
    EpochCompleted,
    Event,
    Failure,
    Job,
    Paused,
    Queued,
    Resumed,
    Started,
)
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage.queries import (
    IS_QUEUED,
    count_before,
    count_jobs,
    find_job,
    get_job,
)
from leadline.server.storage.records import read_model, to_timestamp
from leadline.server.storage.sweep_store import SweepStore
from leadline.server.storage.tables import events, jobs

# Why a job was cancelled.
REQUESTED = Cancellation(reason="REQUESTED", message="a caller cancelled it")


class JobStore(SweepStore):
    """Jobs, sweeps and events in a database that SQLAlchemy reaches."""

    # What callers ask for

    def create(
        self,
        spec: TrainingSpec,
        options: JobOptions,
        *,
        job_id: str,
        request_id: str | None,
        max_queued: int,
    ) -> tuple[Job, bool]:
        """Accepts a job, or finds the one that `request_id` stands for.

        Returns:
            The job, and whether it is new.

        Raises:
            AlreadyExistsError: `request_id` stands for a job of another spec or
                other options.
            ResourceExhaustedError: `max_queued` jobs wait already.
        """
        with self._writing() as connection:
            known = find_job(connection, jobs.c.request_id == request_id) if request_id else None
            if known:
                return _same_request(known, spec, options, request_id), False
            if count_jobs(connection, IS_QUEUED) >= max_queued:
                raise ResourceExhaustedError(
                    f"{max_queued} jobs are queued, which is the limit: try again later",
                    reason="JOB_QUEUE_FULL",
                    retry_after=30.0,
                )
            row = self._new_job(job_id, spec, options)
            connection.execute(insert(jobs).values(request_id=request_id or None, **row))
            job = get_job(connection, job_id)
            position = count_before(connection, job)
            self._append(connection, job, Queued(spec=spec, queue_position=position))
            return get_job(connection, job_id), True

    def cancel(self, job_id: str) -> Job:
        """Cancels a job; one that is cancelled stays so.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job has succeeded or failed.
        """
        with self._writing() as connection:
            job = get_job(connection, job_id)
            if job.state is JobState.CANCELLED:
                return job
            self._finish(connection, job, JobState.CANCELLED, cancellation=REQUESTED)
            return get_job(connection, job_id)

    def pause(self, job_id: str, pause: Paused, *, attempt: int | None = None) -> Job:
        """Sets a job aside; one that is paused stays so.

        Args:
            job_id: the job.
            pause: why.
            attempt: the worker that says so; None where no worker does.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job is in a final state, or that
                worker no longer has it.
        """
        with self._writing() as connection:
            job = get_job(connection, job_id)
            if attempt is not None:
                _check_held(job, attempt)
            if job.state is JobState.PAUSED:
                return job
            job = self._move(connection, job, JobState.PAUSED)
            self._append(connection, job, pause)
            return get_job(connection, job_id)

    def resume(self, job_id: str) -> Job:
        """Queues a paused job again; one that waits or runs is left alone.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job is in a final state.
        """
        with self._writing() as connection:
            job = get_job(connection, job_id)
            if job.state in {JobState.QUEUED, JobState.RUNNING}:
                return job
            job = self._move(connection, job, JobState.QUEUED)
            resumed = Resumed(
                completed_epochs=job.completed_epochs, queue_position=count_before(connection, job)
            )
            self._append(connection, job, resumed)
            return get_job(connection, job_id)

    def delete(self, job_id: str) -> None:
        """Deletes a job in its final state, and its events.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job is not in a final state, or is a
                part of a sweep.
        """
        with self._writing() as connection:
            job = get_job(connection, job_id)
            if job.sweep_id is not None:
                raise FailedPreconditionError(
                    f"job jobs/{job_id} is a part of sweeps/{job.sweep_id}, whose events tell of "
                    "it: delete the sweep",
                    reason="JOB_IN_SWEEP",
                    metadata={"job": f"jobs/{job_id}", "sweep": f"sweeps/{job.sweep_id}"},
                )
            if not job.state.is_final:
                raise FailedPreconditionError(
                    f"job jobs/{job_id} is {job.state}: cancel it before you delete it",
                    reason="JOB_NOT_FINISHED",
                    metadata={"job": f"jobs/{job_id}", "state": job.state.value},
                )
            connection.execute(delete(events).where(events.c.job_number == job.number))
            connection.execute(delete(jobs).where(jobs.c.number == job.number))

    # A worker's life

    def claim(self, job_id: str, *, device: str) -> Job:
        """Gives a queued job to a new worker, and fences off any before it.

        Raises:
            FailedPreconditionError: the job is no longer queued.
        """
        with self._writing() as connection:
            job = self._move(
                connection,
                get_job(connection, job_id),
                JobState.RUNNING,
                device=device,
                attempts=jobs.c.attempts + 1,
                start_time=func.coalesce(jobs.c.start_time, to_timestamp(self._now())),
            )
            return get_job(connection, job.job_id)

    def record_started(self, job_id: str, attempt: int, started: Started) -> Event | None:
        """Keeps what the first worker found.

        Returns:
            The event, None where it was told before.

        Raises:
            FailedPreconditionError: the worker no longer has the job.
        """
        with self._writing() as connection:
            job = get_job(connection, job_id)
            _check_held(job, attempt)
            return None if job.environment else self._append(connection, job, started)

    def record_epoch(self, job_id: str, attempt: int, epoch: EpochCompleted) -> Event | None:
        """Keeps a completed epoch, whose checkpoint must be durable already.

        An epoch that was told before is one whose checkpoint was found damaged
        and is made again: the same weights, in the worker's own folder.

        Returns:
            The event, None where it was told before.

        Raises:
            FailedPreconditionError: the worker no longer has the job, or the
                epoch is not the next, or is not what it was.
        """
        with self._writing() as connection:
            job = get_job(connection, job_id)
            _check_held(job, attempt)
            if epoch.epoch <= job.completed_epochs:
                self._replace_epoch(connection, job, attempt, epoch)
                return None
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
            event = self._append(connection, job, epoch, attempt=attempt)
            if job.sweep_id is not None:
                self._stop_if_hopeless(connection, get_job(connection, job_id))
            return event

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
            job = get_job(connection, job_id)
            if attempt is not None:
                _check_held(job, attempt)
            self._finish(connection, job, state, failure=failure)
            return get_job(connection, job_id)

    def hand_back(self, job_id: str, attempt: int) -> None:
        """Queues a running job again, in its old place, without telling anyone.

        What watchers see must not depend on where a worker or a server was lost.

        Raises:
            FailedPreconditionError: that worker no longer has the job.
        """
        with self._writing() as connection:
            job = get_job(connection, job_id)
            _check_held(job, attempt)
            self._move(connection, job, JobState.QUEUED)

    def recover(self) -> list[str]:
        """Queues all running jobs again: their workers went with a former server."""
        running = self.list_jobs(states=[JobState.RUNNING])
        for job in running:
            self.hand_back(job.job_id, job.attempts)
        return [job.job_id for job in running]

    def drop_epochs(self, job_id: str, epochs: Collection[int]) -> None:
        """Notes that the checkpoints of these epochs are no longer kept."""
        with self._writing() as connection:
            job = get_job(connection, job_id)
            connection.execute(
                update(events)
                .where(events.c.job_number == job.number, events.c.epoch.in_(epochs))
                .values(is_kept=False)
            )

    # Within a transaction

    def _replace_epoch(
        self, connection: Connection, job: Job, attempt: int, epoch: EpochCompleted
    ) -> None:
        known = read_model(connection, job).epochs[epoch.epoch - 1].result
        if known.weights_sha256 != epoch.weights_sha256:
            raise FailedPreconditionError(
                f"epoch {epoch.epoch} of job jobs/{job.job_id} was made again, but its weights "
                "are not what they were",
                reason="EPOCH_NOT_REPEATABLE",
            )
        connection.execute(
            update(events)
            .where(events.c.job_number == job.number, events.c.epoch == epoch.epoch)
            .values(attempt=attempt, is_kept=True)
        )


def _same_request(
    known: Job, spec: TrainingSpec, options: JobOptions, request_id: str | None
) -> Job:
    if (known.spec, known.options) == (spec, options):
        return known
    raise AlreadyExistsError(
        f"request id {request_id} stands for jobs/{known.job_id}, which has another spec or "
        "other options: use a new id for a new job",
        reason="REQUEST_ID_REUSED",
        resource_name=f"jobs/{known.job_id}",
    )


def _check_held(job: Job, attempt: int) -> None:
    if job.state is JobState.RUNNING and job.attempts == attempt:
        return
    raise FailedPreconditionError(
        f"attempt {attempt} no longer has job jobs/{job.job_id}: it is {job.state}, "
        f"at attempt {job.attempts}",
        reason="WORKER_FENCED_OFF",
    )

"""The repository of attempts: claims of jobs, and reports of their workers.

Each method is one transaction, and blocks its thread. `attempt` is the fencing
token. If the worker no longer has its job, its reports raise
FailedPreconditionError, or NotFoundError if the job was deleted.
"""

from collections.abc import Collection

from sqlalchemy import func, select, update

from leadline.server.errors import FailedPreconditionError
from leadline.server.jobs.job import EpochCompleted, Event, Failure, Job, Paused, Started
from leadline.server.jobs.states import JobState
from leadline.server.storage import event_log, queries, records, transitions
from leadline.server.storage.database import Database, UnitOfWork
from leadline.server.storage.median_stopping import cancel_if_hopeless
from leadline.server.storage.tables import events, jobs


class AttemptRepository:
    """Attempts at jobs: a worker claims a job, reports epochs, and finishes or loses it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, job_id: str, *, device: str) -> Job:
        """Gives a queued job to a new worker, and fences off all earlier ones.

        Raises:
            FailedPreconditionError: the job is no longer queued.
        """
        with self._database.write() as work:
            transitions.move_jobs(
                work,
                [queries.get_job(work.connection, job_id)],
                JobState.RUNNING,
                device=device,
                attempts=jobs.c.attempts + 1,
                start_time=func.coalesce(jobs.c.start_time, records.to_timestamp(work.now)),
            )
            return queries.get_job(work.connection, job_id)

    def record_started(self, job_id: str, attempt: int, started: Started) -> Event | None:
        """Records the start of the first worker.

        Returns:
            The event; None if an earlier worker has started.
        """
        with self._database.write() as work:
            job = _get_held(work, job_id, attempt)
            return None if job.environment else event_log.append_event(work, job, started)

    def record_epoch(self, job_id: str, attempt: int, epoch: EpochCompleted) -> Event | None:
        """Records a completed epoch, whose checkpoint must be durable already.

        A worker repeats an epoch if its checkpoint was damaged. The repeated
        checkpoint has the same weights, and lies in the worker's own folder.

        Returns:
            The event; None for a repeated epoch.

        Raises:
            FailedPreconditionError: the worker no longer has the job, the epoch
                is not the next, or a repeated epoch has different weights.
        """
        with self._database.write() as work:
            job = _get_held(work, job_id, attempt)
            if epoch.epoch <= job.completed_epochs:
                _replace_epoch(work, job, attempt, epoch)
                return None
            if epoch.epoch != job.completed_epochs + 1:
                raise FailedPreconditionError(
                    f"job jobs/{job_id} has {job.completed_epochs} epochs: {epoch.epoch} "
                    "is not the next",
                    reason="EPOCH_OUT_OF_ORDER",
                )
            is_best = job.best_epoch == 0 or epoch.test_accuracy > job.best_test_accuracy
            best = {"best_epoch": epoch.epoch, "best_test_accuracy": epoch.test_accuracy}
            transitions.update_job(
                work, job, completed_epochs=epoch.epoch, **(best if is_best else {})
            )
            event = event_log.append_event(work, job, epoch, attempt=attempt)
            if job.sweep_id is not None:
                cancel_if_hopeless(work, queries.get_job(work.connection, job_id))
            return event

    def pause(self, job_id: str, attempt: int, pause: Paused) -> None:
        """Pauses a job whose worker cannot continue."""
        with self._database.write() as work:
            transitions.pause_jobs(work, [_get_held(work, job_id, attempt)], pause)

    def finish(
        self, job_id: str, attempt: int, state: JobState, *, failure: Failure | None = None
    ) -> Job:
        """Moves a job to a final state; FAILED needs a `failure`."""
        with self._database.write() as work:
            job = _get_held(work, job_id, attempt)
            transitions.finish_jobs(work, [job], state, failure=failure)
            transitions.finish_sweep(work, job.sweep_id)
            return queries.get_job(work.connection, job_id)

    def requeue(self, job_id: str, attempt: int) -> None:
        """Queues a running job again, at its old position.

        Appends no event: watchers do not see that a worker or a server was lost.
        """
        with self._database.write() as work:
            transitions.move_jobs(work, [_get_held(work, job_id, attempt)], JobState.QUEUED)

    def recover(self) -> list[str]:
        """Requeues all running jobs after a restart, because their workers have ended."""
        with self._database.write() as work:
            running = records.read_jobs(
                work.connection, select(jobs).where(jobs.c.state == JobState.RUNNING.value)
            )
            transitions.move_jobs(work, running, JobState.QUEUED)
        return [job.job_id for job in running]

    def mark_dropped(self, job_id: str, epochs: Collection[int]) -> None:
        """Records that retention drops the checkpoints of these epochs."""
        with self._database.write() as work:
            job = queries.get_job(work.connection, job_id)
            work.connection.execute(
                update(events)
                .where(events.c.job_number == job.number, events.c.epoch.in_(epochs))
                .values(is_kept=False)
            )


def _get_held(work: UnitOfWork, job_id: str, attempt: int) -> Job:
    """The job, if the worker `attempt` has it."""
    job = queries.get_job(work.connection, job_id)
    if job.state is not JobState.RUNNING or job.attempts != attempt:
        raise FailedPreconditionError(
            f"attempt {attempt} no longer has job jobs/{job_id}: it is {job.state}, "
            f"at attempt {job.attempts}",
            reason="WORKER_FENCED_OFF",
        )
    return job


def _replace_epoch(work: UnitOfWork, job: Job, attempt: int, epoch: EpochCompleted) -> None:
    recorded = records.read_model(work.connection, job).epochs[epoch.epoch - 1].result
    if recorded.weights_sha256 != epoch.weights_sha256:
        raise FailedPreconditionError(
            f"epoch {epoch.epoch} of job jobs/{job.job_id} was repeated, but its weights "
            "are not the same",
            reason="EPOCH_NOT_REPEATABLE",
        )
    work.connection.execute(
        update(events)
        .where(events.c.job_number == job.number, events.c.epoch == epoch.epoch)
        .values(attempt=attempt, is_kept=True)
    )

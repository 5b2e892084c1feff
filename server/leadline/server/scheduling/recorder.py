"""Records the reports of workers in the store, for watchers, and in the metrics."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from leadline.server.access.quotas import UNLIMITED, Quotas
from leadline.server.errors import FailedPreconditionError, NotFoundError, ServiceError
from leadline.server.identity import Identity, Role
from leadline.server.jobs.environments import advice, differences
from leadline.server.jobs.job import EpochCompleted, Failure, Job, Paused, Progress, Started
from leadline.server.jobs.options import Retention
from leadline.server.jobs.states import JobState
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.retention import apply_retention
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.server.sweeps.sweep import MEDIAN_STOPPED
from leadline.server.thread_pool import ThreadPool
from leadline.server.workers.local import LocalWorker
from leadline.server.workers.messages import DiskFault, Done, Heartbeat, Message, Ready, Usage

_LOG = structlog.get_logger(__name__)

# How often the files of a long job are measured.
_EPOCHS_A_MEASUREMENT = 64

# How the store rejects a report if the job was cancelled, paused or deleted meanwhile.
FENCED_OFF = (FailedPreconditionError, NotFoundError)


class JobObserver(Protocol):
    """Observes jobs; the metrics implement it."""

    def on_worker(self, job: Job, pid: int) -> None:
        """A worker has started on the job."""

    def on_epoch(self, job: Job, epoch: EpochCompleted, train_images: int) -> None:
        """An epoch of the job is durable."""

    def on_median_stop(self, job: Job) -> None:
        """The median stopping rule has stopped the job."""

    def on_usage(self, job: Job, usage: Usage) -> None:
        """The job's worker reports the memory that it uses."""

    def on_worker_end(self, job: Job) -> None:
        """The job's worker has ended."""


@dataclass
class Run:
    """An attempt at a job, from its claim to the end of its worker."""

    job: Job
    device: str
    task: asyncio.Task[None] | None = None
    worker: LocalWorker | None = None
    started: Started | None = None


class ReportRecorder:
    """Handles the messages of workers, and the end of their runs."""

    def __init__(
        self,
        *,
        store: Store,
        threads: ThreadPool,
        notifier: JobNotifier,
        observer: JobObserver,
        artifacts: Artifacts,
        quotas: Callable[[], Quotas] = lambda: UNLIMITED,
    ) -> None:
        self._quotas = quotas
        self._store = store
        self._threads = threads
        self._notifier = notifier
        self._observer = observer
        self._artifacts = artifacts

    def begin(self, job: Job, worker: LocalWorker) -> None:
        """Records that a worker starts on a job."""
        self._observer.on_worker(job, worker.pid)

    def end(self, job: Job) -> None:
        """Records that the job's worker has ended."""
        self._observer.on_worker_end(job)
        self._notifier.forget(job.job_id, job.sweep_id)

    async def handle_message(self, run: Run, message: Message) -> bool:
        """Handles a message; returns whether it was the last.

        Raises:
            FailedPreconditionError: the worker no longer has the job, or reports
                a wrong epoch.
            NotFoundError: the job was deleted.
            StorageError: the database failed.
        """
        job = run.job
        match message:
            case Progress():
                self._notifier.set_progress(job.job_id, message)
            case Usage():
                self._observer.on_usage(job, message)
            case Started():
                run.started = message
                await self._record_started(job, message)
            case EpochCompleted():
                return await self._record_epoch(run, message)
            case DiskFault():
                pause = Paused(reason="STORAGE", message=message.message)
                await self._threads.run(self._store.attempts.pause, job.job_id, job.attempts, pause)
                _LOG.error("job paused", job=job.job_id, why=message.message)
            case Done() | Failure():
                await self.finish(job, message)
            case Ready() | Heartbeat():
                pass
        return isinstance(message, Done | Failure | DiskFault)

    async def finish(self, job: Job, outcome: Done | Failure) -> None:
        """Moves a running job to its final state.

        Raises:
            FailedPreconditionError, NotFoundError, StorageError: see `handle_message`.
        """
        failure = outcome if isinstance(outcome, Failure) else None
        state = JobState.SUCCEEDED if failure is None else JobState.FAILED
        finished = await self._threads.run(
            self._store.attempts.finish, job.job_id, job.attempts, state, failure=failure
        )
        reason = failure and failure.message
        _LOG.info("job finished", job=job.job_id, state=state, failure=reason)
        self._notifier.notify(job.job_id, job.sweep_id)
        if finished.completed_epochs:
            await self._apply_retention(finished)

    async def handle_rejection(self, run: Run, error: ServiceError) -> None:
        """Handles a report that the store has rejected; fails the job if it still runs."""
        job = run.job
        if not await self.is_running(job):
            # Cancelled or paused: the worker's reports no longer count.
            _LOG.info("a worker is fenced off", job=job.job_id, why=str(error))
            return
        before = await self._threads.run(self._store.jobs.get_started, job.job_id)
        message = str(error)
        if before and run.started:
            message += f": {advice(differences(before, run.started), before)}"
        await self.finish(job, Failure(reason="NOT_REPEATABLE", message=message))

    async def is_running(self, job: Job) -> bool:
        """Whether the worker of this attempt still has the job."""
        try:
            now = await self._threads.run(self._store.jobs.get, job.job_id)
        except NotFoundError:
            return False
        return now.state is JobState.RUNNING and now.attempts == job.attempts

    async def _record_started(self, job: Job, started: Started) -> None:
        """Records the first start; warns if a later one is in another environment."""
        event = await self._threads.run(
            self._store.attempts.record_started, job.job_id, job.attempts, started
        )
        if event:
            self._notifier.publish(event, job.sweep_id)
            return
        before = await self._threads.run(self._store.jobs.get_started, job.job_id)
        changes = differences(before, started) if before else []
        if changes:
            _LOG.warning("a job continues in another environment", job=job.job_id, changes=changes)

    async def _record_epoch(self, run: Run, epoch: EpochCompleted) -> bool:
        """Records an epoch; returns whether the median stopping rule then ends the job."""
        job = run.job
        event = await self._threads.run(
            self._store.attempts.record_epoch, job.job_id, job.attempts, epoch
        )
        train_images = run.started.train_images if run.started else 0
        self._observer.on_epoch(job, epoch, train_images)
        if event:
            self._notifier.publish(event, job.sweep_id)
        await self._threads.run(
            self._artifacts.drop_optimizer_states,
            job.job_id,
            attempt=job.attempts,
            epoch=epoch.epoch,
        )
        await self._apply_retention(job)
        if job.sweep_id is not None and await self._is_median_stopped(job):
            return True
        if epoch.epoch == job.spec.epochs or not _is_measured(epoch.epoch):
            return False
        return await self._is_over_quota(job)

    async def _is_over_quota(self, job: Job) -> bool:
        """Measures a running job's files; pauses it if its owner may not have more of them."""
        why = await self.measure(job)
        if not why:
            return False
        pause = Paused(reason="QUOTA_EXCEEDED", message=f"{why}; then resume the job")
        await self._threads.run(self._store.attempts.pause, job.job_id, job.attempts, pause)
        _LOG.warning("job paused", job=job.job_id, why=why)
        self._notifier.notify(job.job_id, job.sweep_id)
        return True

    async def measure(self, job: Job) -> str:
        """Records the size of a job's files; returns why its owner may have no more, or ""."""
        owner = self._quotas().owner(Identity(job.owner, Role.TRAINER))

        def record() -> str:
            size = self._artifacts.usage(job.job_id).total
            return self._store.jobs.record_bytes(job.job_id, size, owner)

        return await self._threads.run(record)

    async def _apply_retention(self, job: Job) -> None:
        if job.options.retention != Retention():
            await self._threads.run(apply_retention, self._store, self._artifacts, job)

    async def _is_median_stopped(self, job: Job) -> bool:
        now = await self._threads.run(self._store.jobs.get, job.job_id)
        if now.cancellation is None or now.cancellation.reason != MEDIAN_STOPPED:
            return False
        _LOG.info("job stopped", job=job.job_id, why=now.cancellation.message)
        self._observer.on_median_stop(job)
        self._notifier.notify(job.job_id, job.sweep_id)
        return True


def _is_measured(epoch: int) -> bool:
    """Whether the files of a job are measured after an epoch: each time reads its whole folder."""
    return epoch % _EPOCHS_A_MEASUREMENT == 0 or epoch.bit_count() == 1

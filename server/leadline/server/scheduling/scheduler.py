"""Gives queued jobs to workers, device by device, and keeps what they report."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import structlog

from leadline.models.datasets import DatasetError
from leadline.server.errors import (
    FailedPreconditionError,
    NotFoundError,
    ServiceError,
    StorageError,
)
from leadline.server.jobs.environments import advice, differences
from leadline.server.jobs.job import EpochCompleted, Failure, Job, Model, Paused, Progress, Started
from leadline.server.jobs.options import Retention
from leadline.server.jobs.states import JobState
from leadline.server.scheduling.capacity import Capacity
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.server.sweeps.sweep import MEDIAN_STOPPED
from leadline.server.thread_pool import ThreadPool
from leadline.server.workers.local import LocalWorker, WorkerError, WorkerPool
from leadline.server.workers.messages import (
    Assignment,
    DiskFault,
    Done,
    Heartbeat,
    Message,
    Ready,
    Usage,
)

_LOG = structlog.get_logger(__name__)

# How long to wait before the store, or a job whose worker was lost, is tried again.
_RETRY_SECONDS = 1.0


# Makes a claimed job, and what it has trained so far, into a worker's assignment.
Assign = Callable[[Job, Model | None, str], Assignment]


# What the store answers about a job that was cancelled, paused or deleted while
# something was on its way to it.
_NO_LONGER = (FailedPreconditionError, NotFoundError)


class JobObserver(Protocol):
    """Hears what happens to jobs; the metrics are one."""

    def on_worker(self, job: Job, pid: int) -> None:
        """A worker has the job."""

    def on_epoch(self, job: Job, epoch: EpochCompleted, train_images: int) -> None:
        """An epoch of the job is durable."""

    def on_median_stop(self, job: Job) -> None:
        """The median stopping rule has stopped the job."""

    def on_usage(self, job: Job, usage: Usage) -> None:
        """The job's worker reports what it takes up."""

    def on_worker_end(self, job: Job) -> None:
        """The job's worker is gone."""


@dataclass
class _Run:
    """A job in the hands of a worker."""

    job: Job
    device: str
    task: asyncio.Task[None] | None = None
    worker: LocalWorker | None = None
    train_images: int = 0

    started: Started | None = None
    """What this worker found."""


@dataclass
class _Losses:
    """Workers lost on a job since its last completed epoch."""

    completed_epochs: int = -1
    count: int = 0
    ends: list[str] = field(default_factory=list)


class Scheduler:
    """Runs the queued jobs in their turn on the free devices."""

    def __init__(
        self,
        *,
        store: Store,
        threads: ThreadPool,
        notifier: JobNotifier,
        pool: WorkerPool,
        artifacts: Artifacts,
        assign: Assign,
        observer: JobObserver,
        capacity: Capacity,
        max_attempts: int,
        silence_limit: float,
    ) -> None:
        """Makes a scheduler that `run` sets to work.

        Args:
            store: where jobs are kept.
            threads: where the store's calls block.
            notifier: who is told of news.
            pool: where workers come from.
            artifacts: where checkpoints are.
            assign: makes a claimed job into a worker's assignment; raises
                DatasetError where the server no longer knows its dataset.
            observer: hears what happens.
            capacity: the devices, and who fits beside whom.
            max_attempts: workers that may be lost on one epoch of a job.
            silence_limit: seconds after which a worker that is not heard of is
                given up for lost.
        """
        self._store = store
        self._threads = threads
        self._notifier = notifier
        self._pool = pool
        self._artifacts = artifacts
        self._assign = assign
        self._observer = observer
        self._capacity = capacity
        self._max_attempts = max_attempts
        self._silence_limit = silence_limit
        self._runs: dict[str, _Run] = {}
        self._losses: dict[str, _Losses] = {}
        self._news = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Says that a job may be waiting."""
        self._news.set()

    async def run(self) -> None:
        """Starts jobs as devices become free, and ends overdue ones, until it is stopped."""
        self._pool.fill()
        while not self._stopping:
            self._news.clear()
            try:
                await self._end_overdue_jobs()
                await self._start_waiting_jobs()
                patience = await self._seconds_to_deadline()
            except StorageError as error:
                _LOG.error("the job store failed: trying again", why=str(error))
                patience = _RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._news.wait()

    async def stop(self) -> None:
        """Ends all workers and hands their jobs back, to go on after a restart."""
        self._stopping = True
        self.wake()
        tasks = [run.task for run in self._runs.values() if run.task]
        await asyncio.gather(*(self.end_worker(job_id) for job_id in list(self._runs)))
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()

    async def end_worker(self, job_id: str) -> None:
        """Ends the job's worker at once, if it has one."""
        run = self._runs.get(job_id)
        if run and run.worker:
            await run.worker.kill()

    async def _end_overdue_jobs(self) -> None:
        for job in await self._threads.run(self._store.jobs.find_overdue, datetime.now(UTC)):
            failure = Failure(
                reason="DEADLINE_EXCEEDED",
                message=f"the time limit of {job.options.time_limit:g} s passed after "
                f"{job.completed_epochs} of {job.spec.epochs} epochs, which stay usable",
            )
            with contextlib.suppress(*_NO_LONGER):  # finished in between
                await self._threads.run(
                    self._store.jobs.finish, job.job_id, JobState.FAILED, failure=failure
                )
            self._notifier.notify(job.job_id, job.sweep_id)
            await self.end_worker(job.job_id)

    async def _seconds_to_deadline(self) -> float | None:
        deadline = await self._threads.run(self._store.jobs.next_deadline)
        return (
            None if deadline is None else max(0.0, (deadline - datetime.now(UTC)).total_seconds())
        )

    async def _start_waiting_jobs(self) -> None:
        while not self._stopping:
            found = await self._next_with_room()
            if found is None:
                return
            job, device = found
            try:
                job = await self._threads.run(self._store.attempts.claim, job.job_id, device=device)
            except _NO_LONGER:  # cancelled or paused in between
                continue
            self._capacity.take(device, job)
            self._notifier.notify(job.job_id, job.sweep_id)
            run = self._runs[job.job_id] = _Run(job=job, device=device)
            run.task = asyncio.create_task(self._work_on(run), name=f"job-{job.job_id}")

    async def _next_with_room(self) -> tuple[Job, str] | None:
        """The next job to start, and where.

        The job whose turn it is comes first. Where it has no room, the device
        that will have it soonest is kept for it, or small jobs might stay in
        the way of a large one for ever; a job of the other kind, part of a sweep
        or not, may take what other devices have.
        """
        job = await self._threads.run(self._store.jobs.next_queued)
        if job is None:
            return None
        in_sweep = job.sweep_id is not None
        device = self._capacity.find(in_sweep=in_sweep)
        if device is not None:
            return job, device
        kept = self._capacity.nearest()
        device = self._capacity.find(in_sweep=not in_sweep, except_for=kept)
        if device is None:
            return None
        other = await self._threads.run(self._store.jobs.next_queued, in_sweep=not in_sweep)
        return None if other is None else (other, device)

    async def _work_on(self, run: _Run) -> None:
        try:
            end = await self._follow_worker(run)
            if end is not None:
                await self._after_loss(run.job, end)
        except _NO_LONGER as error:
            await self._after_refusal(run, error)
        except StorageError:
            _LOG.exception("the job store failed", job=run.job.job_id)
            await self._hand_back(run.job)
        finally:
            await self._release(run)

    async def _follow_worker(self, run: _Run) -> str | None:
        """Keeps what a worker reports; returns how it was lost, None if it was not."""
        try:
            run.worker = await self._pool.take()
            if self._stopping or not await self._is_running(run.job):
                return "was not needed"
            self._observer.on_worker(run.job, run.worker.pid)
            assignment = await self._make_assignment(run)
            async for message in run.worker.run(assignment, silence_limit=self._silence_limit):
                if await self._keep(run, message):
                    self._losses.pop(run.job.job_id, None)
                    return None
            return await run.worker.describe_end()
        except DatasetError as error:
            failure = Failure(reason="DATASET_UNAVAILABLE", message=str(error))
            await self._finish(run.job.job_id, run.job.attempts, failure)
            return None
        except (WorkerError, OSError) as error:
            return str(error)

    async def _make_assignment(self, run: _Run) -> Assignment:
        model = None
        if run.job.completed_epochs:
            model = await self._threads.run(self._store.models.get, run.job.job_id)
        return self._assign(run.job, model, run.device)

    async def _keep(self, run: _Run, message: Message) -> bool:
        """Keeps one message; returns whether it was the last."""
        job_id, attempt = run.job.job_id, run.job.attempts
        match message:
            case Progress():
                self._notifier.set_progress(job_id, message)
                # Not before the first step, which would have to share its core.
                self._pool.fill()
            case Usage():
                self._observer.on_usage(run.job, message)
            case Started():
                run.train_images, run.started = message.train_images, message
                event = await self._threads.run(
                    self._store.attempts.record_started, job_id, attempt, message
                )
                if event:
                    self._notifier.publish(event, run.job.sweep_id)
                else:
                    await self._compare_environments(run.job, message)
            case EpochCompleted():
                return await self._keep_epoch(run, message)
            case DiskFault():
                pause = Paused(reason="STORAGE", message=message.message)
                await self._threads.run(self._store.jobs.pause, job_id, pause, attempt=attempt)
                _LOG.error("job paused", job=job_id, why=message.message)
            case Done() | Failure():
                await self._finish(job_id, attempt, message)
            case Ready() | Heartbeat():
                pass
        return isinstance(message, Done | Failure | DiskFault)

    async def _keep_epoch(self, run: _Run, epoch: EpochCompleted) -> bool:
        """Keeps an epoch; returns whether it was the job's last, as that is hopeless."""
        job_id = run.job.job_id
        event = await self._threads.run(
            self._store.attempts.record_epoch, job_id, run.job.attempts, epoch
        )
        self._observer.on_epoch(run.job, epoch, run.train_images)
        if event:
            self._notifier.publish(event, run.job.sweep_id)
        await self._drop_checkpoints(run.job)
        return run.job.sweep_id is not None and await self._is_median_stopped(run.job)

    async def _is_median_stopped(self, job: Job) -> bool:
        now = await self._threads.run(self._store.jobs.get, job.job_id)
        if now.cancellation is None or now.cancellation.reason != MEDIAN_STOPPED:
            return False
        _LOG.info("job stopped", job=job.job_id, why=now.cancellation.message)
        self._observer.on_median_stop(job)
        self._notifier.notify(job.job_id, job.sweep_id)
        return True

    async def _drop_checkpoints(self, job: Job) -> None:
        """Removes the checkpoints that the job's retention no longer asks for."""
        if job.options.retention == Retention():
            return
        model = await self._threads.run(self._store.models.get, job.job_id)
        kept = {epoch.result.epoch: epoch for epoch in model.epochs if epoch.is_kept}
        dropped = job.options.retention.dropped(
            kept, best=model.job.best_epoch, is_final=model.job.state.is_final
        )
        if not dropped:
            return
        # First the note, then the files: a crash in between leaves only waste.
        await self._threads.run(self._store.attempts.mark_dropped, job.job_id, dropped)
        await self._threads.run(
            self._artifacts.drop, job.job_id, [kept[epoch] for epoch in dropped]
        )

    async def _finish(self, job_id: str, attempt: int, message: Done | Failure) -> None:
        failure = message if isinstance(message, Failure) else None
        state = JobState.SUCCEEDED if failure is None else JobState.FAILED
        job = await self._threads.run(
            self._store.jobs.finish, job_id, state, failure=failure, attempt=attempt
        )
        _LOG.info("job finished", job=job_id, state=state, failure=failure and failure.message)
        self._notifier.notify(job_id, job.sweep_id)
        if job.completed_epochs:
            await self._drop_checkpoints(job)

    async def _compare_environments(self, job: Job, now: Started) -> None:
        """Warns where a job goes on in another environment than it began in."""
        before = await self._threads.run(self._store.jobs.get_started, job.job_id)
        changes = differences(before, now) if before else []
        if changes:
            _LOG.warning("a job goes on in another environment", job=job.job_id, changes=changes)

    async def _after_refusal(self, run: _Run, error: ServiceError) -> None:
        """Deals with a report that the store refused."""
        job = run.job
        if not await self._is_running(job):
            # Cancelled or paused: what its worker still says no longer counts.
            _LOG.info("a worker is fenced off", job=job.job_id, why=str(error))
            return
        before = await self._threads.run(self._store.jobs.get_started, job.job_id)
        message = str(error)
        if before and run.started:
            message += f": {advice(differences(before, run.started), before)}"
        failure = Failure(reason="NOT_REPEATABLE", message=message)
        await self._finish(job.job_id, job.attempts, failure)

    async def _after_loss(self, job: Job, end: str) -> None:
        """Tries a job again whose worker was lost, unless it was lost too often."""
        if not await self._is_running(job):  # the worker was ended for that
            return
        if self._stopping:
            await self._hand_back(job)
            return
        _LOG.warning("a worker is lost", job=job.job_id, attempt=job.attempts, end=end)
        now = await self._threads.run(self._store.jobs.get, job.job_id)
        losses = self._losses.setdefault(job.job_id, _Losses())
        if now.completed_epochs > losses.completed_epochs:
            losses.completed_epochs, losses.count = now.completed_epochs, 0
        losses.count += 1
        if losses.count < self._max_attempts:
            await asyncio.sleep(_RETRY_SECONDS if losses.count > 1 else 0)
            await self._hand_back(job)
            return
        failure = Failure(
            reason="WORKER_LOST",
            message=f"{losses.count} workers in a row were lost in epoch "
            f"{now.completed_epochs + 1}; the last {end}",
        )
        await self._finish(job.job_id, job.attempts, failure)

    async def _is_running(self, job: Job) -> bool:
        """Whether the job is still in the hands of the worker of this attempt."""
        try:
            now = await self._threads.run(self._store.jobs.get, job.job_id)
        except NotFoundError:
            return False
        return now.state is JobState.RUNNING and now.attempts == job.attempts

    async def _hand_back(self, job: Job) -> None:
        """Queues the job again, however long the store takes to accept it."""
        while True:
            try:
                await self._threads.run(self._store.attempts.requeue, job.job_id, job.attempts)
            except _NO_LONGER:  # cancelled or paused meanwhile
                return
            except StorageError:
                _LOG.exception("the job store failed", job=job.job_id)
                if self._stopping:
                    return  # it is handed back by `Store.recover` at the next start
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            return

    async def _release(self, run: _Run) -> None:
        job_id = run.job.job_id
        if run.worker:
            await run.worker.kill()
        # Handed back and given to another device, it has a new run by now.
        if self._runs.get(job_id) is run:
            del self._runs[job_id]
            self._observer.on_worker_end(run.job)
            self._notifier.forget(job_id, run.job.sweep_id)
        self._capacity.give_back(run.device, run.job)
        self.wake()

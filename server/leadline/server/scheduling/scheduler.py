"""Assigns queued jobs to workers on free devices, and ends overdue jobs."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from leadline.models.datasets import DatasetError
from leadline.server.access.quotas import UNLIMITED, Quotas
from leadline.server.errors import StorageError
from leadline.server.jobs.job import EpochCompleted, Failure, Job, Progress
from leadline.server.jobs.states import JobState
from leadline.server.scheduling.assignment import AssignmentMaker
from leadline.server.scheduling.capacity import Capacity
from leadline.server.scheduling.disk_floor import DiskFloor
from leadline.server.scheduling.loss_policy import LossPolicy
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.recorder import FENCED_OFF, ReportRecorder, Run
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool
from leadline.server.workers.local import WorkerEnd, WorkerError, WorkerPool

_LOG = structlog.get_logger(__name__)

# The delay before a failed store, or a disk without space, is tried again.
_RETRY_SECONDS = 1.0

# How long `stop` waits until the jobs of the ended workers are requeued.
_STOP_SECONDS = 0.5


class Scheduler:
    """Runs the queued jobs in order on the free devices."""

    def __init__(
        self,
        *,
        store: Store,
        threads: ThreadPool,
        notifier: JobNotifier,
        pool: WorkerPool,
        capacity: Capacity,
        disk_floor: DiskFloor,
        assignments: AssignmentMaker,
        recorder: ReportRecorder,
        losses: LossPolicy,
        quotas: Callable[[], Quotas] = lambda: UNLIMITED,
    ) -> None:
        """Makes a scheduler, which does nothing until `run`; `threads` run the store's calls."""
        self._quotas = quotas
        self._store = store
        self._threads = threads
        self._notifier = notifier
        self._pool = pool
        self._capacity = capacity
        self._disk_floor = disk_floor
        self._assignments = assignments
        self._recorder = recorder
        self._losses = losses
        self._runs: dict[str, Run] = {}
        self._wakeup = asyncio.Event()
        self._stopping = asyncio.Event()

    def wake(self) -> None:
        """Makes `run` check queued jobs, free devices and deadlines again."""
        self._wakeup.set()

    async def recheck(self) -> None:
        """Starts jobs that changed quotas allow."""
        self.wake()

    async def run(self) -> None:
        """Starts jobs as devices become free, and ends overdue ones, until `stop`."""
        self._pool.fill()
        while not self._stopping.is_set():
            self._wakeup.clear()
            try:
                await self._end_overdue_jobs()
                await self._start_queued_jobs()
                timeout = await self._seconds_to_wait()
            except StorageError as error:
                _LOG.error("the job store failed: trying again", why=str(error))
                timeout = _RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._wakeup.wait()

    async def stop(self) -> None:
        """Ends all workers and requeues their jobs, which resume after a restart."""
        self._stopping.set()
        self.wake()
        tasks = [run.task for run in self._runs.values() if run.task]
        await asyncio.gather(*(self.end_worker(job_id) for job_id in list(self._runs)))
        if tasks:
            # A starting worker, or the wait before a job is requeued, may take long. The
            # next start requeues these jobs: see `AttemptRepository.recover`.
            _, late = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
            for task in late:
                task.cancel()
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
            with contextlib.suppress(*FENCED_OFF):  # finished meanwhile
                await self._threads.run(
                    self._store.jobs.finish, job.job_id, JobState.FAILED, failure=failure
                )
            self._notifier.notify(job.job_id, job.sweep_id)
            await self.end_worker(job.job_id)

    async def _seconds_to_wait(self) -> float | None:
        seconds = _RETRY_SECONDS if self._notifier.hold else None
        deadline = await self._threads.run(self._store.jobs.next_deadline)
        if deadline is None:
            return seconds
        left = max(0.0, (deadline - datetime.now(UTC)).total_seconds())
        return min(left, seconds) if seconds else left

    async def _update_hold(self) -> None:
        """If a job waits, checks whether the disk has room for it."""
        hold = None
        if await self._threads.run(self._store.jobs.next_queued):
            hold = await self._threads.run(self._disk_floor.hold)
        if not self._notifier.set_hold(hold):
            return
        if hold:
            _LOG.warning("jobs are held", reason=hold.reason, why=hold.message)
        else:
            _LOG.info("jobs start again")

    async def _start_queued_jobs(self) -> None:
        while not self._stopping.is_set():
            await self._update_hold()
            if self._notifier.hold:
                return
            startable = await self._next_startable()
            if startable is None:
                return
            job, device = startable
            try:
                job = await self._threads.run(self._store.attempts.claim, job.job_id, device=device)
            except FENCED_OFF:  # cancelled or paused meanwhile
                continue
            # `stop` does not know runs that begin now; the next start requeues the job.
            if self._stopping.is_set():
                return
            self._capacity.acquire(device, job)
            self._notifier.notify(job.job_id, job.sweep_id)
            run = self._runs[job.job_id] = Run(job=job, device=device)
            run.task = asyncio.create_task(self._work_on(run), name=f"job-{job.job_id}")

    async def _next_startable(self) -> tuple[Job, str] | None:
        """The next job to start, and its device.

        The first job in the queue starts first. If no device has room, the device
        that will have room soonest is reserved for it, so that small jobs cannot
        starve a large one. The other devices may take the next job of the other
        kind: part of a sweep, or not. Jobs whose owners have as many running jobs as
        their quotas allow are skipped.
        """
        job = await self._next_allowed()
        if job is None:
            return None
        in_sweep = job.sweep_id is not None
        device = self._capacity.find(in_sweep=in_sweep)
        if device is not None:
            return job, device
        reserved = self._capacity.nearest()
        device = self._capacity.find(in_sweep=not in_sweep, except_for=reserved)
        if device is None:
            return None
        other = await self._next_allowed(in_sweep=not in_sweep)
        return None if other is None else (other, device)

    async def _next_allowed(self, *, in_sweep: bool | None = None) -> Job | None:
        quotas, jobs = self._quotas(), self._store.jobs
        if not quotas.limits_running:
            return await self._threads.run(jobs.next_queued, in_sweep=in_sweep)
        return await self._threads.run(jobs.next_allowed, quotas.may_run, in_sweep=in_sweep)

    async def _work_on(self, run: Run) -> None:
        try:
            end = await self._follow_worker(run)
            if end is not None:
                await self._handle_loss(run.job, end)
        except FENCED_OFF as error:
            await self._recorder.handle_rejection(run, error)
        except StorageError:
            _LOG.exception("the job store failed", job=run.job.job_id)
            await self._requeue(run.job)
        finally:
            await self._release(run)

    async def _follow_worker(self, run: Run) -> WorkerEnd | None:
        """Handles a worker's messages; returns how it was lost, or None if it was not."""
        try:
            run.worker = await self._pool.take()
            if self._stopping.is_set() or not await self._recorder.is_running(run.job):
                return WorkerEnd(text="was not needed")
            self._recorder.begin(run.job, run.worker)
            model = None
            if run.job.completed_epochs:
                model = await self._threads.run(self._store.models.get, run.job.job_id)
            assignment = self._assignments.make(run.job, model, run.device)
            async for message in run.worker.run(
                assignment, silence_limit=self._losses.silence_limit
            ):
                if await self._recorder.handle_message(run, message):
                    self._losses.forget(run.job.job_id)
                    return None
                if isinstance(message, EpochCompleted) and await self._must_wait(run.job, message):
                    await self._requeue(run.job)
                    return None
                if isinstance(message, Progress):
                    # After the first step, because a starting worker takes a core.
                    self._pool.fill()
            return await run.worker.describe_end()
        except DatasetError as error:
            failure = Failure(reason="DATASET_UNAVAILABLE", message=str(error))
            await self._recorder.finish(run.job, failure)
            return None
        except (WorkerError, OSError) as error:
            return WorkerEnd(text=str(error))

    async def _must_wait(self, job: Job, epoch: EpochCompleted) -> bool:
        """Whether a job waits in the queue from this epoch on, until the disk has room again."""
        if epoch.epoch == job.spec.epochs:
            return False
        if not await self._threads.run(self._disk_floor.is_exhausted):
            return False
        _LOG.warning("a job waits for disk space", job=job.job_id, epoch=epoch.epoch)
        return True

    async def _handle_loss(self, job: Job, end: WorkerEnd) -> None:
        """Requeues a job whose worker was lost, or fails it after too many losses."""
        if not await self._recorder.is_running(job):  # its worker was ended on purpose
            return
        if self._stopping.is_set():
            await self._requeue(job)
            return
        _LOG.warning("a worker is lost", job=job.job_id, attempt=job.attempts, end=end.text)
        now = await self._threads.run(self._store.jobs.get, job.job_id)
        delay_or_failure = self._losses.record_loss(now, end)
        if isinstance(delay_or_failure, Failure):
            await self._recorder.finish(job, delay_or_failure)
            return
        await asyncio.sleep(delay_or_failure)
        await self._requeue(job)

    async def _requeue(self, job: Job) -> None:
        """Requeues the job, and retries until the store accepts it."""
        while True:
            try:
                await self._threads.run(self._store.attempts.requeue, job.job_id, job.attempts)
            except FENCED_OFF:  # cancelled or paused meanwhile
                return
            except StorageError:
                _LOG.exception("the job store failed", job=job.job_id)
                if self._stopping.is_set():
                    return  # the next start requeues it: see `AttemptRepository.recover`
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            return

    async def _release(self, run: Run) -> None:
        job_id = run.job.job_id
        if run.worker:
            await run.worker.kill()
        # The requeued job may already have a new run on another device.
        if self._runs.get(job_id) is run:
            del self._runs[job_id]
            self._recorder.end(run.job)
        self._capacity.release(run.device, run.job)
        self.wake()
        try:
            await self._recorder.measure(run.job)
        except (StorageError, OSError) as error:
            _LOG.error("the files of a job are not measured", job=job_id, why=str(error))

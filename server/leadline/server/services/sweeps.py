"""What callers can ask of sweeps: submit, follow, list, pause, resume, cancel, delete."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable

from leadline.models.spec import Violation
from leadline.server.errors import InvalidArgumentError, ServiceError, UnavailableError
from leadline.server.jobs.job import Paused, Progress
from leadline.server.jobs.states import JobState
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.scheduler import Scheduler
from leadline.server.services.jobs import new_id, within
from leadline.server.services.watching import EVENTS_A_READ, follow, is_at_end
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.server.sweeps.sweep import (
    Sweep,
    SweepEvent,
    SweepFinished,
    SweepProgress,
    SweepRequest,
    SweepView,
)
from leadline.server.thread_pool import ThreadPool


class SweepService:
    """Sweeps as their callers see them."""

    def __init__(
        self,
        *,
        store: Store,
        threads: ThreadPool,
        notifier: JobNotifier,
        scheduler: Scheduler,
        artifacts: Artifacts,
        datasets: Collection[str],
        max_queued_jobs: int,
        keepalive_seconds: float,
    ) -> None:
        self._store = store
        self._threads = threads
        self._notifier = notifier
        self._scheduler = scheduler
        self._artifacts = artifacts
        self._datasets = datasets
        self._max_queued_jobs = max_queued_jobs
        self._keepalive_seconds = keepalive_seconds

    async def submit(self, request: SweepRequest, *, request_id: str | None) -> Sweep:
        """Accepts a sweep with all its jobs, or returns the one that `request_id` stands for.

        Raises:
            InvalidArgumentError: specs, options or settings are wrong, field by field.
            AlreadyExistsError: `request_id` stands for a sweep of another request.
            ResourceExhaustedError: the queue has no room for all jobs.
            UnavailableError: the server shuts down.
        """
        # A thousand specs take a while to make and to check.
        points, violations = await self._threads.run(self._check, request)
        if violations:
            raise InvalidArgumentError(violations, reason="INVALID_SWEEP")
        if self._notifier.is_closed:
            raise UnavailableError("the server shuts down: submit again after its restart")
        sweep, is_new = await self._threads.run(
            self._store.sweeps.create,
            request,
            sweep_id=new_id(),
            job_ids=[new_id() for _ in range(points)],
            request_id=request_id,
            max_queued=self._max_queued_jobs,
        )
        if is_new:
            self._notifier.notify(sweep.sweep_id)
            self._scheduler.wake()
        return sweep

    async def get(self, sweep_id: str) -> SweepView:
        """The sweep as it stands, its jobs and its table.

        Raises:
            NotFoundError: there is no such sweep.
        """
        return await self._threads.run(self._store.sweeps.view, sweep_id)

    async def list_sweeps(self, *, before: int | None, limit: int) -> list[Sweep]:
        """Sweeps numbered below `before`, newest first."""
        return await self._threads.run(self._store.sweeps.find, before=before, limit=limit)

    async def cancel(self, sweep_id: str) -> SweepView:
        """Cancels all jobs that are not final, mid-epoch too.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep has succeeded or failed.
        """
        view, changed = await self._threads.run(self._store.sweeps.cancel, sweep_id)
        await self._end_workers(sweep_id, changed)
        return view

    async def pause(self, sweep_id: str) -> SweepView:
        """Sets all jobs aside that wait or run, mid-epoch too.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is in a final state.
        """
        pause = Paused(
            reason="REQUESTED", message="a caller paused its sweep: resume that to go on"
        )
        view, changed = await self._threads.run(self._store.sweeps.pause, sweep_id, pause)
        await self._end_workers(sweep_id, changed)
        return view

    async def resume(self, sweep_id: str) -> SweepView:
        """Queues all paused jobs again.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is in a final state.
        """
        view, changed = await self._threads.run(self._store.sweeps.resume, sweep_id)
        self._notify(sweep_id, changed)
        self._scheduler.wake()
        return view

    async def delete(self, sweep_id: str) -> None:
        """Deletes a sweep in its final state, its jobs, and all files of their models.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is not in a final state.
        """
        job_ids = await self._threads.run(self._delete, sweep_id)
        for job_id in job_ids:
            self._notifier.forget(job_id, sweep_id)

    async def watch(
        self, sweep_id: str, *, after_sequence: int, progress_interval: float | None
    ) -> AsyncIterator[SweepEvent | SweepProgress]:
        """Yields the events after `after_sequence`, each once, until the last.

        While there is none it yields the sweep's progress: each
        `progress_interval` seconds if it has changed, and in any case often
        enough for no proxy to take the stream for dead.

        Raises:
            NotFoundError: there is no such sweep.
            InvalidArgumentError: `after_sequence` is beyond the newest event.
            UnavailableError: the server shuts down before the last event.
        """
        sweep = await self._threads.run(self._store.sweeps.get, sweep_id)
        if is_at_end(after_sequence, sweep.latest_sequence, is_final=sweep.state.is_final):
            return
        news = follow(
            self._notifier,
            _WatchedSweep(sweep_id, self._store, self._threads, self._notifier),
            after_sequence=after_sequence,
            progress_interval=progress_interval,
            keepalive_seconds=self._keepalive_seconds,
        )
        async for one in news:
            yield one

    def _check(self, request: SweepRequest) -> tuple[int, list[Violation]]:
        """How many jobs there will be, and what is wrong with them."""
        points = len(request.grid.points())
        found = [
            *request.grid.violations(self._datasets),
            *within("options", request.options.violations()),
        ]
        if request.median_stopping is not None:
            found += within("median_stopping", request.median_stopping.violations())
        if points > self._max_queued_jobs:
            text = f"make {points:,} jobs, and no more than {self._max_queued_jobs:,} may wait here"
            found.append(Violation(field="axes", description=text))
        return points, found

    def _delete(self, sweep_id: str) -> list[str]:
        job_ids = [job.job_id for job in self._store.sweeps.view(sweep_id).jobs]
        # In this order a crash in between is finished, or undone, by the next start.
        for job_id in job_ids:
            self._artifacts.mark_deleted(job_id)
        try:
            self._store.sweeps.delete(sweep_id)
        except ServiceError:
            for job_id in job_ids:
                self._artifacts.unmark_deleted(job_id)
            raise
        for job_id in job_ids:
            self._artifacts.remove(job_id)
        return job_ids

    async def _end_workers(self, sweep_id: str, job_ids: Collection[str]) -> None:
        """Ends the workers of jobs that they no longer hold: the decision is durable."""
        self._notify(sweep_id, job_ids)
        await asyncio.gather(*(self._scheduler.end_worker(job_id) for job_id in job_ids))

    def _notify(self, sweep_id: str, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self._notifier.notify(job_id, sweep_id)


class _WatchedSweep:
    """A sweep that is followed."""

    def __init__(
        self, sweep_id: str, store: Store, threads: ThreadPool, notifier: JobNotifier
    ) -> None:
        self.key = sweep_id
        self.name = f"sweeps/{sweep_id}"
        self._store = store
        self._threads = threads
        self._notifier = notifier

    async def events(self, after_sequence: int) -> list[SweepEvent]:
        return await self._threads.run(
            self._store.sweeps.events, self.key, after=after_sequence, limit=EVENTS_A_READ
        )

    def is_last(self, event: SweepEvent) -> bool:
        return isinstance(event.body, SweepFinished)

    async def progress(self) -> SweepProgress:
        sweep = await self._threads.run(self._store.sweeps.get, self.key)
        running = await self._threads.run(
            self._store.jobs.find, states=[JobState.RUNNING], sweep_id=self.key
        )
        starting = Progress(phase="starting")
        return SweepProgress(
            sweep=sweep,
            running=tuple(
                (job, self._notifier.progress(job.job_id) or starting) for job in reversed(running)
            ),
        )

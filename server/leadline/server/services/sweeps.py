"""The use cases of sweeps: submit, watch, list, pause, resume, cancel, delete."""

from collections.abc import AsyncIterator, Collection
from functools import partial

from leadline.models.spec import Violation
from leadline.server.errors import InvalidArgumentError
from leadline.server.jobs.job import Paused, Progress
from leadline.server.jobs.states import JobState
from leadline.server.services.lifecycle import Lifecycle, new_id, within
from leadline.server.services.watching import EVENTS_A_READ, EventSource
from leadline.server.storage.store import Store
from leadline.server.sweeps.sweep import (
    Sweep,
    SweepEvent,
    SweepFinished,
    SweepProgress,
    SweepRequest,
    SweepView,
)


class SweepService:
    """The use cases of sweeps."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        store: Store,
        datasets: Collection[str],
        max_queued_jobs: int,
    ) -> None:
        self._lifecycle = lifecycle
        self._threads = lifecycle.threads
        self._notifier = lifecycle.notifier
        self._store = store
        self._datasets = datasets
        self._max_queued_jobs = max_queued_jobs

    async def submit(self, request: SweepRequest, *, request_id: str | None) -> Sweep:
        """Accepts a sweep with all its jobs, or returns the sweep of an earlier `request_id`.

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
        self._lifecycle.check_accepting()
        sweep, is_new = await self._threads.run(
            self._store.sweeps.create,
            request,
            sweep_id=new_id(),
            job_ids=[new_id() for _ in range(points)],
            request_id=request_id,
            max_queued=self._max_queued_jobs,
        )
        if is_new:
            self._lifecycle.schedule([sweep.sweep_id])
        return sweep

    async def get(self, sweep_id: str) -> SweepView:
        """The sweep's current state, its jobs and its table.

        Raises:
            NotFoundError: there is no such sweep.
        """
        return await self._threads.run(self._store.sweeps.view, sweep_id)

    async def list_sweeps(self, *, before: int | None, limit: int) -> list[Sweep]:
        """Sweeps numbered below `before`, newest first."""
        return await self._threads.run(self._store.sweeps.find, before=before, limit=limit)

    async def cancel(self, sweep_id: str) -> SweepView:
        """Cancels all jobs that are not in a final state, even within an epoch.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep has succeeded or failed.
        """
        view, changed = await self._threads.run(self._store.sweeps.cancel, sweep_id)
        await self._lifecycle.end_workers(changed, sweep_id=sweep_id)
        return view

    async def pause(self, sweep_id: str) -> SweepView:
        """Pauses all queued and running jobs, even within an epoch.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is in a final state.
        """
        pause = Paused(
            reason="REQUESTED", message="a caller paused its sweep: resume that to go on"
        )
        view, changed = await self._threads.run(self._store.sweeps.pause, sweep_id, pause)
        await self._lifecycle.end_workers(changed, sweep_id=sweep_id)
        return view

    async def resume(self, sweep_id: str) -> SweepView:
        """Queues all paused jobs again.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is in a final state.
        """
        view, changed = await self._threads.run(self._store.sweeps.resume, sweep_id)
        self._lifecycle.schedule(changed, sweep_id=sweep_id)
        return view

    async def delete(self, sweep_id: str) -> None:
        """Deletes a sweep in its final state, its jobs, and all files of their models.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: the sweep is not in a final state.
        """
        job_ids = [job.job_id for job in (await self.get(sweep_id)).jobs]
        delete_rows = partial(self._store.sweeps.delete, sweep_id)
        await self._lifecycle.delete(job_ids, delete_rows, sweep_id=sweep_id)

    def watch(
        self, sweep_id: str, *, after_sequence: int, progress_interval: float | None
    ) -> AsyncIterator[SweepEvent | SweepProgress]:
        """Yields events, and progress in between: see `Lifecycle.watch`."""
        source = EventSource(
            key=sweep_id,
            name=f"sweeps/{sweep_id}",
            current=partial(self._threads.run, self._store.sweeps.get, sweep_id),
            events=partial(self._events, sweep_id),
            is_last=_is_last,
            progress=partial(self._progress, sweep_id),
        )
        return self._lifecycle.watch(
            source, after_sequence=after_sequence, progress_interval=progress_interval
        )

    def _check(self, request: SweepRequest) -> tuple[int, list[Violation]]:
        """How many jobs the sweep has, and what is wrong with them."""
        points = len(request.grid.points())
        violations = [
            *request.grid.violations(self._datasets),
            *within("options", request.options.violations()),
        ]
        if request.median_stopping is not None:
            violations += within("median_stopping", request.median_stopping.violations())
        if points > self._max_queued_jobs:
            text = f"make {points:,} jobs, and no more than {self._max_queued_jobs:,} may wait here"
            violations.append(Violation(field="axes", description=text))
        return points, violations

    async def _events(self, sweep_id: str, after_sequence: int) -> list[SweepEvent]:
        return await self._threads.run(
            self._store.sweeps.events, sweep_id, after=after_sequence, limit=EVENTS_A_READ
        )

    async def _progress(self, sweep_id: str) -> SweepProgress:
        sweep = await self._threads.run(self._store.sweeps.get, sweep_id)
        running = await self._threads.run(
            self._store.jobs.find, states=[JobState.RUNNING], sweep_id=sweep_id
        )
        starting = Progress(phase="starting")
        return SweepProgress(
            sweep=sweep,
            running=tuple(
                (job, self._notifier.progress(job.job_id) or starting) for job in reversed(running)
            ),
        )


def _is_last(event: SweepEvent) -> bool:
    return isinstance(event.body, SweepFinished)

"""The use cases of sweeps: submit, watch, list, pause, resume, cancel, delete."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from leadline.models.spec import Violation
from leadline.server.access.quotas import Owner
from leadline.server.datasets import KnownDatasets
from leadline.server.errors import InvalidArgumentError
from leadline.server.identity import Identity
from leadline.server.jobs.job import Job, Paused, Progress
from leadline.server.jobs.states import JobState
from leadline.server.services.jobs import check_request
from leadline.server.services.large_reads import in_slices
from leadline.server.services.lifecycle import Lifecycle, new_id, within
from leadline.server.services.watching import (
    EVENTS_A_READ,
    SHARED_EVENTS,
    SHARED_MESSAGES,
    SHARED_VIEWS,
    EventSource,
)
from leadline.server.storage.shared_reads import SharedReads
from leadline.server.storage.store import Store
from leadline.server.sweeps.sweep import (
    Sweep,
    SweepEvent,
    SweepFinished,
    SweepProgress,
    SweepRequest,
    SweepView,
)

R = TypeVar("R")

# How many sweeps a listing reads in one query; a grid may have a thousand values.
_SWEEPS_A_SLICE = 50


class SweepService:
    """The use cases of sweeps."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        store: Store,
        datasets: KnownDatasets,
        max_queued_jobs: int,
    ) -> None:
        self._lifecycle = lifecycle
        self._threads = lifecycle.threads
        self._notifier = lifecycle.notifier
        self._store = store
        self._datasets = datasets
        self._max_queued_jobs = max_queued_jobs
        self._shared_views = SharedReads(store, size=SHARED_VIEWS)
        self._shared_events = SharedReads(store, size=SHARED_EVENTS)
        self._shared_messages = SharedReads(store, size=SHARED_MESSAGES)

    async def submit(
        self, request: SweepRequest, *, request_id: str | None, identity: Identity, caller: str
    ) -> Sweep:
        """Accepts a sweep with all its jobs, or returns the caller's sweep of this `request_id`.

        Raises:
            InvalidArgumentError: specs, options or settings are invalid; names the fields.
            AlreadyExistsError: `request_id` belongs to a sweep of another request.
            ResourceExhaustedError: the queue has no room for all jobs, a quota is used up, or
                too many large requests wait.
            UnavailableError: the server shuts down.
        """
        # Building and checking a thousand specs takes a while.
        owner = self._lifecycle.quotas().owner(identity)
        points, violations = await self._lifecycle.large_reads.run(
            caller, self._check, request, owner
        )
        if violations:
            raise InvalidArgumentError(violations, reason="INVALID_SWEEP")
        self._lifecycle.check_accepting()
        create = partial(
            self._store.sweeps.create,
            request,
            sweep_id=new_id(),
            job_ids=[new_id() for _ in range(points)],
            request_id=request_id,
            max_queued=self._max_queued_jobs,
            owner=owner,
        )
        return await self._lifecycle.write(create, then=self._schedule_new)

    async def get(self, use: Callable[[SweepView], R], sweep_id: str, *, caller: str) -> R:
        """The sweep's current state, its jobs and its table.

        Args:
            use: builds the result from the sweep, in a thread; callers with equal `use`
                share the result.
            sweep_id: the sweep.
            caller: identifies the caller; callers take turns.

        Raises:
            NotFoundError: there is no such sweep.
            ResourceExhaustedError: too many large reads wait.
        """
        read = partial(
            self._lifecycle.large_reads.run,
            caller,
            lambda: use(self._store.sweeps.view(sweep_id)),
        )
        return await self._shared_messages.get((sweep_id, use), read)

    async def list_sweeps(
        self,
        use: Callable[[Iterable[Sweep]], R],
        *,
        owner: str | None = None,
        before: int | None,
        limit: int,
        caller: str,
    ) -> R:
        """Lists sweeps, the newest first.

        Args:
            use: builds the result from the sweeps, in a thread; reads them lazily.
            owner: only sweeps of this owner; None for all.
            before: only sweeps with a lower number; None for no bound.
            limit: the most sweeps that `use` takes.
            caller: identifies the caller; callers take turns.

        Raises:
            ResourceExhaustedError: too many large reads wait.
        """
        sweeps = in_slices(
            partial(self._store.sweeps.find, owner=owner),
            lambda sweep: sweep.number,
            before=before,
            size=min(limit, _SWEEPS_A_SLICE),
        )
        return await self._lifecycle.large_reads.run(caller, use, sweeps)

    async def cancel(self, use: Callable[[SweepView], R], sweep_id: str, identity: Identity) -> R:
        """Cancels all jobs that are not in a final state, even within an epoch.

        `use` builds the result, in a thread, as in `pause` and `resume`.

        Raises:
            NotFoundError: there is no such sweep.
            PermissionDeniedError: it belongs to another identity.
            FailedPreconditionError: the sweep has succeeded or failed.
        """
        await self._check_owner(sweep_id, identity)
        cancel = partial(self._store.sweeps.cancel, sweep_id)
        return await self._lifecycle.write(cancel, then=partial(self._end_workers, use))

    async def pause(self, use: Callable[[SweepView], R], sweep_id: str, identity: Identity) -> R:
        """Pauses all queued and running jobs, even within an epoch.

        Raises:
            NotFoundError: there is no such sweep.
            PermissionDeniedError: it belongs to another identity.
            FailedPreconditionError: the sweep is in a final state.
        """
        await self._check_owner(sweep_id, identity)
        reason = Paused(
            reason="REQUESTED", message="a caller paused its sweep: resume that to go on"
        )
        pause = partial(self._store.sweeps.pause, sweep_id, reason)
        return await self._lifecycle.write(pause, then=partial(self._end_workers, use))

    async def resume(self, use: Callable[[SweepView], R], sweep_id: str, identity: Identity) -> R:
        """Queues all paused jobs again.

        Raises:
            NotFoundError: there is no such sweep.
            PermissionDeniedError: it belongs to another identity.
            FailedPreconditionError: the sweep is in a final state.
        """
        await self._check_owner(sweep_id, identity)
        resume = partial(self._store.sweeps.resume, sweep_id, self._lifecycle.owner_named)
        return await self._lifecycle.write(resume, then=partial(self._schedule_again, use))

    async def delete(self, sweep_id: str, identity: Identity) -> None:
        """Deletes a sweep in its final state, its jobs, and all files of their models.

        Raises:
            NotFoundError: there is no such sweep.
            PermissionDeniedError: it belongs to another identity.
            FailedPreconditionError: the sweep is not in a final state.
        """
        await self._check_owner(sweep_id, identity)
        delete_rows = partial(self._store.sweeps.delete, sweep_id)
        await self._lifecycle.delete(delete_rows, sweep_id=sweep_id)

    def watch(
        self, sweep_id: str, *, after_sequence: int, progress_interval: float | None
    ) -> AsyncIterator[SweepEvent | SweepProgress]:
        """Yields events, and progress in between: see `Lifecycle.watch`."""
        source = EventSource(
            key=sweep_id,
            name=f"sweeps/{sweep_id}",
            current=partial(self._current, sweep_id),
            events=partial(self._events, sweep_id),
            is_last=_is_last,
            progress=partial(self._progress, sweep_id),
        )
        return self._lifecycle.watch(
            source, after_sequence=after_sequence, progress_interval=progress_interval
        )

    async def _check_owner(self, sweep_id: str, identity: Identity) -> None:
        await self._lifecycle.check_owner(identity, f"sweeps/{sweep_id}", self._store.sweeps.owner)

    async def _schedule_new(self, accepted: tuple[Sweep, bool]) -> Sweep:
        sweep, is_new = accepted
        if is_new:
            self._lifecycle.schedule([sweep.sweep_id])
        return sweep

    async def _schedule_again(
        self, use: Callable[[SweepView], R], resumed: tuple[SweepView, list[str]]
    ) -> R:
        view, job_ids = resumed
        self._lifecycle.schedule(job_ids, sweep_id=view.sweep.sweep_id)
        return await self._threads.run(use, view)

    async def _end_workers(
        self, use: Callable[[SweepView], R], ended: tuple[SweepView, list[str]]
    ) -> R:
        view, job_ids = ended
        await self._lifecycle.end_workers(job_ids, sweep_id=view.sweep.sweep_id)
        return await self._threads.run(use, view)

    def _check(self, request: SweepRequest, owner: Owner) -> tuple[int, list[Violation]]:
        """Returns how many jobs the sweep has, and their violations.

        Raises:
            ResourceExhaustedError: a job exceeds a limit of the owner.
        """
        points = len(request.grid.points())
        violations = [
            *request.grid.violations(self._datasets.sources),
            *within("options", request.options.violations()),
        ]
        if request.median_stopping is not None:
            violations += within("median_stopping", request.median_stopping.violations())
        if points > self._max_queued_jobs:
            text = f"make {points:,} jobs, and no more than {self._max_queued_jobs:,} may wait here"
            violations.append(Violation(field="axes", description=text))
        if not violations:
            specs = map(request.grid.spec_at, request.grid.points())
            check_request(owner, request.options, specs, self._datasets)
        return points, violations

    async def _events(self, sweep_id: str, after_sequence: int) -> list[SweepEvent]:
        read = partial(
            self._threads.run,
            self._store.sweeps.events,
            sweep_id,
            after=after_sequence,
            limit=EVENTS_A_READ,
        )
        return await self._shared_events.get((sweep_id, after_sequence), read)

    async def _current(self, sweep_id: str) -> Sweep:
        sweep, _ = await self._shared_view(sweep_id)
        return sweep

    def _shared_view(self, sweep_id: str) -> Coroutine[Any, Any, tuple[Sweep, list[Job]]]:
        return self._shared_views.get(
            sweep_id, partial(self._threads.run, self._read_running, sweep_id)
        )

    def _read_running(self, sweep_id: str) -> tuple[Sweep, list[Job]]:
        """A sweep and its running jobs, in the order of its grid."""
        sweep = self._store.sweeps.get(sweep_id)
        running = self._store.jobs.find(states=[JobState.RUNNING], sweep_id=sweep_id)
        return sweep, running[::-1]

    async def _progress(self, sweep_id: str) -> SweepProgress:
        sweep, running = await self._shared_view(sweep_id)
        starting = Progress(phase="starting")
        return SweepProgress(
            sweep=sweep,
            running=tuple(
                (job, self._notifier.progress(job.job_id) or starting) for job in running
            ),
        )


def _is_last(event: SweepEvent) -> bool:
    return isinstance(event.body, SweepFinished)

"""The use cases of jobs: submit, watch, list, pause, resume, cancel, delete."""

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from leadline.models.cost import training_work
from leadline.models.spec import TrainingSpec
from leadline.server.access.quotas import Owner, refused
from leadline.server.datasets import KnownDatasets
from leadline.server.errors import InvalidArgumentError
from leadline.server.identity import Identity
from leadline.server.jobs.job import Event, Finished, Hold, Job, Paused, Progress
from leadline.server.jobs.options import JobOptions, Retention
from leadline.server.jobs.states import JobState
from leadline.server.jobs.validation import spec_violations
from leadline.server.services.large_reads import in_slices
from leadline.server.services.lifecycle import Lifecycle, new_id, within
from leadline.server.services.watching import (
    EVENTS_A_READ,
    SHARED_EVENTS,
    SHARED_VIEWS,
    EventSource,
)
from leadline.server.storage.shared_reads import SharedReads
from leadline.server.storage.store import Store

R = TypeVar("R")

# How many jobs a listing reads in one query.
_JOBS_A_SLICE = 100


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job and, if it is queued, how many jobs will start before it, and why it is held."""

    job: Job
    queue_position: int = 0
    hold: Hold | None = None


@dataclass(frozen=True, kw_only=True)
class ProgressView:
    """A job's transient progress; views of the same progress are equal.

    `seconds_left` estimates the remaining running time from the last epoch; it
    is None before the first epoch is complete.
    """

    job: Job = field(compare=False)
    progress: Progress
    queue_position: int = field(default=0, compare=False)
    hold: Hold | None = None
    seconds_left: float | None = field(default=None, compare=False)


class JobService:
    """The use cases of jobs."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        store: Store,
        datasets: KnownDatasets,
        max_queued_jobs: int,
        default_retention: Retention,
    ) -> None:
        self._lifecycle = lifecycle
        self._threads = lifecycle.threads
        self._notifier = lifecycle.notifier
        self._store = store
        self._datasets = datasets
        self._max_queued_jobs = max_queued_jobs
        self._shared_views = SharedReads(store, size=SHARED_VIEWS)
        self._shared_events = SharedReads(store, size=SHARED_EVENTS)
        self.default_retention = default_retention

    async def submit(
        self,
        spec: TrainingSpec,
        options: JobOptions,
        *,
        request_id: str | None,
        identity: Identity,
    ) -> Job:
        """Accepts a job, or returns the caller's job that already has this `request_id`.

        Raises:
            InvalidArgumentError: the spec or the options are invalid; names the fields.
            AlreadyExistsError: `request_id` belongs to a job of another spec or
                other options.
            ResourceExhaustedError: the queue is full, or a quota is used up.
            UnavailableError: the server shuts down.
        """
        violations = [
            *within("spec", spec_violations(spec, self._datasets.sources)),
            *within("options", options.violations()),
        ]
        if violations:
            raise InvalidArgumentError(violations, reason="INVALID_TRAINING_SPEC")
        self._lifecycle.check_accepting()
        owner = self._lifecycle.quotas().owner(identity)
        check_request(owner, options, [spec], self._datasets)
        create = partial(
            self._store.jobs.create,
            spec,
            options,
            job_id=new_id(),
            request_id=request_id,
            max_queued=self._max_queued_jobs,
            owner=owner,
        )
        return await self._lifecycle.write(create, then=self._schedule_new)

    async def get(self, job_id: str) -> JobView:
        """The job's current state.

        Raises:
            NotFoundError: there is no such job.
        """
        return await self._threads.run(self._read, job_id)

    async def list_jobs(
        self,
        use: Callable[[Iterable[JobView]], R],
        *,
        states: Collection[JobState],
        sweep_id: str | None = None,
        owner: str | None = None,
        before: int | None,
        limit: int,
        caller: str,
    ) -> R:
        """Lists jobs, the newest first.

        Args:
            use: builds the result from the jobs, in a thread; reads them lazily.
            states: only jobs in these states; empty for any.
            sweep_id: only jobs of this sweep; None for all jobs.
            owner: only jobs of this owner; None for all jobs.
            before: only jobs with a lower number; None for no bound.
            limit: the most jobs that `use` takes.
            caller: identifies the caller; callers take turns.

        Raises:
            NotFoundError: there is no such sweep.
            ResourceExhaustedError: too many large reads wait.
        """
        if sweep_id is not None:
            await self._threads.run(self._store.sweeps.get, sweep_id)
        jobs = in_slices(
            partial(self._find, states, sweep_id, owner),
            lambda view: view.job.number,
            before=before,
            size=min(limit, _JOBS_A_SLICE),
        )
        return await self._lifecycle.large_reads.run(caller, use, jobs)

    async def cancel(self, job_id: str, identity: Identity) -> JobView:
        """Cancels a job, even within an epoch, and returns it in its final state.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: it belongs to another identity.
            FailedPreconditionError: the job has succeeded or failed.
        """
        await self._check_owner(job_id, identity)
        cancel = partial(self._store.jobs.cancel, job_id)
        return await self._lifecycle.write(cancel, then=self._end_worker)

    async def pause(self, job_id: str, identity: Identity) -> JobView:
        """Pauses a job, even within an epoch, and returns it.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: it belongs to another identity.
            FailedPreconditionError: the job is in a final state.
        """
        await self._check_owner(job_id, identity)
        pause = Paused(reason="REQUESTED", message="a caller paused it: resume it to go on")
        write = partial(self._store.jobs.pause, job_id, pause)
        return await self._lifecycle.write(write, then=self._end_worker)

    async def resume(self, job_id: str, identity: Identity) -> JobView:
        """Queues a paused job again and returns it.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: it belongs to another identity.
            FailedPreconditionError: the job is in a final state.
            ResourceExhaustedError: the quotas of its owner are used up.
        """
        await self._check_owner(job_id, identity)
        resume = partial(self._store.jobs.resume, job_id, self._lifecycle.owner_named)
        return await self._lifecycle.write(resume, then=self._schedule_again)

    async def delete(self, job_id: str, identity: Identity) -> None:
        """Deletes a job in its final state, and all files of its model.

        Raises:
            NotFoundError: there is no such job.
            PermissionDeniedError: it belongs to another identity.
            FailedPreconditionError: the job is not in a final state, or is a
                part of a sweep.
        """
        await self._check_owner(job_id, identity)
        await self._lifecycle.delete(partial(self._store.jobs.delete, job_id), sweep_id=None)

    def watch(
        self, job_id: str, *, after_sequence: int, progress_interval: float | None
    ) -> AsyncIterator[Event | ProgressView]:
        """Yields events, and progress in between: see `Lifecycle.watch`."""
        source = EventSource(
            key=job_id,
            name=f"jobs/{job_id}",
            current=partial(self._current, job_id),
            events=partial(self._events, job_id),
            is_last=_is_last,
            progress=partial(self._progress, job_id),
        )
        return self._lifecycle.watch(
            source, after_sequence=after_sequence, progress_interval=progress_interval
        )

    async def _check_owner(self, job_id: str, identity: Identity) -> None:
        await self._lifecycle.check_owner(identity, f"jobs/{job_id}", self._store.jobs.owner)

    async def _events(self, job_id: str, after_sequence: int) -> list[Event]:
        recent = self._notifier.latest(job_id, after=after_sequence)
        if recent is not None:
            return recent
        read = partial(
            self._threads.run,
            self._store.jobs.events,
            job_id,
            after=after_sequence,
            limit=EVENTS_A_READ,
        )
        return await self._shared_events.get((job_id, after_sequence), read)

    async def _current(self, job_id: str) -> Job:
        return (await self._shared_view(job_id)).job

    def _shared_view(self, job_id: str) -> Coroutine[Any, Any, JobView]:
        return self._shared_views.get(job_id, partial(self.get, job_id))

    async def _progress(self, job_id: str) -> ProgressView:
        view = await self._shared_view(job_id)
        job = view.job
        phase = "starting" if job.state is JobState.RUNNING else job.state.value
        progress = self._notifier.progress(job_id) or Progress(phase=phase)
        return ProgressView(
            job=job,
            progress=progress,
            queue_position=view.queue_position,
            hold=self._hold(job),  # the shared view has none: the store does not know holds
            seconds_left=seconds_left(job, progress),
        )

    async def _schedule_new(self, accepted: tuple[Job, bool]) -> Job:
        job, is_new = accepted
        if is_new:
            self._lifecycle.schedule([job.job_id])
        return job

    async def _schedule_again(self, job: Job) -> JobView:
        self._lifecycle.schedule([job.job_id], sweep_id=job.sweep_id)
        (view,) = await self._threads.run(self._views, [job])
        return view

    async def _end_worker(self, job: Job) -> JobView:
        await self._lifecycle.end_workers([job.job_id], sweep_id=job.sweep_id)
        return JobView(job=job)

    def _read(self, job_id: str) -> JobView:
        (view,) = self._views([self._store.jobs.get(job_id)])
        return view

    def _find(
        self,
        states: Collection[JobState],
        sweep_id: str | None,
        owner: str | None,
        *,
        before: int | None,
        limit: int,
    ) -> list[JobView]:
        return self._views(
            self._store.jobs.find(
                states=states, sweep_id=sweep_id, owner=owner, before=before, limit=limit
            )
        )

    def _views(self, jobs: Collection[Job]) -> list[JobView]:
        queued = [job.job_id for job in jobs if job.state is JobState.QUEUED]
        positions = self._store.jobs.queue_positions(queued) if queued else {}
        return [
            JobView(
                job=job,
                queue_position=positions.get(job.job_id, 0),
                hold=self._hold(job),
            )
            for job in jobs
        ]

    def _hold(self, job: Job) -> Hold | None:
        """Why a queued job does not start although a device may be free."""
        return self._notifier.hold if job.state is JobState.QUEUED else None


def check_request(
    owner: Owner, options: JobOptions, specs: Iterable[TrainingSpec], datasets: KnownDatasets
) -> None:
    """Checks the limits of an owner that concern single jobs.

    Raises:
        ResourceExhaustedError: the priority is too high, or a job too much work.
    """
    limits = owner.limits
    if limits.priority is not None and options.priority > limits.priority:
        raise refused(
            "priority",
            limits.priority,
            options.priority,
            who=owner.name,
            advice="use a lower priority, or ask an admin",
        )
    if limits.job_work is None:
        return
    work = max(training_work(spec, **datasets.size(spec.dataset)._asdict()) for spec in specs)
    if work > limits.job_work:
        raise refused(
            "job_work",
            limits.job_work,
            work,
            who=owner.name,
            advice="train fewer epochs or a shallower network, or ask an admin",
        )


def seconds_left(job: Job, progress: Progress) -> float | None:
    """Estimates the remaining seconds from the last epoch; None before the first is complete."""
    if job.latest_epoch is None:
        return None
    epochs = float(job.spec.epochs - job.completed_epochs)
    if progress.phase == "training" and progress.total_images:
        epochs -= progress.completed_images / progress.total_images
    return max(0.0, epochs * job.latest_epoch.seconds)


def _is_last(event: Event) -> bool:
    return isinstance(event.body, Finished)

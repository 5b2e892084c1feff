"""What callers can ask of jobs: submit, follow, list, pause, resume, cancel, delete."""

import secrets
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

from leadline.models.spec import TrainingSpec, Violation
from leadline.server.errors import InvalidArgumentError, ServiceError, UnavailableError
from leadline.server.jobs.job import Event, Finished, Job, Paused, Progress
from leadline.server.jobs.options import JobOptions, Retention
from leadline.server.jobs.states import JobState
from leadline.server.jobs.validation import spec_violations
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.scheduler import Scheduler
from leadline.server.services.watching import EVENTS_A_READ, follow, is_at_end
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool

# Letters and digits that are not mistaken for one another, and no vowels, so
# that an id spells no word.
_ID_ALPHABET = "0123456789bcdfghjkmnpqrstvwxyz"
_ID_LENGTH = 10


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job and how many jobs will start before it, if it is queued."""

    job: Job
    queue_position: int = 0


@dataclass(frozen=True, kw_only=True)
class ProgressView:
    """A job's transient progress at this moment; views of the same progress are equal.

    `seconds_left` is how long it still takes once it runs, by its last epoch;
    None before its first is complete.
    """

    job: Job = field(compare=False)
    progress: Progress
    queue_position: int = field(default=0, compare=False)
    seconds_left: float | None = field(default=None, compare=False)


class JobService:
    """Jobs as their callers see them."""

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
        default_retention: Retention,
        keepalive_seconds: float,
    ) -> None:
        self._store = store
        self._threads = threads
        self._notifier = notifier
        self._scheduler = scheduler
        self._datasets = datasets
        self._max_queued_jobs = max_queued_jobs
        self.default_retention = default_retention
        self._keepalive_seconds = keepalive_seconds
        self._artifacts = artifacts

    async def submit(
        self, spec: TrainingSpec, options: JobOptions, *, request_id: str | None
    ) -> Job:
        """Accepts a job, or returns the one that `request_id` stands for.

        Raises:
            InvalidArgumentError: the spec or the options are wrong, field by field.
            AlreadyExistsError: `request_id` stands for a job of another spec or
                other options.
            ResourceExhaustedError: the queue is full.
            UnavailableError: the server shuts down.
        """
        if violations := self._violations(spec, options):
            raise InvalidArgumentError(violations, reason="INVALID_TRAINING_SPEC")
        if self._notifier.is_closed:
            raise UnavailableError("the server shuts down: submit again after its restart")
        job, is_new = await self._threads.run(
            self._store.jobs.create,
            spec,
            options,
            job_id=new_id(),
            request_id=request_id,
            max_queued=self._max_queued_jobs,
        )
        if is_new:
            self._notifier.notify(job.job_id)
            self._scheduler.wake()
        return job

    async def get(self, job_id: str) -> JobView:
        """The job as it stands.

        Raises:
            NotFoundError: there is no such job.
        """
        return await self._view(await self._threads.run(self._store.jobs.get, job_id))

    async def list_jobs(
        self,
        *,
        states: Collection[JobState],
        sweep_id: str | None = None,
        before: int | None,
        limit: int,
    ) -> list[JobView]:
        """Jobs in `states` (empty: any), of a sweep, numbered below `before`, newest first.

        Raises:
            NotFoundError: there is no such sweep.
        """
        if sweep_id is not None:
            await self._threads.run(self._store.sweeps.get, sweep_id)
        jobs = await self._threads.run(
            self._store.jobs.find, states=states, sweep_id=sweep_id, before=before, limit=limit
        )
        return await self._views(jobs)

    async def cancel(self, job_id: str) -> JobView:
        """Cancels a job, mid-epoch too, and returns it in its final state.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job has succeeded or failed.
        """
        return await self._end_worker_after(
            job_id, await self._threads.run(self._store.jobs.cancel, job_id)
        )

    async def pause(self, job_id: str) -> JobView:
        """Sets a job aside, mid-epoch too, and returns it.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job is in a final state.
        """
        pause = Paused(reason="REQUESTED", message="a caller paused it: resume it to go on")
        return await self._end_worker_after(
            job_id, await self._threads.run(self._store.jobs.pause, job_id, pause)
        )

    async def resume(self, job_id: str) -> JobView:
        """Queues a paused job again and returns it.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job is in a final state.
        """
        job = await self._threads.run(self._store.jobs.resume, job_id)
        self._notifier.notify(job_id, job.sweep_id)
        self._scheduler.wake()
        return await self._view(job)

    async def delete(self, job_id: str) -> None:
        """Deletes a job in its final state, and all files of its model.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job is not in a final state, or is a
                part of a sweep.
        """
        await self._threads.run(self._delete, job_id)
        self._notifier.forget(job_id)

    def _delete(self, job_id: str) -> None:
        # In this order a crash in between is finished, or undone, by the next start.
        self._artifacts.mark_deleted(job_id)
        try:
            self._store.jobs.delete(job_id)
        except ServiceError:
            self._artifacts.unmark_deleted(job_id)
            raise
        self._artifacts.remove(job_id)

    async def _end_worker_after(self, job_id: str, job: Job) -> JobView:
        """Ends the worker of a job that it no longer holds.

        The decision was durable before, and fences off whatever the worker
        still reports.
        """
        self._notifier.notify(job_id, job.sweep_id)
        await self._scheduler.end_worker(job_id)
        return JobView(job=job)

    async def watch(
        self, job_id: str, *, after_sequence: int, progress_interval: float | None
    ) -> AsyncIterator[Event | ProgressView]:
        """Yields the events after `after_sequence`, each once, until the last.

        While there is none it yields the job's progress: each
        `progress_interval` seconds if it has changed, and in any case often
        enough for no proxy to take the stream for dead.

        Raises:
            NotFoundError: there is no such job.
            InvalidArgumentError: `after_sequence` is beyond the newest event.
            UnavailableError: the server shuts down before the last event.
        """
        job = await self._threads.run(self._store.jobs.get, job_id)
        if is_at_end(after_sequence, job.latest_sequence, is_final=job.state.is_final):
            return
        news = follow(
            self._notifier,
            _WatchedJob(job_id, self, self._store, self._threads, self._notifier),
            after_sequence=after_sequence,
            progress_interval=progress_interval,
            keepalive_seconds=self._keepalive_seconds,
        )
        async for one in news:
            yield one

    async def _view(self, job: Job) -> JobView:
        (view,) = await self._views([job])
        return view

    async def _views(self, jobs: Collection[Job]) -> list[JobView]:
        queued = [job.job_id for job in jobs if job.state is JobState.QUEUED]
        positions = {}
        if queued:
            positions = await self._threads.run(self._store.jobs.queue_positions, queued)
        return [JobView(job=job, queue_position=positions.get(job.job_id, 0)) for job in jobs]

    def _violations(self, spec: TrainingSpec, options: JobOptions) -> list[Violation]:
        found = spec_violations(spec, self._datasets)
        return [*within("spec", found), *within("options", options.violations())]


class _WatchedJob:
    """A job that is followed."""

    def __init__(
        self,
        job_id: str,
        jobs: JobService,
        store: Store,
        threads: ThreadPool,
        notifier: JobNotifier,
    ) -> None:
        self.key = job_id
        self.name = f"jobs/{job_id}"
        self._jobs = jobs
        self._store = store
        self._threads = threads
        self._notifier = notifier

    async def events(self, after_sequence: int) -> list[Event]:
        at_hand = self._notifier.latest(self.key, after=after_sequence)
        if at_hand is not None:
            return at_hand
        return await self._threads.run(
            self._store.jobs.events, self.key, after=after_sequence, limit=EVENTS_A_READ
        )

    def is_last(self, event: Event) -> bool:
        return isinstance(event.body, Finished)

    async def progress(self) -> ProgressView:
        view = await self._jobs.get(self.key)
        job = view.job
        phase = "starting" if job.state is JobState.RUNNING else job.state.value
        progress = self._notifier.progress(self.key) or Progress(phase=phase)
        return ProgressView(
            job=job,
            progress=progress,
            queue_position=view.queue_position,
            seconds_left=seconds_left(job, progress),
        )


def within(message: str, violations: list[Violation]) -> list[Violation]:
    """The violations of a message's fields, as those of the request that holds it."""
    return [
        Violation(field=f"{message}.{one.field}", description=one.description) for one in violations
    ]


def seconds_left(job: Job, progress: Progress) -> float | None:
    """How long a job still takes, by its last epoch; None before its first is complete."""
    if job.latest_epoch is None:
        return None
    epochs = float(job.spec.epochs - job.completed_epochs)
    if progress.phase == "training" and progress.total_images:
        epochs -= progress.completed_images / progress.total_images
    return max(0.0, epochs * job.latest_epoch.seconds)


def new_id() -> str:
    """An id of a job or a sweep."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))

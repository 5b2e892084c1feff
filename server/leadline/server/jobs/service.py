"""What callers can ask of jobs: submit, get, list, watch, cancel."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

from leadline.models.spec import TrainingSpec, Violation
from leadline.server.errors import InvalidArgumentError, UnavailableError
from leadline.server.jobs.feed import JobFeed
from leadline.server.jobs.job import Event, Finished, Job, Progress
from leadline.server.jobs.scheduler import Scheduler
from leadline.server.jobs.states import JobState
from leadline.server.jobs.store import JobStore
from leadline.server.threads import Threads

# Letters and digits that are not mistaken for one another, and no vowels, so
# that an id spells no word.
_ID_ALPHABET = "0123456789bcdfghjkmnpqrstvwxyz"
_ID_LENGTH = 10

_EVENTS_A_READ = 200


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job and how many jobs will start before it, if it is queued."""

    job: Job
    queue_position: int = 0


@dataclass(frozen=True, kw_only=True)
class ProgressView:
    """A job's transient progress at this moment."""

    job: Job
    progress: Progress
    queue_position: int = 0


class JobService:
    """Jobs as their callers see them."""

    def __init__(
        self,
        *,
        store: JobStore,
        threads: Threads,
        feed: JobFeed,
        scheduler: Scheduler,
        datasets: Collection[str],
        max_queued_jobs: int,
    ) -> None:
        self._store = store
        self._threads = threads
        self._feed = feed
        self._scheduler = scheduler
        self._datasets = datasets
        self._max_queued_jobs = max_queued_jobs

    async def submit(self, spec: TrainingSpec, *, request_id: str | None) -> Job:
        """Accepts a job, or returns the one that `request_id` stands for.

        Raises:
            InvalidArgumentError: the spec is wrong, field by field.
            AlreadyExistsError: `request_id` stands for a job of another spec.
            ResourceExhaustedError: the queue is full.
        """
        if violations := self._violations(spec):
            raise InvalidArgumentError(violations, reason="INVALID_TRAINING_SPEC")
        if self._feed.is_closed:
            raise UnavailableError("the server shuts down: submit again after its restart")
        job, is_new = await self._threads.run(
            self._store.create,
            spec,
            job_id=_new_job_id(),
            request_id=request_id,
            max_queued=self._max_queued_jobs,
        )
        if is_new:
            self._scheduler.wake()
        return job

    async def get(self, job_id: str) -> JobView:
        """The job as it stands.

        Raises:
            NotFoundError: there is no such job.
        """
        return await self._view(await self._threads.run(self._store.get, job_id))

    async def list_jobs(
        self, *, states: Collection[JobState], before: int | None, limit: int
    ) -> list[JobView]:
        """Jobs in `states` (empty: any) numbered below `before`, newest first."""
        jobs = await self._threads.run(
            self._store.list_jobs, states=states, before=before, limit=limit
        )
        return [await self._view(job) for job in jobs]

    async def cancel(self, job_id: str) -> JobView:
        """Cancels a job, mid-epoch too, and returns it in its final state.

        The decision is durable before the worker is ended, and fences off
        whatever the worker still reports.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: the job has succeeded or failed.
        """
        job = await self._threads.run(self._store.get, job_id)
        if job.state is not JobState.CANCELLED:
            job = await self._threads.run(self._store.finish, job_id, JobState.CANCELLED)
            self._feed.notify(job_id)
            await self._scheduler.end_worker(job_id)
        return JobView(job=job)

    async def watch(
        self, job_id: str, *, after_sequence: int, progress_interval: float | None
    ) -> AsyncIterator[Event | ProgressView]:
        """Yields the events after `after_sequence`, each once, until the last.

        With `progress_interval` (seconds), it also yields the job's progress at
        most that often while there is no event.

        Raises:
            NotFoundError: there is no such job.
            InvalidArgumentError: `after_sequence` is beyond the newest event.
            UnavailableError: the server shuts down before the last event.
        """
        job = await self._threads.run(self._store.get, job_id)
        if after_sequence > job.latest_sequence:
            raise InvalidArgumentError.of(
                "after_sequence",
                f"is {after_sequence}, but the newest event is {job.latest_sequence}",
            )
        if job.state.is_final and after_sequence == job.latest_sequence:
            return
        shown: Progress | None = None
        while True:
            change = self._feed.change(job_id)
            events = await self._threads.run(
                self._store.events, job_id, after=after_sequence, limit=_EVENTS_A_READ
            )
            for event in events:
                yield event
                after_sequence = event.sequence
                if isinstance(event.body, Finished):
                    return
            if events:
                continue
            if self._feed.is_closed:
                raise UnavailableError(
                    f"the server shuts down: watch jobs/{job_id} again after its restart, "
                    f"from after_sequence {after_sequence}"
                )
            if await _is_set_within(change, progress_interval):
                continue
            view = await self._progress(job_id)
            if view.progress != shown:
                yield view
                shown = view.progress

    async def _progress(self, job_id: str) -> ProgressView:
        view = await self.get(job_id)
        progress = self._feed.progress(job_id) or Progress(phase=view.job.state.value)
        return ProgressView(job=view.job, progress=progress, queue_position=view.queue_position)

    async def _view(self, job: Job) -> JobView:
        if job.state is not JobState.QUEUED:
            return JobView(job=job)
        position = await self._threads.run(self._store.queue_position, job)
        return JobView(job=job, queue_position=position)

    def _violations(self, spec: TrainingSpec) -> list[Violation]:
        found = spec.violations()
        known = not any(violation.field == "dataset" for violation in found)
        if known and spec.dataset not in self._datasets:
            names = ", ".join(sorted(self._datasets))
            found.append(
                Violation(
                    field="dataset",
                    description=f"{spec.dataset!r} is not known to this server, which has {names}",
                )
            )
        return [Violation(field=f"spec.{one.field}", description=one.description) for one in found]


async def _is_set_within(change: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await change.wait()
    except TimeoutError:
        return False
    return True


def _new_job_id() -> str:
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))

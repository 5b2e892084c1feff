"""The activity of the whole server: the newest jobs and sweeps, the queue, the best models."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from leadline.server.jobs.job import Event, Hold, Job
from leadline.server.jobs.states import JobState
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.services.watching import EVENTS_A_READ
from leadline.server.storage.store import Store
from leadline.server.sweeps.sweep import Sweep
from leadline.server.thread_pool import ThreadPool

# As many as fit on the page; the command line lists the rest.
NEWEST_JOBS = 100
WAITING_JOBS = 100
BEST_MODELS = 60
NEWEST_SWEEPS = 20


@dataclass(frozen=True, kw_only=True)
class Activity:
    """The server's activity.

    Attributes:
        jobs: the newest, the running and the first queued jobs by id, the newest first.
        queue: the ids of queued jobs, in the order in which they will start.
        counts: how many of all jobs are in each state.
        most_accurate: the jobs of the most accurate models.
        sweeps: the newest sweeps.
        hold: why queued jobs do not start; None without a hold.
    """

    jobs: Mapping[str, Job] = field(default_factory=dict)
    queue: tuple[str, ...] = ()
    counts: Mapping[JobState, int] = field(default_factory=dict)
    most_accurate: tuple[Job, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    hold: Hold | None = None


class ActivityService:
    """Reads the server's activity."""

    def __init__(self, *, store: Store, threads: ThreadPool, notifier: JobNotifier) -> None:
        self._store = store
        self._threads = threads
        self._notifier = notifier

    async def read(self) -> Activity:
        """The current activity.

        Raises:
            StorageError: the database cannot be read.
        """
        return await self._threads.run(self._read)

    async def events(self, job: Job, *, after: int) -> list[Event]:
        """The events of a job after the sequence `after`, up to the job's newest.

        Raises:
            StorageError: the database cannot be read.
        """
        recent = self._notifier.latest(job.job_id, after=after)
        if recent is None:
            return await self._threads.run(
                self._store.jobs.events, job.job_id, after=after, limit=EVENTS_A_READ
            )
        return [event for event in recent if event.sequence <= job.latest_sequence]

    def _read(self) -> Activity:
        running = self._store.jobs.find(states=[JobState.RUNNING])
        waiting = self._store.jobs.find_queued(limit=WAITING_JOBS)
        newest = self._store.jobs.find(limit=NEWEST_JOBS)
        jobs = {job.job_id: job for job in (*running, *waiting, *newest)}
        return Activity(
            jobs=dict(sorted(jobs.items(), key=lambda item: -item[1].number)),
            queue=tuple(job.job_id for job in waiting),
            counts=self._store.jobs.count_by_state(),
            most_accurate=tuple(self._store.models.find_most_accurate_jobs(limit=BEST_MODELS)),
            sweeps=tuple(self._store.sweeps.find(limit=NEWEST_SWEEPS)),
            hold=self._notifier.hold,
        )

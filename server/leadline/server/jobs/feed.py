"""How watchers of a job learn that it has news.

Watchers pull: a notice only wakes them, and each reads from the store what it
has not seen. So a slow watcher holds nothing but its own place, and nothing is
queued for anyone.
"""

import asyncio

from leadline.server.jobs.job import Progress


class JobFeed:
    """Notices of changes, and the latest transient progress, by job id."""

    def __init__(self) -> None:
        self._changes: dict[str, asyncio.Event] = {}
        self._progress: dict[str, Progress] = {}
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the server shuts down, and watchers must leave."""
        return self._closed

    def change(self, job_id: str) -> asyncio.Event:
        """The event that the job's next news will set.

        Ask before reading the store: news in between then sets it.
        """
        if self._closed:
            closed = asyncio.Event()
            closed.set()
            return closed
        return self._changes.setdefault(job_id, asyncio.Event())

    def notify(self, job_id: str) -> None:
        """Wakes all who wait for the job's next news."""
        if change := self._changes.pop(job_id, None):
            change.set()

    def progress(self, job_id: str) -> Progress | None:
        """The latest progress of the job's present worker."""
        return self._progress.get(job_id)

    def set_progress(self, job_id: str, progress: Progress | None) -> None:
        """Replaces the latest progress; None where no worker has the job."""
        if progress is None:
            self._progress.pop(job_id, None)
        else:
            self._progress[job_id] = progress

    def close(self) -> None:
        """Wakes everyone for good."""
        self._closed = True
        for job_id in list(self._changes):
            self.notify(job_id)

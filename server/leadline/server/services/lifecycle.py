"""What the use cases of jobs and sweeps share: submission, control, deletion, watching."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass

from leadline.models.spec import Violation
from leadline.server.errors import ServiceError, UnavailableError
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.scheduler import Scheduler
from leadline.server.services.watching import AnyEvent, EventSource, View, follow, is_at_end
from leadline.server.storage.artifacts import Artifacts
from leadline.server.thread_pool import ThreadPool

# No characters that look alike, and no vowels, so that an id spells no word.
_ID_ALPHABET = "0123456789bcdfghjkmnpqrstvwxyz"
_ID_LENGTH = 10


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """Carries out what follows from a committed change of jobs.

    Attributes:
        threads: where blocking calls run.
        notifier: wakes watchers.
        scheduler: starts and ends workers.
        artifacts: the files of models.
        keepalive_seconds: the longest silence of a watched stream.
    """

    threads: ThreadPool
    notifier: JobNotifier
    scheduler: Scheduler
    artifacts: Artifacts
    keepalive_seconds: float

    def check_accepting(self) -> None:
        """Raises UnavailableError if the server shuts down."""
        if self.notifier.is_closed:
            raise UnavailableError("the server shuts down: submit again after its restart")

    def schedule(self, ids: Iterable[str], *, sweep_id: str | None = None) -> None:
        """Notifies the watchers of queued jobs or sweeps, and wakes the scheduler."""
        self._notify(ids, sweep_id)
        self.scheduler.wake()

    async def end_workers(self, job_ids: Collection[str], *, sweep_id: str | None) -> None:
        """Ends the workers of jobs that were cancelled or paused.

        The decision is durable already: it fences off reports that workers still send.
        """
        self._notify(job_ids, sweep_id)
        await asyncio.gather(*(self.scheduler.end_worker(job_id) for job_id in job_ids))

    async def delete(
        self, job_ids: Collection[str], delete_rows: Callable[[], None], *, sweep_id: str | None
    ) -> None:
        """Deletes jobs, with the files of their models.

        Args:
            job_ids: which jobs.
            delete_rows: deletes them, and their sweep, from the database; blocks.
            sweep_id: the sweep that they are a part of, if any.

        Raises:
            ServiceError: from `delete_rows`; the files are kept.
        """
        await self.threads.run(self._delete, job_ids, delete_rows)
        for job_id in job_ids:
            self.notifier.forget(job_id, sweep_id)

    async def watch(
        self,
        source: EventSource[AnyEvent, View],
        *,
        after_sequence: int,
        progress_interval: float | None,
    ) -> AsyncIterator[AnyEvent | View]:
        """Yields the events after `after_sequence`, each once, until the last.

        In between it yields the progress: every `progress_interval` seconds if it
        has changed, and often enough to keep the stream alive.

        Raises:
            NotFoundError: there is no such job or sweep.
            InvalidArgumentError: `after_sequence` is beyond the newest event.
            UnavailableError: the server shuts down before the last event.
        """
        current = await source.current()
        is_final = current.state.is_final
        if is_at_end(after_sequence, current.latest_sequence, is_final=is_final):
            return
        events = follow(
            self.notifier,
            source,
            after_sequence=after_sequence,
            progress_interval=progress_interval,
            keepalive_seconds=self.keepalive_seconds,
        )
        async for event in events:
            yield event

    def _delete(self, job_ids: Collection[str], delete_rows: Callable[[], None]) -> None:
        # In this order the next start finishes or undoes what a crash interrupts.
        for job_id in job_ids:
            self.artifacts.mark_deleted(job_id)
        try:
            delete_rows()
        except ServiceError:
            for job_id in job_ids:
                self.artifacts.unmark_deleted(job_id)
            raise
        for job_id in job_ids:
            self.artifacts.remove(job_id)

    def _notify(self, ids: Iterable[str], sweep_id: str | None) -> None:
        for resource_id in ids:
            self.notifier.notify(resource_id, sweep_id)


def within(message: str, violations: Iterable[Violation]) -> list[Violation]:
    """Prefixes violations of a message's fields with the field that holds the message."""
    return [
        Violation(field=f"{message}.{violation.field}", description=violation.description)
        for violation in violations
    ]


def new_id() -> str:
    """A random id of a job or a sweep."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))

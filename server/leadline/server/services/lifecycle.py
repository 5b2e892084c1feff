"""What the use cases of jobs and sweeps share: submission, control, deletion, watching."""

import asyncio
import secrets
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from typing import TypeVar

from leadline.models.spec import Violation
from leadline.server.errors import StorageError, UnavailableError
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.scheduler import Scheduler
from leadline.server.services.large_reads import ReadLane
from leadline.server.services.watching import AnyEvent, EventSource, View, follow, is_at_end
from leadline.server.storage.artifacts import Artifacts
from leadline.server.thread_pool import ThreadPool

R = TypeVar("R")
T = TypeVar("T")

# With a hundred epochs each, their events take some ten milliseconds to remove.
_JOBS_A_PURGE = 20

# No characters that look alike, and no vowels, so that an id spells no word.
_ID_ALPHABET = "0123456789bcdfghjkmnpqrstvwxyz"
_ID_LENGTH = 10


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """Carries out what follows from a committed change of jobs.

    Attributes:
        threads: where short reads of the store run.
        writes: where writes to the store run.
        removals: where files are removed.
        large_reads: where listings and sweeps with their jobs are read.
        notifier: wakes watchers.
        scheduler: starts and ends workers.
        artifacts: the files of models.
        purge: removes the events of deleted jobs; other writes wait for it.
        keepalive_seconds: the longest silence of a watched stream.
    """

    threads: ThreadPool
    writes: ThreadPool
    removals: ThreadPool
    large_reads: ReadLane
    notifier: JobNotifier
    scheduler: Scheduler
    artifacts: Artifacts
    purge: Callable[[Collection[str]], None]
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

    async def write(self, call: Callable[[], R], *, then: Callable[[R], Awaitable[T]]) -> T:
        """Writes to the store, and does what follows from it.

        If the caller leaves, a write that has not begun is never made. One that has
        is completed, with all that follows: otherwise a job could be accepted, and
        the scheduler not know of it.

        Args:
            call: the write; blocks.
            then: what follows from its result; makes the result.
        """
        begun = self.writes.start(call)

        async def complete() -> T:
            return await then(await asyncio.wrap_future(begun.future))

        task = asyncio.create_task(complete())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            begun.future.cancel()
            raise

    async def delete(
        self,
        delete_rows: Callable[[], Sequence[str]],
        *,
        sweep_id: str | None,
    ) -> None:
        """Deletes jobs, with the files of their models.

        Of deletions that race, only the one that deletes the rows touches the files. The
        next start finishes what a crash interrupts.

        Args:
            delete_rows: deletes them, and their sweep, from the database, and returns
                their ids; blocks.
            sweep_id: the sweep that they are a part of, if any.

        Raises:
            ServiceError: from `delete_rows`; the files are kept.
            StorageError: a file cannot be removed.
        """

        async def then(job_ids: Sequence[str]) -> None:
            for job_id in job_ids:
                self.notifier.forget(job_id, sweep_id)
            # A worker of a job that was cancelled just now may still write.
            await asyncio.gather(*(self.scheduler.end_worker(job_id) for job_id in job_ids))
            for batch in in_batches(job_ids):  # other writes take turns
                await self.removals.run(self._remove_files, batch)
                await self.writes.run(self.purge, batch)

        await self.write(delete_rows, then=then)

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

    def _remove_files(self, job_ids: Sequence[str]) -> None:
        try:
            for job_id in job_ids:
                self.artifacts.remove(job_id)
        except OSError as error:
            raise StorageError(
                f"the files of a model cannot be deleted: {error.strerror}; the next start of "
                "the server tries again",
                reason="STORAGE_FAULT",
            ) from error

    def _notify(self, ids: Iterable[str], sweep_id: str | None) -> None:
        for resource_id in ids:
            self.notifier.notify(resource_id, sweep_id)


def in_batches(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Deleted jobs, a few at a time: `purge` then takes some ten milliseconds."""
    for start in range(0, len(job_ids), _JOBS_A_PURGE):
        yield job_ids[start : start + _JOBS_A_PURGE]


def within(message: str, violations: Iterable[Violation]) -> list[Violation]:
    """Prefixes violations of a message's fields with the field that holds the message."""
    return [
        Violation(field=f"{message}.{violation.field}", description=violation.description)
        for violation in violations
    ]


def new_id() -> str:
    """A random id of a job or a sweep."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))

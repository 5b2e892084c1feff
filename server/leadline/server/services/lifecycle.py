"""The steps that jobs and sweeps share: submission, control, deletion, watching."""

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
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from leadline.models.spec import Violation
from leadline.server.errors import ServiceError, StorageError, UnavailableError
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.scheduler import Scheduler
from leadline.server.services.large_reads import ReadLane
from leadline.server.services.watching import AnyEvent, EventSource, View, follow, is_at_end
from leadline.server.storage.artifacts import Artifacts
from leadline.server.thread_pool import ThreadPool

R = TypeVar("R")
T = TypeVar("T")

# Without characters that look alike, and without vowels, so that ids spell no words.
_ID_ALPHABET = "0123456789bcdfghjkmnpqrstvwxyz"
_ID_LENGTH = 10


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """Performs the steps after a committed change of jobs.

    Attributes:
        threads: threads for short reads of the store.
        writes: threads for writes to the store.
        removals: threads that remove files.
        large_reads: the read lane for listings, and for sweeps with their jobs.
        notifier: wakes watchers.
        scheduler: starts and ends workers.
        artifacts: the files of models.
        purge: removes the events of a few deleted jobs; returns whether there may be more.
        keepalive_seconds: the longest silence of a watched stream.
    """

    threads: ThreadPool
    writes: ThreadPool
    removals: ThreadPool
    large_reads: ReadLane
    notifier: JobNotifier
    scheduler: Scheduler
    artifacts: Artifacts
    purge: Callable[[], bool]
    keepalive_seconds: float

    def check_accepting(self) -> None:
        """Raises UnavailableError if the server shuts down."""
        if self.notifier.is_closed:
            raise UnavailableError("the server shuts down: submit again after its restart")

    def schedule(self, ids: Iterable[str], *, sweep_id: str | None = None) -> None:
        """Wakes the watchers of queued jobs or sweeps, and the scheduler."""
        self._notify(ids, sweep_id)
        self.scheduler.wake()

    async def end_workers(self, job_ids: Collection[str], *, sweep_id: str | None) -> None:
        """Ends the workers of jobs that were cancelled or paused.

        The change is already durable, so it fences off later reports of the workers.
        """
        self._notify(job_ids, sweep_id)
        await asyncio.gather(*(self.scheduler.end_worker(job_id) for job_id in job_ids))

    async def write(self, call: Callable[[], R], *, then: Callable[[R], Awaitable[T]]) -> T:
        """Writes to the store, and runs the steps that must follow.

        If the caller leaves, a write that has not begun is never made. A write that has
        begun is completed, with its following steps: otherwise the store could accept a
        job that the scheduler does not know.

        Args:
            call: the write; blocks.
            then: the steps that follow; takes the write's result, returns the final result.
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
        delete_rows: Callable[[Callable[[str], None]], Sequence[str]],
        *,
        sweep_id: str | None,
    ) -> None:
        """Deletes jobs, with the files of their models.

        Args:
            delete_rows: deletes the jobs and their sweep from the database, and returns
                the jobs' ids; calls its argument with each id before it commits; blocks.
            sweep_id: the sweep that the jobs are part of, if any.

        Raises:
            ServiceError: from `delete_rows`; the files are kept.
            StorageError: a file cannot be written or removed.
        """

        async def then(job_ids: Sequence[str]) -> None:
            for job_id in job_ids:
                self.notifier.forget(job_id, sweep_id)
            # The worker of a job that was just cancelled may still write.
            await asyncio.gather(*(self.scheduler.end_worker(job_id) for job_id in job_ids))
            while await self.writes.run(self.purge):
                pass  # other writes may run in between
            await self.removals.run(self._remove_files, job_ids)

        await self.write(partial(self._delete_rows, delete_rows), then=then)

    async def watch(
        self,
        source: EventSource[AnyEvent, View],
        *,
        after_sequence: int,
        progress_interval: float | None,
    ) -> AsyncIterator[AnyEvent | View]:
        """Yields the events after `after_sequence`, each once, until the last.

        Also yields the progress: every `progress_interval` seconds if it has
        changed, and often enough to keep the stream alive.

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

    def _delete_rows(
        self, delete_rows: Callable[[Callable[[str], None]], Sequence[str]]
    ) -> Sequence[str]:
        # Marked within the transaction: among concurrent deletions, only the one that
        # deletes the rows touches the files. After a crash, the next start finishes or
        # undoes the deletion.
        marked: list[str] = []

        def mark(job_id: str) -> None:
            self.artifacts.mark_deleted(job_id)
            marked.append(job_id)

        try:
            with _translated_errors():
                return delete_rows(mark)
        except ServiceError:
            for job_id in marked:
                self.artifacts.unmark_deleted(job_id)
            raise

    def _remove_files(self, job_ids: Sequence[str]) -> None:
        with _translated_errors():
            for job_id in job_ids:
                self.artifacts.remove(job_id)

    def _notify(self, ids: Iterable[str], sweep_id: str | None) -> None:
        for resource_id in ids:
            self.notifier.notify(resource_id, sweep_id)


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the files of a model cannot be deleted: {error.strerror}; the next start of the "
            "server tries again",
            reason="STORAGE_FAULT",
        ) from error


def within(message: str, violations: Iterable[Violation]) -> list[Violation]:
    """Prefixes the fields of violations with the field that holds their message."""
    return [
        Violation(field=f"{message}.{violation.field}", description=violation.description)
        for violation in violations
    ]


def new_id() -> str:
    """Returns a random id for a job or a sweep."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))

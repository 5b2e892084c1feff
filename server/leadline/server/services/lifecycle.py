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
from dataclasses import dataclass
from typing import TypeVar

from leadline.models.spec import Violation
from leadline.server.access.quotas import Owner, Quotas
from leadline.server.errors import StorageError, UnavailableError
from leadline.server.identity import Identity, Role
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.scheduling.scheduler import Scheduler
from leadline.server.services.large_reads import ReadLane
from leadline.server.services.ownership import check_owner
from leadline.server.services.watching import AnyEvent, EventSource, View, follow, is_at_end
from leadline.server.storage.artifacts import Artifacts
from leadline.server.thread_pool import ThreadPool

R = TypeVar("R")
T = TypeVar("T")

# With a hundred epochs each, removing their events takes about ten milliseconds.
_JOBS_A_PURGE = 20

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
        purge: removes the events of deleted jobs; other writes wait for it.
        keepalive_seconds: the longest silence of a watched stream.
        quotas: returns the quotas in force.
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
    quotas: Callable[[], Quotas]

    async def check_owner(
        self, identity: Identity, name: str, read_owner: Callable[[str], str]
    ) -> None:
        """Checks that an identity may change a job or a sweep; owners never change.

        Args:
            identity: the caller.
            name: the resource, such as "jobs/ID".
            read_owner: reads the owner of an id from the store; blocks.

        Raises:
            NotFoundError: there is no such resource.
            PermissionDeniedError: it belongs to another identity.
        """
        if identity.name or identity.role is not Role.ADMIN:
            owner = await self.threads.run(read_owner, name.partition("/")[2])
            check_owner(identity, owner, name)

    def owner_named(self, name: str) -> Owner:
        """The owner of a stored job or sweep, with the limits in force."""
        return self.quotas().owner(Identity(name, Role.TRAINER))

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
        delete_rows: Callable[[], Sequence[str]],
        *,
        sweep_id: str | None,
    ) -> None:
        """Deletes jobs, with the files of their models.

        Among concurrent deletions, only the one that deletes the rows touches the files.
        After a crash, the next start finishes the deletion.

        Args:
            delete_rows: deletes the jobs and their sweep from the database, and returns
                the jobs' ids; blocks.
            sweep_id: the sweep that the jobs are part of, if any.

        Raises:
            ServiceError: from `delete_rows`; the files are kept.
            StorageError: a file cannot be removed.
        """

        async def then(job_ids: Sequence[str]) -> None:
            for job_id in job_ids:
                self.notifier.forget(job_id, sweep_id)
            # The worker of a job that was just cancelled may still write.
            await asyncio.gather(*(self.scheduler.end_worker(job_id) for job_id in job_ids))
            for batch in in_batches(job_ids):  # other writes may run in between
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
    """Yields deleted jobs, a few at a time: `purge` then takes about ten milliseconds."""
    for start in range(0, len(job_ids), _JOBS_A_PURGE):
        yield job_ids[start : start + _JOBS_A_PURGE]


def within(message: str, violations: Iterable[Violation]) -> list[Violation]:
    """Prefixes the fields of violations with the field that holds their message."""
    return [
        Violation(field=f"{message}.{violation.field}", description=violation.description)
        for violation in violations
    ]


def new_id() -> str:
    """Returns a random id for a job or a sweep."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))

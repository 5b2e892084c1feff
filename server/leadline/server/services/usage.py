"""What takes the space of the disk, by job and by kind."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from leadline.server.scheduling.disk_floor import DiskFloor
from leadline.server.services.large_reads import ReadLane, in_slices
from leadline.server.storage.artifacts import Artifacts, ModelUsage, files_within
from leadline.server.storage.store import Store

R = TypeVar("R")

# Jobs that are read at a time; each may have 10,000 checkpoints.
_JOBS_A_SLICE = 20


@dataclass(frozen=True, kw_only=True)
class JobUsage:
    """The space of a job's files.

    Attributes:
        job_id: the job.
        number: its number, by which jobs are listed.
        files: their sizes.
    """

    job_id: str
    number: int
    files: ModelUsage


@dataclass(frozen=True, kw_only=True)
class SharedUsage:
    """The space that all jobs share, in bytes.

    Attributes:
        database: the database's files.
        datasets: decoded datasets and downloads.
        free: what is free on the disk.
        floor: the free space below which no job starts.
    """

    database: int
    datasets: int
    free: int
    floor: int


class UsageService:
    """Measures the files of the data directory, in a thread of the read lane."""

    def __init__(
        self,
        *,
        store: Store,
        artifacts: Artifacts,
        lane: ReadLane,
        database: Path,
        datasets: Path,
        disk_floor: DiskFloor,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._lane = lane
        self._database = database
        self._datasets = datasets
        self._disk_floor = disk_floor

    async def list_usage(
        self,
        use: Callable[[Iterable[JobUsage], SharedUsage], R],
        *,
        before: int | None,
        limit: int,
        caller: str,
    ) -> R:
        """The space of jobs numbered below `before`, newest first, and what they share.

        Args:
            use: makes the result, in a thread; jobs are measured as it takes them.
            before: the number below which they are; None: no bound.
            limit: how many jobs `use` takes at most.
            caller: callers take turns, by this name.

        Raises:
            ResourceExhaustedError: too many large reads wait.
            StorageError: the database failed.
        """
        jobs = self._jobs(before, limit)
        return await self._lane.run(caller, lambda: use(jobs, self._shared()))

    def _jobs(self, before: int | None, limit: int) -> Iterator[JobUsage]:
        for job in in_slices(
            self._store.jobs.find,
            lambda job: job.number,
            before=before,
            size=min(limit, _JOBS_A_SLICE),
        ):
            files = self._artifacts.usage(job.job_id)
            yield JobUsage(job_id=job.job_id, number=job.number, files=files)

    def _shared(self) -> SharedUsage:
        database, floor = self._database, self._disk_floor
        return SharedUsage(
            database=sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*")),
            datasets=sum(size for _, size in files_within(self._datasets)),
            free=floor.free_bytes(),
            floor=floor.floor_bytes(),
        )

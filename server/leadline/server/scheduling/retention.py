"""Removes the checkpoints that the retention of a job does not keep."""

from leadline.server.jobs.job import Job
from leadline.server.jobs.options import Retention
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool


class CheckpointRetention:
    """Applies jobs' retention to their checkpoints."""

    def __init__(self, *, store: Store, threads: ThreadPool, artifacts: Artifacts) -> None:
        self._store = store
        self._threads = threads
        self._artifacts = artifacts

    async def apply(self, job: Job) -> None:
        """Removes the checkpoints of a job with at least one epoch that it need not keep.

        Raises:
            StorageError: the database failed.
            OSError: a file cannot be removed.
        """
        if job.options.retention != Retention():
            await self._threads.run(self._apply, job)

    def _apply(self, job: Job) -> None:
        model = self._store.models.get(job.job_id)
        kept = {epoch.result.epoch: epoch for epoch in model.epochs if epoch.is_kept}
        dropped = job.options.retention.dropped(
            kept, best=model.job.best_epoch, is_final=model.job.state.is_final
        )
        if dropped:
            # A crash between the two leaves only files that nothing refers to.
            self._store.attempts.mark_dropped(job.job_id, dropped)
            self._artifacts.drop(job.job_id, [kept[epoch] for epoch in dropped])

"""Removes the checkpoints that the retention of a job does not keep."""

from leadline.server.jobs.job import Job
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store


def apply_retention(store: Store, artifacts: Artifacts, job: Job) -> None:
    """Removes checkpoints of a job that has at least one epoch. Blocks.

    Raises:
        StorageError: the database failed.
        OSError: a file cannot be removed.
    """
    model = store.models.get(job.job_id)
    kept = {epoch.result.epoch: epoch for epoch in model.epochs if epoch.is_kept}
    dropped = job.options.retention.dropped(
        kept, best=model.job.best_epoch, is_final=model.job.state.is_final
    )
    if dropped:
        # A crash between these steps leaves only files that nothing refers to.
        store.attempts.mark_dropped(job.job_id, dropped)
        artifacts.drop(job.job_id, [kept[epoch] for epoch in dropped])

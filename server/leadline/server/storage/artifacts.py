"""The folders of checkpoints, and their deletion.

Each attempt at a job writes into a separate folder, models/{job}/{attempt}. The
store records which attempt wrote the checkpoint of each epoch. So a worker that
counts as lost but still runs cannot change a file that anyone reads.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

import structlog

from leadline.models.checkpoint_files import remove_checkpoint
from leadline.server.jobs.job import ModelEpoch

_LOG = structlog.get_logger(__name__)

# The name of the marker file in the folder of a job that is about to be deleted.
_DELETED = "deleted"

# The suffix of a folder whose job is deleted: ids have no dots.
_REMOVED = ".deleted"


class Artifacts:
    """The files of models. All methods block."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, job_id: str, attempt: int) -> Path:
        """The folder in which an attempt writes its checkpoints."""
        return self._root / job_id / f"attempt-{attempt:03}"

    def drop(self, job_id: str, epochs: Collection[ModelEpoch]) -> None:
        """Removes the checkpoints of these epochs.

        Raises:
            OSError: a checkpoint cannot be removed.
        """
        for epoch in epochs:
            remove_checkpoint(self.folder(job_id, epoch.attempt), epoch.result.epoch)

    def mark_deleted(self, job_id: str) -> None:
        """Marks a job as about to be deleted; after a crash, `finish_deletions` continues.

        Raises:
            OSError: the marker cannot be written.
        """
        folder = self._root / job_id
        if folder.is_dir():
            (folder / _DELETED).touch()

    def unmark_deleted(self, job_id: str) -> None:
        """Removes the marker of a job whose deletion failed.

        Raises:
            OSError: the marker cannot be removed.
        """
        (self._root / job_id / _DELETED).unlink(missing_ok=True)

    def remove(self, job_id: str) -> None:
        """Removes all files of a job.

        Raises:
            OSError: a file cannot be removed.
        """
        folder, removed = self._root / job_id, self._root / f"{job_id}{_REMOVED}"
        if folder.is_dir():
            # Renames atomically: after a crash, the remaining files must not look like a model.
            folder.rename(removed)
        if removed.is_dir():
            shutil.rmtree(removed)

    def finish_deletions(self, job_ids: Collection[str]) -> None:
        """Finishes or undoes the deletions that a crash has interrupted.

        Keeps a folder without the marker, even if the store has no job for it: the
        database may have been lost, or restored from an older copy.

        Args:
            job_ids: the jobs in the store.

        Raises:
            OSError: a file cannot be removed.
        """
        for folder in self._root.iterdir():
            if folder.name.endswith(_REMOVED):
                self.remove(folder.name.removesuffix(_REMOVED))
            elif (folder / _DELETED).exists() and folder.name not in job_ids:
                self.remove(folder.name)
            elif folder.name in job_ids:
                self.unmark_deleted(folder.name)
            else:
                _LOG.warning("no job is known for a folder of checkpoints", folder=str(folder))

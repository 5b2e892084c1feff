"""The folders of checkpoints, and their deletion.

Each attempt at a job writes into a separate folder, models/{job}/{attempt}. The
store records which attempt wrote the checkpoint of each epoch. So a worker that
counts as lost but still runs cannot change a file that anyone reads.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

import structlog

from leadline.models.checkpoint_files import remove_checkpoint, remove_optimizer_state
from leadline.server.jobs.job import ModelEpoch

_LOG = structlog.get_logger(__name__)

# The marker file in the folder of a job that is about to be deleted.
_DELETED = "deleted"

# The end of the name of a folder whose job is deleted: ids have no dots.
_REMOVED = ".deleted"


class Artifacts:
    """The files of models. All methods block."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, job_id: str, attempt: int) -> Path:
        """Where an attempt writes its checkpoints."""
        return self._root / job_id / f"attempt-{attempt:03}"

    def drop(self, job_id: str, epochs: Collection[ModelEpoch]) -> None:
        """Removes the checkpoints of these epochs.

        Raises:
            OSError: one cannot be removed.
        """
        for epoch in epochs:
            remove_checkpoint(self.folder(job_id, epoch.attempt), epoch.result.epoch)

    def drop_optimizer_states(self, job_id: str, *, attempt: int, epoch: int) -> None:
        """Removes the optimizer's states that a job no longer needs to resume.

        Those of the last two epochs are kept: if the newest checkpoint is damaged, the job
        resumes from the one before. Only an epoch that the store has makes an older state
        superfluous, so the server removes it, not the worker.

        Args:
            job_id: the job.
            attempt: the job's newest attempt.
            epoch: its newest epoch in the store.

        Raises:
            OSError: a state cannot be removed.
        """
        # One more than necessary: the server may have ended before it removed that.
        for old in range(max(1, epoch - 3), epoch - 1):
            for each in range(1, attempt + 1):
                remove_optimizer_state(self.folder(job_id, each), old)

    def mark_deleted(self, job_id: str) -> None:
        """Marks a job as about to be deleted: `finish_deletions` continues after a crash.

        Raises:
            OSError: the marker cannot be written.
        """
        folder = self._root / job_id
        if folder.is_dir():
            (folder / _DELETED).touch()

    def unmark_deleted(self, job_id: str) -> None:
        """Removes the marker: the job is not deleted after all.

        Raises:
            OSError: the marker cannot be removed.
        """
        (self._root / job_id / _DELETED).unlink(missing_ok=True)

    def remove(self, job_id: str) -> None:
        """Removes all files of a job.

        Raises:
            OSError: one cannot be removed.
        """
        folder, removed = self._root / job_id, self._root / f"{job_id}{_REMOVED}"
        if folder.is_dir():
            # At one stroke: what is left after a crash must not look like a model.
            folder.rename(removed)
        if removed.is_dir():
            shutil.rmtree(removed)

    def finish_deletions(self, job_ids: Collection[str]) -> None:
        """Finishes or undoes the deletions that a crash has interrupted.

        A folder without the marker stays, even if the store has no job for it:
        the database may have been lost, or restored from an older copy.

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

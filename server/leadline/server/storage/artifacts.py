"""Where checkpoints are, and how they go.

Each worker on a job writes into a folder of its own, models/{job}/{attempt}.
The store says for each epoch whose folder has its checkpoint, so a worker that
was given up for lost and lives on can change nothing that anyone reads.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

import structlog

from leadline.models.checkpoint_files import remove_checkpoint
from leadline.server.jobs.job import ModelEpoch

_LOG = structlog.get_logger(__name__)

# A file in a job's folder: the job is being deleted.
_DOOMED = "deleted"


class Artifacts:
    """The files of models. All methods block."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, job_id: str, attempt: int) -> Path:
        """Where a worker writes, or wrote, its checkpoints."""
        return self._root / job_id / f"attempt-{attempt:03}"

    def drop(self, job_id: str, epochs: Collection[ModelEpoch]) -> None:
        """Removes the checkpoints of these epochs.

        Raises:
            OSError: one cannot be removed.
        """
        for epoch in epochs:
            remove_checkpoint(self.folder(job_id, epoch.attempt), epoch.result.epoch)

    def mark_deleted(self, job_id: str) -> None:
        """Notes that a job is about to be deleted, for `sweep` to finish after a crash.

        Raises:
            OSError: the note cannot be written.
        """
        folder = self._root / job_id
        if folder.is_dir():
            (folder / _DOOMED).touch()

    def unmark_deleted(self, job_id: str) -> None:
        """Takes the note back: the job is not deleted after all.

        Raises:
            OSError: the note cannot be removed.
        """
        (self._root / job_id / _DOOMED).unlink(missing_ok=True)

    def remove(self, job_id: str) -> None:
        """Removes all files of a job.

        Raises:
            OSError: one cannot be removed.
        """
        folder = self._root / job_id
        if folder.is_dir():
            shutil.rmtree(folder)

    def finish_deletions(self, known: Collection[str]) -> None:
        """Finishes what a crash has interrupted: the files of deleted jobs go.

        A folder without the note is left alone even where no job is known for
        it: the database may have been lost, or be an older copy.

        Raises:
            OSError: a file cannot be removed.
        """
        for folder in self._root.iterdir():
            if (folder / _DOOMED).exists() and folder.name not in known:
                self.remove(folder.name)
            elif folder.name in known:
                self.unmark_deleted(folder.name)
            else:
                _LOG.warning("no job is known for a folder of checkpoints", folder=str(folder))

"""Where checkpoints are, and how they go.

Each worker on a job writes into a folder of its own, models/{job}/{attempt}.
The store says for each epoch whose folder has its checkpoint, so a worker that
was given up for lost and lives on can change nothing that anyone reads.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

import structlog

from leadline.models.checkpoints import remove_checkpoint
from leadline.server.jobs.job import ModelEpoch

_LOG = structlog.get_logger(__name__)

# Marks a folder that is on its way out.
_DOOMED = ".deleted"


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

    def remove(self, job_id: str) -> None:
        """Removes all that there is of a job: at once out of sight, then for good.

        Raises:
            OSError: it cannot be removed.
        """
        doomed = self._root / f"{job_id}{_DOOMED}"
        try:
            (self._root / job_id).rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed)

    def sweep(self, known: Collection[str]) -> None:
        """Removes what a crash has left of jobs that are no longer known."""
        for folder in self._root.iterdir():
            if folder.name not in known:
                _LOG.info("removing what is left of a deleted job", folder=folder.name)
                shutil.rmtree(folder, ignore_errors=True)

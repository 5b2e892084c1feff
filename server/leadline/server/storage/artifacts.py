"""The folders of checkpoints, and their deletion.

Each attempt at a job writes into a separate folder, models/{job}/{attempt}. The
store records which attempt wrote the checkpoint of each epoch. So a worker that
counts as lost but still runs cannot change a file that anyone reads.
"""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from leadline.models.checkpoint_files import (
    CheckpointError,
    compact_checkpoint,
    list_epochs,
    load_info,
    remove_checkpoint,
    remove_optimizer_state,
)
from leadline.server.jobs.job import ModelEpoch

_LOG = structlog.get_logger(__name__)

# The suffix of a folder whose job is deleted: ids have no dots.
_REMOVED = ".deleted"


# What files hold, by the ends of their names; a longer end comes before its own end.
_KINDS = {
    ".checkpoint": "checkpoints",
    ".optimizer.safetensors": "optimizer",
    ".predictions.safetensors": "predictions",
    ".safetensors": "weights",
}


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """The space of a model's files, in bytes.

    Attributes:
        checkpoints: how many there are.
        weights: the weights of all checkpoints.
        predictions: their predictions and descriptions.
        optimizer: the optimizer's states.
        other: all else, such as the ONNX graphs of older versions.
    """

    checkpoints: int
    weights: int
    predictions: int
    optimizer: int
    other: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.predictions + self.optimizer + self.other


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

    def usage(self, job_id: str) -> ModelUsage:
        """The space of a job's files, which another thread may be changing."""
        sizes: dict[str, list[int]] = {kind: [] for kind in (*_KINDS.values(), "other")}
        for path, size in files_within(self._root / job_id):
            kinds = (kind for end, kind in _KINDS.items() if path.endswith(end))
            sizes[next(kinds, "other")].append(size)
        compact = sizes["checkpoints"]
        # All epochs of a job have weights of the same size.
        weights = len(compact) * self._weights_bytes(job_id) if compact else 0
        return ModelUsage(
            checkpoints=len(compact) + len(sizes["weights"]),
            weights=weights + sum(sizes["weights"]),
            predictions=sum(compact) - weights + sum(sizes["predictions"]),
            optimizer=sum(sizes["optimizer"]),
            other=sum(sizes["other"]),
        )

    def _weights_bytes(self, job_id: str) -> int:
        """The size of the weights in an epoch; 0 if no epoch tells."""
        for folder in (self._root / job_id).glob("attempt-*"):
            for epoch in list_epochs(folder):
                try:
                    return load_info(folder, epoch).files["weights"].size
                except CheckpointError:
                    continue  # damaged, or removed just now
        return 0

    def compact(self, job_id: str, epoch: ModelEpoch, *, keeps_state: bool) -> None:
        """Rewrites an epoch of an older version as one file; see `compact_checkpoint`.

        Args:
            job_id: the job.
            epoch: its epoch.
            keeps_state: whether the optimizer's state is kept.

        Raises:
            CheckpointError: the epoch is damaged; its files stay as they are.
            OSError: a file cannot be written or removed.
        """
        folder = self.folder(job_id, epoch.attempt)
        compact_checkpoint(folder, epoch.result.epoch)
        if not keeps_state:
            remove_optimizer_state(folder, epoch.result.epoch)

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

    def remove(self, job_id: str) -> None:
        """Removes all files of a deleted job, if there are any.

        Raises:
            OSError: a file cannot be removed.
        """
        folder, removed = self._root / job_id, self._root / f"{job_id}{_REMOVED}"
        if folder.is_dir():
            # Renames atomically: after a crash, the remaining files must not look like a model.
            folder.rename(removed)
        if removed.is_dir():
            shutil.rmtree(removed)

    def finish_removals(self, job_ids: Collection[str]) -> None:
        """Removes the rest of folders whose removal a crash interrupted.

        Keeps any other folder, even if the store has no job for it: the database may
        have been lost, or restored from an older copy.

        Args:
            job_ids: the jobs in the store.

        Raises:
            OSError: a file cannot be removed.
        """
        for folder in self._root.iterdir():
            if folder.name.endswith(_REMOVED):
                self.remove(folder.name.removesuffix(_REMOVED))
            elif folder.name not in job_ids:
                _LOG.warning("no job is known for a folder of checkpoints", folder=str(folder))


def files_within(folder: Path) -> Iterator[tuple[str, int]]:
    """The names and sizes of all files below a folder; files may come and go meanwhile."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files_within(Path(entry.path))
                continue
            with contextlib.suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False).st_size

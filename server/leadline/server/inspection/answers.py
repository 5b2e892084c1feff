"""What a checkpoint took each image of a split for, beside what the image is.

The worker kept it when it measured the epoch's accuracies: what is inspected
runs no network, and agrees with what was reported exactly.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from leadline.models.checkpoint_files import (
    CheckpointError,
    NoPredictionsError,
    SplitPredictions,
    load_predictions,
)
from leadline.models.datasets import DatasetError, Split, SplitName, find_dataset
from leadline.server.errors import FailedPreconditionError
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.examples import ExampleRef

_LOG = structlog.get_logger(__name__)

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A checkpoint's answers about a split.

    Attributes:
        checkpoint: whose.
        split: about which images.
        images: uint8 [N, 32, 32, 3], memory-mapped.
        labels: int64 [N], the classes that the images are of.
        predicted: int64 [N], the classes that they are taken for.
        probability: float32 [N], the softmax probability of these, in [0, 1].
        true_probability: float32 [N], that of the labels; None where the
            checkpoint was made before it was kept.
    """

    checkpoint: CheckpointRef
    split: SplitName
    images: NDArray[np.uint8]
    labels: Indices
    predicted: Indices
    probability: NDArray[np.float32]
    true_probability: NDArray[np.float32] | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, in the order of their labels."""
        return self.checkpoint.model.started.class_names

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which images are taken for another class than their own, bool [N]."""
        return np.not_equal(self.predicted, self.labels)

    def example(self, index: int) -> ExampleRef:
        """The name of an image."""
        fingerprint = self.checkpoint.model.started.dataset_fingerprint
        return ExampleRef(fingerprint=fingerprint, split=self.split, index=index)


def read_answers(checkpoint: CheckpointRef, split: SplitName, dataset_cache: Path) -> Answers:
    """A checkpoint's answers about a split. Blocks.

    Raises:
        DataLossError: the kept predictions are missing or damaged.
        FailedPreconditionError: the dataset is no longer on the server, or the
            checkpoint was made without predictions of the split.
    """
    images = _images(checkpoint, split, dataset_cache)
    with checkpoint.reading():
        predictions = _predictions(checkpoint, split)
        if predictions.predicted.shape != images.labels.shape:
            raise CheckpointError(
                f"{len(predictions.predicted)} predictions of {len(images.labels)} images"
            )
    return Answers(
        checkpoint=checkpoint,
        split=split,
        images=images.images,
        labels=images.labels,
        predicted=predictions.predicted,
        probability=predictions.probability,
        true_probability=predictions.true_probability,
    )


def _predictions(checkpoint: CheckpointRef, split: SplitName) -> SplitPredictions:
    try:
        return load_predictions(checkpoint.folder, checkpoint.epoch.epoch, split)
    except NoPredictionsError as error:
        raise FailedPreconditionError(
            f"{checkpoint.name} was trained by a version that kept no predictions of the {split} "
            "images: ask for the other split, or train again",
            reason="PREDICTIONS_NOT_KEPT",
            metadata={"model": checkpoint.name, "split": split},
        ) from error


def _images(checkpoint: CheckpointRef, split: SplitName, dataset_cache: Path) -> Split:
    started = checkpoint.model.started
    try:
        dataset = find_dataset(started.dataset_fingerprint, dataset_cache)
    except DatasetError as error:
        _LOG.error("a dataset cannot be read", model=checkpoint.name, why=str(error))
        raise FailedPreconditionError(
            f"the images that {checkpoint.name} was measured on are not on this server: "
            "train on the dataset again to restore them",
            reason="DATASET_NOT_CACHED",
            metadata={"dataset_fingerprint": started.dataset_fingerprint},
        ) from error
    return dataset.train if split == "train" else dataset.test

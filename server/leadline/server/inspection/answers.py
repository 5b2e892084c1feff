"""A checkpoint's stored predictions on a split, with the images and labels.

The worker stored them when it measured the epoch's accuracies. So inspection runs
no network, and agrees exactly with the reported accuracies.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from leadline.models.checkpoint_files import CheckpointError, load_predictions
from leadline.models.datasets import DatasetError, Split, SplitName, find_dataset
from leadline.models.predictions import NoPredictionsError, SplitPredictions
from leadline.server.errors import FailedPreconditionError
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.examples import ExampleRef

_LOG = structlog.get_logger(__name__)

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A checkpoint's predictions on a split.

    Attributes:
        checkpoint: the checkpoint that made the predictions.
        split: the split of the images.
        images: uint8 NHWC [N, 32, 32, 3], memory-mapped.
        aspect_ratios: float32 [N], see `leadline.models.datasets.Split`.
        labels: int64 [N], the true classes.
        predicted: int64 [N], the predicted classes.
        probability: float32 [N], softmax of the predicted class, in [0, 1].
        true_probability: float32 [N], softmax of the true class; None if the
            checkpoint is from a version that did not store it.
    """

    checkpoint: CheckpointRef
    split: SplitName
    images: NDArray[np.uint8]
    aspect_ratios: NDArray[np.float32] | None
    labels: Indices
    predicted: Indices
    probability: NDArray[np.float32]
    true_probability: NDArray[np.float32] | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, in the order of labels."""
        return self.checkpoint.model.started.class_names

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which images are misclassified, bool [N]."""
        return np.not_equal(self.predicted, self.labels)

    def example(self, index: int) -> ExampleRef:
        """The reference of an image."""
        fingerprint = self.checkpoint.model.started.dataset_fingerprint
        return ExampleRef(fingerprint=fingerprint, split=self.split, index=index)


def not_kept(checkpoint: CheckpointRef, split: SplitName, what: str) -> FailedPreconditionError:
    """The error for a checkpoint of a version that did not store `what`."""
    return FailedPreconditionError(
        f"{checkpoint.name} was trained by a version that {what}, or train again",
        reason="PREDICTIONS_NOT_KEPT",
        metadata={"model": checkpoint.name, "split": split},
    )


def read_answers(checkpoint: CheckpointRef, split: SplitName, dataset_cache: Path) -> Answers:
    """Reads a checkpoint's predictions on a split. Blocks.

    Raises:
        DataLossError: the stored predictions are missing or damaged.
        FailedPreconditionError: the dataset is no longer cached, or the checkpoint
            was made without predictions of the split.
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
        aspect_ratios=images.aspect_ratios,
        labels=images.labels,
        predicted=predictions.predicted,
        probability=predictions.probability,
        true_probability=predictions.true_probability,
    )


def _predictions(checkpoint: CheckpointRef, split: SplitName) -> SplitPredictions:
    try:
        return load_predictions(checkpoint.folder, checkpoint.epoch.epoch, split)
    except NoPredictionsError as error:
        what = f"stored no predictions of the {split} images: use the other split"
        raise not_kept(checkpoint, split, what) from error


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

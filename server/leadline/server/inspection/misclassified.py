"""Lists the test images that a checkpoint takes for another class than their own.

It reads the predictions that the worker kept when it measured the epoch's test
accuracy, so a listing runs no network and agrees with that accuracy exactly.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from leadline.models.checkpoint_files import load_predictions
from leadline.models.datasets import DatasetError, Split, find_dataset
from leadline.models.images import encode_png
from leadline.server.errors import FailedPreconditionError
from leadline.server.serving.catalog import CheckpointRef

_LOG = structlog.get_logger(__name__)

Indices = NDArray[np.int64]


class Grouping(StrEnum):
    """The class that examples are grouped by."""

    PREDICTED_CLASS = "predicted_class"
    TRUE_CLASS = "true_class"


@dataclass(frozen=True, kw_only=True)
class ListingQuery:
    """Which examples to list.

    Attributes:
        per_class: at most so many wrong ones a class, and as many right ones;
            None for all.
        grouping: what "class" means there.
        include_correct: whether to list right ones as well.
    """

    per_class: int | None = None
    grouping: Grouping = Grouping.PREDICTED_CLASS
    include_correct: bool = False


@dataclass(frozen=True, kw_only=True)
class Example:
    """A test image and what it was taken for."""

    index: int
    png: bytes
    true_class: int
    predicted_class: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How many images of the whole test set fall to a class."""

    wrong: int
    correct: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A page of examples, and the sums of all pages."""

    examples: tuple[Example, ...]
    total: int
    class_counts: tuple[ClassCount, ...]
    test_images: int
    correct: int


class Inspector:
    """Lists examples of any checkpoint. Blocks: call it off the event loop."""

    def __init__(self, *, dataset_cache: Path) -> None:
        self._dataset_cache = dataset_cache

    def list_misclassified(
        self, checkpoint: CheckpointRef, query: ListingQuery, *, offset: int, limit: int
    ) -> Listing:
        """At most `limit` examples after the first `offset`.

        They are ordered by the class that they are grouped by, within it the
        wrong before the right, within these by index.

        Raises:
            DataLossError: the kept predictions are missing or damaged.
            FailedPreconditionError: the dataset is no longer on the server.
        """
        test = self._test_split(checkpoint)
        with checkpoint.reading():
            predictions = load_predictions(checkpoint.folder, checkpoint.epoch.epoch)
        predicted, probability = predictions.predicted, predictions.probability
        wrong = predicted != test.labels
        groups = predicted if query.grouping is Grouping.PREDICTED_CLASS else test.labels
        class_count = len(checkpoint.model.started.class_names)
        chosen = _choose(groups, wrong, query, class_count)
        page = chosen[offset : offset + limit]
        return Listing(
            examples=tuple(
                Example(
                    index=int(index),
                    png=encode_png(test.images[index]),
                    true_class=int(test.labels[index]),
                    predicted_class=int(predicted[index]),
                    probability=float(probability[index]),
                )
                for index in page
            ),
            total=len(chosen),
            class_counts=_count(groups, wrong, class_count),
            test_images=len(predicted),
            correct=int((~wrong).sum()),
        )

    def _test_split(self, checkpoint: CheckpointRef) -> Split:
        started = checkpoint.model.started
        try:
            return find_dataset(started.dataset_fingerprint, self._dataset_cache).test
        except DatasetError as error:
            _LOG.error("a dataset cannot be read", model=checkpoint.name, why=str(error))
            raise FailedPreconditionError(
                f"the test images that {checkpoint.name} was measured on are not on this server: "
                "train on the dataset again to restore them",
                reason="DATASET_NOT_CACHED",
                metadata={"dataset_fingerprint": started.dataset_fingerprint},
            ) from error


def _choose(
    groups: Indices, wrong: NDArray[np.bool_], query: ListingQuery, class_count: int
) -> Indices:
    chosen = []
    for group in range(class_count):
        chosen.append(np.flatnonzero((groups == group) & wrong)[: query.per_class])
        if query.include_correct:
            chosen.append(np.flatnonzero((groups == group) & ~wrong)[: query.per_class])
    return np.concatenate(chosen)


def _count(groups: Indices, wrong: NDArray[np.bool_], class_count: int) -> tuple[ClassCount, ...]:
    wrong_counts = np.bincount(groups[wrong], minlength=class_count)
    correct_counts = np.bincount(groups[~wrong], minlength=class_count)
    return tuple(
        ClassCount(wrong=int(one), correct=int(other))
        for one, other in zip(wrong_counts, correct_counts, strict=True)
    )

"""The confusion matrix of a checkpoint, and the metrics of each class."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadline.server.inspection.answers import Answers
from leadline.server.inspection.calibration import Calibration, calibrate


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class against all others; None where the denominator is 0.

    Attributes:
        support: images of the class.
        predicted: images predicted as the class.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        f1: the harmonic mean of both, 2 TP / (2 TP + FP + FN).
    """

    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A confusion matrix, with the metrics derived from it.

    Attributes:
        counts: int64 [true class, predicted class], images.
        classes: the metrics of each class, in the order of labels.
        calibration: how well calibrated the probabilities are.
    """

    counts: NDArray[np.int64]
    classes: tuple[ClassMetrics, ...]
    calibration: Calibration

    @property
    def images(self) -> int:
        """The number of images in the split."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """The fraction of images classified correctly, in [0, 1]."""
        return int(self.counts.trace()) / self.images


def confusion_of(answers: Answers) -> Confusion:
    """The confusion matrix of a checkpoint's predictions."""
    classes = len(answers.class_names)
    cells = answers.labels * classes + answers.predicted
    counts = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    return Confusion(
        counts=counts,
        classes=tuple(_metrics(counts, index) for index in range(classes)),
        calibration=calibrate(answers.probability, ~answers.wrong),
    )


def _metrics(counts: NDArray[np.int64], index: int) -> ClassMetrics:
    support, predicted = int(counts[index].sum()), int(counts[:, index].sum())
    right = int(counts[index, index])
    return ClassMetrics(
        support=support,
        predicted=predicted,
        precision=_fraction(right, predicted),
        recall=_fraction(right, support),
        f1=_fraction(2 * right, predicted + support),
    )


def _fraction(part: int, whole: int) -> float | None:
    return part / whole if whole else None

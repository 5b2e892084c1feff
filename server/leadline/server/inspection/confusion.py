"""How often a checkpoint takes images of each class for each class."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadline.server.inspection.answers import Answers
from leadline.server.inspection.calibration import Calibration, calibrate


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """How well a class is told from the others; None where there is nothing to divide by.

    Attributes:
        support: images that are of the class.
        predicted: images that are taken for it.
        precision: of these the fraction that is of it.
        recall: of its images the fraction that is taken for it.
        f1: their harmonic mean, 2 TP / (2 TP + FP + FN).
    """

    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A confusion matrix and what it says.

    Attributes:
        counts: int64 [classes, classes]: images of the row's class that are
            taken for the column's.
        classes: a row's and a column's metrics, class by class.
        calibration: how far the probabilities can be believed.
    """

    counts: NDArray[np.int64]
    classes: tuple[ClassMetrics, ...]
    calibration: Calibration

    @property
    def images(self) -> int:
        """Images in the split."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """The fraction that is classified rightly, in [0, 1]."""
        return int(self.counts.trace()) / self.images


def confusion_of(answers: Answers) -> Confusion:
    """The confusion matrix of a checkpoint's answers."""
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

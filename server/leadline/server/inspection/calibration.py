"""How well calibrated a checkpoint's probabilities are.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks",
ICML 2017 (https://arxiv.org/abs/1706.04599), with its 15 bins of equal width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The images whose predicted class has a probability in (lower, upper].

    Attributes:
        lower: the exclusive lower bound; inclusive in the first bin.
        upper: the inclusive upper bound.
        images: how many images are in the bin.
        confidence: their mean probability; None without images.
        accuracy: the fraction classified correctly; None without images.
    """

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None

    @property
    def gap(self) -> float:
        """The absolute difference of confidence and accuracy; 0 without images."""
        if self.confidence is None or self.accuracy is None:
            return 0.0
        return abs(self.accuracy - self.confidence)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The calibration errors of a checkpoint, and its reliability diagram.

    Attributes:
        expected_error: ECE, the mean gap of the bins weighted by images.
        maximum_error: MCE, the largest gap of a bin.
        bins: the reliability diagram, ascending.
    """

    expected_error: float
    maximum_error: float
    bins: tuple[ReliabilityBin, ...]


def calibrate(probability: NDArray[np.float32], right: NDArray[np.bool_]) -> Calibration:
    """Compares predicted probabilities with observed accuracies.

    Args:
        probability: float32 [N], of the predicted class, in [0, 1].
        right: bool [N], whether the predicted class is the true one.
    """
    confidence = probability.astype(np.float64)
    bin_of = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    bins = tuple(_bin(number, confidence, right, bin_of == number) for number in range(BINS))
    return Calibration(
        expected_error=sum(part.images * part.gap for part in bins) / len(confidence),
        maximum_error=max(part.gap for part in bins),
        bins=bins,
    )


def _bin(
    number: int,
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    inside: NDArray[np.bool_],
) -> ReliabilityBin:
    images = int(np.count_nonzero(inside))
    return ReliabilityBin(
        lower=number / BINS,
        upper=(number + 1) / BINS,
        images=images,
        confidence=float(confidence[inside].mean()) if images else None,
        accuracy=int(np.count_nonzero(right[inside])) / images if images else None,
    )

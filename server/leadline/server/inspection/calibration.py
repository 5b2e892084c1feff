"""How far a checkpoint's probabilities can be believed.

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
        lower: which the first bin contains as well.
        upper: which it contains.
        images: in it.
        confidence: the mean of their probabilities; None without images.
        accuracy: the fraction that is classified rightly; None without images.
    """

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None

    @property
    def gap(self) -> float:
        """How far confidence and accuracy lie apart; 0 without images."""
        if self.confidence is None or self.accuracy is None:
            return 0.0
        return abs(self.accuracy - self.confidence)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far probabilities can be believed.

    Attributes:
        expected_error: the mean gap of the bins, weighted by their images.
        maximum_error: the largest gap of a bin.
        bins: ascending.
    """

    expected_error: float
    maximum_error: float
    bins: tuple[ReliabilityBin, ...]


def calibrate(probability: NDArray[np.float32], right: NDArray[np.bool_]) -> Calibration:
    """Compares probabilities with how often they hold.

    Args:
        probability: float32 [N], of the predicted class, in [0, 1].
        right: bool [N], whether that is the true class.
    """
    confidence = probability.astype(np.float64)
    places = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    bins = tuple(_bin(place, confidence, right, places == place) for place in range(BINS))
    return Calibration(
        expected_error=sum(one.images * one.gap for one in bins) / len(confidence),
        maximum_error=max(one.gap for one in bins),
        bins=bins,
    )


def _bin(
    place: int, confidence: NDArray[np.float64], right: NDArray[np.bool_], inside: NDArray[np.bool_]
) -> ReliabilityBin:
    images = int(np.count_nonzero(inside))
    return ReliabilityBin(
        lower=place / BINS,
        upper=(place + 1) / BINS,
        images=images,
        confidence=float(confidence[inside].mean()) if images else None,
        accuracy=int(np.count_nonzero(right[inside])) / images if images else None,
    )

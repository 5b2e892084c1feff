"""Percentiles, and the spread of repeated measurements."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


def percentile(values: Times, percent: float) -> float:
    """Returns the smallest value that `percent` of the values do not exceed (nearest rank).

    It does not interpolate between values.

    Args:
        values: at least one, in any order.
        percent: above 0, at most 100.

    Raises:
        ValueError: there are no values, or the percentage is out of range.
    """
    if not 0 < percent <= 100:  # noqa: PLR2004 - a percentage
        raise ValueError(f"a percentile is above 0 and at most 100, not {percent}")
    if not len(values):
        raise ValueError("no values, so no percentile: was nothing answered?")
    rank = math.ceil(len(values) * percent / 100) - 1
    return float(np.partition(values, rank)[rank])


@dataclass(frozen=True)
class Spread:
    """The median and range of a figure over several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Returns the median and the range of values, one per round.

        Raises:
            ValueError: there are no values.
        """
        if not values:
            raise ValueError("no rounds, so no median")
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> Self:
        """Returns the ratio of two figures, round by round.

        A temporary load on the machine slows both figures of a round, so their ratio hardly
        changes.

        Raises:
            ValueError: the numbers of rounds differ, or a divisor is 0.
        """
        if len(ours) != len(theirs):
            raise ValueError(f"{len(ours)} rounds cannot be compared with {len(theirs)}")
        if not all(theirs):
            raise ValueError("nothing was measured in a round: it has no ratio")
        return cls.of([one / other for one, other in zip(ours, theirs, strict=True)])

    def text(self, digits: int = 0) -> str:
        """Returns "2,880", or "2,880 (2,790 to 2,910)" if the rounds differ."""
        shown = [f"{value:,.{digits}f}" for value in (self.median, self.low, self.high)]
        return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"

"""Percentiles, and figures that were taken several times."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


def percentile(values: Times, percent: float) -> float:
    """The smallest value that `percent` of the values do not exceed (nearest rank).

    No value is made up between two measured ones.

    Args:
        values: at least one, in any order.
        percent: above 0, at most 100.

    Raises:
        ValueError: there are no values, or the percentage is out of its range.
    """
    if not 0 < percent <= 100:  # noqa: PLR2004 - a percentage
        raise ValueError(f"a percentile is above 0 and at most 100, not {percent}")
    if not len(values):
        raise ValueError("no values, so no percentile: was nothing answered?")
    rank = math.ceil(len(values) * percent / 100) - 1
    return float(np.partition(values, rank)[rank])


@dataclass(frozen=True)
class Spread:
    """A figure over several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The median and the range of a figure's values, one a round.

        Raises:
            ValueError: there are none.
        """
        if not values:
            raise ValueError("no rounds, so no median")
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> Self:
        """The ratio of two figures, round by round.

        What slows a machine for a while slows both of a round, so that it
        leaves their ratio alone.

        Raises:
            ValueError: they are not of the same rounds, or a divisor is 0.
        """
        if len(ours) != len(theirs):
            raise ValueError(f"{len(ours)} rounds cannot be compared with {len(theirs)}")
        if not all(theirs):
            raise ValueError("nothing was measured in a round: it has no ratio")
        return cls.of([one / other for one, other in zip(ours, theirs, strict=True)])

    def text(self, digits: int = 0) -> str:
        """As "2,880", or as "2,880 (2,790 to 2,910)" where the rounds differ."""
        shown = [f"{value:,.{digits}f}" for value in (self.median, self.low, self.high)]
        return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"

"""Histograms for thousands of observations a second.

Histograms of `prometheus_client` acquire two locks for each observation. Only the
event loop's thread writes to a histogram of this module. Any thread may read it,
because other threads never see a list of integers half written.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

Buckets = list[tuple[str, float]]


class UnlockedHistogram:
    """A Prometheus histogram that takes no lock."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Makes an empty histogram; `bounds` are the buckets' inclusive upper bounds, ascending."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def count(self) -> int:
        """How many values it has counted."""
        return sum(self._counts)

    def read(self) -> tuple[Buckets, float]:
        """The cumulative count of each bucket, and the sum of all values."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        counts = accumulate(list(self._counts))
        return [(name, float(count)) for name, count in zip(names, counts, strict=True)], (
            self._total
        )


class HistogramCollector(Collector):
    """Exposes a histogram as a metric."""

    def __init__(self, name: str, text: str, histogram: UnlockedHistogram) -> None:
        self._name = name
        self._text = text
        self._histogram = histogram

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Reads the histogram."""
        buckets, total = self._histogram.read()
        yield HistogramMetricFamily(self._name, self._text, buckets, total)

"""Histograms for what happens thousands of times a second.

Those of `prometheus_client` take a lock for each number, and one to look
whether they may be used. A histogram is filled by one thread, the event loop's, and
read by any: each of its numbers is always a whole one.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

Buckets = list[tuple[str, float]]


class UnlockedHistogram:
    """Counts numbers by size, as Prometheus's histograms do."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Makes one; `bounds` are the buckets' largest values, ascending."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Counts a number."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> tuple[Buckets, float]:
        """How many were at most each bound, and the sum of all: what a metric family takes."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        counts = accumulate(list(self._counts))
        return [(name, float(count)) for name, count in zip(names, counts, strict=True)], (
            self._total
        )


class HistogramCollector(Collector):
    """A histogram as a metric of its own."""

    def __init__(self, name: str, text: str, histogram: UnlockedHistogram) -> None:
        self._name = name
        self._text = text
        self._histogram = histogram

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Reads the histogram."""
        buckets, total = self._histogram.read()
        yield HistogramMetricFamily(self._name, self._text, buckets, total)

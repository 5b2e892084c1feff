"""The metrics of several processes as those of one server.

Counters and histograms are summed, so a dashboard sees one server. What describes a process,
and gauges whose limit holds for each process, keep their values with the label `process`.
All other metrics belong to the main process, which has the number 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from prometheus_client import CollectorRegistry, Metric

_LABEL = "process"

# Metrics of one process, by name or by its beginning.
_OF_A_PROCESS = (
    "process_",
    "python_",
    "leadline_decoding_queue_pixels",
    "leadline_part_healthy",
    "leadline_predictions",
)

_SUMMED = frozenset({"counter", "histogram"})

_Sample = tuple[str, Mapping[str, str], float]
Snapshot = Mapping[str, Sequence[_Sample]]
"""Samples by metric, as `snapshot` takes them."""


def snapshot(registry: CollectorRegistry) -> Snapshot:
    """The samples of what several processes have, by metric, in a form that JSON knows."""
    return {
        metric.name: _samples(metric)
        for metric in registry.collect()
        if metric.type in _SUMMED or metric.name.startswith(_OF_A_PROCESS)
    }


class SummedRegistry(CollectorRegistry):
    """The registry of the main process, with the snapshots of the others."""

    def __init__(self, own: CollectorRegistry) -> None:
        """Makes a registry that reads `own` at each scrape."""
        super().__init__()
        self._own = own
        # The scraping thread reads what the event loop replaces, and never changes.
        self._snapshots: Mapping[int, Snapshot] = {}
        # Of processes that have ended: a sum that falls would look like a restart of all.
        self._ended: Snapshot = {}

    def update(self, process: int, taken: Snapshot) -> None:
        """Replaces the snapshot of a process."""
        self._snapshots = {**self._snapshots, process: taken}

    def end(self, process: int) -> None:
        """Keeps the sums of a process that has ended, as of its last snapshot."""
        ended = self._snapshots.get(process, {})
        self._snapshots = {
            number: taken for number, taken in self._snapshots.items() if number != process
        }
        sums = {
            name: _sums([samples, self._ended.get(name, ())])
            for name, samples in ended.items()
            if not name.startswith(_OF_A_PROCESS)
        }
        self._ended = {**self._ended, **sums}

    def collect(self) -> Iterator[Metric]:
        """Reads all metrics."""
        snapshots, ended = self._snapshots, self._ended
        for metric in self._own.collect():
            own, name = _samples(metric), metric.name
            if name.startswith(_OF_A_PROCESS):
                by_process = {0: own} | {
                    number: taken.get(name, ()) for number, taken in snapshots.items()
                }
                yield _like(metric, _labelled(by_process))
            elif metric.type in _SUMMED:
                others = [taken.get(name, ()) for taken in (*snapshots.values(), ended)]
                yield _like(metric, _sums([own, *others]))
            else:
                yield metric

    def restricted_registry(self, names: Iterable[str]) -> Any:
        """The metrics or samples of these names."""
        return _Restricted(self, frozenset(names))


class _Restricted:
    def __init__(self, registry: SummedRegistry, names: frozenset[str]) -> None:
        self._registry = registry
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            if metric.name not in self._names:
                metric.samples = [sample for sample in metric.samples if sample.name in self._names]
            if metric.samples:
                yield metric


def _samples(metric: Metric) -> list[_Sample]:
    return [(sample.name, sample.labels, sample.value) for sample in metric.samples]


def _labelled(by_process: Mapping[int, Sequence[_Sample]]) -> Iterator[_Sample]:
    for process, samples in sorted(by_process.items()):
        for name, labels, value in samples:
            yield name, {**labels, _LABEL: str(process)}, value


def _sums(parts: Iterable[Sequence[_Sample]]) -> list[_Sample]:
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for name, labels, value in chain.from_iterable(parts):
        key = name, tuple(labels.items())
        sums[key] = sums.get(key, 0.0) + value
    return [(name, dict(labels), value) for (name, labels), value in sums.items()]


def _like(metric: Metric, samples: Iterable[_Sample]) -> Metric:
    """The metric with other samples."""
    result = Metric(metric.name, metric.documentation, metric.type)
    for name, labels, value in samples:
        result.add_sample(name, dict(labels), value)
    return result

"""Statistics of the Open Inference Protocol: requests by model and version, and their times."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from leadline.oip.v2.open_inference_pb2 import (
    InferStatistics,
    ModelStatistics,
    ModelStatisticsResponse,
    StatisticDuration,
)

# The most model versions with counts; the least recently used is evicted first.
_MAX_VERSIONS = 1_000


@dataclass(slots=True)
class Counts:
    """The counts of one version of a model; times in nanoseconds."""

    last_seconds: float = 0.0
    images: int = 0
    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def add_success(
        self, images: int, *, queue: int, decoding: int, inference: int, encoding: int
    ) -> None:
        """Counts a request; the times, in nanoseconds, add up to its duration."""
        self.last_seconds = time.time()
        self.images += images
        self.succeeded += 1
        self.succeeded_ns += queue + decoding + inference + encoding
        self.queue_ns += queue
        self.input_ns += decoding
        self.infer_ns += inference
        self.output_ns += encoding

    def add_failure(self, nanoseconds: int) -> None:
        """Counts a request that failed after this many nanoseconds."""
        self.last_seconds = time.time()
        self.failed += 1
        self.failed_ns += nanoseconds


class Statistics:
    """Counts of the most recently used models, by model and version."""

    def __init__(self, max_versions: int = _MAX_VERSIONS) -> None:
        self._max_versions = max_versions
        self._counts: OrderedDict[tuple[str, int], Counts] = OrderedDict()

    def of(self, key: tuple[str, int]) -> Counts:
        """The counts of a job's id and epoch."""
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = Counts()
            if len(self._counts) > self._max_versions:
                self._counts.popitem(last=False)
        else:
            self._counts.move_to_end(key)
        return counts

    def all(self) -> Iterator[tuple[str, int, Counts]]:
        """Every job's id and epoch, with its counts."""
        for (job_id, epoch), counts in sorted(self._counts.items()):
            yield job_id, epoch, counts


def statistics_message(name: str, epoch: int, counts: Counts) -> ModelStatistics:
    """The counts as a message."""
    succeeded = counts.succeeded
    return ModelStatistics(
        name=name,
        version=str(epoch),
        last_inference=int(counts.last_seconds * 1_000),
        inference_count=counts.images,
        execution_count=succeeded,
        inference_stats=InferStatistics(
            success=StatisticDuration(count=succeeded, ns=counts.succeeded_ns),
            fail=StatisticDuration(count=counts.failed, ns=counts.failed_ns),
            queue=StatisticDuration(count=succeeded, ns=counts.queue_ns),
            compute_input=StatisticDuration(count=succeeded, ns=counts.input_ns),
            compute_infer=StatisticDuration(count=succeeded, ns=counts.infer_ns),
            compute_output=StatisticDuration(count=succeeded, ns=counts.output_ns),
        ),
    )


def summed_statistics(parts: Sequence[ModelStatisticsResponse]) -> ModelStatisticsResponse:
    """The statistics of several processes as those of one server."""
    sums: dict[tuple[str, str], ModelStatistics] = {}
    for part in parts:
        for statistics in part.model_stats:
            key = statistics.name, statistics.version
            if key in sums:
                _add(sums[key], statistics)
            else:
                sums[key] = statistics
    # A process that has counted nothing of a model names its best version.
    used = [total for _, total in sorted(sums.items()) if total.last_inference]
    return ModelStatisticsResponse(model_stats=used or list(sums.values())[:1])


def _add(total: Message, part: Message) -> None:
    """Adds the numbers of a message to another of the same name and version."""
    for field, value in part.ListFields():
        if isinstance(value, Message):
            _add(getattr(total, field.name), value)
        elif field.name == "last_inference":
            setattr(total, field.name, max(value, getattr(total, field.name)))
        elif isinstance(value, int):
            setattr(total, field.name, value + getattr(total, field.name))

"""How often models were asked by way of the Open Inference Protocol, and how long it took."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from leadline.oip.v2.open_inference_pb2 import (
    InferStatistics,
    ModelStatistics,
    StatisticDuration,
)

# Versions of models that are remembered; the longest unasked is forgotten first.
_MOST_REMEMBERED = 1_000


@dataclass(slots=True)
class Counts:
    """What is counted of one version of a model; times in nanoseconds."""

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
        self, images: int, *, queue: int, reading: int, inference: int, answering: int
    ) -> None:
        """A request of so many images was answered; the times add up to its whole."""
        self.last_seconds = time.time()
        self.images += images
        self.succeeded += 1
        self.succeeded_ns += queue + reading + inference + answering
        self.queue_ns += queue
        self.input_ns += reading
        self.infer_ns += inference
        self.output_ns += answering

    def add_failure(self, nanoseconds: int) -> None:
        """A request failed after so long."""
        self.last_seconds = time.time()
        self.failed += 1
        self.failed_ns += nanoseconds


class Statistics:
    """Counts by model and version, of the latest asked ones."""

    def __init__(self, most_remembered: int = _MOST_REMEMBERED) -> None:
        self._most_remembered = most_remembered
        self._counts: OrderedDict[tuple[str, int], Counts] = OrderedDict()

    def of(self, key: tuple[str, int]) -> Counts:
        """The counts of a job's id and epoch, to be added to."""
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = Counts()
            if len(self._counts) > self._most_remembered:
                self._counts.popitem(last=False)
        else:
            self._counts.move_to_end(key)
        return counts

    def all(self) -> Iterator[tuple[str, int, Counts]]:
        """Every job's id and epoch that is remembered, with its counts."""
        for (job_id, epoch), counts in sorted(self._counts.items()):
            yield job_id, epoch, counts


def statistics_message(name: str, epoch: int, counts: Counts) -> ModelStatistics:
    """The counts as the protocol has them."""
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

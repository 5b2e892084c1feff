"""Answers questions about any checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from leadline.models.datasets import SplitName
from leadline.server.inspection.answers import read_answers
from leadline.server.inspection.comparison import Comparison, ComparisonQuery, compare
from leadline.server.inspection.confusion import Confusion, confusion_of
from leadline.server.inspection.label_errors import LabelErrorQuery, LabelErrors, find_label_errors
from leadline.server.inspection.misclassified import Listing, ListingQuery, list_misclassified
from leadline.server.serving.catalog import CheckpointRef


class Inspector:
    """Reads what checkpoints kept. Blocks: call it off the event loop.

    Every method may raise DataLossError, where kept predictions are missing or
    damaged, and FailedPreconditionError, where the images are no longer on the
    server or the checkpoint was made without predictions of the split.
    """

    def __init__(self, *, dataset_cache: Path) -> None:
        self._dataset_cache = dataset_cache

    def list_misclassified(
        self, checkpoint: CheckpointRef, query: ListingQuery, *, offset: int, limit: int
    ) -> Listing:
        """At most `limit` examples after the first `offset`."""
        answers = read_answers(checkpoint, query.split, self._dataset_cache)
        return list_misclassified(answers, query, offset=offset, limit=limit)

    def confusion(self, checkpoint: CheckpointRef, split: SplitName) -> Confusion:
        """How often images of each class are taken for each class."""
        return confusion_of(read_answers(checkpoint, split, self._dataset_cache))

    def compare(
        self,
        baseline: CheckpointRef,
        candidate: CheckpointRef,
        query: ComparisonQuery,
        *,
        offset: int,
        limit: int,
    ) -> Comparison:
        """Compares two checkpoints of the same dataset; at most `limit` examples."""
        before, after = (
            read_answers(checkpoint, query.split, self._dataset_cache)
            for checkpoint in (baseline, candidate)
        )
        return compare(before, after, query, offset=offset, limit=limit)

    def label_errors(
        self,
        checkpoints: Sequence[CheckpointRef],
        query: LabelErrorQuery,
        *,
        offset: int,
        limit: int,
    ) -> LabelErrors:
        """Labels that checkpoints of the same dataset contradict; at most `limit` images."""
        several = [read_answers(one, query.split, self._dataset_cache) for one in checkpoints]
        return find_label_errors(several, query, offset=offset, limit=limit)

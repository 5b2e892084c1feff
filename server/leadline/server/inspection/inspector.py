"""Answers questions about any checkpoint."""

from pathlib import Path

from leadline.server.inspection.answers import read_answers
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

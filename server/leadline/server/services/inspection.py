"""The use cases of inspection: the mistakes of checkpoints, and the images of datasets."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from leadline.models.datasets import SplitName
from leadline.models.images import encode_png
from leadline.server.errors import FailedPreconditionError, InvalidArgumentError, shorten
from leadline.server.inspection.answers import Answers, read_answers
from leadline.server.inspection.comparison import Comparison, ComparisonQuery, compare
from leadline.server.inspection.confusion import Confusion, confusion_of
from leadline.server.inspection.label_errors import LabelErrorQuery, LabelErrors, find_label_errors
from leadline.server.inspection.misclassified import Listing, ListingQuery, list_misclassified
from leadline.server.services.large_reads import ReadLane
from leadline.server.services.models import ModelService
from leadline.server.serving.catalog import CheckpointRef, Selector
from leadline.server.serving.examples import ExampleRef, read_examples
from leadline.server.thread_pool import check_abandoned

R = TypeVar("R")

MIN_MODELS = 2
MAX_MODELS = 20

# In the search for label errors, a variant votes only if its test accuracy is at
# most this much below the best one's.
_MAX_ACCURACY_GAP = 0.1


class InspectionService:
    """The use cases of inspection.

    Each method that reads a checkpoint raises DataLossError if its stored
    predictions are missing or damaged. It raises FailedPreconditionError if the
    dataset is no longer on the server, or the checkpoint has no predictions of
    the split. `use` builds the result, in the same thread. Callers, identified by
    `caller`, take turns. If too many requests wait, the method raises
    ResourceExhaustedError.
    """

    def __init__(self, *, models: ModelService, lane: ReadLane, dataset_cache: Path) -> None:
        self._models = models
        self._lane = lane
        self._dataset_cache = dataset_cache

    async def resolve(self, selector: Selector) -> CheckpointRef:
        """The checkpoint to inspect; raises NotFoundError if nothing matches."""
        return await self._models.resolve(selector)

    async def resolve_pair(
        self, baseline: Selector, candidate: Selector
    ) -> tuple[CheckpointRef, CheckpointRef]:
        """Two checkpoints to compare.

        Raises:
            NotFoundError: nothing matches.
            InvalidArgumentError: the checkpoints were trained on different datasets.
        """
        first, second = await self._models.resolve_all([baseline, candidate])
        _check_same_dataset(first, second, "candidate")
        return first, second

    async def resolve_jury(
        self, selectors: Sequence[Selector], dataset: str, *, caller: str
    ) -> list[CheckpointRef]:
        """The checkpoints that vote on labels.

        Args:
            selectors: select the checkpoints; if empty, the good variants of `dataset` vote.
            dataset: a dataset's name.
            caller: identifies the caller; callers take turns.

        Raises:
            NotFoundError: nothing matches.
            InvalidArgumentError: a checkpoint is repeated, or trained on another dataset.
            FailedPreconditionError: the dataset has fewer than two good variants.
        """
        if selectors:
            checkpoints = await self._models.resolve_all(selectors)
        else:
            variants = await self._models.best_of_variants(
                dataset, max_accuracy_gap=_MAX_ACCURACY_GAP, caller=caller
            )
            checkpoints = _of_same_images(variants, dataset)
        seen: set[str] = set()
        for index, checkpoint in enumerate(checkpoints):
            _check_same_dataset(checkpoints[0], checkpoint, f"models[{index}]")
            if checkpoint.name in seen:
                raise InvalidArgumentError.of(f"models[{index}]", f"repeats {checkpoint.name}")
            seen.add(checkpoint.name)
        return checkpoints

    async def list_misclassified(
        self,
        use: Callable[[Listing], R],
        checkpoint: CheckpointRef,
        query: ListingQuery,
        *,
        offset: int,
        limit: int,
        caller: str,
    ) -> R:
        """Returns at most `limit` misclassified examples after the first `offset`."""
        return await self._lane.run(
            caller,
            lambda: use(
                list_misclassified(
                    self._answers(checkpoint, query.split), query, offset=offset, limit=limit
                )
            ),
        )

    async def confusion(
        self,
        use: Callable[[Confusion], R],
        checkpoint: CheckpointRef,
        split: SplitName,
        *,
        caller: str,
    ) -> R:
        """Counts how often images of each class are predicted as each class."""
        return await self._lane.run(
            caller, lambda: use(confusion_of(self._answers(checkpoint, split)))
        )

    async def compare(
        self,
        use: Callable[[Comparison], R],
        baseline: CheckpointRef,
        candidate: CheckpointRef,
        query: ComparisonQuery,
        *,
        offset: int,
        limit: int,
        caller: str,
    ) -> R:
        """Compares two checkpoints of the same dataset; returns at most `limit` examples."""
        return await self._lane.run(
            caller,
            lambda: use(
                compare(
                    self._answers(baseline, query.split),
                    self._answers(candidate, query.split),
                    query,
                    offset=offset,
                    limit=limit,
                )
            ),
        )

    async def label_errors(
        self,
        use: Callable[[LabelErrors], R],
        checkpoints: Sequence[CheckpointRef],
        query: LabelErrorQuery,
        *,
        offset: int,
        limit: int,
        caller: str,
    ) -> R:
        """Finds labels that checkpoints of the same dataset contradict; at most `limit` images."""
        return await self._lane.run(
            caller,
            lambda: use(
                find_label_errors(
                    [self._answers(checkpoint, query.split) for checkpoint in checkpoints],
                    query,
                    offset=offset,
                    limit=limit,
                )
            ),
        )

    async def png(self, example: ExampleRef, *, caller: str) -> bytes:
        """An image of a dataset, as a PNG file.

        Raises:
            InvalidArgumentError: the image is not on this server.
        """
        return await self._lane.run(caller, self._png, example)

    def _answers(self, checkpoint: CheckpointRef, split: SplitName) -> Answers:
        check_abandoned()
        return read_answers(checkpoint, split, self._dataset_cache)

    def _png(self, example: ExampleRef) -> bytes:
        (pixels,) = read_examples([example], self._dataset_cache)
        return encode_png(pixels)


def _check_same_dataset(baseline: CheckpointRef, candidate: CheckpointRef, field: str) -> None:
    fingerprint = candidate.model.started.dataset_fingerprint
    if fingerprint != baseline.model.started.dataset_fingerprint:
        raise InvalidArgumentError.of(
            field,
            f"{candidate.name} was trained on another dataset than {baseline.name}: "
            f"{candidate.model.job.spec.dataset}, whose contents differ from those of "
            f"{baseline.model.job.spec.dataset}",
        )


def _of_same_images(variants: Sequence[CheckpointRef], dataset: str) -> list[CheckpointRef]:
    """The variants that were trained on the same images as the first one."""
    good = [
        variant
        for variant in variants
        # The contents of a dataset may change under the same name.
        if variant.model.started.dataset_fingerprint
        == variants[0].model.started.dataset_fingerprint
    ][:MAX_MODELS]
    if len(good) < MIN_MODELS:
        dataset = shorten(dataset)  # the caller may send any text
        raise FailedPreconditionError(
            f"at least {MIN_MODELS} variants on {dataset} must be within {_MAX_ACCURACY_GAP} of "
            f"the best accuracy, and there is {len(good) or 'none'}: train another, or name the "
            "models",
            reason="TOO_FEW_MODELS",
            metadata={"dataset": dataset},
        )
    return good

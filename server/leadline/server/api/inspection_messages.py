"""Results of inspection, as messages."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypedDict

from leadline.models.datasets import SplitName
from leadline.server.api.pages import fit
from leadline.server.inspection.calibration import Calibration
from leadline.server.inspection.comparison import (
    ComparedExample,
    Comparison,
    ComparisonQuery,
    Guess,
    Outcome,
)
from leadline.server.inspection.confusion import Confusion
from leadline.server.inspection.examples import Example, Picture
from leadline.server.inspection.label_errors import LabelError, LabelErrorQuery, LabelErrors
from leadline.server.inspection.mcnemar import McNemar
from leadline.server.inspection.misclassified import Listing, ListingQuery
from leadline.server.serving.catalog import CheckpointRef
from leadline.v1 import inspection_service_pb2 as pb

NextToken: TypeAlias = Callable[[int, int], str]
"""Returns the token of the next page, from the examples on this page and in total."""

_SPLITS: dict[SplitName, pb.Split.ValueType] = {
    "test": pb.SPLIT_TEST,
    "train": pb.SPLIT_TRAIN,
}

_OUTCOMES: dict[Outcome, pb.Outcome.ValueType] = {
    Outcome.FIXED: pb.OUTCOME_FIXED,
    Outcome.BROKEN: pb.OUTCOME_BROKEN,
    Outcome.STILL_WRONG: pb.OUTCOME_STILL_WRONG,
}


def from_listing(
    checkpoint: CheckpointRef, query: ListingQuery, next_token: NextToken, listing: Listing
) -> pb.ListMisclassifiedResponse:
    """A page of examples."""
    names = checkpoint.model.started.class_names
    examples = fit(_from_example(example, names) for example in listing.examples)
    return pb.ListMisclassifiedResponse(
        examples=examples,
        next_page_token=next_token(len(examples), listing.total),
        total_size=listing.total,
        model=checkpoint.name,
        class_counts=[
            pb.ClassCount(
                class_index=index, class_name=name, wrong=count.wrong, correct=count.correct
            )
            for index, (name, count) in enumerate(zip(names, listing.class_counts, strict=True))
        ],
        test_images=checkpoint.model.started.test_images,
        test_accuracy=checkpoint.epoch.test_accuracy,
        split=_SPLITS[query.split],
        split_images=listing.images,
        split_accuracy=listing.correct / listing.images,
    )


def from_confusion(
    checkpoint: CheckpointRef, split: SplitName, confusion: Confusion
) -> pb.ConfusionMatrix:
    """A confusion matrix."""
    names = checkpoint.model.started.class_names
    return pb.ConfusionMatrix(
        model=checkpoint.name,
        split=_SPLITS[split],
        images=confusion.images,
        accuracy=confusion.accuracy,
        rows=[pb.ConfusionRow(counts=row) for row in confusion.counts.tolist()],
        classes=[
            pb.ClassMetrics(
                class_index=index,
                class_name=name,
                support=metrics.support,
                predicted=metrics.predicted,
                precision=metrics.precision,
                recall=metrics.recall,
                f1=metrics.f1,
            )
            for index, (name, metrics) in enumerate(zip(names, confusion.classes, strict=True))
        ],
        calibration=_from_calibration(confusion.calibration),
    )


def from_comparison(
    baseline: CheckpointRef,
    candidate: CheckpointRef,
    query: ComparisonQuery,
    next_token: NextToken,
    comparison: Comparison,
) -> pb.CompareModelsResponse:
    """A comparison, with a page of examples."""
    names = baseline.model.started.class_names
    counts, images = comparison.counts, comparison.images
    fixed, broken = counts[Outcome.FIXED], counts[Outcome.BROKEN]
    still_wrong = counts[Outcome.STILL_WRONG]
    examples = fit(_from_compared(example, names) for example in comparison.examples)
    return pb.CompareModelsResponse(
        baseline=baseline.name,
        candidate=candidate.name,
        split=_SPLITS[query.split],
        images=images,
        both_right=images - fixed - broken - still_wrong,
        fixed=fixed,
        broken=broken,
        still_wrong=still_wrong,
        baseline_accuracy=(images - fixed - still_wrong) / images,
        candidate_accuracy=(images - broken - still_wrong) / images,
        mcnemar=_from_mcnemar(comparison.mcnemar),
        examples=examples,
        next_page_token=next_token(len(examples), comparison.total),
        total_size=comparison.total,
    )


def from_label_errors(
    checkpoints: Sequence[CheckpointRef],
    query: LabelErrorQuery,
    next_token: NextToken,
    errors: LabelErrors,
) -> pb.ListLikelyLabelErrorsResponse:
    """A page of likely label errors."""
    names = checkpoints[0].model.started.class_names
    examples = fit(_from_label_error(example, names) for example in errors.examples)
    return pb.ListLikelyLabelErrorsResponse(
        examples=examples,
        next_page_token=next_token(len(examples), errors.total),
        total_size=errors.total,
        models=[checkpoint.name for checkpoint in checkpoints],
        min_models=query.min_models,
        split=_SPLITS[query.split],
    )


def _from_example(example: Example, class_names: Sequence[str]) -> pb.Example:
    return pb.Example(
        **_picture_fields(example.picture),
        true_class_index=example.true_class,
        true_class_name=class_names[example.true_class],
        predicted_class_index=example.predicted_class,
        predicted_class_name=class_names[example.predicted_class],
        probability=example.probability,
    )


def _from_calibration(calibration: Calibration) -> pb.Calibration:
    return pb.Calibration(
        expected_calibration_error=calibration.expected_error,
        maximum_calibration_error=calibration.maximum_error,
        bins=[
            pb.ReliabilityBin(
                lower=bin_.lower,
                upper=bin_.upper,
                images=bin_.images,
                confidence=bin_.confidence,
                accuracy=bin_.accuracy,
            )
            for bin_ in calibration.bins
        ],
    )


def _from_mcnemar(test: McNemar) -> pb.McNemarTest:
    return pb.McNemarTest(
        discordant=test.discordant,
        exact=test.is_exact,
        statistic=test.statistic,
        p_value=test.p_value,
    )


def _from_compared(example: ComparedExample, names: tuple[str, ...]) -> pb.ComparedExample:
    return pb.ComparedExample(
        **_picture_fields(example.picture),
        true_class_index=example.true_class,
        true_class_name=names[example.true_class],
        outcome=_OUTCOMES[example.outcome],
        baseline=_from_guess(example.baseline, names),
        candidate=_from_guess(example.candidate, names),
    )


def _from_guess(guess: Guess, names: tuple[str, ...]) -> pb.ClassGuess:
    return pb.ClassGuess(
        class_index=guess.predicted_class,
        class_name=names[guess.predicted_class],
        probability=guess.probability,
    )


def _from_label_error(example: LabelError, names: tuple[str, ...]) -> pb.LikelyLabelError:
    return pb.LikelyLabelError(
        **_picture_fields(example.picture),
        true_class_index=example.true_class,
        true_class_name=names[example.true_class],
        suggested_class_index=example.suggested_class,
        suggested_class_name=names[example.suggested_class],
        contradicting_models=example.models,
        margin=example.margin,
    )


class _PictureFields(TypedDict):
    """The fields of each message that shows an image."""

    name: str
    index: int
    png: bytes
    pixels: bytes
    aspect_ratio: float


def _picture_fields(picture: Picture) -> _PictureFields:
    return _PictureFields(
        name=picture.ref.name,
        index=picture.ref.index,
        png=picture.png,
        pixels=picture.pixels,
        aspect_ratio=picture.aspect_ratio,
    )

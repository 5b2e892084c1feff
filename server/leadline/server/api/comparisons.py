"""Requests for comparisons, and the comparisons that answer them."""

from leadline.server.api.examples import (
    SPLIT_VALUES,
    picture_fields,
    to_class,
    to_image_format,
    to_split,
    unknown_value,
)
from leadline.server.errors import InvalidArgumentError
from leadline.server.inspection.comparison import (
    ComparedExample,
    Comparison,
    ComparisonQuery,
    Guess,
    Outcome,
)
from leadline.server.inspection.mcnemar import McNemar
from leadline.server.serving.catalog import CheckpointRef
from leadline.v1 import inspection_service_pb2 as pb

_OUTCOME_VALUES: dict[Outcome, pb.Outcome.ValueType] = {
    Outcome.FIXED: pb.OUTCOME_FIXED,
    Outcome.BROKEN: pb.OUTCOME_BROKEN,
    Outcome.STILL_WRONG: pb.OUTCOME_STILL_WRONG,
}

_OUTCOMES: dict[int, tuple[Outcome, ...]] = {
    pb.OUTCOME_UNSPECIFIED: tuple(Outcome),
    **{value: (outcome,) for outcome, value in _OUTCOME_VALUES.items()},
}


def comparison_query(
    request: pb.CompareModelsRequest, class_names: tuple[str, ...]
) -> ComparisonQuery:
    """What a request asks for, but for its models and its page.

    Raises:
        InvalidArgumentError: a field is wrong.
    """
    if request.outcome not in _OUTCOMES:
        raise unknown_value("outcome", request.outcome)
    return ComparisonQuery(
        split=to_split(request.split),
        outcomes=_OUTCOMES[request.outcome],
        true_class=to_class("true_class", request.true_class, class_names),
        image_format=to_image_format(request.image_format),
    )


def check_same_images(baseline: CheckpointRef, candidate: CheckpointRef, field: str) -> None:
    """Passes two checkpoints that were measured on the same images.

    Raises:
        InvalidArgumentError: they were not; it is about `field`, the candidate's.
    """
    one, other = baseline.model.started, candidate.model.started
    if one.dataset_fingerprint != other.dataset_fingerprint:
        raise InvalidArgumentError.of(
            field,
            f"{candidate.name} was trained on another dataset than {baseline.name}: "
            f"{candidate.model.job.spec.dataset}, whose contents are others than those of "
            f"{baseline.model.job.spec.dataset}",
        )


def comparison_message(
    baseline: CheckpointRef,
    candidate: CheckpointRef,
    query: ComparisonQuery,
    comparison: Comparison,
    next_page_token: str,
) -> pb.CompareModelsResponse:
    """A comparison as it is sent."""
    names = baseline.model.started.class_names
    counts, images = comparison.counts, comparison.images
    fixed, broken = counts[Outcome.FIXED], counts[Outcome.BROKEN]
    still_wrong = counts[Outcome.STILL_WRONG]
    return pb.CompareModelsResponse(
        baseline=baseline.name,
        candidate=candidate.name,
        split=SPLIT_VALUES[query.split],
        images=images,
        both_right=images - fixed - broken - still_wrong,
        fixed=fixed,
        broken=broken,
        still_wrong=still_wrong,
        baseline_accuracy=(images - fixed - still_wrong) / images,
        candidate_accuracy=(images - broken - still_wrong) / images,
        mcnemar=_test(comparison.mcnemar),
        examples=[_example(example, names) for example in comparison.examples],
        next_page_token=next_page_token,
        total_size=comparison.total,
    )


def _test(test: McNemar) -> pb.McNemarTest:
    return pb.McNemarTest(
        discordant=test.discordant,
        exact=test.is_exact,
        statistic=test.statistic,
        p_value=test.p_value,
    )


def _example(example: ComparedExample, names: tuple[str, ...]) -> pb.ComparedExample:
    return pb.ComparedExample(
        **picture_fields(example.picture),
        true_class_index=example.true_class,
        true_class_name=names[example.true_class],
        outcome=_OUTCOME_VALUES[example.outcome],
        baseline=_guess(example.baseline, names),
        candidate=_guess(example.candidate, names),
    )


def _guess(guess: Guess, names: tuple[str, ...]) -> pb.ClassGuess:
    return pb.ClassGuess(
        class_index=guess.predicted_class,
        class_name=names[guess.predicted_class],
        probability=guess.probability,
    )

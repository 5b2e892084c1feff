"""Requests for likely label errors, and the images that answer them."""

from collections.abc import Sequence

from leadline.server.api.comparisons import check_same_images
from leadline.server.api.examples import (
    SPLIT_VALUES,
    picture_fields,
    to_class,
    to_image_format,
    to_split,
)
from leadline.server.api.names import parse_checkpoint
from leadline.server.errors import FailedPreconditionError, InvalidArgumentError
from leadline.server.inspection.label_errors import LabelError, LabelErrorQuery, LabelErrors
from leadline.server.serving.catalog import ByName, CheckpointRef
from leadline.v1 import inspection_service_pb2 as pb

MIN_MODELS = 2
MAX_MODELS = 20

# How much less accurate than the best a variant may be for its word to count.
_GOOD_ENOUGH = 0.1


def named_models(request: pb.ListLikelyLabelErrorsRequest) -> list[ByName]:
    """The models that a request names; none where it names a dataset instead.

    Raises:
        InvalidArgumentError: it names neither, both, too few or too many.
    """
    names = request.models
    if bool(names) == bool(request.dataset):
        raise InvalidArgumentError.of("models", "name either models or the dataset")
    if names and not MIN_MODELS <= len(names) <= MAX_MODELS:
        raise InvalidArgumentError.of(
            "models", f"must be {MIN_MODELS} to {MAX_MODELS}, are {len(names)}"
        )
    return [parse_checkpoint(name, field=f"models[{index}]") for index, name in enumerate(names)]


def check_models(checkpoints: Sequence[CheckpointRef]) -> None:
    """Passes different checkpoints that were measured on the same images.

    Raises:
        InvalidArgumentError: one is of other images, or there twice.
    """
    seen: set[str] = set()
    for index, checkpoint in enumerate(checkpoints):
        check_same_images(checkpoints[0], checkpoint, f"models[{index}]")
        if checkpoint.name in seen:
            raise InvalidArgumentError.of(f"models[{index}]", f"is {checkpoint.name} once more")
        seen.add(checkpoint.name)


def good_models(variants: Sequence[CheckpointRef], dataset: str) -> list[CheckpointRef]:
    """Those whose word counts, of the best checkpoints of a dataset's variants.

    Args:
        variants: the most accurate first.
        dataset: its name.

    Raises:
        FailedPreconditionError: there are fewer than two.
    """
    good = [
        one
        for one in variants
        if one.epoch.test_accuracy >= variants[0].epoch.test_accuracy - _GOOD_ENOUGH
        # The dataset of this name may have been another one before.
        and one.model.started.dataset_fingerprint == variants[0].model.started.dataset_fingerprint
    ][:MAX_MODELS]
    if len(good) < MIN_MODELS:
        raise FailedPreconditionError(
            f"at least {MIN_MODELS} variants on {dataset} must be within {_GOOD_ENOUGH} of the "
            f"best accuracy, and there is {len(good) or 'none'}: train another, or name the models",
            reason="TOO_FEW_MODELS",
            metadata={"dataset": dataset},
        )
    return good


def label_error_query(
    request: pb.ListLikelyLabelErrorsRequest, checkpoints: Sequence[CheckpointRef]
) -> LabelErrorQuery:
    """What a request asks for, but for its models and its page.

    Raises:
        InvalidArgumentError: a field is wrong.
    """
    count = len(checkpoints)
    min_models = max(MIN_MODELS, count // 2 + 1)
    if request.HasField("min_models"):
        min_models = request.min_models
        if not 1 <= min_models <= count:
            raise InvalidArgumentError.of(
                "min_models", f"must be from 1 to the {count} models there are, is {min_models}"
            )
    names = checkpoints[0].model.started.class_names
    return LabelErrorQuery(
        split=to_split(request.split),
        min_models=min_models,
        true_class=to_class("true_class", request.true_class, names),
        image_format=to_image_format(request.image_format),
    )


def label_errors_message(
    checkpoints: Sequence[CheckpointRef],
    query: LabelErrorQuery,
    found: LabelErrors,
    next_page_token: str,
) -> pb.ListLikelyLabelErrorsResponse:
    """Likely label errors as they are sent."""
    names = checkpoints[0].model.started.class_names
    return pb.ListLikelyLabelErrorsResponse(
        examples=[_example(example, names) for example in found.examples],
        next_page_token=next_page_token,
        total_size=found.total,
        models=[checkpoint.name for checkpoint in checkpoints],
        min_models=query.min_models,
        split=SPLIT_VALUES[query.split],
    )


def _example(example: LabelError, names: tuple[str, ...]) -> pb.LikelyLabelError:
    return pb.LikelyLabelError(
        **picture_fields(example.picture),
        true_class_index=example.true_class,
        true_class_name=names[example.true_class],
        suggested_class_index=example.suggested_class,
        suggested_class_name=names[example.suggested_class],
        contradicting_models=example.models,
        margin=example.margin,
    )

"""Requests for inspection, as queries.

Every function raises InvalidArgumentError if a field of its request is invalid.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from leadline.models.datasets import SplitName
from leadline.server.api.names import parse_checkpoint
from leadline.server.errors import InvalidArgumentError, shorten
from leadline.server.inspection.comparison import ComparisonQuery, Outcome
from leadline.server.inspection.examples import ImageFormat
from leadline.server.inspection.label_errors import LabelErrorQuery
from leadline.server.inspection.misclassified import Grouping, ListingQuery, Order
from leadline.server.services.inspection import MAX_MODELS, MIN_MODELS
from leadline.server.serving.catalog import ByName
from leadline.v1 import inspection_service_pb2 as pb

Value = TypeVar("Value")

_MAX_PER_CLASS = 10_000

_SPLITS: dict[int, SplitName] = {
    pb.SPLIT_UNSPECIFIED: "test",
    pb.SPLIT_TEST: "test",
    pb.SPLIT_TRAIN: "train",
}

_IMAGE_FORMATS: dict[int, ImageFormat] = {
    pb.IMAGE_FORMAT_UNSPECIFIED: ImageFormat.PNG,
    pb.IMAGE_FORMAT_PNG: ImageFormat.PNG,
    pb.IMAGE_FORMAT_RAW: ImageFormat.RAW,
    pb.IMAGE_FORMAT_NONE: ImageFormat.NONE,
}

_GROUPINGS: dict[int, Grouping] = {
    pb.GROUPING_UNSPECIFIED: Grouping.PREDICTED_CLASS,
    pb.GROUPING_PREDICTED_CLASS: Grouping.PREDICTED_CLASS,
    pb.GROUPING_TRUE_CLASS: Grouping.TRUE_CLASS,
    pb.GROUPING_NONE: Grouping.NONE,
}

_ORDERS: dict[int, Order] = {
    pb.EXAMPLE_ORDER_UNSPECIFIED: Order.MOST_PROBABLE,
    pb.EXAMPLE_ORDER_MOST_PROBABLE: Order.MOST_PROBABLE,
    pb.EXAMPLE_ORDER_LEAST_PROBABLE: Order.LEAST_PROBABLE,
    pb.EXAMPLE_ORDER_INDEX: Order.INDEX,
    pb.EXAMPLE_ORDER_RANDOM: Order.RANDOM,
}

_OUTCOMES: dict[int, tuple[Outcome, ...]] = {
    pb.OUTCOME_UNSPECIFIED: tuple(Outcome),
    pb.OUTCOME_FIXED: (Outcome.FIXED,),
    pb.OUTCOME_BROKEN: (Outcome.BROKEN,),
    pb.OUTCOME_STILL_WRONG: (Outcome.STILL_WRONG,),
}


def to_split(value: int) -> SplitName:
    """The split to inspect."""
    return _known("split", value, _SPLITS)


def to_listing_query(
    request: pb.ListMisclassifiedRequest, class_names: tuple[str, ...]
) -> ListingQuery:
    """Which examples to list; `class_names` are the selected model's."""
    low, high = _probabilities(request)
    return ListingQuery(
        split=to_split(request.split),
        per_class=_per_class(request),
        grouping=_known("grouping", request.grouping, _GROUPINGS),
        include_correct=request.include_correct,
        true_class=_class_index("true_class", request.true_class, class_names),
        predicted_class=_class_index("predicted_class", request.predicted_class, class_names),
        min_probability=low,
        max_probability=high,
        order=_known("order", request.order, _ORDERS),
        seed=_seed(request),
        image_format=_image_format(request.image_format),
    )


def to_comparison_query(
    request: pb.CompareModelsRequest, class_names: tuple[str, ...]
) -> ComparisonQuery:
    """Which images to compare; `class_names` are the baseline's."""
    return ComparisonQuery(
        split=to_split(request.split),
        outcomes=_known("outcome", request.outcome, _OUTCOMES),
        true_class=_class_index("true_class", request.true_class, class_names),
        image_format=_image_format(request.image_format),
    )


def to_named_models(request: pb.ListLikelyLabelErrorsRequest) -> list[ByName]:
    """The models that a request names; empty if it names a dataset instead.

    Raises:
        InvalidArgumentError: the request names neither, both, too few or too many models.
    """
    names = request.models
    if bool(names) == bool(request.dataset):
        raise InvalidArgumentError.of("models", "name either models or the dataset")
    if names and not MIN_MODELS <= len(names) <= MAX_MODELS:
        raise InvalidArgumentError.of(
            "models", f"must be {MIN_MODELS} to {MAX_MODELS}, are {len(names)}"
        )
    return [parse_checkpoint(name, field=f"models[{index}]") for index, name in enumerate(names)]


def to_label_error_query(
    request: pb.ListLikelyLabelErrorsRequest, models: int, class_names: tuple[str, ...]
) -> LabelErrorQuery:
    """Which labels to report.

    Args:
        request: the request.
        models: how many models vote.
        class_names: the models' classes.
    """
    min_models = max(MIN_MODELS, models // 2 + 1)
    if request.HasField("min_models"):
        min_models = request.min_models
        if not 1 <= min_models <= models:
            raise InvalidArgumentError.of(
                "min_models", f"must be from 1 to the number of models, {models}, is {min_models}"
            )
    return LabelErrorQuery(
        split=to_split(request.split),
        min_models=min_models,
        true_class=_class_index("true_class", request.true_class, class_names),
        image_format=_image_format(request.image_format),
    )


def _per_class(request: pb.ListMisclassifiedRequest) -> int | None:
    per_class = request.per_class if request.HasField("per_class") else None
    if per_class is not None and not 1 <= per_class <= _MAX_PER_CLASS:
        raise InvalidArgumentError.of(
            "per_class", f"must be from 1 to {_MAX_PER_CLASS}, or unset for all, is {per_class}"
        )
    return per_class


def _probabilities(request: pb.ListMisclassifiedRequest) -> tuple[float, float]:
    low = request.min_probability if request.HasField("min_probability") else 0.0
    high = request.max_probability if request.HasField("max_probability") else 1.0
    for field, value in (("min_probability", low), ("max_probability", high)):
        if not 0 <= value <= 1:
            raise InvalidArgumentError.of(field, f"must be from 0 to 1, is {value}")
    if low > high:
        raise InvalidArgumentError.of(
            "max_probability", f"is {high}, which is below the min_probability of {low}"
        )
    return low, high


def _seed(request: pb.ListMisclassifiedRequest) -> int:
    if not request.HasField("seed"):
        return 0
    if request.order != pb.EXAMPLE_ORDER_RANDOM:
        raise InvalidArgumentError.of("seed", "is for EXAMPLE_ORDER_RANDOM only: leave it unset")
    if request.seed < 0:
        raise InvalidArgumentError.of("seed", f"must not be negative, is {request.seed}")
    return request.seed


def _image_format(value: int) -> ImageFormat:
    return _known("image_format", value, _IMAGE_FORMATS)


def _known(field: str, value: int, values: Mapping[int, Value]) -> Value:
    if value not in values:
        raise InvalidArgumentError.of(field, f"is {value}, which this server does not know")
    return values[value]


def _class_index(field: str, name: str, class_names: Sequence[str]) -> int | None:
    if not name:
        return None
    if name not in class_names:
        known = ", ".join(class_names)
        raise InvalidArgumentError.of(
            field, f"is {shorten(name)!r}, but the model's classes are {known}"
        )
    return class_names.index(name)

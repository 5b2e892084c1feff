"""Builds the requests of inspection calls from the client's keyword arguments.

Raises an `InvalidArgumentError` if a value does not fit its field's type, or if the
arguments do not name exactly one model or variant.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypedDict, Unpack

from leadline.client._requests import ModelLike, Selection, build, name_of, select
from leadline.v1.inspection_service_pb2 import (
    CompareModelsRequest,
    ExampleOrder,
    Grouping,
    ImageFormat,
    ListLikelyLabelErrorsRequest,
    ListMisclassifiedRequest,
    ModelSelector,
    Outcome,
    Split,
)
from leadline.v1.model_pb2 import Variant

SplitLike: TypeAlias = Split.ValueType | str
"""A value of `Split`, or its name in any case, with or without the prefix: "train"."""

GroupingLike: TypeAlias = Grouping.ValueType | str
"""A value of `Grouping`, or its name as for `SplitLike`: "true_class"."""

ExampleOrderLike: TypeAlias = ExampleOrder.ValueType | str
"""A value of `ExampleOrder`, or its name as for `SplitLike`: "least_probable"."""

ImageFormatLike: TypeAlias = ImageFormat.ValueType | str
"""A value of `ImageFormat`, or its name as for `SplitLike`: "raw"."""

OutcomeLike: TypeAlias = Outcome.ValueType | str
"""A value of `Outcome`, or its name as for `SplitLike`: "still_wrong"."""

ModelOrVariant: TypeAlias = ModelLike | Variant
"""A model or one of its epochs, or its name; or a variant, which stands for its best model."""


class Listing(Selection, total=False):
    """The keyword arguments of `list_misclassified`, which documents them."""

    split: SplitLike
    true_class: str
    predicted_class: str
    min_probability: float | None
    max_probability: float | None
    grouping: GroupingLike
    order: ExampleOrderLike
    seed: int | None
    per_class: int | None
    include_correct: bool
    image_format: ImageFormatLike
    page_size: int


class Comparing(TypedDict, total=False):
    """The keyword arguments of `compare_models`, which documents them."""

    split: SplitLike
    outcome: OutcomeLike
    true_class: str
    image_format: ImageFormatLike
    page_size: int


class LabelErrors(TypedDict, total=False):
    """The keyword arguments of `list_likely_label_errors`, which documents them."""

    models: Sequence[ModelLike]
    dataset: str
    split: SplitLike
    min_models: int | None
    true_class: str
    image_format: ImageFormatLike
    page_size: int


def listing_request(**query: Unpack[Listing]) -> ListMisclassifiedRequest:
    """The request for a listing."""
    given: dict[str, Any] = dict(query)
    selection = {field: given.pop(field, None) for field in Selection.__annotations__}
    return select(build(ListMisclassifiedRequest(), **given), **selection)


def comparison_request(
    baseline: ModelOrVariant, candidate: ModelOrVariant, **query: Unpack[Comparing]
) -> CompareModelsRequest:
    """The request for a comparison."""
    request = CompareModelsRequest(baseline=_selector(baseline), candidate=_selector(candidate))
    return build(request, **query)


def label_errors_request(**query: Unpack[LabelErrors]) -> ListLikelyLabelErrorsRequest:
    """The request for likely label errors."""
    fields: dict[str, Any] = dict(query)
    fields["models"] = [name_of(model) for model in query.get("models", ())]
    return build(ListLikelyLabelErrorsRequest(), **fields)


def _selector(meant: ModelOrVariant) -> ModelSelector:
    if isinstance(meant, Variant):
        return ModelSelector(variant=meant)
    return ModelSelector(model=name_of(meant))

"""Requests of the inspection calls, from the keyword arguments of the client's methods."""

from typing import Any, TypeAlias, TypedDict, Unpack

from leadline.client._requests import ModelLike, build, enum_value, select
from leadline.v1.inspection_service_pb2 import (
    ExampleOrder,
    Grouping,
    ImageFormat,
    ListMisclassifiedRequest,
    Split,
)
from leadline.v1.model_pb2 import Variant

SplitLike: TypeAlias = Split.ValueType | str
"""A value of `Split`, or its name in any case, with or without the prefix: "train"."""

GroupingLike: TypeAlias = Grouping.ValueType | str
"""A value of `Grouping`, or its name likewise: "true_class"."""

ExampleOrderLike: TypeAlias = ExampleOrder.ValueType | str
"""A value of `ExampleOrder`, or its name likewise: "least_probable"."""

ImageFormatLike: TypeAlias = ImageFormat.ValueType | str
"""A value of `ImageFormat`, or its name likewise: "raw"."""

_ENUMS = {
    "split": ("SPLIT_", Split),
    "grouping": ("GROUPING_", Grouping),
    "order": ("EXAMPLE_ORDER_", ExampleOrder),
    "image_format": ("IMAGE_FORMAT_", ImageFormat),
}


class Listing(TypedDict, total=False):
    """The keyword arguments of `list_misclassified`, which documents them."""

    model: ModelLike | None
    variant: Variant | None
    dataset: str | None
    blocks: int | None
    batch_norm: bool | None
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


def listing_request(**asked: Unpack[Listing]) -> ListMisclassifiedRequest:
    """The request for a listing.

    Raises:
        InvalidArgumentError: a value does not fit its field's type, or not
            exactly one model or variant is named.
    """
    selector, fields = _split_off_selector(dict(asked))
    return select(build(ListMisclassifiedRequest(), **fields), **selector)


def _split_off_selector(asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What answers a request, and its other fields, with numbers for names of enum values."""
    selector = {
        field: asked.pop(field, None)
        for field in ("model", "variant", "dataset", "blocks", "batch_norm")
    }
    return selector, {field: _number(field, value) for field, value in asked.items()}


def _number(field: str, value: Any) -> Any:
    if field not in _ENUMS:
        return value
    prefix, kind = _ENUMS[field]
    return enum_value(field, prefix, kind.items(), value)

"""Requests for listings of wrong images, and the listings that answer them."""

from leadline.server.api.examples import (
    SPLIT_VALUES,
    example_message,
    to_class,
    to_image_format,
    to_split,
    unknown_value,
)
from leadline.server.errors import InvalidArgumentError
from leadline.server.inspection.misclassified import Grouping, Listing, ListingQuery, Order
from leadline.server.serving.catalog import CheckpointRef
from leadline.v1 import inspection_service_pb2 as pb

_MAX_PER_CLASS = 10_000

_GROUPINGS = {
    pb.GROUPING_UNSPECIFIED: Grouping.PREDICTED_CLASS,
    pb.GROUPING_PREDICTED_CLASS: Grouping.PREDICTED_CLASS,
    pb.GROUPING_TRUE_CLASS: Grouping.TRUE_CLASS,
    pb.GROUPING_NONE: Grouping.NONE,
}

_ORDERS = {
    pb.EXAMPLE_ORDER_UNSPECIFIED: Order.MOST_PROBABLE,
    pb.EXAMPLE_ORDER_MOST_PROBABLE: Order.MOST_PROBABLE,
    pb.EXAMPLE_ORDER_LEAST_PROBABLE: Order.LEAST_PROBABLE,
    pb.EXAMPLE_ORDER_INDEX: Order.INDEX,
    pb.EXAMPLE_ORDER_RANDOM: Order.RANDOM,
}


def listing_query(
    request: pb.ListMisclassifiedRequest, class_names: tuple[str, ...]
) -> ListingQuery:
    """What a request asks for.

    Args:
        request: but for its selector and its page.
        class_names: those of the model that it selects.

    Raises:
        InvalidArgumentError: a field is wrong.
    """
    if request.grouping not in _GROUPINGS:
        raise unknown_value("grouping", request.grouping)
    if request.order not in _ORDERS:
        raise unknown_value("order", request.order)
    low, high = _probabilities(request)
    return ListingQuery(
        split=to_split(request.split),
        per_class=_per_class(request),
        grouping=_GROUPINGS[request.grouping],
        include_correct=request.include_correct,
        true_class=to_class("true_class", request.true_class, class_names),
        predicted_class=to_class("predicted_class", request.predicted_class, class_names),
        min_probability=low,
        max_probability=high,
        order=_ORDERS[request.order],
        seed=_seed(request),
        image_format=to_image_format(request.image_format),
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


def listing_message(
    checkpoint: CheckpointRef, query: ListingQuery, listing: Listing, next_page_token: str
) -> pb.ListMisclassifiedResponse:
    """A listing as it is sent."""
    names = checkpoint.model.started.class_names
    return pb.ListMisclassifiedResponse(
        examples=[example_message(example, names) for example in listing.examples],
        next_page_token=next_page_token,
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
        split=SPLIT_VALUES[query.split],
        split_images=listing.images,
        split_accuracy=listing.correct / listing.images,
    )

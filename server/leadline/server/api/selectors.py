"""The one way in which requests say which checkpoint they mean."""

from typing import Protocol

from leadline.server.api.names import parse_checkpoint
from leadline.server.errors import InvalidArgumentError
from leadline.server.jobs.variants import VariantFilter
from leadline.server.serving.catalog import Selector
from leadline.v1 import model_pb2


class _HasSelector(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def variant(self) -> model_pb2.Variant: ...


def to_selector(request: _HasSelector, chosen: str | None, *, within: str = "") -> Selector:
    """What a request selects.

    Args:
        request: one with the oneof `selector`.
        chosen: the name of the field that is set in it, None for none.
        within: what an error says before the names of its fields, such as "baseline.".

    Raises:
        InvalidArgumentError: none is set, or it is malformed.
    """
    match chosen:
        case "model":
            return parse_checkpoint(request.model, field=f"{within}model")
        case "variant":
            return _to_filter(request.variant, within)
        case _:
            raise InvalidArgumentError.of(f"{within}selector", "is unset: set model or variant")


def _to_filter(variant: model_pb2.Variant, within: str) -> VariantFilter:
    if not variant.dataset:
        raise InvalidArgumentError.of(f"{within}variant.dataset", "is empty: name the dataset")
    return VariantFilter(
        dataset=variant.dataset,
        blocks=variant.blocks,
        block_convolutions=_block_convolutions(variant, within),
        batch_norm=variant.batch_norm,
        residual=variant.residual,
    )


def _block_convolutions(variant: model_pb2.Variant, within: str) -> int:
    number = variant.block_convolutions or 1
    if number not in (1, 2):
        raise InvalidArgumentError.of(
            f"{within}variant.block_convolutions", f"must be 1 or 2, but is {number}"
        )
    return number

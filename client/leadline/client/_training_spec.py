"""Builds a spec from the keyword arguments of `train` and `train_sweep`."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, cast

from leadline.client._errors import invalid
from leadline.client._requests import set_field
from leadline.v1.training_spec_pb2 import (
    Augmentation,
    Initialization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSpec,
)


class SpecFields(TypedDict, total=False):
    """The fields of a `TrainingSpec`, which `AsyncClient.train` documents.

    Enums are values or lower-case names. None leaves a field unset.
    """

    dataset: str | None
    blocks: int | None
    block_convolutions: int | None
    batch_norm: bool | None
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    optimizer: Optimizer.ValueType | Literal["sgd", "adam", "adamw"] | None
    momentum: float | None
    weight_decay: float | None
    seed: int | None
    residual: bool | None
    initialization: Initialization.ValueType | Literal["default", "kaiming"] | None
    schedule: Schedule.ValueType | Literal["constant", "cosine", "one_cycle"] | None
    nesterov: bool | None
    augmentation: Augmentation.ValueType | Literal["none", "flip", "flip_crop"] | None
    patience: int | None
    precision: Precision.ValueType | Literal["float32", "bfloat16"] | None
    diagnostics: bool | None


SpecLike: TypeAlias = TrainingSpec | SpecFields
"""A spec, or a dict of its fields."""


def training_spec(spec: SpecLike | None, **fields: Unpack[SpecFields]) -> TrainingSpec:
    """Returns a copy of the spec, with the fields that are not None replaced.

    Raises:
        InvalidArgumentError: there is no such field, or a value does not fit its type.
    """
    result = TrainingSpec()
    if isinstance(spec, TrainingSpec):
        result.CopyFrom(spec)
    elif isinstance(spec, Mapping):
        _set_fields(result, cast("dict[str, Any]", spec))
    elif spec is not None:
        raise invalid("spec", f"must be a TrainingSpec or a dict, is a {type(spec).__name__}")
    _set_fields(result, cast("dict[str, Any]", fields))
    return result


def _set_fields(spec: TrainingSpec, fields: Mapping[str, Any]) -> None:
    for field, value in fields.items():
        if value is not None:
            set_field(spec, field, value, path=f"spec.{field}")

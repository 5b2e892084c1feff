"""Requests, from the keyword arguments of the client's methods."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from leadline.client._errors import invalid
from leadline.client._names import model_name
from leadline.v1.inference_service_pb2 import PredictRequest
from leadline.v1.inspection_service_pb2 import (
    GetConfusionMatrixRequest,
    ListMisclassifiedRequest,
    ModelSelector,
)
from leadline.v1.job_pb2 import JobState
from leadline.v1.model_pb2 import Model, ModelEpoch, Variant
from leadline.v1.training_spec_pb2 import (
    Augmentation,
    Initialization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSpec,
)

OptimizerLike: TypeAlias = Optimizer.ValueType | str
"""A value of `Optimizer`, or its name in any case, with or without the prefix: "adamw"."""

InitializationLike: TypeAlias = Initialization.ValueType | str
"""A value of `Initialization`, or its name likewise: "kaiming"."""

ScheduleLike: TypeAlias = Schedule.ValueType | str
"""A value of `Schedule`, or its name likewise: "one_cycle"."""

AugmentationLike: TypeAlias = Augmentation.ValueType | str
"""A value of `Augmentation`, or its name likewise: "flip_crop"."""

PrecisionLike: TypeAlias = Precision.ValueType | str
"""A value of `Precision`, or its name likewise: "bfloat16"."""

JobStateLike: TypeAlias = JobState.ValueType | str
"""A value of `JobState`, or its name in any case, with or without the prefix: "running"."""

ModelLike: TypeAlias = str | Model | ModelEpoch
"""A model or one of its epochs, or its name or bare ID."""

AnyMessage = TypeVar("AnyMessage", bound=Message)
Selecting = TypeVar(
    "Selecting", PredictRequest, ListMisclassifiedRequest, GetConfusionMatrixRequest, ModelSelector
)


def build(message: AnyMessage, **fields: object) -> AnyMessage:
    """The message with the fields set that are not None.

    Raises:
        InvalidArgumentError: a value does not fit its field's type.
    """
    for field, value in fields.items():
        if value is not None:
            set_field(message, field, value, path=field)
    return message


def training_spec(spec: TrainingSpec | None, **fields: object) -> TrainingSpec:
    """A copy of the spec, with the fields that are not None put over it.

    A value of an enum may be given by its name.

    Raises:
        InvalidArgumentError: a value does not fit its field's type.
    """
    result = TrainingSpec()
    if spec is not None:
        result.CopyFrom(spec)
    for field, value in fields.items():
        if value is not None:
            set_field(result, field, _spec_value(field, value), path=f"spec.{field}")
    return result


def _spec_value(field: str, value: object) -> object:
    """The value of a spec's field, with a number for the name of an enum's value."""
    enum = TrainingSpec.DESCRIPTOR.fields_by_name[field].enum_type
    if enum is None or not isinstance(value, str):
        return value
    numbers = [(one.name, one.number) for one in enum.values]
    return enum_value(f"spec.{field}", f"{field.upper()}_", numbers, value)


def set_field(message: Message, field: str, value: object, *, path: str) -> None:
    """Sets a field, or extends it where the value is a list.

    Raises:
        InvalidArgumentError: the value does not fit its type; `path` names the field.
    """
    try:
        if isinstance(value, list):
            getattr(message, field).extend(value)
        else:
            setattr(message, field, value)
    except (TypeError, ValueError) as error:
        # Such as an integer of more than 32 bits.
        raise invalid(path, str(error)) from None


def select(
    request: Selecting,
    *,
    model: ModelLike | None,
    variant: Variant | None,
    dataset: str | None,
    blocks: int | None,
    block_convolutions: int | None,
    batch_norm: bool | None,
    residual: bool | None,
) -> Selecting:
    """The request, with what answers it: a model or a variant.

    Raises:
        InvalidArgumentError: not exactly one of them is given.
    """
    parts = {
        "dataset": dataset,
        "blocks": blocks,
        "block_convolutions": block_convolutions,
        "batch_norm": batch_norm,
        "residual": residual,
    }
    variant = _variant(variant, parts)
    if (model is None) == (variant is None):
        raise invalid("selector", f"name either a model or a variant ({', '.join(parts)})")
    if model is not None:
        request.model = model_name(model if isinstance(model, str) else model.name)
    if variant is not None:
        request.variant.CopyFrom(variant)
    return request


def _variant(variant: Variant | None, parts: Mapping[str, object]) -> Variant | None:
    if all(part is None for part in parts.values()):
        return variant
    if variant is not None:
        raise invalid("variant", "given twice: once whole and once in its parts")
    if parts["dataset"] is None or parts["blocks"] is None:
        raise invalid("variant", "a variant needs its dataset and its number of blocks")
    return build(Variant(), **parts)


def duration(seconds: float | None, field: str = "progress_interval") -> Duration | None:
    """Seconds as a message; None stays None.

    Raises:
        InvalidArgumentError: no message holds them; `field` names whose they are.
    """
    if seconds is None:
        return None
    result = Duration()
    try:
        result.FromNanoseconds(round(seconds * 1e9))
    except (OverflowError, ValueError) as error:
        raise invalid(field, str(error)) from None
    return result


def job_states(states: Iterable[JobStateLike]) -> list[JobState.ValueType]:
    """The states of these names."""
    if isinstance(states, str):  # an easy slip, and a string is an iterable too
        states = [states]
    return [
        JobState.ValueType(enum_value("states", "JOB_STATE_", JobState.items(), state))
        for state in states
    ]


def enum_value(field: str, prefix: str, items: Iterable[tuple[str, int]], value: int | str) -> int:
    """The number of an enum's value, given as itself or as its name in any case.

    Raises:
        InvalidArgumentError: there is no value of this name.
    """
    if isinstance(value, int):
        return value
    values = {name.removeprefix(prefix).lower(): number for name, number in items}
    name = value.upper().removeprefix(prefix).lower()
    if name not in values or values[name] == 0:
        known = ", ".join(name for name, number in values.items() if number)
        raise invalid(field, f"{value!r} is none of {known}")
    return values[name]

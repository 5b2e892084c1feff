"""Builds requests from the keyword arguments of the client's methods.

Values that do not fit raise an `InvalidArgumentError`, whose violation has the field's path.
"""

from collections.abc import Collection, MutableSequence
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from leadline.client._errors import invalid
from leadline.client._messages import enum_numbers, short_name
from leadline.client._names import model_name
from leadline.client._text import did_you_mean
from leadline.v1.inference_service_pb2 import ExportModelRequest, PredictRequest
from leadline.v1.inspection_service_pb2 import (
    GetConfusionMatrixRequest,
    ListMisclassifiedRequest,
    ModelSelector,
)
from leadline.v1.job_pb2 import JobState
from leadline.v1.model_pb2 import Model, ModelEpoch, Variant

JobStateLike: TypeAlias = JobState.ValueType | str
"""A value of `JobState`, or its name, with or without the prefix: "running"."""

ModelLike: TypeAlias = str | Model | ModelEpoch
"""A model or one of its epochs, or its name or ID."""


class Selection(TypedDict, total=False):
    """The keyword arguments that select a model, or the best model of a variant."""

    model: ModelLike | None
    variant: Variant | None
    dataset: str | None
    blocks: int | None
    block_convolutions: int | None
    batch_norm: bool | None
    residual: bool | None


_PARTS: Final = ("dataset", "blocks", "block_convolutions", "batch_norm", "residual")

AnyMessage = TypeVar("AnyMessage", bound=Message)
Selecting = TypeVar(
    "Selecting",
    PredictRequest,
    ExportModelRequest,
    ListMisclassifiedRequest,
    GetConfusionMatrixRequest,
    ModelSelector,
)


def build(message: AnyMessage, **fields: object) -> AnyMessage:
    """Sets the fields that are not None, and returns the message."""
    for field, value in fields.items():
        if value is not None:
            set_field(message, field, value, path=field)
    return message


def set_field(message: Message, field: str, value: Any, *, path: str) -> None:
    """Sets a field, or extends a repeated one; enums may be given by their names in any case."""
    check_field(field, message.DESCRIPTOR.fields_by_name, path=path)
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    target = getattr(message, field)
    is_repeated = isinstance(target, MutableSequence)
    # A string instead of a list of names is an easy mistake, because it is iterable too.
    values = value if is_repeated and not isinstance(value, str) else [value]
    if enum is not None:
        values = [_enum_number(path, enum, item) for item in values]
    try:
        if is_repeated:
            target.extend(values)
        else:
            setattr(message, field, *values)
    except (TypeError, ValueError) as error:
        # For example, an integer of more than 32 bits.
        raise invalid(path, str(error)) from None


def check_field(field: str, known: Collection[str], *, path: str = "") -> None:
    """Checks that a field exists; the error suggests a similar name."""
    if field not in known:
        raise invalid(path or field, f"there is no such field.{did_you_mean(field, known)}")


def select(request: Selecting, **selection: Unpack[Selection]) -> Selecting:
    """Sets the model or the variant of a request; exactly one must be given."""
    for field in selection:
        check_field(field, Selection.__annotations__)
    model, variant = selection.get("model"), _variant(selection)
    if (model is None) == (variant is None):
        raise invalid("selector", f"give either a model or a variant ({', '.join(_PARTS)})")
    if model is not None:
        request.model = name_of(model)
    if variant is not None:
        request.variant.CopyFrom(variant)
    return request


def name_of(model: ModelLike) -> str:
    """The resource name of a model or an epoch."""
    return model_name(model if isinstance(model, str) else model.name)


def _variant(selection: Selection) -> Variant | None:
    parts = {part: selection.get(part) for part in _PARTS}
    variant = selection.get("variant")
    if all(value is None for value in parts.values()):
        return variant
    if variant is not None:
        raise invalid("variant", "give the variant either whole or in parts")
    if parts["dataset"] is None or parts["blocks"] is None:
        raise invalid("variant", "a variant needs its dataset and its number of blocks")
    return build(Variant(), **parts)


def duration(seconds: float | None, field: str = "progress_interval") -> Duration | None:
    """Converts seconds to a message, unless they are out of range; None stays None."""
    if seconds is None:
        return None
    result = Duration()
    try:
        result.FromNanoseconds(round(seconds * 1e9))
    except (OverflowError, ValueError) as error:
        raise invalid(field, str(error)) from None
    return result


def _enum_number(path: str, enum: EnumDescriptor, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    numbers = enum_numbers(enum)
    name = short_name(enum, value)
    if name not in numbers:
        raise invalid(path, f"{value!r} is not one of {', '.join(numbers)}")
    return numbers[name]

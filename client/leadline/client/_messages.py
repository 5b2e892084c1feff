"""Converts messages of the contract to plain Python values."""

from collections.abc import MutableSequence
from datetime import UTC
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from leadline.client._errors import UsageError

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


def to_dict(message: Message) -> dict[str, Any]:
    """Converts a message to a dict, for example for `DataFrame(map(to_dict, epochs))`.

    Enums are lower-case names ("running"), times are datetimes in UTC, durations are timedeltas.
    An optional field that is not set is None. A oneof contributes only the field that is set.

    Raises:
        UsageError: the argument is not a message, but for example a handle.
    """
    _check(message)
    return {
        field.name: _plain_field(message, field)
        for field in message.DESCRIPTOR.fields
        if not _is_alternative(field) or message.HasField(field.name)
    }


def state_name(message: Message) -> str:
    """The name of a message's `state`, such as "running"; "state 99" for an unknown state.

    Raises:
        UsageError: the argument has no state, or is not a message, such as a handle.
    """
    _check(message)
    if "state" not in message.DESCRIPTOR.fields_by_name:
        raise UsageError(f"a {message.DESCRIPTOR.name} has no state: give a Job or a Sweep")
    return enum_name(message, "state")


def enum_name(message: Message, field: str) -> str:
    """The lower-case name of an enum field's value, without its prefix: "one_cycle"."""
    return _enum_name(message.DESCRIPTOR.fields_by_name[field], getattr(message, field))


def short_name(enum: EnumDescriptor, name: str) -> str:
    """The name of an enum's value in lower case, without its prefix: "one_cycle"."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return name.upper().removeprefix(prefix).lower()


def enum_numbers(enum: EnumDescriptor) -> dict[str, int]:
    """The numbers of an enum's values by short name, without the unspecified value."""
    return {short_name(enum, value.name): value.number for value in enum.values if value.number}


def is_final(message: Message) -> bool:
    """Whether a job or a sweep has ended; False for an unknown state."""
    return state_name(message) in FINAL_STATES


def _check(message: Message) -> None:
    if not isinstance(message, Message):
        raise UsageError(
            f"{type(message).__name__} is not a message: give the result of its refresh()"
        )


def _is_alternative(field: FieldDescriptor) -> bool:
    # Each `optional` scalar is in a separate oneof, whose name begins with "_".
    return field.containing_oneof is not None and not field.containing_oneof.name.startswith("_")


def _plain_field(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if isinstance(value, MutableSequence):
        return [_plain(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _plain(field, value)


def _plain(field: FieldDescriptor, value: Any) -> Any:
    match value:
        case Timestamp():
            return value.ToDatetime(tzinfo=UTC)
        case Duration():
            return value.ToTimedelta()
        case Struct() | Value():
            return MessageToDict(value)
        case Message():
            return to_dict(value)
    return value if field.enum_type is None else _enum_name(field, value)


def _enum_name(field: FieldDescriptor, number: int) -> str:
    value = field.enum_type.values_by_number.get(number)
    return f"{field.name} {number}" if value is None else short_name(field.enum_type, value.name)

"""Builds requests about sweeps from the keyword arguments of `train_sweep`: see `_requests`."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Value

from leadline.client._errors import invalid
from leadline.v1.sweep_pb2 import MedianStoppingRule, SweepAxis

AxisValue: TypeAlias = bool | float | str
"""A value of a field of `TrainingSpec`; enums by name, such as "adam"."""

Axes: TypeAlias = Mapping[str, Iterable[AxisValue]]
"""The values of each field in which the jobs of a sweep differ."""

MedianStoppingLike: TypeAlias = MedianStoppingRule | bool
"""A rule, True for the server's default rule, or False for none."""


def to_axes(axes: Axes) -> list[SweepAxis]:
    """Converts axes to messages."""
    return [_axis(number, field, values) for number, (field, values) in enumerate(axes.items())]


def median_stopping_rule(value: MedianStoppingLike) -> MedianStoppingRule | None:
    """The rule; None without one."""
    if isinstance(value, MedianStoppingRule):
        return value
    return MedianStoppingRule() if value else None


def _axis(number: int, field: str, values: Iterable[AxisValue]) -> SweepAxis:
    path = f"axes[{number}].values"
    if isinstance(values, str):  # an easy mistake, because a string is iterable too
        raise invalid(path, f"{values!r} is a single value: give a list")
    if not isinstance(field, str):
        raise invalid(f"axes[{number}].field", f"{field!r} is not the name of a field")
    axis = SweepAxis(field=field)
    for index, value in enumerate(values):
        try:
            axis.values.append(ParseDict(value, Value()))
        except (ParseError, TypeError, ValueError) as error:
            raise invalid(f"{path}[{index}]", f"{value!r} is not a value: {error}") from None
    return axis

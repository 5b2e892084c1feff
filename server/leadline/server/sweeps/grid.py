"""The grid of a sweep: the specs that its axes expand to, and their validation."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, TypeAlias

from leadline.models.spec import TrainingSpec, Violation
from leadline.server.jobs.validation import spec_violations

# More jobs would make responses of over a few hundred KB, and take too long to train.
MAX_JOBS = 1_000

AxisValue: TypeAlias = bool | int | float | str
"""A value of a field of a spec, as in JSON."""

SEED = "seed"

_FIELDS = tuple(field.name for field in dataclasses.fields(TrainingSpec))


@dataclass(frozen=True, kw_only=True)
class SweepAxis:
    """A field of a spec and its values, in the form of `TrainingSpec.to_dict`."""

    field: str
    values: tuple[AxisValue, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The spec that the jobs of a sweep share, and the axes in which they differ."""

    spec: TrainingSpec
    axes: tuple[SweepAxis, ...]

    def points(self) -> list[dict[str, AxisValue]]:
        """The combinations of the axes' values by field; the last axis changes first."""
        fields = [axis.field for axis in self.axes]
        combinations = itertools.product(*(axis.values for axis in self.axes))
        return [dict(zip(fields, values, strict=True)) for values in combinations]

    def spec_at(self, point: Mapping[str, AxisValue]) -> TrainingSpec:
        """The spec of a combination."""
        return TrainingSpec.from_dict({**self.spec.to_dict(), **point})

    def point_of(self, spec: TrainingSpec) -> dict[str, AxisValue]:
        """The combination of a spec."""
        # Without `to_dict`, which copies every field: a sweep may have a thousand specs.
        values = {axis.field: getattr(spec, axis.field) for axis in self.axes}
        return {
            field: value.value if isinstance(value, StrEnum) else value
            for field, value in values.items()
        }

    def violations(self, datasets: Collection[str]) -> list[Violation]:
        """The violations of the specs.

        A violation that several specs share is reported once, with the first of
        them.

        Args:
            datasets: the names of the datasets that the server knows.
        """
        points_of: dict[tuple[str, str], list[dict[str, AxisValue]]] = {}
        for point in self.points():
            for violation in spec_violations(self.spec_at(point), datasets):
                key = (violation.field, violation.description)
                points_of.setdefault(key, []).append(point)
        return [
            Violation(field=self._path(field, points[0]), description=_of(points, description))
            for (field, description), points in points_of.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """The grid as JSON values."""
        return {
            "spec": self.spec.to_dict(),
            "axes": [{"field": axis.field, "values": list(axis.values)} for axis in self.axes],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The grid that `to_dict` wrote."""
        return cls(
            spec=TrainingSpec.from_dict(values["spec"]),
            axes=tuple(
                SweepAxis(field=axis["field"], values=tuple(axis["values"]))
                for axis in values["axes"]
            ),
        )

    def _path(self, field: str, point: Mapping[str, AxisValue]) -> str:
        """The path of a field's value in the request."""
        for number, axis in enumerate(self.axes):
            if axis.field == field:
                return f"axes[{number}].values[{axis.values.index(point[field])}]"
        return f"spec.{field}"


def read_axes(
    given: Sequence[tuple[str, Sequence[object]]], *, max_jobs: int = MAX_JOBS
) -> tuple[tuple[SweepAxis, ...], list[Violation]]:
    """Parses axes from fields and their JSON values; returns the axes and their violations.

    The axes are valid only if there is no violation.

    Args:
        given: the field and the values of each axis; all numbers may be floats.
        max_jobs: the most combinations.
    """
    oversized = size_violation([len(values) for _, values in given], max_jobs=max_jobs)
    if oversized:
        return (), [oversized]
    axes = []
    violations: list[Violation] = []
    for number, (field, raw_values) in enumerate(given):
        path = f"axes[{number}]"
        problem = _field_problem(field, [other for other, _ in given[:number]])
        if problem:
            violations.append(Violation(field=f"{path}.field", description=problem))
            continue
        values, wrong = _read_values(field, raw_values, path=f"{path}.values")
        violations += wrong
        axes.append(SweepAxis(field=field, values=values))
    if not given:
        violations.append(Violation(field="axes", description="a sweep needs at least one"))
    return tuple(axes), violations


def size_violation(lengths: Sequence[int], *, max_jobs: int = MAX_JOBS) -> Violation | None:
    """The violation of the limits on a grid's size, checked before its values are parsed.

    Args:
        lengths: how many values each axis has.
        max_jobs: the most combinations.
    """
    if len(lengths) > len(_FIELDS):
        text = f"are {len(lengths):,}, and a training spec has {len(_FIELDS)} fields"
        return Violation(field="axes", description=text)
    # An axis without values counts as 1, so that it does not hide another that is too long.
    jobs = math.prod(max(1, length) for length in lengths)
    if jobs <= max_jobs:
        return None
    text = f"make {jobs:,} jobs, and a sweep may have {max_jobs:,}"
    return Violation(field="axes", description=text)


def shown(point: Mapping[str, AxisValue]) -> str:
    """A combination for people: "blocks=2, batch_norm=true"."""
    return ", ".join(
        f"{field}={str(value).lower() if isinstance(value, bool) else value}"
        for field, value in point.items()
    )


def _field_problem(field: str, before: Collection[str]) -> str | None:
    if field not in _FIELDS:
        return f"{field!r} is not a field of a training spec, which has {', '.join(_FIELDS)}"
    return f"{field!r} is an axis already" if field in before else None


def _read_values(
    field: str, raw_values: Sequence[object], *, path: str
) -> tuple[tuple[AxisValue, ...], list[Violation]]:
    values: dict[AxisValue, None] = {}
    violations = []
    if not raw_values:
        violations.append(Violation(field=path, description="an axis needs at least one value"))
    for number, value in _typed(field, raw_values):
        if isinstance(value, ValueError):
            problem = str(value)
        elif value in values:
            problem = f"{value!r} stands there twice"
        else:
            values[value] = None
            continue
        violations.append(Violation(field=f"{path}[{number}]", description=problem))
    return tuple(values), violations


def _typed(
    field: str, raw_values: Sequence[object]
) -> Iterator[tuple[int, AxisValue | ValueError]]:
    for number, raw in enumerate(raw_values):
        # All JSON numbers are floats; a spec accepts an integer for a float.
        whole = isinstance(raw, float) and raw.is_integer()
        value = int(raw) if whole else raw  # type: ignore[call-overload]
        try:
            read = getattr(TrainingSpec.from_dict({field: value}), field)
            yield number, read.value if isinstance(read, StrEnum) else read
        except (ValueError, OverflowError) as error:
            yield number, ValueError(str(error))


def _of(points: Sequence[Mapping[str, AxisValue]], description: str) -> str:
    others = f" and {len(points) - 1} more" if len(points) > 1 else ""
    return f"{description} (of the job with {shown(points[0])}{others})"

"""The outlines of the synthetic dataset's classes, as signed distances.

Each function takes coordinates, x to the right and y downwards, as float64 arrays
of one shape. It returns the approximate distance of each point from an outline of
radius 1 around the origin; points inside are negative. Near corners the result is
a bound of the distance, which is good enough for drawing.

This module and the drawing use only operations that IEEE 754 rounds exactly, so
every machine draws the same pixels.
"""

from collections.abc import Callable
from functools import reduce

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]
Shape = Callable[[Field, Field], Field]

# The directions of the edges of regular polygons: (sine, cosine) of multiples of 72 and 60 degrees.
_FIFTHS = (
    (0.0, 1.0),
    (0.9510565162951535, 0.30901699437494745),
    (0.5877852522924731, -0.8090169943749475),
    (-0.5877852522924731, -0.8090169943749475),
    (-0.9510565162951535, 0.30901699437494745),
)
_SIXTHS = ((0.0, 1.0), (0.8660254037844386, 0.5), (0.8660254037844386, -0.5))
_THIRDS = ((0.0, 1.0), (0.8660254037844386, -0.5), (-0.8660254037844386, -0.5))


def disc(x: Field, y: Field) -> Field:
    """Returns the distance to a disc of radius 1."""
    return np.sqrt(x * x + y * y) - 1


def _box(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _within(*fields: Field) -> Field:
    return reduce(np.maximum, fields)


def _either(*fields: Field) -> Field:
    return reduce(np.minimum, fields)


def _arrow(x: Field, y: Field) -> Field:
    shaft = _box(x, y - 0.35, 0.24, 0.6)
    head = _triangle(x * 1.25, (y + 0.4) * 1.25) / 1.25
    return _either(shaft, head)


def _crescent(x: Field, y: Field) -> Field:
    bite = (disc((x - 0.55) / 0.85, y / 0.85)) * 0.85
    return _within(disc(x, y), -bite)


def _cross(x: Field, y: Field) -> Field:
    return _either(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))


def _heart(x: Field, y: Field) -> Field:
    lobes = (disc((np.abs(x) - 0.45) / 0.52, (y + 0.35) / 0.52)) * 0.52
    # Below the lobes: the lower half of a square on its corner.
    point = (np.abs(x) + np.abs(y + 0.08) - 1.0) * 0.7071067811865476
    return _either(lobes, _within(point, -(y + 0.3)))


def _hexagon(x: Field, y: Field) -> Field:
    return _within(*(np.abs(x * sine + y * cosine) - 0.87 for sine, cosine in _SIXTHS))


def _ring(x: Field, y: Field) -> Field:
    return np.abs(disc(x / 0.78, y / 0.78) * 0.78) - 0.2


def _square(x: Field, y: Field) -> Field:
    return _box(x, y, 0.8, 0.8)


def _star(x: Field, y: Field) -> Field:
    # A point is in a five-pointed star if it is outside at most one side of a pentagon.
    sides = np.stack([x * sine + y * cosine - 0.36 for sine, cosine in _FIFTHS])
    return np.asarray(np.sort(sides, axis=0)[-2])


def _triangle(x: Field, y: Field) -> Field:
    return _within(*(x * sine + y * cosine - 0.55 for sine, cosine in _THIRDS))


SHAPES: dict[str, Shape] = {
    "arrow": _arrow,
    "circle": disc,
    "crescent": _crescent,
    "cross": _cross,
    "heart": _heart,
    "hexagon": _hexagon,
    "ring": _ring,
    "square": _square,
    "star": _star,
    "triangle": _triangle,
}
"""The classes by name, in the order of their labels."""

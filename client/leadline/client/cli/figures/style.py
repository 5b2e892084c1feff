"""What all figures have in common: colours that everyone can tell apart, sizes that can be read."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

# Okabe and Ito's colours, which those who are colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

DPI = 150
TITLE = 14
LABEL = 12
TEXT = 11

_LONGEST_OF_TWO = 42
"""Characters of a legend's label at most, where two columns fit on a figure."""

_ROWS_WITHIN = 2
_ROW = 0.25
"""Rows of a legend for which a figure has room, and the inches that each further one needs."""


class Legend(NamedTuple):
    """How a legend below the axes is laid out."""

    columns: int
    extra_height: float
    """Inches by which the figure must be higher."""


def legend_layout(labels: Sequence[str]) -> Legend:
    """The layout of a legend with these labels: two columns where they fit, else one."""
    fits = len(labels) > 1 and max(map(len, labels)) <= _LONGEST_OF_TWO
    columns = 2 if fits else 1
    rows = math.ceil(len(labels) / columns)
    return Legend(columns, _ROW * max(rows - _ROWS_WITHIN, 0))


def dress(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Gives axes their title, what they show with its unit, and a quiet frame."""
    axes.set_title(title, fontsize=TITLE)
    axes.set_xlabel(x, fontsize=LABEL)
    axes.set_ylabel(y, fontsize=LABEL)
    axes.tick_params(labelsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)

"""Draws the confusion matrix, with the reliability diagram beside it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from leadline.client import ConfusionMatrix
from leadline.client.cli.figures.style import (
    COOL,
    DPI,
    INK,
    LABEL,
    QUIET,
    TEXT,
    TITLE,
    dress,
    wrapped,
)

# The size of a cell in inches, with room for a count of four digits.
_CELL = 0.52
_SMALLEST_MATRIX = 3.4
_LARGEST_MATRIX = 12.0
_NAMES = 2.2
_LABELS = 1.0
_TITLE_LINE = 0.25
_RELIABILITY = 5.2
_BAR = 0.18

# With more classes, cells have no room for counts.
_MOST_WITH_COUNTS = 20

# Above this fraction, a cell is too dark for dark digits.
_DARK = 0.55


def confusion_figure(matrix: ConfusionMatrix, *, title: str) -> Figure:
    """The matrix and the reliability diagram, side by side."""
    side = min(max(_CELL * len(matrix.classes), _SMALLEST_MATRIX), _LARGEST_MATRIX)
    lines = wrapped(title)
    height = max(side, _RELIABILITY - 1) + _LABELS + _TITLE_LINE * len(lines.splitlines())
    figure = Figure(figsize=(side + _NAMES + _RELIABILITY, height), dpi=DPI, layout="constrained")
    figure.suptitle(lines, fontsize=TITLE)
    ratios = [side + _NAMES, _RELIABILITY]
    left, right = figure.subplots(1, 2, width_ratios=ratios, gridspec_kw={"wspace": 0.1})
    _draw_matrix(figure, left, matrix, bar_width=_BAR / side)
    _draw_reliability(right, matrix)
    return figure


def _draw_matrix(figure: Figure, axes: Axes, matrix: ConfusionMatrix, *, bar_width: float) -> None:
    counts = np.array([row.counts for row in matrix.rows])
    # A class without images has a row of zeros.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    names = [metrics.class_name for metrics in matrix.classes]
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, names, fontsize=TEXT, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names, fontsize=TEXT)
    axes.set_xlabel("predicted class", fontsize=LABEL)
    axes.set_ylabel("true class", fontsize=LABEL)
    axes.spines[:].set_visible(False)
    # Lines between the cells, so that pale cells are visible.
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    if len(names) <= _MOST_WITH_COUNTS:
        _write_counts(axes, counts, shares)
    # In the coordinates of the matrix, so that the bar is exactly as tall as the matrix.
    bar = figure.colorbar(image, cax=axes.inset_axes((1 + bar_width, 0, bar_width, 1)))
    bar.set_label("images of the true class (%)", fontsize=LABEL)
    bar.ax.tick_params(labelsize=TEXT)
    bar.outline.set_visible(False)


def _write_counts(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if shares[row, column] > _DARK else "#222222",
                fontweight="bold" if row == column else "normal",
            )


def _draw_reliability(axes: Axes, matrix: ConfusionMatrix) -> None:
    bins = [bin_ for bin_ in matrix.calibration.bins if bin_.images]
    bars = axes.bar(
        [100 * bin_.lower for bin_ in bins],
        [100 * bin_.accuracy for bin_ in bins],
        width=[100 * (bin_.upper - bin_.lower) for bin_ in bins],
        align="edge",
        color=COOL[1],
        edgecolor="white",
        label="images, and how many, by probability",
    )
    diagonal = axes.plot(
        [0, 100], [0, 100], color=QUIET, linestyle="--", linewidth=1.5, label="perfect calibration"
    )
    for bin_ in bins:
        axes.text(
            50 * (bin_.lower + bin_.upper),
            2,
            f"{bin_.images:,}",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=9,
            color=INK,
        )
    error = 100 * matrix.calibration.expected_calibration_error
    dress(
        axes,
        title=f"Expected calibration error: {error:.1f} %",
        x="probability of the predicted class (%)",
        y="classified correctly (%)",
    )
    axes.set(xlim=(0, 100), ylim=(0, 100), box_aspect=1)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend(
        handles=[bars, *diagonal],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        fontsize=TEXT,
        frameon=False,
    )

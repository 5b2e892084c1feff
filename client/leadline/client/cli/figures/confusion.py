"""The confusion matrix, and beside it how far the probabilities can be believed."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from leadline.client import ConfusionMatrix
from leadline.client.cli.figures.style import COLOURS, DPI, LABEL, TEXT, TITLE, dress
from leadline.client.cli.files import appearing

# Inches: a cell has room for a count of four digits.
_CELL = 0.52
_NAMES = 1.7
_BELOW = 1.1
_RELIABILITY = 5.0
_LEAST_HEIGHT = 5.2

# More classes than this leave no room for their counts.
_MOST_WITH_COUNTS = 20
_LARGEST_MATRIX = 12.0

# Above this fraction a cell is too dark for dark digits.
_DARK = 0.55


def draw_confusion(matrix: ConfusionMatrix, path: Path, *, title: str) -> None:
    """Writes the matrix to a file, in the format that its suffix says.

    Args:
        matrix: what to draw.
        path: the file.
        title: what stands above.
    """
    side = min(_CELL * len(matrix.classes), _LARGEST_MATRIX)
    width, height = side + _NAMES + _RELIABILITY, max(side + _BELOW, _LEAST_HEIGHT)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=TITLE)
    ratios = [side + _NAMES, _RELIABILITY]
    left, right = figure.subplots(1, 2, width_ratios=ratios, gridspec_kw={"wspace": 0.12})
    _draw_matrix(figure, left, matrix)
    _draw_reliability(right, matrix)
    with appearing(path) as temporary:
        figure.savefig(temporary)


def _draw_matrix(figure: Figure, axes: Axes, matrix: ConfusionMatrix) -> None:
    counts = np.array([row.counts for row in matrix.rows])
    # A class without images has a row of zeros.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    names = [one.class_name for one in matrix.classes]
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, names, fontsize=TEXT, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names, fontsize=TEXT)
    axes.set_xlabel("taken for", fontsize=LABEL)
    axes.set_ylabel("is", fontsize=LABEL)
    axes.spines[:].set_visible(False)
    # Lines between the cells, so that a pale one is seen as one.
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    if len(names) <= _MOST_WITH_COUNTS:
        _write_counts(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02)
    bar.set_label("of the images of the class (%)", fontsize=LABEL)
    bar.ax.tick_params(labelsize=TEXT)
    bar.outline.set_visible(False)


def _write_counts(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > _DARK else "#222222"
            weight = "bold" if row == column else "normal"
            axes.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                fontsize=9,
                color=colour,
                fontweight=weight,
            )


def _draw_reliability(axes: Axes, matrix: ConfusionMatrix) -> None:
    bins = [one for one in matrix.calibration.bins if one.images]
    axes.bar(
        [100 * one.lower for one in bins],
        [100 * one.accuracy for one in bins],
        width=[100 * (one.upper - one.lower) for one in bins],
        align="edge",
        color=COLOURS[5],
        edgecolor="white",
        label="images of that probability",
    )
    axes.plot(
        [0, 100],
        [0, 100],
        color="#444444",
        linestyle="--",
        linewidth=1.5,
        label="where probabilities hold",
    )
    error = 100 * matrix.calibration.expected_calibration_error
    dress(
        axes,
        title=f"Expected calibration error: {error:.1f} %",
        x="probability of the class taken (%)",
        y="classified rightly (%)",
    )
    axes.set(xlim=(0, 100), ylim=(0, 100), box_aspect=1)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=TEXT, frameon=False, ncols=1
    )

"""Accuracy curves: a line for the training set and one for the test set a run."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leadline.client.cli.files import appearing

# Okabe and Ito's colours, which those who are colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_FEW_EPOCHS = 20


class Curve(NamedTuple):
    """The accuracies of one run, in percent."""

    label: str
    epochs: Sequence[int]
    train: Sequence[float]
    test: Sequence[float]


def draw_curves(curves: Sequence[Curve], path: Path, *, title: str) -> None:
    """Writes the curves to a file, in the format that its suffix says."""
    # Without pyplot: it keeps figures, and wants a display.
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for curve, colour in zip(curves, cycle(_COLOURS), strict=False):
        # Few points are better seen with a mark each, many without.
        mark = "o" if len(curve.epochs) <= _FEW_EPOCHS else ""
        axes.plot(
            curve.epochs,
            curve.train,
            color=colour,
            linestyle="--",
            marker=mark,
            markersize=4,
            markerfacecolor="white",
            label=f"{curve.label}: training set",
        )
        axes.plot(
            curve.epochs,
            curve.test,
            color=colour,
            linestyle="-",
            marker=mark,
            markersize=4,
            linewidth=2,
            label=f"{curve.label}: test set",
        )
    axes.set_title(title, fontsize=14)
    axes.set_xlabel("epochs completed", fontsize=12)
    axes.set_ylabel("images classified rightly (%)", fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=11)
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes, where it can hide no line.
    figure.legend(loc="outside lower center", ncols=2, fontsize=11, frameon=False)
    with appearing(path) as temporary:
        figure.savefig(temporary)

"""Accuracy curves: a line for the training set and one for the test set a run."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leadline.client.cli.figures.style import COLOURS, DPI, TEXT, dress, legend_layout
from leadline.client.cli.files import appearing

_FEW_EPOCHS = 20


class Curve(NamedTuple):
    """The accuracies of one run, in percent."""

    label: str
    epochs: Sequence[int]
    train: Sequence[float]
    test: Sequence[float]


def draw_curves(curves: Sequence[Curve], path: Path, *, title: str) -> None:
    """Writes the curves to a file, in the format that its suffix says."""
    figure = curves_figure(curves, title=title)
    with appearing(path) as temporary:
        figure.savefig(temporary)


def curves_figure(curves: Sequence[Curve], *, title: str) -> Figure:
    """The curves; the more there are, the more room their legend has below them."""
    legend = legend_layout(
        [f"{curve.label}: {split} set" for curve in curves for split in ("training", "test")]
    )
    # Without pyplot: it keeps figures, and wants a display.
    figure = Figure(figsize=(8, 5 + legend.extra_height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for curve, colour in zip(curves, cycle(COLOURS), strict=False):
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
    dress(axes, title=title, x="epochs completed", y="images classified rightly (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    # Below the axes, where it can hide no line.
    figure.legend(loc="outside lower center", ncols=legend.columns, fontsize=TEXT, frameon=False)
    return figure

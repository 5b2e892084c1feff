"""Accuracy curves: for each run a line for the training set and one for the test set."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from leadline.client.cli.figures.style import DPI, QUIET, add_legend, dress, line_styles

# Few points are better seen with a mark each, many without.
_MOST_MARKED_EPOCHS = 20

_TEST: dict[str, Any] = {"linestyle": "-", "linewidth": 2.0}
_TRAIN: dict[str, Any] = {"linestyle": "--", "linewidth": 1.5, "markerfacecolor": "white"}


class Curve(NamedTuple):
    """The accuracies of one run, in percent.

    Attributes:
        label: what tells the run from the others of a picture.
        batch_norm: whether its network has batch norm, which decides its colour.
        epochs: the completed epochs, 1 for the first.
        train: the accuracy on the training set after each.
        test: likewise on the test set.
    """

    label: str
    batch_norm: bool
    epochs: Sequence[int]
    train: Sequence[float]
    test: Sequence[float]


def curves_figure(curves: Sequence[Curve], *, title: str) -> Figure:
    """The curves; the more there are, the more room their legend has below them."""
    # Without pyplot, which keeps every figure and needs a display.
    figure = Figure(figsize=(8, 5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    lines = []
    for curve, style in zip(
        curves, line_styles([curve.batch_norm for curve in curves]), strict=True
    ):
        mark = style.mark if len(curve.epochs) <= _MOST_MARKED_EPOCHS else ""
        look: dict[str, Any] = {"color": style.colour, "marker": mark, "markersize": 5}
        axes.plot(curve.epochs, curve.train, **look, **_TRAIN)
        lines += axes.plot(curve.epochs, curve.test, label=curve.label, **look, **_TEST)
    dress(axes, title=title, x="epochs completed", y="images classified correctly (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    key = [
        Line2D([], [], color=QUIET, label="test set", **_TEST),
        Line2D([], [], color=QUIET, label="training set", **_TRAIN),
    ]
    # The title of a single curve says what its label says.
    add_legend(figure, [*(lines if len(lines) > 1 else []), *key])
    return figure

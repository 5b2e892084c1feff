"""Draws accuracy curves: for each run a line for the training set and one for the test set."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from leadline.client.cli.figures.style import DPI, QUIET, add_legend, dress, line_styles

# With at most this many epochs, each point has a marker.
_MOST_MARKED_EPOCHS = 20

_TEST: dict[str, Any] = {"linestyle": "-", "linewidth": 2.0}
_TRAIN: dict[str, Any] = {"linestyle": "--", "linewidth": 1.5, "markerfacecolor": "white"}


class Curve(NamedTuple):
    """The accuracies of one run, in percent.

    Attributes:
        label: distinguishes the run from others in a picture.
        batch_norm: whether its network has batch norm, which determines its colour.
        epochs: the completed epochs, 1 for the first.
        train: the accuracy on the training set after each epoch.
        test: the accuracy on the test set after each epoch.
    """

    label: str
    batch_norm: bool
    epochs: Sequence[int]
    train: Sequence[float]
    test: Sequence[float]


def curves_figure(curves: Sequence[Curve], *, title: str) -> Figure:
    """Draws the curves; the legend below them grows with their number."""
    # Avoids pyplot, which keeps every figure and needs a display.
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
    # For a single curve, the title says what the label says.
    add_legend(figure, [*(lines if len(lines) > 1 else []), *key])
    return figure

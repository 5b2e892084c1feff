"""What all figures have in common: colours that everyone can tell apart, sizes that can be read."""

from matplotlib.axes import Axes

# Okabe and Ito's colours, which those who are colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

DPI = 150
TITLE = 14
LABEL = 12
TEXT = 11


def dress(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Gives axes their title, what they show with its unit, and a quiet frame."""
    axes.set_title(title, fontsize=TITLE)
    axes.set_xlabel(x, fontsize=LABEL)
    axes.set_ylabel(y, fontsize=LABEL)
    axes.tick_params(labelsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)

"""The style of all figures: colours by kind of network, text sizes, and the legend."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can distinguish: cool ones without batch
# norm, warm ones with it. The live page and the report use the first colour of each kind.
COOL = ("#0072B2", "#56B4E9", "#009E73")
WARM = ("#D55E00", "#E69F00", "#CC79A7")
_MARKS = {False: ("o", "^", "v", "P"), True: ("s", "D", "X", "*")}

INK = "#000000"
QUIET = "#595959"
DPI = 150
TITLE = 14
LABEL = 12
TEXT = 11

# How many characters of a title fit on an inch, and of a label on a figure 8 inches wide.
_TITLE_CHARACTERS = 7.75
_LABEL_WIDTH = 76

# Class names are plain text, but matplotlib would read dollar signs as mathematics.
mpl.rcParams["text.parse_math"] = False


class LineStyle(NamedTuple):
    """The colour and the pattern of a line."""

    colour: str
    mark: str


def line_styles(batch_norms: Sequence[bool]) -> list[LineStyle]:
    """A style for each line, by batch norm and then by order."""
    used: Counter[bool] = Counter()
    styles = []
    for batch_norm in batch_norms:
        colours, marks = WARM if batch_norm else COOL, _MARKS[batch_norm]
        place = used[batch_norm]
        styles.append(LineStyle(colours[place % len(colours)], marks[place % len(marks)]))
        used[batch_norm] += 1
    return styles


def add_legend(figure: Figure, handles: Sequence[Artist], *, note: str = "") -> None:
    """Adds a legend below the axes, and increases the figure's height by it.

    The figure must have a constrained layout; `note` is the legend's title.
    """
    labels = [textwrap.fill(str(handle.get_label()), _LABEL_WIDTH) for handle in handles]
    for columns in (3, 2, 1):
        legend = figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            fontsize=TEXT,
            frameon=False,
            title=note or None,
            title_fontsize=TEXT,
        )
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)


def dress(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Sets the title, the labels with units, and a light frame."""
    axes.set_title(wrapped(title), fontsize=TITLE)
    axes.set_xlabel(x, fontsize=LABEL)
    axes.set_ylabel(y, fontsize=LABEL)
    axes.tick_params(labelsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def wrapped(title: str, *, inches: float = 8) -> str:
    """Wraps a title to this width; keeps its line breaks."""
    width = int(_TITLE_CHARACTERS * inches)
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())

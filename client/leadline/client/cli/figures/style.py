"""What all figures share: colours by kind of network, text sizes, and a legend that always fits."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart: cool without batch norm, warm
# with it. The live page and the report use the same first colour for each.
COOL = ("#0072B2", "#56B4E9", "#009E73")
WARM = ("#D55E00", "#E69F00", "#CC79A7")
_MARKS = {False: ("o", "^", "v", "P"), True: ("s", "D", "X", "*")}

INK = "#000000"
QUIET = "#595959"
DPI = 150
TITLE = 14
LABEL = 12
TEXT = 11

# Characters of a title that fit on an inch, and of a label on a figure of 8 inches, at these sizes.
_TITLE_CHARACTERS = 7.75
_LABEL_WIDTH = 76

# Class names are text, also where they hold dollar signs, which matplotlib reads as mathematics.
mpl.rcParams["text.parse_math"] = False


class LineStyle(NamedTuple):
    """What distinguishes a line from the others."""

    colour: str
    mark: str


def line_styles(batch_norms: Sequence[bool]) -> list[LineStyle]:
    """A style for each line, by whether its networks have batch norm, never by order alone."""
    used: Counter[bool] = Counter()
    styles = []
    for batch_norm in batch_norms:
        colours, marks = WARM if batch_norm else COOL, _MARKS[batch_norm]
        place = used[batch_norm]
        styles.append(LineStyle(colours[place % len(colours)], marks[place % len(marks)]))
        used[batch_norm] += 1
    return styles


def add_legend(figure: Figure, handles: Sequence[Artist], *, note: str = "") -> None:
    """Puts a legend below the axes, where it hides no line, and makes the figure higher for it.

    The figure has constrained layout; `note` is the legend's title.
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
    """Gives axes their title, what they show with its unit, and a quiet frame."""
    axes.set_title(wrapped(title), fontsize=TITLE)
    axes.set_xlabel(x, fontsize=LABEL)
    axes.set_ylabel(y, fontsize=LABEL)
    axes.tick_params(labelsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def wrapped(title: str, *, inches: float = 8) -> str:
    """A title on as many lines as it needs in this width; its own line breaks stay."""
    width = int(_TITLE_CHARACTERS * inches)
    return "\n".join(textwrap.fill(line, width) for line in title.splitlines())

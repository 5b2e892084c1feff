"""Converts figures to SVG that follows the page's light or dark theme."""

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from leadline.client.cli.figures.style import COOL, INK, QUIET, WARM
from leadline.client.cli.reports.markup import text, wide

_IDS = re.compile(r'(\bid="|url\(#|href="#)')

# Replaces each colour of a figure by a variable of the page, which has a dark theme.
_THEMED = {
    INK: "var(--ink)",
    "#ffffff": "var(--paper)",
    "#b0b0b0": "var(--line)",
    QUIET: "var(--quiet)",
    **{colour.lower(): f"var(--plain-{place})" for place, colour in enumerate(COOL)},
    **{colour.lower(): f"var(--norm-{place})" for place, colour in enumerate(WARM)},
}
_COLOUR = re.compile("|".join(_THEMED))


def inline(figure: Figure, *, name: str, shows: str) -> str:
    """A figure as SVG for a page, whose other figures must have different names.

    `shows` describes the figure for screen readers.
    """
    written = io.StringIO()
    # Keeps text as text, for search and screen readers; ids are the same in every run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    svg = written.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = _IDS.sub(rf"\g<1>{name}-", svg)
    svg = _COLOUR.sub(lambda match: _THEMED[match[0]], svg)
    figure_box = f'<div class="figure" role="img" aria-label="{text(shows)}">{svg}</div>'
    return f"{wide(shows)}{figure_box}</div>\n"

"""Figures as SVG within a page, as light or dark as the page."""

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from leadline.client.cli.figures.style import COLOURS
from leadline.client.cli.reports.markup import text

_IDS = re.compile(r'(\bid="|url\(#|href="#)')

# A colour of a figure, and the page's own in its place: what is black or white is so of the
# page's ink and paper, and a line has a lighter shade on a dark page.
_THEMED = {
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
    "#b0b0b0": "var(--line)",
    **{colour.lower(): f"var(--c{place})" for place, colour in enumerate(COLOURS[:-1])},
}
_COLOUR = re.compile("|".join(_THEMED))


def inline(figure: Figure, *, name: str, shows: str) -> str:
    """A figure as SVG that can stand in a page beside others.

    Args:
        figure: what to draw.
        name: what its ids begin with, since ids are unique in a page.
        shows: what it shows, for those who do not see it.
    """
    written = io.StringIO()
    # Text stays text, to be found and read aloud; ids are the same in every run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    svg = written.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = _IDS.sub(rf"\g<1>{name}-", svg)
    svg = _COLOUR.sub(lambda found: _THEMED[found[0]], svg)
    return f'<div class="figure" role="img" aria-label="{text(shows)}">{svg}</div>\n'

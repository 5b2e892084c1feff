"""Figures as SVG within a page."""

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from leadline.client.cli.reports.markup import text

_IDS = re.compile(r'(\bid="|url\(#|href="#)')


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
        figure.savefig(written, format="svg", metadata={"Date": None})
    svg = written.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = _IDS.sub(rf"\g<1>{name}-", svg)
    return f'<div class="figure" role="img" aria-label="{text(shows)}">{svg}</div>\n'

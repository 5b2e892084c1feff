"""Test accuracy against depth: a line for each combination of a sweep's other axes."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

from leadline.client.cli.depth_lines import DepthLine
from leadline.client.cli.figures.style import COLOURS, DPI, TEXT, dress, legend_layout
from leadline.client.cli.files import appearing

# Lines differ in their marks too, for those who see or print no colours.
_MARKS = ("o", "s", "^", "D", "v", "P", "X")

# Depths closer than this to each other have no room for a tick each, in parts of the axis.
_CLOSEST_TICKS = 0.04


def draw_sweep(lines: Sequence[DepthLine], path: Path, *, title: str) -> None:
    """Writes the lines to a file, in the format that its suffix says."""
    figure = sweep_figure(lines, title=title)
    with appearing(path) as temporary:
        figure.savefig(temporary)


def sweep_figure(lines: Sequence[DepthLine], *, title: str) -> Figure:
    """The lines, and around each a band from the lowest to the highest seed."""
    legend = legend_layout([line.label for line in lines])
    figure = Figure(figsize=(8, 5 + legend.extra_height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for line, colour, mark in zip(lines, cycle(COLOURS), cycle(_MARKS), strict=False):
        axes.plot(
            line.blocks,
            line.mean,
            color=colour,
            marker=mark,
            markersize=7,
            linewidth=2,
            label=line.label,
        )
        axes.fill_between(line.blocks, line.lowest, line.highest, color=colour, alpha=0.15, lw=0)
        # A depth alone has no band, and a bar shows where one is thin.
        axes.vlines(line.blocks, line.lowest, line.highest, color=colour, linewidth=1.5, alpha=0.7)
    dress(axes, title=title, x="depth (blocks)", y="test images classified rightly (%)")
    axes.set_xticks(_ticks(sorted({blocks for line in lines for blocks in line.blocks})))
    axes.grid(visible=True, alpha=0.3)
    note = "line: mean over the seeds, band: lowest to highest"
    figure.legend(
        loc="outside lower center",
        ncols=legend.columns,
        fontsize=TEXT,
        frameon=False,
        title=note,
        title_fontsize=TEXT,
    )
    return figure


def _ticks(depths: list[int]) -> list[int]:
    """The depths that were tried, less those whose labels would run into the one before."""
    least = _CLOSEST_TICKS * (depths[-1] - depths[0])
    ticks = depths[:1]
    for depth in depths[1:]:
        if depth - ticks[-1] >= least:
            ticks.append(depth)
    return ticks

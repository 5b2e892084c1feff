"""Draws test accuracy over depth: a line for each combination of a sweep's other axes."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from leadline.client.cli.depth_lines import DepthLine
from leadline.client.cli.figures.style import DPI, add_legend, dress, line_styles

# Tick labels closer than this, as a fraction of the axis, would overlap.
_CLOSEST_TICKS = 0.04


def sweep_figure(lines: Sequence[DepthLine], *, title: str) -> Figure:
    """Draws the lines, each with a band from the lowest to the highest seed."""
    figure = Figure(figsize=(8, 5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    drawn = []
    for line, style in zip(lines, line_styles([line.batch_norm for line in lines]), strict=True):
        colour = style.colour
        drawn += axes.plot(
            line.blocks,
            line.mean,
            color=colour,
            marker=style.mark,
            markersize=7,
            linewidth=2,
            label=line.label,
        )
        axes.fill_between(line.blocks, line.lowest, line.highest, color=colour, alpha=0.15, lw=0)
        # Bars, because a single depth has no band, and a band may be too thin to see.
        axes.vlines(line.blocks, line.lowest, line.highest, color=colour, linewidth=1.5, alpha=0.7)
    dress(axes, title=title, x="depth (blocks)", y="test images classified correctly (%)")
    axes.set_xticks(_ticks(sorted({blocks for line in lines for blocks in line.blocks})))
    axes.grid(visible=True, alpha=0.3)
    add_legend(figure, drawn, note="line: mean over the seeds; band: lowest to highest seed")
    return figure


def _ticks(depths: list[int]) -> list[int]:
    """The depths of the sweep, without those whose labels would overlap."""
    least = _CLOSEST_TICKS * (depths[-1] - depths[0])
    ticks = depths[:1]
    for depth in depths[1:]:
        if depth - ticks[-1] >= least:
            ticks.append(depth)
    return ticks

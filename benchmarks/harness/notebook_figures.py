"""Figures of a network's accuracies by epoch, with the notebook's curve behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.notebook_protocol import Network, Run, published


def draw_figures(runs: Mapping[Network, Sequence[Run]], folder: Path) -> None:
    """Draws one figure per network, `notebook-{blocks}-{plain|batch-norm}.png`."""
    # Optional: only figures need matplotlib.
    from matplotlib.figure import Figure  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    theirs = published()
    for network, seeds in runs.items():
        figure = Figure(figsize=(5, 3.4), dpi=100, layout="constrained")
        _draw(figure.add_subplot(), network, seeds, theirs[network])
        figure.savefig(folder / f"notebook-{network.slug}.png")


def _draw(axes: Any, network: Network, seeds: Sequence[Run], theirs: Run) -> None:
    for values, style in ((theirs.train, "--"), (theirs.test, "-")):
        axes.plot(*_points(values), color="0.75", linestyle=style, linewidth=2)
    for run in seeds:
        axes.plot(*_points(run.train), color="tab:blue", linestyle="--", linewidth=0.9)
        axes.plot(*_points(run.test), color="tab:blue", linestyle="-", linewidth=1.3)
    for label, color, style in (
        ("test", "tab:blue", "-"),
        ("training", "tab:blue", "--"),
        ("notebook", "0.75", "-"),
    ):
        axes.plot([], [], color=color, linestyle=style, label=label)
    axes.set(
        title=f"{network.label}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}",
        xlabel="epoch",
        ylabel="accuracy (%)",
        ylim=(0, 70),
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper left", ncols=3, fontsize="small", frameon=False)


def _points(values: Sequence[float]) -> tuple[list[int], list[float]]:
    return list(range(1, len(values) + 1)), [100 * value for value in values]

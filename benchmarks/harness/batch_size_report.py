"""The tables and the figure of `batch_size.py`."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.shallow import DEEP, SHALLOW, features
from harness.steps import Point, Recipe, epoch_steps
from harness.tables import machine, table

__all__ = ["Found", "accuracies", "draw", "report"]

Found = dict[Recipe, list[Point]]

_SMALL_BATCH = 4


def accuracies(runs: Found, step: int, **recipe: Any) -> list[float]:
    """Returns the measured test accuracies after a step, in ascending order of the seed.

    A run that diverged before the step counts with its last accuracy.

    Args:
        runs: all runs.
        step: the number of steps.
        recipe: the values that fields of a run's `Recipe` must have.
    """
    chosen = [
        (run.seed, points)
        for run, points in runs.items()
        if all(getattr(run, field) == value for field, value in recipe.items())
    ]
    return [
        reached
        for _, points in sorted(chosen, key=lambda pair: pair[0])
        if (reached := _reached(points, step)) is not None
    ]


def report(runs: Found, *, images: int, epochs: int, steps: int) -> str:
    """Returns the tables, in Markdown.

    Args:
        runs: all runs.
        images: the number of images in the training set.
        epochs: the budget in epochs.
        steps: the budget in steps.
    """
    parts = [f"Test accuracies of {DEEP}; SGD without momentum.\n{machine()}."]
    for heading, of_size in _budgets(images, epochs, steps):
        parts.append(f"After {heading}:\n\n{_by_size(runs, of_size)}")
    parts.append(f"Batches of {_SMALL_BATCH}:\n\n{_by_network(runs, images, epochs)}")
    return "\n".join(parts)


def draw(runs: Found, path: Path, *, images: int, epochs: int, steps: int) -> None:
    """Draws the accuracy by batch size for both budgets, and the accuracy by network."""
    # Optional: only figures need matplotlib.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes: Any = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    for panel, (heading, of_size) in zip(axes, _budgets(images, epochs, steps), strict=False):
        for rate in _rates(runs):
            _draw_sizes(panel, runs, rate, of_size)
        sizes = sorted({run.batch_size for run in runs if run.network == DEEP})
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [f"{size}" for size in sizes])
        panel.set(title=f"2 blocks, after {heading}", xlabel="images a batch", ylim=(0, 75))
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend(title="learning rate", fontsize="small")
    _draw_networks(axes[2], runs, epochs * epoch_steps(images, _SMALL_BATCH))
    axes[2].set_title(f"batches of {_SMALL_BATCH}, after {epochs} epochs")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _budgets(images: int, epochs: int, steps: int) -> list[tuple[str, Any]]:
    return [
        (f"{epochs} epochs", lambda size: epochs * epoch_steps(images, size)),
        (f"{steps:,} steps", lambda _: steps),
    ]


def _reached(points: Sequence[Point], step: int) -> float | None:
    for point in points:
        if point.step == step or not point.is_finite:
            return point.test_accuracy
    return None


def _by_size(runs: Found, of_size: Any) -> str:
    rates = _rates(runs)
    rows = []
    for size in sorted({run.batch_size for run in runs if run.network == DEEP}):
        step = of_size(size)
        cells = [_cell(_swept(runs, step, size, rate)) for rate in rates]
        rows.append([f"{size}", f"{step:,}", *cells])
    return table(["batch size", "steps", *(f"rate {rate:g}" for rate in rates)], rows)


def _by_network(runs: Found, images: int, epochs: int) -> str:
    epoch = epoch_steps(images, _SMALL_BATCH)
    ways = sorted(
        {
            (run.learning_rate, run.momentum)
            for run in runs
            if run.network != DEEP and run.batch_size == _SMALL_BATCH
        }
    )
    rows = []
    for name, (rate, momentum) in ((name, way) for way in ways for name in SHALLOW):
        way = {"batch_size": _SMALL_BATCH, "learning_rate": rate, "momentum": momentum}
        cells = [
            _cell(accuracies(runs, epoch * number, network=name, **way))
            for number in range(1, epochs + 1)
        ]
        if any(cells):
            rows.append([name, f"{features(name):,}", f"{rate:g}", f"{momentum:g}", *cells])
    heads = ["network", "features", "rate", "momentum"]
    return table([*heads, *(f"epoch {number}" for number in range(1, epochs + 1))], rows)


def _swept(runs: Found, step: int, size: int, rate: float) -> list[float]:
    return accuracies(runs, step, network=DEEP, batch_size=size, learning_rate=rate, momentum=0.0)


def _rates(runs: Found) -> list[float]:
    return sorted({run.learning_rate for run in runs if run.network == DEEP and not run.momentum})


def _cell(measured: Sequence[float]) -> str:
    return ", ".join(f"{accuracy:.1%}" for accuracy in measured)


def _draw_sizes(axes: Any, runs: Found, rate: float, of_size: Any) -> None:
    points = [
        (size, 100 * statistics.mean(measured))
        for size in sorted({run.batch_size for run in runs if run.network == DEEP})
        if (measured := _swept(runs, of_size(size), size, rate))
    ]
    if points:
        sizes, values = zip(*points, strict=True)
        axes.plot(sizes, values, marker="o", label=f"{rate:g}")


def _draw_networks(axes: Any, runs: Found, step: int) -> None:
    measured = {
        name: accuracies(
            runs, step, network=name, batch_size=_SMALL_BATCH, learning_rate=0.01, momentum=0.0
        )
        for name in SHALLOW
    }
    shown = [(name, 100 * statistics.mean(values)) for name, values in measured.items() if values]
    if shown:
        names, values = zip(*reversed(shown), strict=True)
        labels = [f"{name}\n{features(name):,} features" for name in names]
        bars = axes.barh(labels, values, color="#7a9cc6")
        axes.bar_label(bars, fmt="%.1f", label_type="center", fontsize="small")
        axes.axvline(65, color="grey", linestyle=":")
        axes.set(xlim=(0, 80), xlabel="test accuracy, %; dotted: 65")
        axes.tick_params(axis="y", labelsize="small")

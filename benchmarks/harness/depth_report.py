"""The tables and the figure of `why_depth_fails.py`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.depth import EXPECTED_FACTOR, ROUNDING, Curve, at_convolutions, factor
from harness.tables import machine, table

__all__ = ["Curves", "draw", "factors_of", "report"]

Curves = dict[str, Curve]

_SHOWN = (0, 1, 2, 4, 6, 8, 10, 12, 16, 20)
# Ten times the rounding error: below it, rounding is more than a tenth of a value.
_FLOOR = 10 * ROUNDING


def report(curves: Curves, dataset: str) -> str:
    """Returns the tables, in Markdown.

    Args:
        curves: the results by network name.
        dataset: the name of the dataset.
    """
    epochs = _epochs(curves)
    parts = [
        f"{epochs} epochs on {dataset}; {machine()}.",
        _accuracies(curves),
        f"One convolution divides by, before the first step; by theory {EXPECTED_FACTOR:.2f}:",
        _factors(curves),
    ]
    for heading, moment in (("Before the first step", 0), (f"After epoch {epochs}", -1)):
        for measured, values in (("signal", _signals(moment)), ("gradient", _gradients(moment))):
            parts.append(f"{heading}: {measured} by convolutions passed in the blocks.")
            shown = {name: values(one) for name, one in curves.items() if _has(one, moment)}
            parts.append(_by_convolution(shown))
    return "\n\n".join(parts) + "\n"


def draw(curves: Curves, path: Path) -> None:
    """Draws the signal and the gradient by convolution, before the first step and at the end."""
    # Optional: only figures need matplotlib.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 6.3), layout="constrained")
    panels: Any = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (moment, title) in enumerate(((0, "before the first step"), (-1, "at the end"))):
        for row, values in enumerate((_signals(moment), _gradients(moment))):
            for label, curve in curves.items():
                if not _has(curve, moment):
                    continue
                _line(panels[row][column], values(curve), label, curve.block_convolutions)
        panels[0][column].axhline(ROUNDING, color="grey", linestyle=":", linewidth=1)
        panels[0][column].set_title(title)
        panels[1][column].set_xticks(range(0, 21, 2))
        panels[1][column].set_xlabel("convolutions of the blocks passed")
    panels[0][0].annotate("rounding of float32", (12, ROUNDING * 0.3), color="grey", fontsize=8)
    panels[0][0].set_ylabel("signal: deviation between images")
    panels[1][0].set_ylabel("gradient: norm at the output")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _line(axes: Any, values: dict[int, float], label: str, block_convolutions: int) -> None:
    style = "--" if block_convolutions > 1 else "-"
    axes.semilogy([*values], [*values.values()], style, marker=".", linewidth=1.2, label=label)


def _signals(moment: int) -> Callable[[Curve], dict[int, float]]:
    return lambda one: at_convolutions(one.activation_stds[moment], one.block_convolutions)


def _gradients(moment: int) -> Callable[[Curve], dict[int, float]]:
    return lambda curve: at_convolutions(curve.gradient_norms[moment], curve.block_convolutions)


def _accuracies(curves: Curves) -> str:
    heads = ["network", "train", *(f"test, epoch {epoch + 1}" for epoch in range(_epochs(curves)))]
    return table(
        heads,
        [
            [
                name,
                *(
                    f"{accuracy:.1%}"
                    for accuracy in (*curve.train_accuracies[-1:], *curve.test_accuracies)
                ),
            ]
            for name, curve in curves.items()
            if curve.test_accuracies
        ],
    )


def _has(curve: Curve, moment: int) -> bool:
    """Whether there are values of this moment: 0 is the start, -1 the end of training."""
    return moment == 0 or len(curve.activation_stds) > 1


def _epochs(curves: Curves) -> int:
    return max(len(curve.test_accuracies) for curve in curves.values())


def _factors(curves: Curves) -> str:
    rows = [
        [name, *(f"{divisor:.2f}" for divisor in factors_of(curve))]
        for name, curve in curves.items()
    ]
    return table(["network", "signal", "gradient"], rows)


def factors_of(curve: Curve) -> tuple[float, float]:
    """Returns the divisors of signal and gradient per convolution before the first step."""
    signals, gradients = _signals(0)(curve), _gradients(0)(curve)
    # The backward pass goes from the last block to the head, and the gradient shrinks with it.
    return factor(signals, above=_FLOOR), 1 / factor(gradients)


def _by_convolution(values: dict[str, dict[int, float]]) -> str:
    rows = [
        [name, *(f"{row[depth]:.1e}" if depth in row else "" for depth in _SHOWN)]
        for name, row in values.items()
    ]
    return table(["network", "head", *(f"{depth}" for depth in _SHOWN[1:])], rows)

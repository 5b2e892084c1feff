"""Picture files: their formats, and the check for matplotlib."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leadline.client.cli.files import appearing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require_plot() -> None:
    """Raises a `click.ClickException` unless matplotlib is installed."""
    if not can_plot():
        raise click.ClickException(
            "pictures need matplotlib: in a clone of the repository, run pip install '.[plot]'"
        )


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure to a file, in the format of its suffix."""
    with appearing(path) as temporary:
        figure.savefig(temporary)

"""Picture files: their names, and what drawing them needs."""

import importlib.util
from pathlib import Path

import click

_SUFFIXES = (".png", ".pdf", ".svg")


def figure_path(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    """Checks the name before anything is trained or asked for."""
    del context, parameter
    if value is not None and value.suffix.lower() not in _SUFFIXES:
        raise click.BadParameter(f"{value} ends with none of {', '.join(_SUFFIXES)}")
    return value


def can_plot() -> bool:
    """Whether pictures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def require_plot() -> None:
    """Checks that pictures can be drawn.

    Raises:
        click.ClickException: they cannot.
    """
    if not can_plot():
        raise click.ClickException(
            "pictures need matplotlib: in a clone of the repository, run pip install '.[plot]'"
        )

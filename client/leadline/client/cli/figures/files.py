"""Picture files: their names, and how they appear."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        raise click.ClickException("pictures need matplotlib: pip install 'leadline[plot]'")


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path`, whole, when the block ends well.

    Whoever looks at the file sees the old one or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays the last, because it says in which format to write.
    descriptor, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
